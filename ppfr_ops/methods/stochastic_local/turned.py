"""Training of version 2: a generator for codes that no face has.

In the modes ``virtual`` and ``keyed`` the generator is given codes that a secret map or a key has
made (``identity.py``). Such codes are isotropic: every direction is as likely as any other, and
what two photos of a person differ by points anywhere. So they can be drawn, and no face is needed
to train: a person is a random direction, a photo of theirs a direction at an angle to it, and the
pictures of a person's photos must be alike for every recogniser and unlike those of all others. No
face of the training set gets into the weights but through the surrogates' mean and the threshold
that they have on real faces, and as something that pictures must not resemble.

What version 1 lacks for that is evenness: it draws some directions of the code clearly and others
faintly, for faces differ in few directions. Turned codes differ in all of them.
"""

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ppfr_ops import torchscript
from ppfr_ops.evaluate.attacks.recovery import to_tensor
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.imaging.measures import disclosure_planes, luminance
from ppfr_ops.memory import keep_freed_memory
from ppfr_ops.methods.stochastic_local.networks import (
    DrawLayout,
    Generator,
    encoder_from_torchscript,
    place,
)
from ppfr_ops.methods.stochastic_local.sface import as_surrogate, sface_from_torchscript
from ppfr_ops.methods.stochastic_local.training import diversify, excess
from ppfr_ops.methods.trainers import follow, load_checkpoint, save_checkpoint

Log = Callable[[dict[str, Any]], None]

READS_CODE = ("code.", "c7.", "c14.", "branches.0.", "branches.1.")
"""Layers of the generator, coarsest first, that turn the code into what stands where."""


class TurnedConfig(BaseModel):
    """Everything that decides a run; committed beside the weights it made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 0
    code_size: int = Field(128, ge=16, le=512, description="numbers in a turned code")
    people: int = Field(24, ge=4, description="people a step, each with two pictures")
    minutes: float = Field(30.0, ge=0, description="how long; the rate falls over it")
    lr: float = Field(2e-4, gt=0)
    whole: bool = Field(
        False, description="train the fine layers too, not only what reads the code"
    )
    temperature: float = Field(0.08, gt=0, description="of the contrastive term")
    contrast_weight: float = Field(1.0, ge=0, description="of the contrastive term")
    even_weight: float = Field(1.0, ge=0, description="of templates' cosines following the codes'")
    genuine_weight: float = Field(3.0, ge=0, description="of the same, a person's two pictures")
    clarity: float = Field(0.92, gt=0, le=1, description="templates' cosine where codes' is 1")
    likeness: float = Field(0.5, gt=0, lt=1, description="lowest cosine of a person's two codes")
    likeness_to: float = Field(0.85, gt=0, le=1, description="highest, but for equal codes")
    same_code: int = Field(6, ge=2, description="people of a step whose two codes are the same")
    slow_people: int = Field(8, ge=2, description="people a step that slow surrogates look at")
    threshold_weight: float = Field(1.0, ge=0, description="of impostors near the own threshold")
    threshold_margin: float = Field(0.5, ge=0, description="below it, in impostors' deviations")
    draw_bound: float = Field(0.64, gt=0, le=1)
    draw_weight: float = Field(15.0, ge=0)
    disclosure_bound: float = Field(0.36, gt=0, le=1, description="of a picture and a real face")
    disclosure_weight: float = Field(0.0, ge=0)
    disclosure_faces: int = Field(12, ge=1, description="pictures a step held beside one")
    contrast_bound: float = Field(0.13, gt=0, description="standard deviation of luminance")
    checkpoint_seconds: float = Field(120, gt=0)

    def digest(self) -> str:
        """sha256 of the configuration, hex."""
        text = json.dumps(self.model_dump(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class Judge:
    """A frozen, differentiable FR model and what it makes of real faces.

    ``embed`` takes RGB 0..255, ``N x 3 x 112 x 112``, and gives unit embeddings ``N x D``.
    """

    name: str
    embed: Callable[[Tensor], Tensor]
    slow: bool
    mean: Tensor
    threshold: float
    """Cosine that one impostor pair in a thousand of real faces exceeds."""
    spread: float
    """Standard deviation of impostors' cosines on real faces."""
    centred_spread: float
    """The same of centred embeddings."""

    def centred(self, embeddings: Tensor) -> Tensor:
        return F.normalize(embeddings - self.mean, dim=1)


