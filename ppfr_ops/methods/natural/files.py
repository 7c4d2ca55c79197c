"""The generator's weights: 8 bits a weight with a scale a row, in files below 8 MiB each.

``natural.mapping`` and ``natural`` (synthesis up to 64 px, the head for 128 px) are what looks are
judged by; ``natural.large`` (up to 1024 px) and ``natural.sharp`` (the head for 256 px on features
at 128 px) show those that are taken.
``natural.fast`` (fewer channels at 64 px and in the head) is read for quick ones.
``natural.looks`` (``looks.py``), ``natural.traits`` (``traits.py``), ``natural.silhouette`` (it
cuts heads out) and ``natural.covers`` (the head for 512 px; what a picture will be like) hold what
was fitted on drawn pictures.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

WEIGHTS = Path(__file__).parent / "weights"
LARGE, FAST = "natural.large", "natural.fast"
"""What larger pictures take, and quick ones (``bench/natural_fast.py``)."""
TRAITS = "natural.traits"
"""How the traits of a person's face are mixed (``bench/natural_traits.py``)."""
SILHOUETTE = "natural.silhouette"
"""What tells a drawn person from what is behind (``bench/natural_silhouette.py``)."""
SHARP = "natural.sharp"
"""The head for crops of 112 px (``bench/natural_covers.py``)."""
COVERS = "natural.covers"
"""The head for 512 px, and lines that foretell a picture (``bench/natural_covers.py``)."""


def save(name: str, tensors: Mapping[str, Tensor], exact: bool = False) -> None:
    """Write a file; matrices and kernels with 4,096 numbers or more in 8 bits, the rest in half
    precision; ``exact``: all in single precision."""
    kept: dict[str, Tensor] = {}
    for key, value in tensors.items():
        rows = value.float().flatten(1) if value.dim() > 1 else value.float()[None]
        if exact or value.numel() < 4096 or rows.shape[0] == 1:
            kept[key] = (value.float() if exact else value.half()).contiguous()
            continue
        scale = rows.abs().amax(1).clamp_min(1e-12) / 127
        kept[key] = (rows / scale[:, None]).round().to(torch.int8).reshape(value.shape).contiguous()
        kept[f"{key}.scale"] = scale.contiguous()
    save_file(kept, WEIGHTS / f"{name}.safetensors", metadata={"format": "3"})


def read(name: str) -> dict[str, Tensor]:
    """What ``save`` wrote, as float32.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file of this method.
    """
    path = WEIGHTS / f"{name}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"method natural: no weights at {path.name}")
    try:
        with safe_open(path, "pt") as file:
            kept = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            version = (file.metadata() or {}).get("format")
    except Exception:
        raise ValueError(f"method natural: {path.name} is no readable safetensors file") from None
    if version != "3":
        raise ValueError(f"method natural: {path.name} has format {version}, needed: 3")
    found: dict[str, Tensor] = {}
    for key, value in kept.items():
        if value.dtype == torch.int8:
            scale = kept[f"{key}.scale"].view((-1,) + (1,) * (value.dim() - 1))
            found[key] = value.float() * scale
        elif not key.endswith(".scale"):
            found[key] = value.float()
    return found


def digest() -> str:
    """sha256 over all files' digests, hex."""
    paths = sorted(WEIGHTS.glob("*.safetensors"))
    each = [hashlib.sha256(path.read_bytes()).digest() for path in paths]
    return hashlib.sha256(b"".join(each)).hexdigest()
