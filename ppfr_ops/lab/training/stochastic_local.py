"""Training of the learned anonymizer.

Two phases. *Sketch*: the generator learns to draw the local features (the high-pass) of a face from
its identity code, with no recognition model in the loop; minutes, and it puts the pictures where
FR models have something to say. *Match*: frozen surrogates must recognise every picture as the
person and two pictures of one person as each other, however it is shifted, blurred or re-encoded,
while disclosure against the original and likeness between draws are held under their bounds.

Nothing here looks at a face that is not in the training set; a tenth of it is kept back to choose
the checkpoint.

Long because it is one loop, with the state that it saves and goes on from.
"""

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ppfr_ops import torchscript
from ppfr_ops.imaging.arrays import Faces, chunks
from ppfr_ops.imaging.measures import disclosure, disclosure_planes, luminance, ssim
from ppfr_ops.lab.evaluate.attacks.networks import Attacker, recovery_loss, to_tensor
from ppfr_ops.lab.training.checkpoints import Checkpoint, follow, moved, set_rate
from ppfr_ops.memory import keep_freed_memory
from ppfr_ops.methods.stochastic_local import Codes, Model, save_weights
from ppfr_ops.methods.stochastic_local.files import SETTINGS
from ppfr_ops.methods.stochastic_local.networks import (
    DrawLayout,
    Generator,
    encoder_from_torchscript,
    lowpass,
    place,
)
from ppfr_ops.torchscript import bf16_pays

VALIDATION_NOISE = 0.8
"""Standard deviation of the noise on a validation face's code, in units of the code's own."""

Log = Callable[[dict[str, Any]], None]


