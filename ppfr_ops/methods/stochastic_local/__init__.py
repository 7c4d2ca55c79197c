"""Stochastic local features: the learned anonymizer.

After "Local Features Meet Stochastic Anonymization: Revolutionizing PPFR for Black-Box Models"
(Liu et al., arXiv 2412.08276): global features disrupted, local ones enhanced, randomness injected
at several scales. One thing is done another way: where the paper trains against a reconstructor,
the generator here never sees the face. It sees an identity code of 128 numbers and draws local
features from it, so what an attacker can rebuild is bounded by the code whatever they know, the
draw included.

Version 2 (``identity``: ``virtual``) gives the generator the code of somebody else,
who is nobody, so that what recognises the pictures among each other does not recognise the person.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.keys import IDENTITY, derive
from ppfr_ops.memory import keep_freed_memory
from ppfr_ops.methods.base import Anonymizer, Context, file_digest
from ppfr_ops.methods.codes import KEY_SIZE, person
from ppfr_ops.methods.registry import register
from ppfr_ops.methods.stochastic_local import identity as people
from ppfr_ops.methods.stochastic_local.files import Codes, Features, read_weights, save_weights
from ppfr_ops.methods.stochastic_local.networks import DrawLayout, Generator, IdentityEncoder, place
from ppfr_ops.methods.stochastic_local.sface import SFaceEncoder
from ppfr_ops.torchscript import bf16_pays

__all__ = ["SHIPPED", "SHIPPED_2", "STRENGTHS", "Codes", "Features", "Model", "Presets"]
__all__ += ["StochasticLocal", "save_weights"]

SHIPPED = Path(__file__).parent / "weights" / "stochastic-local.safetensors"
"""Version 1: draws the person's own code; file format 1."""
SHIPPED_2 = Path(__file__).parent / "weights" / "stochastic-local-2.safetensors"
"""Version 2: draws turned codes; file format 2."""

_CODES_KEPT = 20_000


@dataclass(frozen=True)
class Presets:
    """What a ``strength`` changes: scales of the random field, warp and pose."""

    field: float
    warp: float
    pose: float


