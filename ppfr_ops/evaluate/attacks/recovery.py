"""Recovery attacks: train a network from what is published back to the original.

The attacker knows the method and its weights, has faces of other people and draws without end, and
lacks only the draw of the record under attack. A claim of privacy is worth what the attack on it
was worth, so the attackers here are meant to be strong, and free to be trained against:

>>> attack = RecoveryAttack("unet", seed=0)
>>> curve = attack.train(faces, publisher(create("highpass"), JPEG), steps=2000)
>>> recovered = attack.recover(published)

``unet`` (U-Net, Ronneberger et al. 2015) passes detail over skips, ``residual`` (an encoder, a
residual trunk and a decoder, Johnson et al. 2016) has to carry everything through a bottleneck
at 14x14 and so looks at the face as a whole. Both see the image pixel-unshuffled by four, the
published values normalised over the training set (a method that merely turns the contrast down is
not rewarded for it) and, beside them, every image stretched by itself.
"""

import copy
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ppfr_ops.imaging.arrays import FACE_SIZE, Faces
from ppfr_ops.imaging.measures import psnr, ssim
from ppfr_ops.memory import keep_freed_memory

View = NDArray[Any]
"""What an attacker sees: uint8 or float32 ``N x 112 x 112 x 3k`` in 0..255, k pictures of every
face stacked along the channels."""

Context = NDArray[np.float32]
"""What an attacker knows besides, a vector a face: float32 ``N x D``, any scale."""

Publish = Callable[[Faces, NDArray[np.int64], np.random.Generator], View | tuple[View, Context]]
"""(faces ``N x 112 x 112 x 3``, their indices, generator) -> the attacker's view of them."""

Progress = Callable[["CurvePoint"], None]

_FOLD = 4  # px: pixel-unshuffle in front of every network
CHECKPOINT_VERSION = 2


def _norm(channels: int) -> nn.Module:
    return nn.GroupNorm(8, channels)