class TrainConfig(BaseModel):
    """Everything that decides a run; committed beside the weights it made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 0
    batch: int = Field(24, ge=4, description="faces a step, each with two draws")
    sketch_steps: int = Field(400, ge=0)
    match_steps: int = Field(3000, ge=1)
    ramp_steps: int = Field(400, ge=1, description="steps over which the randomness grows")
    sketch_lr: float = Field(3e-3, gt=0)
    match_lr: float = Field(2e-3, gt=0)
    temperature: float = Field(0.1, gt=0, description="of the contrastive terms")
    code_noise: float = Field(
        0.5, ge=0, description="noise on the code, as two photos of a person differ"
    )
    sigma: float = Field(5.0, ge=0, description="px; low-pass taken out of the signal")
    field: float = Field(0.8, ge=0, description="random low-frequency field, logits")
    warp: float = Field(1.5, ge=0, description="random smooth displacement, px")
    pose: float = Field(1.0, ge=0, description="random shift, rotation and zoom")
    colour: float = Field(1.0, ge=0, le=1, description="share of the field that is coloured")
    mirror: bool = Field(False, description="mirror every other picture")
    refine: bool = Field(False, description="twice the weights in the generator")
    rivals: int = Field(
        0, ge=0, description="more faces to be told from: recent pictures, and all originals if > 0"
    )
    gain: float = Field(8.0, gt=0, description="of the high-pass that is sketched, logits")
    harsh: bool = Field(False, description="input diversity: harsher views, parts covered")
    anchor_weight: float = Field(0.0, ge=0, description="of the sketch while matching (L1)")
    disclosure_bound: float = Field(0.38, gt=0, le=1)
    draw_bound: float = Field(0.50, gt=0, le=1)
    disclosure_weight: float = Field(10.0, ge=0)
    draw_weight: float = Field(5.0, ge=0)
    contrast_bound: float = Field(0.13, gt=0, description="standard deviation of luminance")
    adversary_weight: float = Field(0.0, ge=0, description="of the reconstructor in the loop")
    adversary_updates: int = Field(2, ge=1, description="reconstructor updates a step")
    validate_every: int = Field(200, ge=1)
    checkpoint_seconds: float = Field(120, gt=0)

    # Switches of the ablation, (a) to (e).
    disrupt: bool = Field(True, description="(a) no low frequencies of the face, disclosure bound")
    local: bool = Field(True, description="(b) the sketch of local features, first and as anchor")
    stochastic: bool = Field(True, description="(c) noise, warp, pose and field from the draw")
    bottleneck: bool = Field(True, description="(d) the face is seen through its code alone")
    diversity: bool = Field(True, description="(e) several surrogates, diverse input")

    def digest(self) -> str:
        """sha256 of the configuration, hex."""
        text = json.dumps(self.model_dump(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Surrogate:
    """A frozen, differentiable FR model.

    ``embed`` takes RGB 0..255, ``N x 3 x 112 x 112``, and gives unit embeddings ``N x D``.
    """

    name: str
    embed: Callable[[Tensor], Tensor]
    embeddings: Tensor
    """Of all training faces, ``M x D``."""
    mean: Tensor
    """Of the training part; raw embeddings are not centred (dlib's impostors sit at 0.8)."""

    def centred(self, embeddings: Tensor) -> Tensor:
        return F.normalize(embeddings - self.mean, dim=1)


def load_surrogate(name: str, path: Path, faces: Faces, train: Tensor, device: str) -> Surrogate:
    """A TorchScript FR model and its embeddings of all faces.

    Raises:
        ValueError: not a readable TorchScript file.
    """
    try:
        script = torchscript.load(path, device).eval()
    except RuntimeError as error:
        raise ValueError(f"surrogate {name!r}: {path.name} is no TorchScript file") from error

    def embed(pixels: Tensor) -> Tensor:
        return F.normalize(script(pixels.contiguous()).float(), dim=1)

    if "net.b.0.c1.w" in dict(script.named_buffers()):
        encoder = place(encoder_from_torchscript(script), device)
        if bf16_pays(device):  # the same network, three times as fast
            for layer in (encoder.stem, encoder.blocks, encoder.head):
                layer.bfloat16()
        embed = encoder
    with torch.inference_mode():
        parts = [embed(to_tensor(faces[part]).to(device) * 255) for part in chunks(len(faces))]
    embeddings = torch.cat(parts).clone()
    return Surrogate(name, embed, embeddings, embeddings[train].mean(0))


def diversify(images: Tensor, generator: torch.Generator, harsh: bool = False) -> Tensor:
    """Input diversity: what an unseen model or codec might do to a picture before looking at it.

    Small similarity transforms and less contrast for every picture; blur for two batches in five,
    noise and mirroring for every second; ``N x 3 x H x W`` in 0..1.

    Args:
        harsh: wider in all of that, brighter or darker, every fifth batch at half to nearly full
            resolution, and in three of five a part of every picture covered. Pictures that are
            recognised under it do not hang on one place or scale, and other FR models follow them
            much better (``docs/experiments.md``).
    """
    count, side = len(images), images.shape[-1]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(images.device)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator).to(images.device)

    turn, scale, move = (0.07, 0.07, 0.045) if harsh else (0.05, 0.04, 0.03)
    angle, zoom = normal(count) * turn, torch.exp(normal(count) * scale)
    images = moved(images, angle, zoom, normal(count, 2) * move)
    lowest, span = (0.4, 0.7) if harsh else (0.5, 0.6)
    images = 0.5 + (images - 0.5) * (lowest + span * uniform(count, 1, 1, 1))
    blur, noise, sigma, mirror = torch.rand(4, generator=generator).tolist()
    if mirror < 0.5:
        images = images.flip(3)
    if blur < 0.4:
        images = lowpass(images, 0.4 + sigma * (1.4 if harsh else 1.0))
    if harsh:
        images = images + normal(count, 1, 1, 1) * 0.04
        resize, cover = torch.rand(2, generator=generator).tolist()
        if resize < 0.2:
            small = round(side * (0.5 + 0.35 * sigma))
            images = F.interpolate(images, (small, small), mode="bilinear", antialias=True)
            images = F.interpolate(images, (side, side), mode="bilinear")
        if cover < 0.6:
            images = _cover(images, uniform(count, 2), uniform(count, 2))
    if noise < 0.5:
        images = images + normal(*images.shape) * 0.03
    return images


def _cover(images: Tensor, place: Tensor, size: Tensor) -> Tensor:
    """A grey rectangle on every image, its sides a fifth to a half of the image's; ``place`` and
    ``size`` are ``N x 2`` in 0..1, down and right."""
    side = images.shape[-1]
    positions = torch.arange(side, device=images.device)
    reach = side * (0.1 + 0.15 * size)
    down, right = ((positions - side * place[:, i, None]).abs() < reach[:, i, None] for i in (0, 1))
    covered = down[:, None, :, None] & right[:, None, None, :]
    return torch.where(covered, 0.5, images)