@torch.no_grad()
def load_judge(name: str, path: Path, faces: Faces, who: NDArray[Any], slow: bool) -> Judge:
    """A TorchScript FR model, with threshold and mean measured on real faces.

    Args:
        name: for the log.
        path: TorchScript file.
        faces: uint8 ``N x 112 x 112 x 3``.
        who: a label a face; impostors are pairs of faces with different ones.
        slow: shown a part of every batch only.

    Raises:
        ValueError: not a readable TorchScript file.
    """
    try:
        script = torchscript.load(path).eval()
    except RuntimeError as error:
        raise ValueError(f"surrogate {name!r}: {path.name} is no TorchScript file") from error
    run: Callable[[Tensor], Tensor]
    half = "net.b.0.c1.w" in dict(script.named_buffers())
    if half:
        run = place(encoder_from_torchscript(script), "cpu")
    elif hasattr(script, "a0"):
        run = as_surrogate(sface_from_torchscript(script))
    else:
        run = torchscript.frozen(script) if slow else script

    def embed(pixels: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return F.normalize(run(pixels.contiguous()).float(), dim=1)

    pixels = torch.from_numpy(faces).permute(0, 3, 1, 2)
    parts = [embed(pixels[i : i + 32].float()) for i in range(0, len(pixels), 32)]
    found = torch.cat(parts)
    people = torch.from_numpy(np.unique(who, return_inverse=True)[1])
    pairs = (found @ found.T)[people[:, None] < people[None, :]]
    threshold = float(pairs.sort().values[int(0.999 * len(pairs))])
    mean = found.mean(0)
    centred = F.normalize(found - mean, dim=1)
    apart = (centred @ centred.T)[people[:, None] < people[None, :]]
    return Judge(name, embed, slow, mean, threshold, float(pairs.std()), float(apart.std()))


def knows(codes: Tensor) -> Tensor:
    """Directions in which the codes of faces differ at all, orthonormal, ``size x live``."""
    values, vectors = torch.linalg.eigh(torch.cov(codes.T))
    return vectors[:, values > 0.01]


@torch.no_grad()
def evenly(
    generator: Generator, live: Tensor, judges: list[Judge], count: int, seed: int
) -> Tensor:
    """Directions of the code, the fainter they show in templates the longer, ``size x live``.

    Templates of ``count`` pictures are regressed on their codes. A direction in which they vary by
    s gets the length s^-1/4: halfway to evenness, for what hardly shows cannot be had by length.
    """
    random = torch.Generator().manual_seed(seed)
    inside = torch.randn(count, live.shape[1], generator=random)
    inside = F.normalize(inside, dim=1) * live.shape[1] ** 0.5
    found: list[list[Tensor]] = [[] for _ in judges]
    for start in range(0, count, 50):
        codes = inside[start : start + 50] @ live.T * (live.shape[0] / live.shape[1]) ** 0.5
        draws = torch.randn(len(codes), DrawLayout.SIZE, generator=random)
        pictures = (generator(codes, draws) * 255).round()
        for judge, parts in zip(judges, found, strict=True):
            parts.append(judge.embed(pictures))
    shown = torch.zeros(live.shape[1], live.shape[1])
    ridge = 5 * torch.eye(live.shape[1])
    for parts in found:
        templates = torch.cat(parts)
        templates = templates - templates.mean(0)
        gain = torch.linalg.solve(inside.T @ inside + ridge, inside.T @ templates)
        shown += gain @ gain.T / (gain @ gain.T).trace()
    strength, directions = torch.linalg.eigh(shown)
    return live @ directions * strength.clamp_min(0.002) ** -0.25


def adapt(generator: Generator, basis: Tensor, code_size: int, seed: int) -> Generator:
    """A generator for isotropic codes from one for the codes of faces.

    Every input is a random one of the directions ``basis``.

    Args:
        generator: takes codes of faces.
        basis: directions that it knows, ``old size x any``.
        code_size: numbers in a new code.
        seed: of the directions.
    """
    size = max(code_size, basis.shape[1])
    random = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(size, size, generator=random))[0]
    basis = basis @ turn[: basis.shape[1], :code_size]
    basis = basis * (basis.shape[0] / basis.square().sum()) ** 0.5
    settings = ("sigma", "field", "warp", "pose", "colour", "mirror", "refine")
    config = {key: getattr(generator, key) for key in settings}
    new = Generator(**config, code_size=code_size)
    state = dict(generator.state_dict())
    for name in [n for n in state if n == "code.weight" or n.endswith("modulation.weight")]:
        state[name] = state[name] @ basis
    new.load_state_dict(state)
    return new


