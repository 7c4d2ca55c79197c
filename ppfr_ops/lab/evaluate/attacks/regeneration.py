"""A decoder that draws faces which recognisers take for the person.

It sees a published picture and the templates of it, and is trained on other people's faces to give
the original (L1 and SSIM) and, above all, a face with the original's templates. SSIM does not
notice such faces; anyone who holds a recogniser does.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppfr_ops import torchscript
from ppfr_ops.imaging.arrays import Faces, in_chunks
from ppfr_ops.lab.evaluate.attacks.networks import (
    Attacker,
    mean_tensor,
    recovery_loss,
    to_tensor,
    to_uint8,
)
from ppfr_ops.lab.evaluate.learning import fit, new
from ppfr_ops.recognizers import Embeddings, Recognizer
from ppfr_ops.torchscript import bf16_pays

IDENTITY_WEIGHT = 1.0


def differentiable(model: Recognizer) -> nn.Module | None:
    """The FR model as a module that gradients pass through, frozen; None for an ONNX file."""
    if Path(model.spec.path).suffix not in (".pt", ".ts"):
        return None
    module: nn.Module = torchscript.load(model.spec.path).eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module


def _templates(module: nn.Module, model: Recognizer, faces: Tensor) -> Tensor:
    """Templates of float ``N x 3 x 112 x 112`` in 0..1, by the model's convention; ``N x D``."""
    if model.spec.channels == "bgr":
        faces = faces.flip(1)
    pixels = faces * 255
    if model.spec.convention == "arcface":
        pixels = (pixels - 127.5) / 127.5
    return F.normalize(module(pixels).flatten(1), dim=1)


class Decoder:
    """Picture and templates to a face.

    Args:
        teachers: FR models that the identity loss uses, by name, with their modules.
        context: length of the templates of a picture, all models side by side.
        seed: of weights and batches.
        batch: faces a step.
    """

    def __init__(
        self,
        teachers: Mapping[str, tuple[Recognizer, nn.Module]],
        context: int,
        seed: int,
        batch: int = 32,
    ) -> None:
        self.teachers, self.batch = teachers, batch
        model = new(lambda: Attacker("unet", 3, context), seed)
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def train(
        self,
        seen: Faces,
        known: Embeddings,
        originals: Faces,
        targets: Mapping[str, Embeddings],
        **how: Any,
    ) -> None:
        """Train on pairs.

        Args:
            seen: published, uint8 ``N x 112 x 112 x 3``.
            known: templates of them, ``N x context``.
            originals: uint8, as ``seen``.
            targets: templates of the originals by each teacher.
            how: of :func:`ppfr_ops.lab.evaluate.learning.fit`.
        """
        first = slice(0, 256)
        context = torch.from_numpy(known)
        self.model.calibrate(to_tensor(seen[first]), context, to_tensor(originals[first]))
        self.model.base.copy_(mean_tensor(originals))
        # what all faces share must not count as likeness
        centres = {name: torch.from_numpy(part.mean(0)) for name, part in targets.items()}
        size = min(self.batch, len(seen))

        def loss_of(rng: np.random.Generator) -> Tensor:
            rows = rng.choice(len(seen), size, replace=False)
            drawn = self._draw(seen[rows], known[rows])
            loss = recovery_loss(drawn, to_tensor(originals[rows]))
            for name, (model, module) in self.teachers.items():
                got = _templates(module, model, drawn.clamp(0, 1)) - centres[name]
                wanted = torch.from_numpy(targets[name][rows]) - centres[name]
                likeness = F.cosine_similarity(got, wanted).mean()
                loss = loss + IDENTITY_WEIGHT / len(self.teachers) * (1 - likeness)
            return loss

        fit(self.model, loss_of, weight_decay=1e-4, **how)

    def _draw(self, seen: Faces, known: Embeddings) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16_pays("cpu")):
            out: Tensor = self.model(to_tensor(seen), torch.from_numpy(known))
        return out.float()

    @torch.inference_mode()
    def draw(self, seen: Faces, known: Embeddings) -> Faces:
        """Faces for published pictures; uint8 ``N x 112 x 112 x 3``."""
        return in_chunks(lambda *part: to_uint8(self._draw(*part)), seen, known)