class Model(nn.Module):
    """Encoder, codes and generator, loaded from one file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file of this method, or of another format version.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        super().__init__()
        keep_freed_memory()
        found = read_weights(path)
        self.version, self.about = found.version, found.about
        self.encoder: IdentityEncoder | SFaceEncoder = IdentityEncoder()
        self.codes: Codes | Features = Codes()
        if self.version == 2:
            self.encoder, self.codes = SFaceEncoder(), Features()
        self.generator = Generator(**found.generator)
        for part, state in found.states.items():
            getattr(self, part).load_state_dict(state)
        place(self.requires_grad_(False).eval(), device)
        self.device = device
        self.bf16 = bf16_pays(device)
        if self.bf16:
            for layer in self.encoder.heavy():
                layer.bfloat16()
        self._look: Callable[[Tensor], Tensor] = self.encoder
        # In bfloat16 that gains nothing, and costs a worker two seconds.
        if device == "cpu" and not self.bf16 and isinstance(self.encoder, SFaceEncoder):
            self._look = self.encoder.compiled()
        self._known: OrderedDict[bytes, Tensor] = OrderedDict()

    def encode(self, faces: Faces) -> Tensor:
        """uint8 ``N x 112 x 112 x 3`` to codes ``N x 128``; version 2: to features ``N x d``.

        Version 1's embedding is the mean of a face's own and its mirror image's, the usual way to
        take out some of what differs between photos of a person; version 2's encoder needs it less
        and costs as much as two looks of the other. What faces just seen gave is kept
        until ``forget``, for the second draw of a face needs it again.
        """
        keys = [hashlib.blake2b(face, digest_size=16).digest() for face in faces]
        new = [index for index, key in enumerate(keys) if key not in self._known]
        if new:
            pixels = torch.from_numpy(faces[new]).permute(0, 3, 1, 2).to(self.device).float()
            for index, code in zip(new, self._codes(pixels, self._look), strict=True):
                self._known[keys[index]] = code
        codes = torch.stack([self._known[key] for key in keys])
        while len(self._known) > _CODES_KEPT:
            self._known.popitem(last=False)
        return codes

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """What ``encode`` gives, of float32 ``N x 3 x 112 x 112`` in 0..255; gradients reach the
        pixels, and nothing is kept."""
        return self._codes(pixels, self.encoder)

    def _codes(self, pixels: Tensor, look: Callable[[Tensor], Tensor]) -> Tensor:
        embeddings = look(pixels)
        if self.version == 1:
            embeddings = (embeddings + look(pixels.flip(3))) / 2
        return self.codes(embeddings)

    def forget(self) -> None:
        """Drop the codes that are kept."""
        self._known.clear()

    def publish(self, codes: Tensor, draws: Tensor, scales: Presets) -> Tensor:
        """Codes and draws to pictures, uint8 ``N x 3 x 112 x 112``."""
        kind = torch.device(self.device).type
        with torch.autocast(kind, torch.bfloat16, enabled=self.bf16):
            pictures = self.generator(codes, draws, scales.field, scales.warp, scales.pose)
        return (pictures.float() * 255).round().clamp(0, 255).to(torch.uint8)


@lru_cache(maxsize=2)
def _load(path: Path, device: str) -> Model:
    return Model(path, device)


STRENGTHS = {
    "strict": Presets(field=1.25, warp=1.25, pose=1.25),
    "standard": Presets(field=1.0, warp=1.0, pose=1.0),
    "useful": Presets(field=0.4, warp=0.4, pose=0.4),
}


@register("stochastic-local")
class StochasticLocal(Anonymizer):
    disclosure_limit = 0.60
    draws_faces = True
    may_publish_metrics = True
    secrets: ClassVar[Mapping[str, str]] = {
        "identity-key": "decides which virtual people the pictures show"
    }
    wants = ("identity",)

    identity: Literal["virtual", "original"] = Field(
        "original",
        description="identity mode: virtual: a person drawn by the key for each label; "
        "original: the person",
    )
    variation: float = Field(
        0.0,
        ge=0,
        le=1,
        description="virtual: how much of what photos of a person differ by is kept; 0: nothing of "
        "the face is in the picture",
    )
    strength: Literal["strict", "standard", "useful"] = Field(
        "standard", description="how far draws of one face lie apart: strict, standard or useful"
    )
    weights: Path | None = Field(None, description="weights of one's own, from ppfr train")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where it runs")
    batch: int = Field(64, ge=1, le=4096, description="faces a forward pass")

    @property
    def draw_size(self) -> int:
        return DrawLayout.SIZE

    @property
    def reads_faces(self) -> bool:
        return self.identity != "virtual" or self.variation > 0

    def needed_secrets(self) -> tuple[str, ...]:
        return () if self.identity == "original" else tuple(self.secrets)

    def needed_context(self) -> tuple[str, ...]:
        return self.wants if self.identity == "virtual" else ()

    def options(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"strength": self.strength}
        if self.identity != "original":
            shown["identity"] = self.identity
        if self.identity == "virtual":
            shown["variation"] = self.variation
        return shown

    def weights_file(self) -> Path:
        """The person's own code is drawn by version 1, somebody else's by version 2."""
        return self.weights or (SHIPPED if self.identity == "original" else SHIPPED_2)

    def weights_digest(self) -> str:
        return file_digest(self.weights_file())

    def forget(self) -> None:
        if _load.cache_info().currsize:
            self.model().forget()

    def model(self) -> Model:
        """The model, loaded once a process.

        Raises:
            FileNotFoundError, ValueError: no weights, or not of the version that is needed.
        """
        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        model = _load(self.weights_file(), device)
        needed = 1 if self.identity == "original" else 2
        if model.version != needed:
            raise ValueError(
                f"method stochastic-local: identity {self.identity} needs weights of version "
                f"{needed}, these are of version {model.version}"
            )
        return model

    def anonymize_with(self, faces: Faces, draws: NDArray[np.float32], context: Context) -> Faces:
        """As ``anonymize``; ``virtual`` reads the context's ``identity`` (labels; None: a person of
        its own)."""
        model, scales = self.model(), STRENGTHS[self.strength]
        out = np.empty_like(faces)
        with torch.inference_mode():
            for start in range(0, len(faces), self.batch):
                part = slice(start, start + self.batch)
                draw = torch.from_numpy(draws[part]).to(model.device)
                codes = self._codes(model, faces[part], draws[part], context, part)
                pictures = model.publish(codes, draw, scales)
                out[part] = pictures.permute(0, 2, 3, 1).cpu().numpy()
        return out

    def _codes(
        self, model: Model, faces: Faces, draws: NDArray[np.float32], context: Context, part: slice
    ) -> Tensor:
        """The codes that are drawn, ``N x size``."""
        if self.identity == "original":
            return model.encode(faces)
        key = derive(self.secret("identity-key"), IDENTITY, KEY_SIZE)
        size = model.generator.code_size
        features = model.encode(faces).cpu().numpy() if self.variation else None
        labels = zip(context["identity"][part], draws, strict=True)
        whose = [person(label, draw) for label, draw in labels]
        codes = people.virtual(key, whose, size, features, self.variation)
        return torch.from_numpy(codes).to(model.device)
