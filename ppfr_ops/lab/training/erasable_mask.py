"""Training of the mask: pictures that FR models take for somebody else, and the eye for the same.

After ErasableMask (Shen et al., arXiv 2412.17038): a generator that is trained against frozen
surrogates with meta-learning over them (in every step one of them is kept apart and asked after a
virtual step on the others: MLDG, Li et al., AAAI 2018, to first order), input diversity (Xie et
al., CVPR 2019), and a curriculum: at first the picture may change a lot and is looked at as it is,
at the end it may change little and is looked at after shifts, scalings, blur, noise and JPEG.

Unlike the paper's, our pictures are not what the original is got back from; that is the vault's
job.
"""

import copy
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.func import functional_call

from ppfr_ops import torchscript
from ppfr_ops.imaging.measures import ssim
from ppfr_ops.lab.training.checkpoints import follow, load_checkpoint, moved, save_checkpoint
from ppfr_ops.methods.erasable_mask import load_weights, save_weights
from ppfr_ops.methods.erasable_mask.network import MaskGenerator

Log = Callable[[dict[str, Any]], None]
Faces = NDArray[np.uint8]


class MaskConfig(BaseModel):
    """Everything that decides a run; committed beside the weights it made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 0
    batch: int = Field(16, ge=2, description="faces a step")
    steps: int = Field(900, ge=1)
    lr: float = Field(2e-3, gt=0)
    universal_steps: int = Field(0, ge=0, description="first, the pattern for all faces alone")
    universal_lr: float = Field(0.05, gt=0)
    inner_lr: float = Field(0.02, ge=0, description="length of the virtual step")
    meta_weight: float = Field(1.0, ge=0, description="of the surrogate kept apart")
    meta_every: int = Field(2, ge=1, description="steps; in between, none is kept apart")
    together: int = Field(
        1, ge=1, description="surrogates a step besides the one kept apart, at most"
    )
    odds: dict[str, float] = Field({}, description="of a surrogate to be drawn; 1 if not named")
    faces: int = Field(4000, ge=20, description="that are trained with, out of all")
    bound: float = Field(0.16, gt=0, le=1, description="of the perturbation, share of the scale")
    width: int = Field(48, ge=8, multiple_of=8)
    margin: float = Field(0.4, ge=0, le=1, description="centred cosine of -margin is far enough")
    ssim_start: float = Field(0.75, gt=0, le=1, description="what the picture may lose at first")
    ssim_end: float = Field(0.89, gt=0, le=1, description="and once the curriculum is over")
    ssim_weight: float = Field(8.0, ge=0)
    ramp: float = Field(0.5, gt=0, le=1, description="share of the steps the curriculum takes")
    validate_every: int = Field(150, ge=1)
    validate_faces: int = Field(192, ge=8)

    def digest(self) -> str:
        """sha256 of the configuration, hex."""
        text = json.dumps(self.model_dump(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Surrogate:
    """A frozen, differentiable FR model; RGB 0..1, ``N x 3 x 112 x 112``, to ``N x D``, centred
    (raw embeddings are not: dlib's impostors sit at 0.8) and of unit length."""

    name: str
    model: torch.jit.ScriptModule
    mean: Tensor
    known: Tensor
    """Of all faces, as they are; ``M x D``."""

    def __call__(self, faces: Tensor) -> Tensor:
        found = F.normalize(self.model((faces * 255).contiguous()).float(), dim=1)
        return F.normalize(found - self.mean, dim=1)


def load_surrogate(name: str, path: Path, faces: Faces, device: str) -> Surrogate:
    """A TorchScript FR model.

    Args:
        faces: uint8 ``M x 112 x 112 x 3``.

    Raises:
        ValueError: not a readable TorchScript file.
    """
    try:
        model = torchscript.frozen(torchscript.load(path, device).eval())
    except RuntimeError:
        raise ValueError(f"surrogate {name!r}: {path.name} is no TorchScript file") from None
    with torch.no_grad():
        parts = [
            F.normalize(model(to_pixels(faces[i : i + 32]).to(device) * 255).float(), dim=1)
            for i in range(0, len(faces), 32)
        ]
    raw = torch.cat(parts)
    return Surrogate(name, model, raw.mean(0), F.normalize(raw - raw.mean(0), dim=1))


def views(pictures: Tensor, random: torch.Generator, strength: float) -> Tensor:
    """Input diversity: what happens to a picture before an FR model sees it.

    Small similarity transforms and contrast for every picture; a blur, a lower resolution or
    JPEG (straight-through: its gradient is taken for that of the identity) for the batch; noise.

    Args:
        pictures: ``N x 3 x H x W`` in 0..1.
        strength: 0: as it is; 1: all of it.
    """
    count, side = len(pictures), pictures.shape[-1]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random).to(pictures.device) * strength

    angle, zoom = normal(count) * 0.05, torch.exp(normal(count) * 0.05)
    shift = normal(count, 2) * 0.035
    seen = moved(pictures, angle, zoom, shift)
    contrast = torch.exp(normal(count, 1, 1, 1) * 0.15)
    seen = 0.5 + (seen - 0.5) * contrast
    mirror, what, how = torch.rand(3, generator=random).tolist()
    if mirror < 0.5:
        seen = seen.flip(3)
    if what < 0.25 * strength:
        seen = blur(seen, 0.5 + 1.0 * how)
    elif what < 0.5 * strength:
        small = round(side * (0.5 + 0.4 * how))
        seen = F.interpolate(seen, (small, small), mode="bilinear", antialias=True)
        seen = F.interpolate(seen, (side, side), mode="bilinear")
    elif what < 0.75 * strength:
        seen = seen + (through_jpeg(seen.detach(), round(50 + 45 * how)) - seen.detach())
    return seen + normal(*seen.shape) * 0.015


