"""What the trainers of learned methods share: a running average, checkpoints, small turns."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppfr_ops.methods.stochastic_local.networks import similarities
from ppfr_ops.store.atomic import in_one_step


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


class Checkpoint:
    """Where a training is saved, whole or not at all, and resumed.

    Args:
        path: of the file; None: nothing is saved.
        config: of the run; a file of another one is refused.
        parts: networks and optimisers by name, whose state goes with it.
    """

    def __init__(self, path: Path | None, config: str, parts: Mapping[str, Any]) -> None:
        self.path, self.config, self.parts = path, config, parts

    def save(self, **values: Any) -> None:
        """Save the parts as they are, and values beside them."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        states = {name: part.state_dict() for name, part in self.parts.items()}
        with in_one_step(str(self.path)) as file:
            torch.save({"config": self.config, "states": states, **values}, file)

    def load(self, device: str = "cpu") -> dict[str, Any] | None:
        """Put the parts where they were; the values beside them, or None: there is no file.

        Raises:
            ValueError: the file is of another configuration.
        """
        if self.path is None or not self.path.is_file():
            return None
        found: dict[str, Any] = torch.load(self.path, map_location=device, weights_only=True)
        if found.get("config") != self.config:
            raise ValueError(f"{self.path.name} belongs to another configuration")
        for name, part in self.parts.items():
            part.load_state_dict(found["states"][name])
        return found


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of all that it moves."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def moved(images: Tensor, angle: Tensor, zoom: Tensor, shift: Tensor) -> Tensor:
    """A similarity transform of every picture, its border repeated.

    Args:
        images: ``N x C x H x W``.
        angle: ``N``, radians.
        zoom: ``N``, factors.
        shift: ``N x 2``, in halves of a side.
    """
    theta = similarities(angle, zoom, shift)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
