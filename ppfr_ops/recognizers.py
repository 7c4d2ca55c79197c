"""Face recognition (FR) models behind one interface: ONNX and TorchScript files.

Two input conventions are known:

``face_rgb_0_255``
    float32 ``N x 3 x 112 x 112``, RGB, 0..255; everything else the model needs is inside the file.
``arcface``
    float32 ``N x 3 x 112 x 112``, (value - 127.5) / 127.5, RGB or BGR; the output need not be of
    unit length and the batch axis may be fixed to 1.
"""

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ppfr_ops.contracts.surrogate import SurrogateCard
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import FACE_SIZE, Faces

Embeddings = NDArray[np.float32]
"""float32 ``N x D``, unit length; compare two by the dot product."""

_SUFFIXES = {".onnx": "ONNX", ".pt": "TorchScript", ".ts": "TorchScript"}


@dataclass(frozen=True)
class RecognizerSpec:
    """What ``--fr NAME=PATH[,option=value…]`` says."""

    name: str
    path: str
    convention: Literal["face_rgb_0_255", "arcface"] = "face_rgb_0_255"
    channels: Literal["rgb", "bgr"] = "rgb"

    @classmethod
    def parse(cls, text: str) -> "RecognizerSpec":
        """``dlib=models/dlib.onnx`` or ``r50=r50.onnx,convention=arcface,channels=bgr``.

        Raises:
            UserError: not of that form.
        """
        name, equals, rest = text.partition("=")
        path, *pairs = rest.split(",")
        if not (equals and name.isidentifier() and path):
            raise UserError(f"FR model {text!r}: expected NAME=PATH, NAME a plain identifier")
        options = dict(pair.partition("=")[::2] for pair in pairs)
        allowed = {"convention": ("face_rgb_0_255", "arcface"), "channels": ("rgb", "bgr")}
        for key, value in options.items():
            if value not in allowed.get(key, ()):
                raise UserError(
                    f"FR model {name!r}: {key}={value} is unknown; "
                    + "; ".join(f"{k}={'|'.join(v)}" for k, v in allowed.items())
                )
        return cls(name, path, **options)  # type: ignore[arg-type]

    def digest(self) -> str:
        """sha256 of the model file, hex."""
        with open(self.path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


MARK = "ppfr_surrogate.json"
"""Of a surrogate's card inside its file: an extra file of TorchScript, a property of ONNX."""


def mark_of(path: str) -> str | None:
    """The card inside a model file, if it is a surrogate that ``ppfr distill`` made."""
    data = b""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith(f"/extra/{MARK}"):
                    data = archive.read(name)
    elif Path(path).suffix == ".onnx":
        import onnxruntime as ort

        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        data = session.get_modelmeta().custom_metadata_map.get(MARK, "").encode()
    return data.decode("utf-8", "replace") or None


def refuse_marked(spec: RecognizerSpec, why: str) -> None:
    """Raises UserError: the model is a surrogate of a black box (a local model's is none)."""
    mark = mark_of(spec.path)
    if mark is not None and SurrogateCard.model_validate_json(mark).void_as_black_box:
        raise UserError(f"FR model {spec.name!r} is a surrogate of a black box: {why}")


_Runner = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def _onnx_runner(spec: RecognizerSpec, threads: int) -> _Runner:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # waiting threads that spin take the processor from anyone who shares it
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(spec.path, options, providers=ort.get_available_providers())
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise UserError(f"FR model {spec.name!r}: expected one N x 3 x 112 x 112 input")
    shape = inputs[0].shape
    for axis, size in ((1, 3), (2, FACE_SIZE), (3, FACE_SIZE)):
        if isinstance(shape[axis], int) and shape[axis] != size:
            raise UserError(
                f"FR model {spec.name!r} takes {shape}, needed: N x 3 x {FACE_SIZE} x {FACE_SIZE}"
            )
    one_by_one = shape[0] == 1
    name = inputs[0].name

    def run(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        if one_by_one:
            return np.concatenate([session.run(None, {name: face[None]})[0] for face in batch])
        return np.asarray(session.run(None, {name: batch})[0])

    return run


def _torchscript_runner(spec: RecognizerSpec, threads: int) -> _Runner:
    import torch

    from ppfr_ops import torchscript

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = torchscript.load(spec.path, device).eval()
    if threads:
        torch.set_num_threads(threads)

    def run(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(model(torch.from_numpy(batch).to(device)).float().cpu())

    return run


class Recognizer:
    """An FR model, loaded.

    Raises:
        UserError: no such file, neither ONNX nor TorchScript, or its input is not
            ``N x 3 x 112 x 112``.
    """

    def __init__(self, spec: RecognizerSpec, threads: int = 0) -> None:
        path = Path(spec.path)
        if not path.is_file():
            raise UserError(f"FR model {spec.name!r}: no such file")
        kind = _SUFFIXES.get(path.suffix)
        if kind is None:
            raise UserError(f"FR model {spec.name!r}: {path.name} is neither .onnx nor .pt/.ts")
        self.spec = spec
        self.name = spec.name
        make = _onnx_runner if kind == "ONNX" else _torchscript_runner
        try:
            self._run = make(spec, threads)
        except UserError:
            raise
        except Exception:
            raise UserError(f"FR model {spec.name!r}: not a readable {kind} file") from None

    def embed(self, faces: Faces, batch_size: int = 64) -> Embeddings:
        """Templates of aligned faces.

        Args:
            faces: uint8 ``N x 112 x 112 x 3``, RGB, aligned.
            batch_size: faces a forward pass.

        Returns:
            float32 ``N x D``, unit length.

        Raises:
            ValueError: the model gave NaN, infinity or a zero vector.
        """
        parts = [
            self.embed_pixels(faces[start : start + batch_size].transpose(0, 3, 1, 2))
            for start in range(0, len(faces), batch_size)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)

    def embed_pixels(self, pixels: NDArray[Any]) -> Embeddings:
        """Templates of one batch of pixels that need not be whole numbers, nor within 0..255.

        Args:
            pixels: ``N x 3 x 112 x 112``, RGB, 0..255.

        Returns:
            float32 ``N x D``, unit length.

        Raises:
            UserError: the model gave NaN, infinity or a zero vector.
        """
        if self.spec.channels == "bgr":
            pixels = pixels[:, ::-1]
        batch: NDArray[np.float32] = np.ascontiguousarray(pixels, dtype=np.float32)
        if self.spec.convention == "arcface":
            batch = (batch - np.float32(127.5)) / np.float32(127.5)
        raw = self._run(batch).reshape(len(batch), -1).astype(np.float32)
        norms = np.linalg.norm(raw, axis=1, keepdims=True)
        if not np.isfinite(norms).all() or (norms == 0).any():
            raise UserError(
                f"FR model {self.name!r} gave an embedding that is NaN, infinite or zero"
            )
        return raw / norms
