"""Erasable mask: a perturbation, small to the eye, under which FR takes the face for another.

The reverse of the project's other methods: people see who it is, machines should not. After
ErasableMask (Shen et al., arXiv 2412.17038), whose second half, the way back, is the vault here
(``ppfr sanitize --vault``): exact, bound to the owner's key, revocable.

**It is no protection against an adversary who adapts.** The weights are public: whoever publishes
faces of other people with them can learn to see through the mask (``bench/mask.py`` measures it),
and an FR model that was trained on masked faces is not fooled. It keeps today's
recognisers, run as they are, from indexing pictures whose protection must not show.
"""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from safetensors import safe_open
from safetensors.torch import save_file

from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.memory import keep_freed_memory
from ppfr_ops.methods.base import Anonymizer
from ppfr_ops.methods.erasable_mask.network import MaskGenerator
from ppfr_ops.methods.registry import register

FORMAT = 1
SHIPPED = Path(__file__).parent / "weights" / "erasable-mask.safetensors"


def save_weights(path: Path, generator: MaskGenerator, about: dict[str, object]) -> None:
    """Write one safetensors file, 16 bits a weight."""
    tensors = {name: value.half().contiguous() for name, value in generator.state_dict().items()}
    settings = json.dumps({"bound": generator.bound, "width": generator.width})
    metadata = {"format": str(FORMAT), "generator": settings, "about": json.dumps(about)}
    save_file(tensors, path, metadata=metadata)


def load_weights(path: Path) -> MaskGenerator:
    """The generator of a file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file of this method, or of another format version.
    """
    if not path.is_file():
        raise FileNotFoundError(f"method erasable-mask: no weights at {path.name}")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        if metadata.get("format") != str(FORMAT):
            raise KeyError
        generator = MaskGenerator(**json.loads(metadata["generator"]))
        generator.load_state_dict(tensors)
    except Exception:
        raise ValueError(
            f"method erasable-mask: {path.name} holds no weights of it in format {FORMAT}"
        ) from None
    return generator.eval().requires_grad_(False)


@lru_cache(maxsize=2)
def _load(path: Path, device: str) -> MaskGenerator:
    keep_freed_memory()
    return load_weights(path).to(device)


@lru_cache(maxsize=2)
def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@register("erasable-mask")
class ErasableMask(Anonymizer):
    """No limit on disclosure: that the picture looks like the person is what it is for."""

    strength: float = Field(
        1.15, gt=0, le=2, description="factor on the mask; more: FR fails more, and it shows more"
    )
    weights: Path | None = Field(None, description="weights of one's own, from ppfr train")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where it runs")
    batch: int = Field(64, ge=1, le=4096, description="faces a forward pass")

    def options(self) -> dict[str, Any]:
        return {"strength": self.strength}

    def weights_digest(self) -> str:
        return _digest(self.weights or SHIPPED)

    def anonymize(self, faces: Faces, draws: NDArray[np.float32]) -> Faces:
        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        generator = _load(self.weights or SHIPPED, device)
        out = np.empty_like(faces)
        with torch.inference_mode():
            for start in range(0, len(faces), self.batch):
                part = slice(start, start + self.batch)
                pixels = torch.from_numpy(faces[part]).permute(0, 3, 1, 2).to(device).float() / 255
                masked = pixels + self.strength * generator(pixels)
                published = (masked * 255).round().clamp(0, 255).to(torch.uint8)
                out[part] = published.permute(0, 2, 3, 1).cpu().numpy()
        return out
