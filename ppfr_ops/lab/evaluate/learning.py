"""Small networks that stages train, and the loop that trains them and can be stopped."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ppfr_ops.imaging.arrays import Faces, in_chunks
from ppfr_ops.lab.evaluate.streams import stream
from ppfr_ops.lab.evaluate.templates import Log
from ppfr_ops.lab.training.checkpoints import Checkpoint, set_rate
from ppfr_ops.memory import keep_freed_memory
from ppfr_ops.torchscript import bf16_pays

M = TypeVar("M", bound=nn.Module)

Loss = Callable[[np.random.Generator], Tensor]
"""One batch, drawn by the generator, to a scalar."""


def fit(
    model: nn.Module,
    loss_of: Loss,
    steps: int,
    seed: int,
    name: str,
    rate: float = 1e-3,
    weight_decay: float = 0.01,
    checkpoint: Path | None = None,
    log: Log | None = None,
) -> None:
    """Train with AdamW; the rate rises over a twentieth of the steps and falls by a cosine.

    Every step has a random stream of its own, so a run that goes on from its checkpoint takes the
    steps that an unbroken one would have taken.

    Args:
        model: is trained in place and left in evaluation mode.
        loss_of: draws a batch and gives its loss.
        steps: in all, those before a resume included.
        seed, name: of the random streams.
        checkpoint: written ten times and continued from where it exists.
        log: takes a line at every checkpoint.
    """
    keep_freed_memory()
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=weight_decay)
    kept = Checkpoint(checkpoint, name, {"model": model, "optimizer": optimizer})
    done = (kept.load() or {"step": 0})["step"]
    every = max(1, steps // 10)
    model.train()
    recent: list[float] = []
    with torch.random.fork_rng(devices=[]):
        for step in range(done, steps):
            warm = min(1.0, (step + 1) / max(1, steps // 20))
            cosine = 1 + math.cos(math.pi * step / steps)
            set_rate(optimizer, rate * warm * (0.02 + 0.49 * cosine))
            rng = stream(seed, f"training: {name}", step)
            torch.manual_seed(int(rng.integers(2**31)))
            loss = loss_of(rng)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            recent.append(float(loss.detach()))
            if (step + 1) % every == 0 or step + 1 == steps:
                kept.save(step=step + 1)
                if log is not None:
                    log(f"  {name}: step {step + 1} of {steps}, loss {np.mean(recent):.3f}")
                recent.clear()
    model.eval()


class _Down(nn.Module):
    """Residual block of two 3x3 convolutions that halves the sides."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, 2, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.PReLU(after),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.side = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(before, after, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.side(x))


class FaceNet(nn.Module):
    """A small face network: 56x56 after pooling, then 28, 14 and 7.

    Shapes: float ``N x 3 x 112 x 112`` in 0..1 to ``N x size``.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        width = 32
        self.body = nn.Sequential(
            nn.AvgPool2d(2),
            nn.Conv2d(3, width, 5, 2, 2, bias=False),
            nn.BatchNorm2d(width),
            nn.PReLU(width),
            _Down(width, 2 * width),
            _Down(2 * width, 4 * width),
            nn.Conv2d(4 * width, 2 * width, 1),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(2 * width * 49, size),
        )

    def forward(self, faces: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16_pays("cpu")):
            return self.body((faces - 0.5) * 4).float()

    @torch.inference_mode()
    def read(self, faces: Faces) -> NDArray[np.float32]:
        """Outputs for uint8 ``N x 112 x 112 x 3``; ``N x size``."""
        return in_chunks(lambda part: self(as_tensor(part)), faces, size=128)


def as_tensor(faces: Faces) -> Tensor:
    """uint8 ``N x 112 x 112 x 3`` to float ``N x 3 x 112 x 112`` in 0..1, channels last."""
    pixels = torch.from_numpy(np.ascontiguousarray(faces)).permute(0, 3, 1, 2).float() / 255
    return pixels.contiguous(memory_format=torch.channels_last)


def augment(faces: Tensor, rng: np.random.Generator) -> Tensor:
    """Mirror half of them, shift each batch by up to 4 px, change brightness and contrast."""
    flip = torch.from_numpy(rng.random(len(faces)) < 0.5)
    faces = torch.where(flip[:, None, None, None], faces.flip(3), faces)
    down, right = rng.integers(-4, 5, 2).tolist()
    faces = torch.roll(faces, (down, right), (2, 3))
    gain = torch.from_numpy(rng.uniform(0.8, 1.25, (len(faces), 1, 1, 1)).astype(np.float32))
    lift = torch.from_numpy(rng.uniform(-0.1, 0.1, (len(faces), 1, 1, 1)).astype(np.float32))
    return (faces - 0.5) * gain + 0.5 + lift


def new(make: Callable[[], M], seed: int) -> M:
    """A network with weights by a seed, without touching the global random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()