class TurnedTrainer:
    """One run.

    Args:
        config: what to do.
        generator: to begin with, of ``config.code_size``.
        judges: the surrogates.
        faces: real ones, uint8 ``N x 112 x 112 x 3``, that pictures must not resemble more than
            ``disclosure_bound``, whoever they are of.
    """

    def __init__(
        self,
        config: TurnedConfig,
        generator: Generator,
        judges: list[Judge],
        faces: Faces | None = None,
    ) -> None:
        keep_freed_memory()
        self.config, self.judges, self.faces = config, judges, faces
        self.generator = place(generator, "cpu").requires_grad_(True)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        if not config.whole:
            for name, weight in self.generator.named_parameters():
                reads = name.startswith(READS_CODE) or "modulation" in name
                weight.requires_grad_(reads)
        trained = [weight for weight in self.generator.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, config.lr, betas=(0.9, 0.99), weight_decay=1e-3)
        self.random = torch.Generator().manual_seed(config.seed)
        self.step, self.seconds = 0, 0.0

    def codes(self) -> Tensor:
        """Two codes of everybody, ``2 x people x size``; the first ``same_code`` people's are the
        same, of the others' as unlike as two photos of a person."""
        config = self.config
        shape = (config.people, config.code_size)
        person = torch.randn(*shape, generator=self.random)
        alike = torch.rand(config.people, 1, generator=self.random)
        alike = config.likeness + (config.likeness_to - config.likeness) * alike
        alike[: config.same_code] = 1.0
        views = [
            alike.sqrt() * person + (1 - alike).sqrt() * torch.randn(*shape, generator=self.random)
            for _ in range(2)
        ]
        return F.normalize(torch.stack(views), dim=2) * config.code_size**0.5

    def advance(self) -> dict[str, Any]:
        """One optimiser step; what it measured."""
        config, began = self.config, time.monotonic()
        done = min(1.0, self.seconds / max(60 * config.minutes, 1e-9))
        rate = config.lr * min(1.0, (self.step + 1) / 40)
        rate *= 0.5 * (1 + math.cos(math.pi * done)) * 0.97 + 0.03
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss, log = self.loss()
        loss.backward()
        nn.utils.clip_grad_norm_(self.generator.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        follow(self.average, self.generator, self.step, 0.99)
        self.seconds += time.monotonic() - began
        return {"step": self.step, "loss": loss.item(), **log}

    def loss(self) -> tuple[Tensor, dict[str, Any]]:
        config, count = self.config, self.config.people
        codes = self.codes().flatten(0, 1)
        draws = torch.randn(2 * count, DrawLayout.SIZE, generator=self.random)
        same = config.same_code
        sides = DrawLayout.split(draws)[2][:, 4]
        sides[count : count + same] = sides[:same]
        with torch.autocast("cpu", torch.bfloat16):
            drawn = self.generator(codes, draws)
        drawn = drawn.float()
        seen = drawn + (torch.rand(drawn.shape, generator=self.random) - 0.5) / 255
        harsh = bool(torch.rand(1, generator=self.random) < 0.5)
        # Thresholds are those of pictures as published, so one of the two is looked at as it is.
        seen = torch.cat([seen[:count], diversify(seen[count:], self.random, harsh)]) * 255
        total, log = drawn.new_zeros(()), {}
        for judge in self.judges:
            if judge.slow:
                pick = torch.randperm(count, generator=self.random)[: config.slow_people]
                pick = torch.cat([pick, pick + count])
                looked, whose = seen[pick], codes[pick]
            else:
                looked, whose = seen, codes
            loss, log[judge.name] = self._verify(judge, judge.embed(looked), whose)
            total = total + loss
        planes = disclosure_planes(drawn[:same].detach(), drawn[count : count + same])
        total = total + config.draw_weight * excess(planes, config.draw_bound)
        contrast = luminance(drawn).std((1, 2, 3))
        log["draw_similarity"] = [round(float(planes.detach().amax(1).mean()), 3)]
        log["contrast"] = [round(float(contrast.detach().mean()), 3)]
        if self.faces is not None and config.disclosure_weight:
            beside = config.disclosure_faces
            some = torch.randint(len(self.faces), (beside,), generator=self.random).numpy()
            planes = disclosure_planes(to_tensor(self.faces[some]), drawn[-beside:])
            log["disclosure"] = [round(float(planes.detach().amax(1).mean()), 3)]
            total = total + config.disclosure_weight * excess(planes, config.disclosure_bound)
        return total + 10 * F.relu(config.contrast_bound - contrast).mean(), log

    def _verify(self, judge: Judge, found: Tensor, codes: Tensor) -> tuple[Tensor, list[float]]:
        """Pictures as alike for one judge as their codes are, and a person's told from all others'.

        Others are those of the same step: templates kept from earlier steps are left behind by all
        pictures moving alike, which looks like progress and is none (``docs/experiments.md``).

        Args:
            judge: who looks.
            found: its embeddings, first pictures, then second ones, ``2n x D``.
            codes: what the pictures were drawn from, ``2n x size``.
        """
        config, count = self.config, len(found) // 2
        first, second = found[:count], found[count:]
        own = torch.eye(count, dtype=torch.bool)
        scores = judge.centred(first) @ judge.centred(second).T
        wanted = config.clarity * (codes[:count] @ codes[count:].T / config.code_size)
        pair = F.cross_entropy(scores / config.temperature, torch.arange(count))
        uneven = ((scores - wanted)[~own] / judge.centred_spread).square().mean()
        genuine = (scores - wanted)[own].square().mean() / judge.centred_spread
        raw = (first @ first.T)[~own]
        above = (raw - judge.threshold) / judge.spread
        near = F.softplus(4 * (above + config.threshold_margin)).mean() / 4
        loss = config.contrast_weight * pair + config.even_weight * uneven
        loss = loss + config.genuine_weight * genuine + config.threshold_weight * near
        follows = torch.corrcoef(torch.stack([scores[~own].detach(), wanted[~own]]))[0, 1]
        figures = (
            pair.item(),
            (scores[own] / wanted[own]).mean().item() * config.clarity,
            raw.mean().item(),
            raw.std().item(),
            follows.item(),
            (above > 0).float().mean().item(),
        )
        return loss, [round(x, 4) for x in figures]

    def save(self, path: Path) -> None:
        """Checkpoint, whole or not at all."""
        state = {
            "config": self.config.digest(),
            "step": self.step,
            "seconds": self.seconds,
            "generator": self.generator.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": self.random.get_state(),
        }
        save_checkpoint(path, state)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint.

        Raises:
            ValueError: the checkpoint is of another configuration.
        """
        state = load_checkpoint(path, self.config.digest(), "cpu")
        self.step, self.seconds = state["step"], state["seconds"]
        self.generator.load_state_dict(state["generator"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.random.set_state(state["random"])

    def run(self, folder: Path, log: Log) -> None:
        """Train until the time is up; ``checkpoint.pt`` in ``folder`` is gone on with."""
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint = folder / "checkpoint.pt"
        if checkpoint.exists():
            self.load(checkpoint)
        saved = self.seconds
        while self.seconds < 60 * self.config.minutes:
            entry = self.advance()
            if self.step % 10 == 0:
                log({**entry, "seconds": round(self.seconds, 1)})
            if self.seconds - saved > self.config.checkpoint_seconds:
                self.save(checkpoint)
                saved = self.seconds
        self.save(checkpoint)