def blur(pictures: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of ``N x C x H x W``; sigma in px."""
    radius = math.ceil(3 * sigma)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32, device=pictures.device)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(pictures.shape[1], 1, 1, -1)
    padded = F.pad(pictures, (radius, radius, radius, radius), mode="reflect")
    rows = F.conv2d(padded, kernel, groups=pictures.shape[1])
    return F.conv2d(rows, kernel.transpose(2, 3), groups=pictures.shape[1])


def through_jpeg(pictures: Tensor, quality: int) -> Tensor:
    """``N x 3 x H x W`` in 0..1, encoded and decoded; has no gradient."""
    arrays = (pictures.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    decoded = []
    for array in arrays:
        _, data = cv2.imencode(".jpg", array[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert picture is not None
        decoded.append(picture[..., ::-1])
    found = torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).float() / 255
    return found.to(pictures.device)


def masked(faces: Tensor, perturbation: Tensor) -> Tensor:
    """The picture: within the scale, and with the gradient of the sum even where it is cut off."""
    total = faces + perturbation
    return total + (total.clamp(0, 1) - total).detach()


def to_pixels(faces: Faces) -> Tensor:
    """uint8 ``N x H x W x 3`` to float ``N x 3 x H x W`` in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(faces)).permute(0, 3, 1, 2).float() / 255