class _Block(nn.Module):
    """Pre-activation residual block, two 3x3 convolutions."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _norm(channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation),
            _norm(channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def _up(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 1), nn.Upsample(scale_factor=2, mode="nearest")
    )


class _UNet(nn.Module):
    """Trunk over 28x28, 14x14 and 7x7 with skips; about 2 M parameters."""

    def __init__(self, channels: int, widths: tuple[int, int, int] = (48, 96, 192)) -> None:
        super().__init__()
        a, b, c = widths
        self.stem = nn.Sequential(nn.Conv2d(channels, a, 3, padding=1), _Block(a))
        self.down1 = nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), _Block(b))
        self.down2 = nn.Sequential(nn.Conv2d(b, c, 3, stride=2, padding=1), _Block(c), _Block(c))
        self.up1 = _up(c, b)
        self.dec1 = nn.Sequential(nn.Conv2d(2 * b, b, 3, padding=1), _Block(b))
        self.up0 = _up(b, a)
        self.dec0 = nn.Sequential(nn.Conv2d(2 * a, a, 3, padding=1), _Block(a))
        self.width = a
        self.coarse = c * 7 * 7

    def forward(self, x: Tensor, coarse_extra: Tensor | None = None) -> Tensor:
        fine = self.stem(x)
        middle = self.down1(fine)
        coarse = self.down2(middle)
        if coarse_extra is not None:
            coarse = coarse + coarse_extra.view_as(coarse)
        middle = self.dec1(torch.cat([middle, self.up1(coarse)], 1))
        return self.dec0(torch.cat([fine, self.up0(middle)], 1))


class _Residual(nn.Module):
    """Bottleneck at 14x14 with a dilated residual trunk, no skips; about 2 M parameters."""

    def __init__(self, channels: int, width: int = 128, blocks: int = 6) -> None:
        super().__init__()
        self.width = 48
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 4, stride=2, padding=1),
            *(_Block(width, dilation=(1, 2, 4)[i % 3]) for i in range(blocks)),
            _norm(width),
            nn.SiLU(),
            nn.ConvTranspose2d(width, self.width, 4, stride=2, padding=1),
            _Block(self.width),
        )

        self.coarse = 0

    def forward(self, x: Tensor, coarse_extra: Tensor | None = None) -> Tensor:
        return self.body(x)


NETS: dict[str, type[_UNet] | type[_Residual]] = {"unet": _UNet, "residual": _Residual}


class Attacker(nn.Module):
    """A trunk between normalisation and output, published planes to faces.

    Shapes: ``N x 3k x 112 x 112`` in 0..1, and a context of ``N x context`` if that is not 0, to
    ``N x 3 x 112 x 112``, about 0..1 (not clipped).
    """

    mean: Tensor
    std: Tensor
    base: Tensor
    context_mean: Tensor
    context_std: Tensor

    def __init__(self, net: str = "unet", channels: int = 3, context: int = 0) -> None:
        super().__init__()
        if net not in NETS:
            raise ValueError(f"unknown attacker {net!r}; there are: {', '.join(NETS)}")
        folded = channels * _FOLD**2
        self.trunk = NETS[net](2 * folded)
        self.known: nn.Module | None = None
        if context:
            if not self.trunk.coarse:
                raise ValueError(f"attacker {net!r} takes no context")
            self.known = nn.Sequential(
                nn.Linear(context, 384), nn.SiLU(), nn.Linear(384, self.trunk.coarse)
            )
        direct = folded if net == "unet" else 0
        self.direct = direct
        self.head = nn.Conv2d(self.trunk.width + direct, 3 * _FOLD**2, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        self.register_buffer("mean", torch.full((1, channels, 1, 1), 0.5))
        self.register_buffer("std", torch.full((1, channels, 1, 1), 0.25))
        self.register_buffer("base", torch.full((1, 3, FACE_SIZE, FACE_SIZE), 0.5))
        self.register_buffer("context_mean", torch.zeros(1, context))
        self.register_buffer("context_std", torch.ones(1, context))

    @torch.no_grad()
    def calibrate(self, published: Tensor, context: Tensor | None, originals: Tensor) -> None:
        """Input statistics from published images; the mean original is where training starts."""
        if context is not None:
            self.context_mean.copy_(context.mean(0, keepdim=True))
            self.context_std.copy_(context.std(0, keepdim=True).clamp_min(1e-6))
        self.mean.copy_(published.mean((0, 2, 3), keepdim=True))
        self.std.copy_(published.std((0, 2, 3), keepdim=True).clamp_min(0.5 / 255))
        self.base.copy_(originals.mean(0, keepdim=True))

    def forward(self, published: Tensor, context: Tensor | None = None) -> Tensor:
        planes = (published - self.mean) / self.std
        spread = published.std((-2, -1), keepdim=True).clamp_min(0.5 / 255)
        own = (published - published.mean((-2, -1), keepdim=True)) / spread
        folded = F.pixel_unshuffle(torch.cat([planes, own], 1), _FOLD)
        folded = folded.contiguous(memory_format=torch.channels_last)
        extra = None
        if self.known is not None:
            assert context is not None
            extra = self.known((context - self.context_mean) / self.context_std)
        features = self.trunk(folded, extra)
        if self.direct:
            features = torch.cat([features, folded[:, : self.direct]], 1)
        out = F.pixel_shuffle(self.head(F.silu(features) if not self.direct else features), _FOLD)
        return self.base + out.float()


def recovery_loss(recovered: Tensor, originals: Tensor) -> Tensor:
    """L1 + 0.3 (1 - SSIM), SSIM at every other position; a scalar."""
    return F.l1_loss(recovered, originals) + 0.3 * (1 - ssim(recovered, originals, stride=2).mean())


@dataclass(frozen=True)
class CurvePoint:
    """One measurement on the held-back training faces."""

    step: int
    seconds: float
    loss: float
    val_ssim: float
    val_psnr: float


def to_tensor(images: View) -> Tensor:
    """uint8 or float ``N x H x W x C`` in 0..255 to float32 ``N x C x H x W`` in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """float ``N x C x H x W`` in 0..1 to uint8 ``N x H x W x C``, clipped and rounded."""
    scaled = images.float().mul(255).round_().clamp_(0, 255).to(torch.uint8)
    return np.ascontiguousarray(scaled.permute(0, 2, 3, 1).cpu().numpy())


