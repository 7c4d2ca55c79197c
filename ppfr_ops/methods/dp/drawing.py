"""Private vectors to pictures by the generator of ``stochastic-local``: post-processing."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from ppfr_ops import sample
from ppfr_ops.imaging.arrays import Faces, in_chunks
from ppfr_ops.methods.dp.base import Private
from ppfr_ops.methods.dp.mechanism import Vectors
from ppfr_ops.methods.stochastic_local import STRENGTHS, StochasticLocal

_ELSEWHERE = frozenset({"weights", "device", "batch"})
"""Options that do not shape the output, or name a path."""
_PUSHES, _PUSH = 30, 4.0
"""Steps of the descent on pixels, and how far one goes, grey levels."""


class Drawn(Private):
    """A method whose private vector is drawn by the generator."""

    strength: Literal["strict", "standard", "useful"] = Field(
        "standard", description="how far draws of one code lie apart: strict, standard or useful"
    )
    weights: Path | None = Field(None, description="weights of one's own, from ppfr train")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where it runs")
    batch: int = Field(64, ge=1, le=4096, description="faces a forward pass")

    def generator(self) -> StochasticLocal:
        """The method whose encoder and generator are used."""
        raise NotImplementedError

    def _drawing(self, identity: str) -> StochasticLocal:
        """That method with the options that both have."""
        shared = {name: getattr(self, name) for name in ("strength", *_ELSEWHERE)}
        return StochasticLocal.model_validate({"identity": identity, **shared})

    @property
    def draw_size(self) -> int:
        return self.generator().draw_size

    def options(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude=set(_ELSEWHERE))

    def weights_digest(self) -> str:
        return self.generator().weights_digest()

    def forget(self) -> None:
        self.generator().forget()

    def encoded(self, faces: Faces) -> Vectors:
        """The encoder's vectors, ``N x 128``."""
        model = self.generator().model()
        with torch.inference_mode():
            found = in_chunks(lambda part: model.encode(part).cpu(), faces, size=self.batch)
        return found.astype(np.float64)

    def clipped(self, codes: Tensor) -> Tensor:
        """The encoder's vectors, ``N x 128``, to those that are noised, of length 1."""
        return F.normalize(codes, dim=1)

    def neighbours(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Two pictures whose vectors are as opposite as descent on their pixels makes them, from
        drawn faces on."""
        model = self.generator().model()
        begin = torch.from_numpy(sample.faces(2)).permute(0, 3, 1, 2).to(model.device)
        pixels = begin.float().requires_grad_()
        optimizer = torch.optim.Adam([pixels], _PUSH)
        for _ in range(_PUSHES):
            one, other = self.clipped(model.encode_pixels(pixels.clamp(0, 255)))
            optimizer.zero_grad()
            torch.dot(one, other).backward()
            optimizer.step()
        found = pixels.detach().clamp(0, 255).round().permute(0, 2, 3, 1).cpu().numpy()
        one_face, other_face = np.ascontiguousarray(found.astype(np.uint8))
        return one_face, other_face

    def readings(self, pictures: Faces) -> NDArray[np.float64]:
        """What the encoder sees in the pictures, as the vectors that are noised."""
        found = self.clipped(torch.from_numpy(self.encoded(pictures)).float())
        self.forget()
        return found.double().numpy()

    def drawn(self, codes: NDArray[np.floating[Any]], draws: NDArray[np.float32]) -> Faces:
        """Codes of the generator, ``N x size``, to pictures."""
        model, scales = self.generator().model(), STRENGTHS[self.strength]

        def pictures(codes: NDArray[np.float32], draws: NDArray[np.float32]) -> Tensor:
            code, draw = (torch.from_numpy(part).to(model.device) for part in (codes, draws))
            return model.publish(code, draw, scales).permute(0, 2, 3, 1).cpu()

        with torch.inference_mode():
            return in_chunks(pictures, codes.astype(np.float32), draws, size=self.batch)