class MaskTrainer:
    """One run: state, a step, validation, checkpoint.

    Args:
        config: what to do.
        faces: uint8 ``M x 112 x 112 x 3``; every tenth is kept back for validation.
        surrogates: TorchScript files by name, two at least.
        device: where it runs.

    Raises:
        ValueError: too few faces or surrogates.
    """

    def __init__(
        self,
        config: MaskConfig,
        faces: Faces,
        surrogates: Mapping[str, Path],
        device: Literal["cpu", "cuda"] = "cpu",
    ) -> None:
        if len(faces) < 10 * config.batch:
            raise ValueError(f"{len(faces)} faces are too few; {10 * config.batch} at least")
        if len(surrogates) < 2:
            raise ValueError("two surrogates at least: one is kept apart in every step")
        chosen = np.random.default_rng(config.seed).permutation(len(faces))[: config.faces]
        self.config, self.device, self.faces = config, device, faces[np.sort(chosen)]
        index = np.arange(len(self.faces))
        self.train, self.validation = index[index % 10 != 9], index[index % 10 == 9]
        self.random = torch.Generator().manual_seed(config.seed)
        torch.manual_seed(config.seed)
        self.surrogates = [load_surrogate(n, p, self.faces, device) for n, p in surrogates.items()]
        self.odds = torch.tensor([config.odds.get(name, 1.0) for name in surrogates])
        self.generator = MaskGenerator(config.bound, config.width).to(device)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        pattern = self.generator.universal
        rest = [value for value in self.generator.parameters() if value is not pattern]
        groups = [{"params": rest, "scale": 1.0}]
        groups += [{"params": [pattern], "scale": config.universal_lr / config.lr}]
        self.optimizer = torch.optim.AdamW(groups, config.lr, betas=(0.9, 0.99), weight_decay=0)
        self.step = 0

    def advance(self) -> dict[str, Any]:
        """One optimiser step; what it measured."""
        config = self.config
        done = self.step / config.steps
        grown = min(1.0, done / config.ramp)
        floor = config.ssim_start + (config.ssim_end - config.ssim_start) * grown
        rate = config.lr * min(1.0, (self.step + 1) / 20) * (0.52 + 0.48 * math.cos(math.pi * done))
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        index, faces = self._batch()
        count = min(config.together + 1, len(self.surrogates))
        drawn = torch.multinomial(self.odds, count, generator=self.random)
        apart, *rest = (self.surrogates[i] for i in drawn.tolist())
        log: dict[str, Any] = {"step": self.step + 1}

        if self.step < config.universal_steps:
            drawn_alike = self.generator(faces, universal=True)
            loss = self._loss(drawn_alike, index, faces, rest, floor, grown, log)
            loss.backward()
        else:
            loss = self._meta_step(index, faces, rest, apart, floor, grown, log)
        nn.utils.clip_grad_norm_(self.generator.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        follow(self.average, self.generator, self.step, 0.99)
        return {**log, "loss": loss.item()}

    def _meta_step(
        self,
        index: NDArray[np.int64],
        faces: Tensor,
        rest: list[Surrogate],
        apart: Surrogate,
        floor: float,
        grown: float,
        log: dict[str, Any],
    ) -> Tensor:
        """Gradients of the loss, and every so often of what the surrogate kept apart says after a
        step along them."""
        config = self.config
        weights = dict(self.generator.named_parameters())
        loss = self._loss(self.generator(faces), index, faces, rest, floor, grown, log)
        gradients = torch.autograd.grad(loss, list(weights.values()))
        if self.step % config.meta_every == 0:
            length = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
            ahead = {
                name: (value - config.inner_lr * g / (length + 1e-8)).detach().requires_grad_()
                for (name, value), g in zip(weights.items(), gradients, strict=True)
            }
            drawn: Tensor = functional_call(self.generator, ahead, (faces,))
            meta = self._loss(drawn, index, faces, [apart], floor, grown, log)
            more = torch.autograd.grad(meta, list(ahead.values()))
            gradients = tuple(
                g + config.meta_weight * h for g, h in zip(gradients, more, strict=True)
            )
            log["meta"] = meta.item()
        for value, g in zip(weights.values(), gradients, strict=True):
            value.grad = g
        return loss

    def _batch(self) -> tuple[NDArray[np.int64], Tensor]:
        pick = torch.randint(len(self.train), (self.config.batch,), generator=self.random)
        index = self.train[pick.numpy()]
        return index, to_pixels(self.faces[index]).to(self.device)

    def _loss(
        self,
        drawn: Tensor,
        index: NDArray[np.int64],
        faces: Tensor,
        surrogates: list[Surrogate],
        floor: float,
        strength: float,
        log: dict[str, Any],
    ) -> Tensor:
        pictures = masked(faces, drawn)
        likeness = ssim(faces, pictures)
        loss = self.config.ssim_weight * F.relu(floor - likeness).mean()
        seen = views(pictures, self.random, strength)
        for surrogate in surrogates:
            cosine = (surrogate(seen) * surrogate.known[index]).sum(1)
            loss = loss + F.relu(cosine + self.config.margin).mean() / len(surrogates)
            log[surrogate.name] = cosine.mean().item()
        log["ssim"] = likeness.mean().item()
        return loss

    @torch.no_grad()
    def validate(self) -> dict[str, Any]:
        """The averaged generator on faces kept back: SSIM (mean and 5th percentile) and centred
        cosine to the original per surrogate, pictures rounded to 8 bits."""
        index = self.validation[: self.config.validate_faces]
        result: dict[str, Any] = {"step": self.step}
        likeness: list[Tensor] = []
        cosines: dict[str, list[Tensor]] = {surrogate.name: [] for surrogate in self.surrogates}
        for start in range(0, len(index), 32):
            part = index[start : start + 32]
            faces = to_pixels(self.faces[part]).to(self.device)
            alone = self.step <= self.config.universal_steps
            pictures = (masked(faces, self.average(faces, alone)) * 255).round() / 255
            likeness.append(ssim(faces, pictures))
            for surrogate in self.surrogates:
                cosine = (surrogate(pictures) * surrogate.known[part]).sum(1)
                cosines[surrogate.name].append(cosine)
        all_likeness = torch.cat(likeness)
        result["ssim"] = all_likeness.mean().item()
        result["ssim_p05"] = torch.quantile(all_likeness, 0.05).item()
        for name, parts in cosines.items():
            result[f"cosine_{name}"] = torch.cat(parts).mean().item()
        return result

    def save(self, path: Path) -> None:
        """Checkpoint, whole or not at all."""
        state = {
            "config": self.config.digest(),
            "step": self.step,
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
        state = load_checkpoint(path, self.config.digest(), self.device)
        self.step = state["step"]
        self.generator.load_state_dict(state["generator"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.random.set_state(state["random"].cpu())

    def start_from(self, path: Path) -> None:
        """Begin with the generator of finished weights.

        Raises:
            FileNotFoundError, ValueError: not weights of this method.
        """
        weights = load_weights(path).state_dict()
        for net in (self.generator, self.average):
            net.load_state_dict(weights)

    def export(self, path: Path, validation: Mapping[str, Any]) -> None:
        """The averaged generator, as the method loads it."""
        about = {
            "config": self.config.model_dump(mode="json"),
            "step": self.step,
            "validation": dict(validation),
            "surrogates": [surrogate.name for surrogate in self.surrogates],
        }
        draft = path.with_suffix(".part")
        save_weights(draft, self.average, about)
        os.replace(draft, path)

    def run(self, folder: Path, log: Log) -> dict[str, Any]:
        """Train to the end; checkpoints to ``folder``, weights as ``best.safetensors``.

        Returns:
            the last validation.
        """
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint = folder / "checkpoint.pt"
        if checkpoint.exists():
            self.load(checkpoint)
        began, result = time.monotonic(), {}
        while self.step < self.config.steps:
            entry = self.advance()
            if self.step % 10 == 0:
                log({**entry, "seconds": round(time.monotonic() - began, 1)})
            if self.step % self.config.validate_every == 0 or self.step == self.config.steps:
                result = self.validate()
                log({"validation": result})
                self.export(folder / "best.safetensors", result)
                self.save(checkpoint)
        return result
