"""What the trainers of learned methods share: a running average, checkpoints, small turns."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, step: int, most: float) -> None:
    """Move a running average of weights towards the network's, in place.

    Args:
        step: steps done so far; the first ones count for more.
        most: share of the average that is kept at the end.
    """
    keep = min(most, step / (step + 10))
    for slow, fast in zip(average.parameters(), network.parameters(), strict=True):
        slow.lerp_(fast, 1 - keep)


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    draft = path.with_name(path.name + ".tmp")
    torch.save(dict(state), draft)
    os.replace(draft, path)


def load_checkpoint(path: Path, config: str, device: str) -> dict[str, Any]:
    """What ``save_checkpoint`` wrote.

    Args:
        config: digest of the configuration, as the state's ``config`` has it.

    Raises:
        ValueError: the checkpoint is of another configuration.
    """
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    if state["config"] != config:
        raise ValueError(f"{path.name} belongs to another configuration")
    return state


def moved(images: Tensor, angle: Tensor, zoom: Tensor, shift: Tensor) -> Tensor:
    """A similarity transform of every picture, its border repeated.

    Args:
        images: ``N x C x H x W``.
        angle: ``N``, radians.
        zoom: ``N``, factors.
        shift: ``N x 2``, in halves of a side.
    """
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    theta = torch.stack(
        [torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1
    )
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
