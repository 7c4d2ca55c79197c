"""Student networks: pixels in, the surrogate's template out. Two sizes, or one to go on with."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.lab.distill.denoising import Denoised
from ppfr_ops.lab.distill.reading import opened, pixels
from ppfr_ops.lab.training.checkpoints import Checkpoint, set_rate
from ppfr_ops.recognizers import Embeddings

SIZES = {"small": (16, 24, 48, 96), "medium": (32, 48, 96, 192)}
"""Channels at 56, 28, 14 and 7 px."""

CHECKPOINT_SECONDS = 60.0


class _Block(nn.Module):
    """Depthwise separable, with a shortcut (MobileNetV2's, Sandler et al. 2018)."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        wide = 4 * channels
        self.keep = stride == 1 and channels == out
        self.body = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.PReLU(wide),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.PReLU(wide),
            nn.Conv2d(wide, out, 1, bias=False),
            nn.BatchNorm2d(out),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return x + y if self.keep else y


class Student(nn.Module):
    """Our interface: ``N x 3 x 112 x 112``, RGB, 0..255, in; ``N x D``, unit length, out."""

    def __init__(self, size: str, dimensions: int) -> None:
        super().__init__()
        a, b, c, d = SIZES[size]
        self.body = nn.Sequential(
            nn.Conv2d(3, a, 3, 2, 1, bias=False),
            nn.BatchNorm2d(a),
            nn.PReLU(a),
            _Block(a, b, 2),
            _Block(b, b, 1),
            _Block(b, c, 2),
            _Block(c, c, 1),
            _Block(c, c, 1),
            _Block(c, d, 2),
            _Block(d, d, 1),
            nn.Conv2d(d, 4 * d, 1, bias=False),
            nn.BatchNorm2d(4 * d),
            nn.PReLU(4 * d),
            nn.Conv2d(4 * d, 4 * d, 7, groups=4 * d, bias=False),
            nn.Flatten(),
            nn.BatchNorm1d(4 * d),
            nn.Linear(4 * d, dimensions),
        )

    def trained(self) -> list[Tensor]:
        """What an optimiser moves."""
        return list(self.parameters())

    def forward(self, faces: Tensor) -> Tensor:
        return functional.normalize(self.body((faces - 127.5) / 127.5), dim=1)


class FineTuned(nn.Module):
    """A network of somebody else (TorchScript), trained further; a linear map where the templates
    have another length."""

    def __init__(self, path: str, dimensions: int) -> None:
        super().__init__()
        self.network = opened(path, "the network to go on with")
        for tensor in (*self.network.parameters(), *self.network.buffers()):
            if tensor.is_floating_point():
                tensor.requires_grad_(True)
        with torch.no_grad():
            before = self.network(torch.full((1, 3, 112, 112), 127.0)).shape[1]
        self.map = nn.Linear(before, dimensions)
        if before == dimensions:
            nn.init.eye_(self.map.weight)
            nn.init.zeros_(self.map.bias)
        else:
            nn.init.orthogonal_(self.map.weight)

    def trained(self) -> list[Tensor]:
        """What an optimiser moves."""
        inner = [*self.network.parameters(), *self.network.buffers()]
        return [*(t for t in inner if t.requires_grad), *self.map.parameters()]

    def forward(self, faces: Tensor) -> Tensor:
        return functional.normalize(self.map(self.network(faces)), dim=1)


def build(kind: str, dimensions: int) -> Student | FineTuned:
    """A student by size, or by the path of a TorchScript file."""
    return Student(kind, dimensions) if kind in SIZES else FineTuned(kind, dimensions)


Loss = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""Clean and noisy pictures, the templates wanted, the share of the training that is over."""


def train(
    student: Student | FineTuned | Denoised,
    faces: Faces,
    target: Embeddings,
    noise: float,
    seconds: float,
    checkpoint: Path,
    log: Callable[[str], None],
    batch: int = 32,
    rate: float | None = None,
    loss_of: Loss | None = None,
) -> None:
    """Teach a student the templates of faces, in place.

    Args:
        faces: uint8 ``N x 112 x 112 x 3``.
        target: float32 ``N x D``, unit length.
        noise: standard deviations are drawn evenly up to this, pixels of 0..1; 0: clean pictures.
            What stands behind a denoiser learns under this very noise. Pictures are turned over
            and moved by up to 2 px besides.
        seconds: of training, all runs together; a run that was killed goes on from ``checkpoint``.
        loss_of: None: one minus the cosine of the student's template and the one wanted.
    """

    def cosine(clean: Tensor, noisy: Tensor, templates: Tensor, share: float) -> Tensor:
        return (1 - (student(noisy) * templates).sum(1)).mean()

    tensors, loss_of = student.trained(), loss_of or cosine
    rate = rate or (3e-3 if isinstance(student, Student) else 1e-3)
    optimizer = torch.optim.AdamW(tensors, rate, weight_decay=1e-4)
    even = not isinstance(student, Denoised)
    spent, step = 0.0, 0
    kept = Checkpoint(checkpoint, "student", {"student": student, "optimizer": optimizer})
    if found := kept.load():
        spent, step = found["seconds"], found["step"]
        log(f"student: going on after {spent:.0f} s, {step} steps")
    begun = saved = time.monotonic()
    wanted, mean = torch.from_numpy(target), 0.0
    student.train(isinstance(student, Student))
    while (now := spent + time.monotonic() - begun) < seconds:
        falls = 0.5 + 0.5 * math.cos(math.pi * now / seconds)
        set_rate(optimizer, rate * min(1, (step + 1) / 50) * falls)
        places = torch.randint(len(faces), (batch,))
        clean = _seen(faces, places)
        loss = loss_of(clean, _noisy(clean, noise, even), wanted[places], now / seconds)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(tensors, 5.0)
        optimizer.step()
        step, mean = step + 1, loss.item() if not step else 0.98 * mean + 0.02 * loss.item()
        if step % 100 == 0:
            log(f"student: step {step}, {now:.0f} s, loss {mean:.4f}")
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            saved = time.monotonic()
            kept.save(seconds=spent + saved - begun, step=step)
    kept.save(seconds=spent + time.monotonic() - begun, step=step)
    student.eval()


def _seen(faces: Faces, places: Tensor) -> Tensor:
    x = pixels(faces[places.numpy()])
    x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)
    shift = torch.randint(-2, 3, (2,)).tolist()
    x = functional.pad(x, (2, 2, 2, 2), mode="replicate")
    return x[:, :, 2 + shift[0] : 114 + shift[0], 2 + shift[1] : 114 + shift[1]]


def _noisy(clean: Tensor, noise: float, even: bool) -> Tensor:
    if not noise:
        return clean
    size = torch.rand(len(clean), 1, 1, 1) if even else 1.0
    return clean + 255 * noise * size * torch.randn_like(clean)