def flattened(curve: list[CurvePoint], tolerance: float = 0.01) -> tuple[bool, float | None]:
    """Whether the best validation SSIM rose by less than ``tolerance`` in the last fifth of the
    steps, and by how much it rose; None for a curve too short to tell."""
    before = [point.val_ssim for point in curve if point.step <= 0.8 * curve[-1].step]
    if not before:
        return False, None
    gain = max(0.0, max(point.val_ssim for point in curve) - max(before))
    return gain < tolerance, gain


def bf16_pays() -> bool:
    """Whether this machine multiplies bfloat16 in hardware (CUDA, AMX or AVX512-BF16)."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    able = torch.cpu.get_capabilities()
    return bool(able.get("amx_bf16") or able.get("avx512_bf16"))


class RecoveryAttack:
    """An attacker and how it is trained.

    Args:
        net: ``unet`` or ``residual``.
        channels: planes of what the attacker sees, 3 a picture.
        context: length of the vector that the attacker knows besides; ``unet`` only.
        batch: faces a step.
        learning_rate: peak; AdamW, a short warm-up, then constant, then down to zero over the
            last fifth of the steps.
        seed: of the weights, the order of faces and the draws of training.
        bf16: bfloat16 autocast; None: where the machine gains from it.
        device: ``cuda`` where there is one, else ``cpu``.
    """

    def __init__(
        self,
        net: str = "unet",
        channels: int = 3,
        context: int = 0,
        batch: int = 32,
        learning_rate: float = 1e-3,
        seed: int = 0,
        bf16: bool | None = None,
        device: str | None = None,
    ) -> None:
        self.net, self.channels, self.batch, self.seed = net, channels, batch, seed
        self.context = context
        self.learning_rate = learning_rate
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.bf16 = bf16_pays() if bf16 is None else bf16
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = Attacker(net, channels, context)
        self.model = model.to(self.device).to(memory_format=torch.channels_last)  # type: ignore
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.best = copy.deepcopy(self.average)
        self.curve: list[CurvePoint] = []
        self.step = 0
        self.seconds = 0.0

    @property
    def parameters(self) -> int:
        """Number of learned values."""
        return sum(p.numel() for p in self.model.parameters())

    def _forward(self, model: nn.Module, seen: tuple[View, Context | None]) -> Tensor:
        planes = to_tensor(seen[0]).to(self.device)
        known = None if seen[1] is None else torch.from_numpy(seen[1]).to(self.device)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            return model(planes, known)

    def _split(self, view: View | tuple[View, Context]) -> tuple[View, Context | None]:
        seen, known = view if isinstance(view, tuple) else (view, None)
        if seen.shape[-1] != self.channels:
            raise ValueError(f"the view has {seen.shape[-1]} planes, not {self.channels}")
        if self.context != (0 if known is None else known.shape[1]):
            raise ValueError(f"the view comes without a context of length {self.context}")
        return seen, known

    def train(
        self,
        originals: Faces,
        publish: Publish,
        steps: int,
        validation: Faces | None = None,
        checkpoint: Path | None = None,
        seconds: float | None = None,
        points: int = 20,
        on_point: Progress | None = None,
    ) -> list[CurvePoint]:
        """Train, and measure on held-back faces as it goes.

        Args:
            originals: uint8 ``N x 112 x 112 x 3``: faces of other people than those attacked.
            publish: makes the attacker's view; called with fresh draws for every step.
            steps: in all, those before a resume included.
            validation: faces for the curve; None: every tenth of ``originals``, held back.
            checkpoint: written at every point and continued from where it exists.
            seconds: wall clock of training after which the learning rate goes down and the run
                ends; None: no limit.
            points: measurements over ``steps``.
            on_point: called with every measurement.

        Returns:
            the curve, one point a measurement.

        Raises:
            ValueError: no originals, a view of other than ``channels`` planes, or a checkpoint of
                another attack.
        """
        keep_freed_memory()  # else page faults cost a CPU step several times its arithmetic
        if validation is None:
            held = np.arange(len(originals)) % 10 == 9
            originals, validation = originals[~held], originals[held]
        if len(originals) < self.batch or len(validation) == 0:
            raise ValueError(f"the attack needs at least {self.batch} training faces")
        validation = validation[:256]
        rng = np.random.default_rng([self.seed, 1])
        val_index = np.arange(len(validation)) + len(originals)
        val_seen = self._split(
            publish(validation, val_index, np.random.default_rng([self.seed, 2]))
        )
        optimizer = torch.optim.AdamW(
            self.model.parameters(), self.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4
        )
        if checkpoint is not None and checkpoint.is_file():
            self._load(checkpoint, optimizer)
            rng = np.random.default_rng([self.seed, 1, self.step])
        else:
            first = rng.choice(len(originals), min(256, len(originals)), replace=False)
            seen, known = self._split(publish(originals[first], first, rng))
            vectors = None if known is None else torch.from_numpy(known)
            self.model.calibrate(to_tensor(seen), vectors, to_tensor(originals[first]))
            self.model.base.copy_(_mean_face(originals))
            self.average.load_state_dict(self.model.state_dict())
        if self.step >= steps:
            return self.curve

        begun, before = time.monotonic(), self.seconds
        every = max(1, steps // points)
        ending: int | None = None  # the step at which a spent budget ends the run
        batches = _prefetch(_batches(originals, publish, self.batch, rng))
        recent: list[float] = []
        usual = math.inf  # running gradient norm
        self.model.train()
        try:
            for target, view in batches:
                rate = self._rate(steps, ending)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                recovered = self._forward(self.model, self._split(view))
                loss = recovery_loss(recovered, to_tensor(target).to(self.device))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), 1.0))
                if math.isfinite(norm):
                    capped = min(norm, 5 * usual)
                    if norm == capped:  # a spike would undo minutes of work
                        optimizer.step()
                    usual = capped if math.isinf(usual) else 0.95 * usual + 0.05 * capped
                self.step += 1
                self._average()
                recent.append(float(loss.detach()))
                self.seconds = before + time.monotonic() - begun
                if seconds is not None and ending is None and self.seconds > 0.8 * seconds:
                    ending = max(self.step + 1, round(self.step / 0.8))
                last = self.step >= min(steps, ending or steps)
                if last or self.step % every == 0:
                    point = self._measure(validation, val_seen, float(np.mean(recent)))
                    recent.clear()
                    if not self.curve or point.val_ssim > max(p.val_ssim for p in self.curve):
                        self.best.load_state_dict(self.average.state_dict())
                    self.curve.append(point)
                    if checkpoint is not None:
                        self._save(checkpoint, optimizer)
                    if on_point:
                        on_point(point)
                if last:
                    break
        finally:
            batches.close()
        return self.curve

    def _rate(self, steps: int, ending: int | None) -> float:
        end = min(steps, ending or steps)
        start = 0.8 * end
        warm = min(1.0, (self.step + 1) / 50)
        cool = 1.0 if self.step < start else max(0.02, (end - self.step) / (end - start))
        return self.learning_rate * warm * cool

    @torch.no_grad()
    def _average(self) -> None:
        keep = min(0.995, self.step / (self.step + 10))
        for slow, fast in zip(self.average.parameters(), self.model.parameters(), strict=True):
            slow.lerp_(fast, 1 - keep)

    def _measure(self, faces: Faces, seen: tuple[View, Context | None], loss: float) -> CurvePoint:
        scores, errors = [], []
        recovered = self._recover(self.average, seen)
        for start in range(0, len(faces), 64):
            a = to_tensor(recovered[start : start + 64])
            b = to_tensor(faces[start : start + 64])
            scores.append(ssim(a, b))
            errors.append(psnr(a, b))
        return CurvePoint(
            self.step,
            round(self.seconds, 1),
            loss,
            float(torch.cat(scores).mean()),
            float(torch.cat(errors).mean()),
        )

    def recover(
        self, published: View, context: Context | None = None, batch_size: int = 64
    ) -> Faces:
        """The attacker's guess at the originals, by the averaged weights that did best on the
        held-back faces.

        Args:
            published: uint8 or float32 ``N x 112 x 112 x channels``, 0..255.
            context: float32 ``N x context``, if the attacker takes one.

        Returns:
            uint8 ``N x 112 x 112 x 3``.
        """
        seen = self._split(published if context is None else (published, context))
        return self._recover(self.best, seen, batch_size)

    @torch.inference_mode()
    def _recover(
        self, model: nn.Module, seen: tuple[View, Context | None], batch_size: int = 64
    ) -> Faces:
        planes, known = seen
        parts = []
        for start in range(0, len(planes), batch_size):
            rows = slice(start, start + batch_size)
            batch = planes[rows], None if known is None else known[rows]
            parts.append(to_uint8(self._forward(model, batch)))
        return np.concatenate(parts) if parts else np.zeros((0, FACE_SIZE, FACE_SIZE, 3), np.uint8)

    def _identity(self) -> dict[str, Any]:
        return {
            "version": CHECKPOINT_VERSION,
            "net": self.net,
            "channels": self.channels,
            "context": self.context,
            "batch": self.batch,
            "seed": self.seed,
        }

    def _save(self, path: Path, optimizer: torch.optim.Optimizer) -> None:
        state = {
            "identity": self._identity(),
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "best": self.best.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "curve": [asdict(point) for point in self.curve],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(path.name + ".tmp")
        torch.save(state, beside)
        os.replace(beside, path)

    def _load(self, path: Path, optimizer: torch.optim.Optimizer) -> None:
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["identity"] != self._identity():
            raise ValueError(f"checkpoint {path.name} belongs to another attack")
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.best.load_state_dict(state["best"])
        optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.curve = [CurvePoint(**point) for point in state["curve"]]


def _mean_face(faces: Faces) -> Tensor:
    mean = faces.mean(0, dtype=np.float64).astype(np.float32) / 255
    return torch.from_numpy(mean).permute(2, 0, 1)[None]


def mean_face(faces: Faces) -> Faces:
    """The attacker who learned nothing: the mean training face, uint8 ``112 x 112 x 3``."""
    return to_uint8(_mean_face(faces))[0]


def _batches(
    originals: Faces, publish: Publish, size: int, rng: np.random.Generator
) -> Iterator[tuple[Faces, View | tuple[View, Context]]]:
    while True:
        order = rng.permutation(len(originals))
        for start in range(0, len(order) - size + 1, size):
            index = order[start : start + size]
            yield originals[index], publish(originals[index], index, rng)


class _prefetch:
    """Run an iterator in a thread of its own, two items ahead."""

    def __init__(self, items: Iterator[Any]) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(2)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(items,), daemon=True)
        self._thread.start()

    def _put(self, item: Any) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def _run(self, items: Iterator[Any]) -> None:
        try:
            for item in items:
                if not self._put(item):
                    return
        except BaseException as error:  # handed to the consumer, who raises it
            self._put(error)

    def __iter__(self) -> Iterator[Any]:
        while True:
            item = self._queue.get()
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=30)
