"""Stochastic local features: the learned anonymizer.

After "Local Features Meet Stochastic Anonymization: Revolutionizing PPFR for Black-Box Models"
(Liu et al., arXiv 2412.08276): global features disrupted, local ones enhanced, randomness injected
at several scales. One thing is done another way: where the paper trains against a reconstructor,
the generator here never sees the face. It sees an identity code of 128 numbers and draws local
features from it, so what an attacker can rebuild is bounded by the code whatever they know, the
draw included.
"""

import hashlib
import json
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.memory import keep_freed_memory
from ppfr_ops.methods.base import Anonymizer
from ppfr_ops.methods.registry import register
from ppfr_ops.methods.stochastic_local.networks import (
    CODE_SIZE,
    DrawLayout,
    Generator,
    IdentityEncoder,
    place,
)

FORMAT = 1
SHIPPED = Path(__file__).parent / "weights" / "stochastic-local.safetensors"

_CODES_KEPT = 20_000


class Codes(nn.Module):
    """Embeddings to codes: centred, every dimension scaled by its spread, length sqrt(128)."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(CODE_SIZE))
        self.register_buffer("std", torch.ones(CODE_SIZE))

    def forward(self, embeddings: Tensor) -> Tensor:
        return F.normalize((embeddings - self.mean) / self.std, dim=1) * CODE_SIZE**0.5


@dataclass(frozen=True)
class Presets:
    """What a ``strength`` changes: scales of the random field, warp and pose."""

    field: float
    warp: float
    pose: float


def save_weights(
    path: Path,
    encoder: IdentityEncoder,
    codes: Codes,
    generator: Generator,
    about: dict[str, object],
) -> None:
    """Write one safetensors file: encoder and generator in 8 bits a weight."""
    tensors: dict[str, Tensor] = {}
    parts = {"encoder": encoder, "generator": generator}
    for part, network in parts.items():
        for name, value in network.state_dict().items():
            name = f"{part}.{name}"
            if value.dim() == 1 or value.numel() < 64:
                tensors[name] = value.float().contiguous()
                continue
            scale = value.flatten(1).abs().amax(1).clamp_min(1e-12) / 127
            shape = (-1,) + (1,) * (value.dim() - 1)
            tensors[name] = (value / scale.view(shape)).round().to(torch.int8).contiguous()
            tensors[f"{name}.scale"] = scale.float().contiguous()
    for name, value in codes.state_dict().items():
        tensors[f"codes.{name}"] = value.float().contiguous()
    settings = ("sigma", "field", "warp", "pose", "colour", "mirror", "refine")
    config = {key: getattr(generator, key) for key in settings}
    metadata = {"format": str(FORMAT), "generator": json.dumps(config), "about": json.dumps(about)}
    save_file(tensors, path, metadata=metadata)


class Model(nn.Module):
    """Encoder, codes and generator, loaded from one file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file of this method, or of another format version.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        super().__init__()
        keep_freed_memory()
        if not path.is_file():
            raise FileNotFoundError(f"method stochastic-local: no weights at {path.name}")
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except Exception:
            raise ValueError(
                f"method stochastic-local: {path.name} is no readable safetensors file"
            ) from None
        if metadata.get("format") != str(FORMAT):
            raise ValueError(
                f"method stochastic-local: {path.name} has format {metadata.get('format')}, "
                f"needed: {FORMAT}"
            )
        self.about = json.loads(metadata["about"])
        self.encoder, self.codes = IdentityEncoder(), Codes()
        self.generator = Generator(**json.loads(metadata["generator"]))
        parts: dict[str, dict[str, Tensor]] = {"encoder": {}, "codes": {}, "generator": {}}
        for name, value in tensors.items():
            part, _, rest = name.partition(".")
            if rest.endswith(".scale"):
                continue
            if value.dtype == torch.int8:
                scale = tensors[f"{name}.scale"].view((-1,) + (1,) * (value.dim() - 1))
                value = value.float() * scale
            parts[part][rest] = value.float()
        for part, state in parts.items():
            getattr(self, part).load_state_dict(state)
        place(self.requires_grad_(False).eval(), device)
        self.device = device
        self.bf16 = _bf16_pays(device)
        if self.bf16:
            for layer in (self.encoder.stem, self.encoder.blocks, self.encoder.head):
                layer.bfloat16()
        self._known: OrderedDict[bytes, Tensor] = OrderedDict()

    def encode(self, faces: Faces) -> Tensor:
        """uint8 ``N x 112 x 112 x 3`` to codes ``N x 128``.

        A face's embedding is the mean of its own and its mirror image's, the usual way to take out
        some of what differs between photos of a person. Codes of faces just seen are kept until
        ``forget``, for the second draw of a face needs them again.
        """
        keys = [hashlib.blake2b(face, digest_size=16).digest() for face in faces]
        new = [index for index, key in enumerate(keys) if key not in self._known]
        if new:
            pixels = torch.from_numpy(faces[new]).permute(0, 3, 1, 2).to(self.device).float()
            embeddings = (self.encoder(pixels) + self.encoder(pixels.flip(3))) / 2
            for index, code in zip(new, self.codes(embeddings), strict=True):
                self._known[keys[index]] = code
        codes = torch.stack([self._known[key] for key in keys])
        while len(self._known) > _CODES_KEPT:
            self._known.popitem(last=False)
        return codes

    def forget(self) -> None:
        """Drop the codes that are kept."""
        self._known.clear()

    def publish(self, codes: Tensor, draws: Tensor, scales: Presets) -> Tensor:
        """Codes and draws to pictures, uint8 ``N x 3 x 112 x 112``."""
        kind = torch.device(self.device).type
        with torch.autocast(kind, torch.bfloat16, enabled=self.bf16):
            pictures = self.generator(codes, draws, scales.field, scales.warp, scales.pose)
        return (pictures.float() * 255).round().clamp(0, 255).to(torch.uint8)