def excess(planes: Tensor, bound: float) -> Tensor:
    """How far the strongest way of looking lies above the bound, and a share of all the others."""
    return F.relu(planes.amax(1) - bound).mean() + 0.05 * F.relu(planes - bound).sum(1).mean()


Rivals = tuple[Tensor, Tensor]
"""Templates that a picture must not be taken for, and boolean ``N x len(templates)``, where they
are of the very face and don't count."""


class Trainer:
    """One run: state, a step of either phase, validation, checkpoint.

    Args:
        faces: uint8 ``M x 112 x 112 x 3``; every tenth is kept back for validation.
        surrogates: TorchScript files by name; the first to be dlib's, whose network is the
            encoder as well.

    Raises:
        ValueError: too few faces, or no surrogate that can serve as the encoder.
    """

    def __init__(
        self,
        config: TrainConfig,
        faces: Faces,
        surrogates: dict[str, Path],
        device: Literal["cpu", "cuda"] = "cpu",
    ) -> None:
        keep_freed_memory()
        if len(faces) < 10 * config.batch:
            raise ValueError(f"{len(faces)} faces are too few; {10 * config.batch} at least")
        self.config, self.device, self.faces = config, device, faces
        index = torch.arange(len(faces))
        self.train, self.validation = index[index % 10 != 9], index[index % 10 == 9]
        if not config.diversity:
            surrogates = dict(list(surrogates.items())[:1])
        self.surrogates = [
            load_surrogate(name, path, faces, self.train, device)
            for name, path in surrogates.items()
        ]
        source = self.surrogates[0]
        if source.embeddings.shape[1] != 128:
            raise ValueError("the first surrogate must be the dlib network: it is the encoder")
        self.encoder = encoder_from_torchscript(torchscript.load(next(iter(surrogates.values()))))
        self.code = Codes().to(device)
        self.code.mean.copy_(source.mean)
        self.code.std.copy_((source.embeddings[self.train] - source.mean).std(0))
        self.codes = self.code(source.embeddings)
        torch.manual_seed(config.seed)
        given = {name: getattr(config, name) for name in SETTINGS}
        if not config.disrupt:
            given |= {"sigma": 0.0, "field": 0.0}
        self.generator = place(Generator(**given, sees_face=not config.bottleneck), device)
        self.generator.out.weight.data *= 4  # logits of some contrast from the first step on
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.generator.parameters(), config.match_lr, betas=(0.9, 0.99), weight_decay=1e-3
        )
        self.adversary: Attacker | None = None
        if config.adversary_weight:
            self.adversary = place(Attacker("unet"), device)
            self.adversary_optimizer = torch.optim.AdamW(self.adversary.parameters(), 1e-3)
        self.random = torch.Generator().manual_seed(config.seed)
        self.recent: dict[str, tuple[Tensor, Tensor]] = {}
        """Per surrogate, templates of the latest pictures and the faces that they are of."""
        self.step = 0
        self.best: dict[str, Any] = {}

    @property
    def steps(self) -> int:
        return self.config.sketch_steps * self.config.local + self.config.match_steps

    @property
    def phase(self) -> Literal["sketch", "match"]:
        sketching = self.config.local and self.step < self.config.sketch_steps
        return "sketch" if sketching else "match"

    def features(self, net: Generator, codes: Tensor, draws: Tensor, faces: Tensor) -> Tensor:
        """Local features by ``net``, logits, before a draw moves or veils them."""
        with self._mixed():
            return net.features(codes, draws, faces).float()

    def _mixed(self) -> torch.autocast:
        """Within it bfloat16 is used where it pays."""
        kind = torch.device(self.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=bf16_pays(self.device))

    def generate(
        self, net: Generator, codes: Tensor, draws: Tensor, ramp: float, faces: Tensor
    ) -> Tensor:
        """Pictures ``N x 3 x 112 x 112`` in 0..1 by ``net``; ``ramp``: share of the randomness."""
        if not self.config.stochastic:
            draws = torch.zeros_like(draws)
        return net.veil(self.features(net, codes, draws, faces), draws, ramp, ramp, ramp)

    def _draws(self, count: int) -> Tensor:
        if not self.config.stochastic:
            return torch.zeros(count, DrawLayout.SIZE, device=self.device)
        return torch.randn(count, DrawLayout.SIZE, generator=self.random).to(self.device)

    def _batch(self, size: int) -> tuple[Tensor, Tensor]:
        index = self.train[torch.randint(len(self.train), (size,), generator=self.random)]
        return index, to_tensor(self.faces[index.numpy()]).to(self.device)

    def advance(self) -> dict[str, Any]:
        """One optimiser step; what it measured."""
        log = self._sketch() if self.phase == "sketch" else self._match()
        nn.utils.clip_grad_norm_(self.generator.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        follow(self.average, self.generator, self.step, 0.995)
        return {"step": self.step, **log}

    def _sketch(self) -> dict[str, Any]:
        config = self.config
        done = self.step / config.sketch_steps
        rate = config.sketch_lr * min(1.0, (self.step + 1) / 30) * (1 - 0.8 * done)
        set_rate(self.optimizer, rate)
        index, faces = self._batch(2 * config.batch)
        target = self._target(faces)
        draws = self._draws(len(index))
        drawn = self.features(self.generator, self.codes[index], draws, faces).sigmoid()
        loss = 4 * F.l1_loss(drawn, target) + 20 * F.mse_loss(drawn, target)
        loss.backward()
        return {"phase": "sketch", "loss": loss.item()}

    def _target(self, faces: Tensor) -> Tensor:
        """What the sketch is of: the amplified high-pass, ``N x 1 x 112 x 112`` in 0..1."""
        light, sigma = luminance(faces), self.config.sigma
        return torch.sigmoid(self.config.gain * (light - (lowpass(light, sigma) if sigma else 0.5)))

    def _match(self) -> dict[str, Any]:
        config, count = self.config, self.config.batch
        step = self.step - config.sketch_steps * config.local
        cosine = 0.5 * (1 + math.cos(math.pi * step / config.match_steps))
        rate = config.match_lr * min(1.0, (step + 1) / 50) * (0.97 * cosine + 0.03)
        set_rate(self.optimizer, rate)
        index, faces = self._batch(count)
        noise = torch.rand(2 * count, 1, generator=self.random) * 2 * config.code_noise
        jitter = noise * torch.randn(2 * count, 128, generator=self.random)
        few = min(8, count)
        jitter[count : count + few] = jitter[:few]  # so that nothing but the draw tells them apart
        codes = self.codes[index].repeat(2, 1) + jitter.to(self.device)
        codes = F.normalize(codes, dim=1) * 128**0.5
        ramp = min(1.0, 0.1 + step / config.ramp_steps)
        twice = faces.repeat(2, 1, 1, 1)
        draws = self._draws(2 * count)
        if config.mirror:  # a mirrored picture is told apart for nothing; ask more than that
            sides = DrawLayout.split(draws)[2][:, 4]
            sides[count : count + few] = sides[:few]
        signal = self.features(self.generator, codes, draws, twice)
        drawn = self.generator.veil(signal, draws, ramp, ramp, ramp)
        seen = drawn + (torch.rand(drawn.shape, generator=self.random).to(drawn) - 0.5) / 255
        if config.diversity:
            seen = diversify(seen, self.random, config.harsh)
        log: dict[str, Any] = {"phase": "match"}
        loss = drawn.new_zeros(())
        same = torch.arange(count, device=self.device)
        for surrogate in self.surrogates:
            found = surrogate.centred(surrogate.embed(seen * 255))
            target = surrogate.centred(surrogate.embeddings[index])
            identity = 1 - (found * target.repeat(2, 1)).sum(1).mean()
            first, second = found[:count], found[count:]
            pictures, originals = self._rivals(surrogate, index)
            pair = _contrast(first, second, same, config.temperature, pictures)
            how = (target, same, config.temperature, originals)
            original = (_contrast(first, *how) + _contrast(second, *how)) / 2
            if config.rivals:
                self._remember(surrogate.name, first.detach(), index)
            loss = loss + identity + 0.5 * pair + 0.5 * original
            log[surrogate.name] = [identity.item(), pair.item(), original.item()]
        if config.disrupt:
            planes = disclosure_planes(faces[:few], drawn[:few])
            loss = loss + config.disclosure_weight * excess(planes, config.disclosure_bound)
            log["disclosure"] = planes.amax(1).mean().item()
        if config.stochastic:
            planes = disclosure_planes(drawn[:few].detach(), drawn[count : count + few])
            # before the randomness is up, draws are alike through no fault of the generator
            loss = loss + ramp * config.draw_weight * excess(planes, config.draw_bound)
            log["draw_similarity"] = planes.amax(1).mean().item()
        if config.anchor_weight and config.local:
            anchor = F.l1_loss(signal.sigmoid(), self._target(twice))
            loss = loss + config.anchor_weight * anchor
            log["anchor"] = anchor.item()
        contrast = luminance(drawn).std((1, 2, 3))
        loss = loss + 10 * F.relu(config.contrast_bound - contrast).mean()
        if self.adversary is not None:
            caught = self._adversary(drawn, twice)
            loss = loss + config.adversary_weight * caught
            log["adversary_ssim"] = caught.item()
        loss.backward()
        return {**log, "loss": loss.item()}

    def _rivals(self, surrogate: Surrogate, index: Tensor) -> tuple[Rivals | None, Rivals | None]:
        """Templates of other faces' recent pictures, and of all other faces."""
        if not self.config.rivals:
            return None, None
        originals = surrogate.centred(surrogate.embeddings[self.train])
        pictures = None
        if surrogate.name in self.recent:
            templates, whose = self.recent[surrogate.name]
            pictures = templates, whose[None] == index[:, None]
        return pictures, (originals, self.train[None] == index[:, None])

    def _remember(self, name: str, templates: Tensor, index: Tensor) -> None:
        before = self.recent.get(name, (templates[:0], index[:0]))
        pairs = zip((templates, index), before, strict=True)
        first, second = (torch.cat(pair)[: self.config.rivals] for pair in pairs)
        self.recent[name] = first, second

    def _adversary(self, drawn: Tensor, faces: Tensor) -> Tensor:
        """Let the reconstructor learn, then say how much of the faces it gets back (SSIM)."""
        assert self.adversary is not None
        for _ in range(self.config.adversary_updates):
            with self._mixed():
                recovered = self.adversary(drawn.detach())
            recovery_loss(recovered, faces).backward()
            self.adversary_optimizer.step()
            self.adversary_optimizer.zero_grad(set_to_none=True)
        self.adversary.requires_grad_(False)
        with self._mixed():
            recovered = self.adversary(drawn)
        self.adversary.requires_grad_(True)
        return ssim(recovered, faces, stride=2).mean()

    @torch.no_grad()
    def validate(self, count: int = 400) -> dict[str, Any]:
        """The averaged generator on faces kept back: verification of a face against its mirror
        image, each with noise on the code and a draw of its own (stand-in for two photos of a
        person; mirrored alone, they are told apart too easily to say anything), per surrogate, and
        disclosure, likeness of draws and contrast."""
        index = self.validation[:count]
        faces = self.faces[index.numpy()]
        source = self.surrogates[0]
        batches = list(chunks(len(index)))
        views = []
        for seed, seen in enumerate((faces, np.ascontiguousarray(faces[:, :, ::-1]))):
            random = torch.Generator().manual_seed(seed)
            draws = torch.randn(len(index), DrawLayout.SIZE, generator=random).to(self.device)
            noise = VALIDATION_NOISE * torch.randn(len(index), 128, generator=random)
            parts = []
            for part in batches:
                pixels = to_tensor(seen[part]).to(self.device)
                codes = self.code(source.embed(pixels * 255)) + noise[part].to(self.device)
                codes = F.normalize(codes, dim=1) * 128**0.5
                parts.append(self.generate(self.average, codes, draws[part], 1.0, pixels))
            views.append((torch.cat(parts) * 255).round() / 255)
        result: dict[str, Any] = {"step": self.step}
        accuracies = []
        for surrogate in self.surrogates:
            first, second = (
                torch.cat([surrogate.embed(view[part] * 255) for part in batches]) for view in views
            )
            original = surrogate.embeddings[index]
            accuracies.append(balanced_accuracy(first @ second.T))
            result[f"accuracy_{surrogate.name}"] = accuracies[-1]
            result[f"accuracy_original_{surrogate.name}"] = balanced_accuracy(first @ original.T)
        originals = to_tensor(faces[:200]).to(self.device)
        shown = disclosure_planes(originals, views[0][:200]).amax(1)
        result["disclosure"], result["disclosure_max"] = shown.mean().item(), shown.max().item()
        codes, some = self.codes[index[:200]], draws[:200]
        one = self.generate(self.average, codes, some, 1.0, originals)
        other = self.generate(self.average, codes, some.roll(1, 0), 1.0, originals)
        between = disclosure(one, other)
        result["draw_similarity"] = between.mean().item()
        result["contrast"] = luminance(views[0]).std((1, 2, 3)).mean().item()
        above = max(0.0, result["disclosure"] - 0.45) + max(0.0, result["draw_similarity"] - 0.6)
        result["score"] = float(np.mean(accuracies)) - 2 * above
        return result

    def start_from(self, path: Path) -> None:
        """Begin with the generator of finished weights.

        Raises:
            FileNotFoundError, ValueError: not weights of this method.
        """
        weights = Model(path, self.device).generator.state_dict()
        for net in (self.generator, self.average):
            missing, unknown = net.load_state_dict(weights, strict=False)
            if unknown or any(not name.startswith("branches.") for name in missing):
                raise ValueError(f"{path.name} holds a generator of another make")

    def _checkpoint(self, path: Path) -> Checkpoint:
        parts = {"generator": self.generator, "average": self.average, "optimizer": self.optimizer}
        if self.adversary is not None:
            parts |= {"adversary": self.adversary, "its optimizer": self.adversary_optimizer}
        return Checkpoint(path, self.config.digest(), parts)

    def save(self, path: Path) -> None:
        """Checkpoint, whole or not at all."""
        random = self.random.get_state()
        self._checkpoint(path).save(
            step=self.step, random=random, recent=self.recent, best=self.best
        )

    def load(self, path: Path) -> None:
        """Continue from a checkpoint, if it is there.

        Raises:
            ValueError: the checkpoint is of another configuration.
        """
        state = self._checkpoint(path).load(self.device)
        if state is not None:
            self.step, self.recent, self.best = state["step"], state["recent"], state["best"]
            self.random.set_state(state["random"].cpu())

    def run(self, folder: Path, log: Log) -> dict[str, Any]:
        """Train to the end; checkpoint to ``folder``, the best weights as ``best.safetensors``.

        Returns:
            the best validation.
        """
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint = folder / "checkpoint.pt"
        self.load(checkpoint)
        saved = began = time.monotonic()
        while self.step < self.steps:
            entry = self.advance()
            if self.step % 20 == 0 or self.step == self.steps:
                log({**entry, "seconds": round(time.monotonic() - began, 1)})
            due = time.monotonic() - saved > self.config.checkpoint_seconds
            if self.phase == "match" and (
                self.step % self.config.validate_every == 0 or self.step == self.steps
            ):
                due, result = True, self.validate()
                log({"validation": result})
                if result["score"] > self.best.get("score", -math.inf):
                    self.best = result
                    self.export(folder / "best.safetensors")
            if due:
                self.save(checkpoint)
                saved = time.monotonic()
        return self.best

    def export(self, path: Path) -> None:
        """The averaged generator with encoder and codes, as the method loads them."""
        about = {
            "config": self.config.model_dump(mode="json"),
            "step": self.step,
            "validation": self.best,
            "surrogates": [surrogate.name for surrogate in self.surrogates],
        }
        draft = path.with_suffix(".part")
        save_weights(draft, self.encoder, self.code, self.average, about)
        draft.replace(path)


def _contrast(
    a: Tensor, b: Tensor, same: Tensor, temperature: float, rivals: Rivals | None = None
) -> Tensor:
    """Contrastive loss both ways (InfoNCE): every face must find its own among the batch, and
    ``a`` among the rivals too."""
    scores = a @ b.T / temperature
    forth = scores
    if rivals is not None:
        templates, own = rivals
        more = (a @ templates.T / temperature).masked_fill(own, -math.inf)
        forth = torch.cat([scores, more], 1)
    return (F.cross_entropy(forth, same) + F.cross_entropy(scores.T, same)) / 2


def balanced_accuracy(scores: Tensor) -> float:
    """Best mean of genuine and impostor accuracy over thresholds; ``N x N``, genuine diagonal."""
    genuine = scores.diag()
    impostor = scores[~torch.eye(len(scores), dtype=torch.bool, device=scores.device)]
    thresholds = torch.quantile(genuine, torch.linspace(0, 1, 101, device=scores.device))
    accept = (genuine >= thresholds[:, None]).float().mean(1)
    reject = torch.stack([(impostor < threshold).float().mean() for threshold in thresholds])
    return float(((accept + reject) / 2).max())
