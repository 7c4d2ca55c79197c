"""Recovery attacks: train a network from what is published back to the original.

The attacker knows the method and its weights, has faces of other people and draws without end, and
lacks only the draw of the record under attack. A claim of privacy is worth what the attack on it
was worth, so the attackers here are meant to be strong, and free to be trained against:

>>> attack = RecoveryAttack("unet", seed=0)
>>> curve = attack.train(faces, publisher(create("highpass"), JPEG), steps=2000)
>>> recovered = attack.recover(published)
"""

import copy
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ppfr_ops.contracts.evaluation import Point
from ppfr_ops.imaging.arrays import Faces, in_chunks
from ppfr_ops.lab.evaluate.attacks.networks import (
    Attacker,
    Context,
    Publish,
    View,
    mean_tensor,
    recovery_loss,
    to_tensor,
    to_uint8,
)
from ppfr_ops.lab.evaluate.measured import likeness
from ppfr_ops.lab.evaluate.streams import stream
from ppfr_ops.lab.training.checkpoints import Checkpoint, follow, set_rate
from ppfr_ops.memory import keep_freed_memory
from ppfr_ops.sanitize.prefetch import prefetch
from ppfr_ops.torchscript import bf16_pays

LEARNING_RATE = 1e-3
"""Peak: a short warm-up, then constant, then down to zero over the last fifth of the steps."""


def flattened(curve: list[Point]) -> tuple[bool, float | None]:
    """Whether the best validation SSIM rose by less than 0.01 in the last fifth of the steps,
    and by how much it rose; None for a curve too short to tell."""
    before = [point.val_ssim for point in curve if point.step <= 0.8 * curve[-1].step]
    if not before:
        return False, None
    gain = max(0.0, max(point.val_ssim for point in curve) - max(before))
    return gain < 0.01, gain


class RecoveryAttack:
    """An attacker and how it is trained.

    Args:
        net: ``unet`` or ``residual``.
        channels: planes of what the attacker sees, 3 a picture.
        context: length of the vector that the attacker knows besides; ``unet`` only.
        batch: faces a step.
        seed: of the weights, the order of faces and the draws of training.
    """

    def __init__(
        self, net: str = "unet", channels: int = 3, context: int = 0, batch: int = 32, seed: int = 0
    ) -> None:
        self.net, self.channels, self.batch, self.seed = net, channels, batch, seed
        self.context = context
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.bf16 = bf16_pays(self.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = Attacker(net, channels, context)
        self.model = model.to(self.device).to(memory_format=torch.channels_last)  # type: ignore
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.best = copy.deepcopy(self.average)
        self.curve: list[Point] = []
        self.step = 0
        self.seconds = 0.0

    @property
    def parameters(self) -> int:
        """Number of learned values."""
        return sum(p.numel() for p in self.model.parameters())

    def _forward(self, model: nn.Module, seen: View, context: Context | None = None) -> Tensor:
        planes = to_tensor(seen).to(self.device)
        known = None if context is None else torch.from_numpy(context).to(self.device)
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
        on_point: Callable[[Point], None] | None = None,
    ) -> list[Point]:
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
        rng = stream(self.seed, "attack: batches")
        val_index = np.arange(len(validation)) + len(originals)
        val_seen = self._split(
            publish(validation, val_index, stream(self.seed, "attack: validation"))
        )
        optimizer = torch.optim.AdamW(
            self.model.parameters(), LEARNING_RATE, betas=(0.9, 0.99), weight_decay=1e-4
        )
        identity = f"{self.net} {self.channels} {self.context} {self.batch} {self.seed}"
        parts = {"model": self.model, "average": self.average, "best": self.best}
        kept = Checkpoint(checkpoint, identity, parts | {"optimizer": optimizer})
        if state := kept.load(self.device):
            self.step, self.seconds = state["step"], state["seconds"]
            self.curve = [Point.model_validate(point) for point in state["curve"]]
            rng = stream(self.seed, "attack: batches", self.step)
        else:
            first = rng.choice(len(originals), min(256, len(originals)), replace=False)
            seen, known = self._split(publish(originals[first], first, rng))
            vectors = None if known is None else torch.from_numpy(known)
            self.model.calibrate(to_tensor(seen), vectors, to_tensor(originals[first]))
            self.model.base.copy_(mean_tensor(originals))
            self.average.load_state_dict(self.model.state_dict())
        if self.step >= steps:
            return self.curve

        begun, before = time.monotonic(), self.seconds
        every = max(1, steps // points)
        ending: int | None = None  # the step at which a spent budget ends the run
        upcoming = prefetch(_batches(originals, publish, self.batch, rng), 2)
        usual = math.inf  # running gradient norm
        self.model.train()
        try:
            for target, view in upcoming:
                set_rate(optimizer, self._rate(steps, ending))
                recovered = self._forward(self.model, *self._split(view))
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
                follow(self.average, self.model, self.step, 0.995)
                self.seconds = before + time.monotonic() - begun
                if seconds is not None and ending is None and self.seconds > 0.8 * seconds:
                    ending = max(self.step + 1, round(self.step / 0.8))
                last = self.step >= min(steps, ending or steps)
                if last or self.step % every == 0:
                    like = likeness(validation, self._recover(self.average, val_seen))
                    point = Point(
                        step=self.step,
                        seconds=round(self.seconds, 1),
                        val_ssim=float(like["ssim"].mean()),
                        val_psnr=float(like["psnr"].mean()),
                    )
                    if not self.curve or point.val_ssim > max(p.val_ssim for p in self.curve):
                        self.best.load_state_dict(self.average.state_dict())
                    self.curve.append(point)
                    curve = [each.model_dump() for each in self.curve]
                    kept.save(step=self.step, seconds=self.seconds, curve=curve)
                    if on_point:
                        on_point(point)
                if last:
                    break
        finally:
            upcoming.close()
        return self.curve

    def _rate(self, steps: int, ending: int | None) -> float:
        end = min(steps, ending or steps)
        start = 0.8 * end
        warm = min(1.0, (self.step + 1) / 50)
        cool = 1.0 if self.step < start else max(0.02, (end - self.step) / (end - start))
        return LEARNING_RATE * warm * cool

    def recover(self, published: View, context: Context | None = None) -> Faces:
        """The attacker's guess at the originals, by the averaged weights that did best on the
        held-back faces.

        Args:
            published: uint8 or float32 ``N x 112 x 112 x channels``, 0..255.
            context: float32 ``N x context``, if the attacker takes one.

        Returns:
            uint8 ``N x 112 x 112 x 3``.
        """
        seen = self._split(published if context is None else (published, context))
        return self._recover(self.best, seen)

    @torch.inference_mode()
    def _recover(self, model: nn.Module, seen: tuple[View, Context | None]) -> Faces:
        given = [part for part in seen if part is not None]
        return in_chunks(lambda *part: to_uint8(self._forward(model, *part)), *given)


def _batches(
    originals: Faces, publish: Publish, size: int, rng: np.random.Generator
) -> Iterator[tuple[Faces, View | tuple[View, Context]]]:
    """Without end, and what is seen of each."""
    while True:
        order = rng.permutation(len(originals))
        for start in range(0, len(order) - size + 1, size):
            index = order[start : start + size]
            yield originals[index], publish(originals[index], index, rng)