def _bf16_pays(device: str) -> bool:
    if device != "cpu":
        return torch.cuda.is_bf16_supported()
    able = torch.cpu.get_capabilities()
    return bool(able.get("amx_bf16") or able.get("avx512_bf16"))


@lru_cache(maxsize=2)
def _load(path: Path, device: str) -> Model:
    return Model(path, device)


@lru_cache(maxsize=2)
def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


STRENGTHS = {
    "strict": Presets(field=1.25, warp=1.25, pose=1.25),
    "standard": Presets(field=1.0, warp=1.0, pose=1.0),
    "useful": Presets(field=0.4, warp=0.4, pose=0.4),
}


@register("stochastic-local")
class StochasticLocal(Anonymizer):
    disclosure_limit = 0.60
    may_publish_metrics = True

    strength: Literal["strict", "standard", "useful"] = Field(
        "standard", description="how far draws of one face lie apart: strict, standard or useful"
    )
    weights: Path | None = Field(None, description="weights of one's own, from ppfr train")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where it runs")
    batch: int = Field(64, ge=1, le=4096, description="faces a forward pass")

    @property
    def draw_size(self) -> int:
        return DrawLayout.SIZE

    def options(self) -> dict[str, Any]:
        return {"strength": self.strength}

    def weights_digest(self) -> str:
        return _digest(self.weights or SHIPPED)

    def forget(self) -> None:
        if _load.cache_info().currsize:
            self.model().forget()

    def model(self) -> Model:
        """The model, loaded once a process."""
        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return _load(self.weights or SHIPPED, device)

    def anonymize(self, faces: Faces, draws: NDArray[np.float32]) -> Faces:
        model, scales = self.model(), STRENGTHS[self.strength]
        out = np.empty_like(faces)
        with torch.inference_mode():
            for start in range(0, len(faces), self.batch):
                part = slice(start, start + self.batch)
                draw = torch.from_numpy(draws[part]).to(model.device)
                pictures = model.publish(model.encode(faces[part]), draw, scales)
                out[part] = pictures.permute(0, 2, 3, 1).cpu().numpy()
        return out
