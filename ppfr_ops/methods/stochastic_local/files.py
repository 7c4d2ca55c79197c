"""Files of weights: one of version 1, or one of version 2 with its encoder's head beside it.

Convolutions and linear layers are kept in 8 bits a weight with a scale a row. A version 2 file
names the sha256 of the file beside it, so that its own digest covers both.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ppfr_ops.methods.stochastic_local.networks import CODE_SIZE, Generator, IdentityEncoder
from ppfr_ops.methods.stochastic_local.sface import FEATURE_SIZE

PARTS = ("encoder", "codes", "generator")
SETTINGS = ("sigma", "field", "warp", "pose", "colour", "mirror", "refine")
"""How a generator is built."""


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


class Features(nn.Module):
    """Embeddings to features: centred, unit length, ``N x 128``."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(FEATURE_SIZE))

    def forward(self, embeddings: Tensor) -> Tensor:
        return F.normalize(embeddings - self.mean, dim=1)


@dataclass(frozen=True)
class Weights:
    """What a file holds: state dictionaries of ``PARTS`` and how the generator is built."""

    version: int
    about: dict[str, Any]
    generator: dict[str, Any]
    states: dict[str, dict[str, Tensor]]


def save_weights(
    path: Path,
    encoder: IdentityEncoder,
    codes: Codes,
    generator: Generator,
    about: dict[str, object],
) -> None:
    """Write encoder, codes and generator, version 1."""
    tensors: dict[str, Tensor] = {}
    for part, network in zip(PARTS, (encoder, codes, generator), strict=True):
        for name, value in network.state_dict().items():
            name = f"{part}.{name}"
            if part == "codes" or value.dim() == 1 or value.numel() < 64:
                tensors[name] = value.float().contiguous()
                continue
            scale = value.flatten(1).abs().amax(1).clamp_min(1e-12) / 127
            shape = (-1,) + (1,) * (value.dim() - 1)
            tensors[name] = (value / scale.view(shape)).round().to(torch.int8).contiguous()
            tensors[f"{name}.scale"] = scale.float().contiguous()
    settings = {key: getattr(generator, key) for key in SETTINGS}
    metadata = {"about": json.dumps(about), "format": "1", "generator": json.dumps(settings)}
    save_file(tensors, path, metadata=metadata)


def read_weights(path: Path) -> Weights:
    """Read what ``save_weights`` wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file of this method, of another format version, or the file beside it is
            not the one that it was written with.
    """
    metadata, tensors = _read(path)
    if metadata.get("format") not in ("1", "2"):
        raise ValueError(
            f"method stochastic-local: {path.name} has format {metadata.get('format')}, "
            "needed: 1 or 2"
        )
    if "beside" in metadata:
        beside = path.with_name(f"{path.stem}.head{path.suffix}")
        more = _read(beside)[1]
        if hashlib.sha256(beside.read_bytes()).hexdigest() != metadata["beside"]:
            raise ValueError(f"method stochastic-local: {beside.name} is not that of {path.name}")
        tensors |= more
    states: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        if rest.endswith(".scale"):
            continue
        if value.dtype == torch.int8:
            scale = tensors[f"{name}.scale"].view((-1,) + (1,) * (value.dim() - 1))
            value = value.float() * scale
        states[part][rest] = value.float()
    about, generator = json.loads(metadata["about"]), json.loads(metadata["generator"])
    return Weights(int(metadata["format"]), about, generator, states)


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    if not path.is_file():
        raise FileNotFoundError(f"method stochastic-local: no weights at {path.name}")
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return file.metadata() or {}, tensors
    except Exception:
        raise ValueError(
            f"method stochastic-local: {path.name} is no readable safetensors file"
        ) from None
