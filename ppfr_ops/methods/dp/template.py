"""Noise on the identity code, which the generator then draws: the whole picture inherits epsilon.

The code of ``stochastic-local`` (version 1, 128 numbers) is reduced to its ``SIZE`` strongest
directions among public faces, weighted by the fourth root of their variance downwards, scaled to
length 1, noised, estimated back (Wiener), and drawn. Whatever an attacker does with a picture, or
with several, is post-processing.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.numpy import load_file
from torch import Tensor

from ppfr_ops.imaging.arrays import Faces, unit
from ppfr_ops.methods.base import Output, file_digest
from ppfr_ops.methods.dp.drawing import Drawn
from ppfr_ops.methods.dp.mechanism import Vectors
from ppfr_ops.methods.registry import register
from ppfr_ops.methods.stochastic_local import StochasticLocal

DIRECTIONS = Path(__file__).parent / "directions.safetensors"
"""Made by ``bench/dp_basis.py`` from UTKFace."""
SIZE = 16
"""Directions of the code that are kept: fewer lose identity, more drown it in noise. Chosen at
epsilon 100 on templates of people who are in no test set."""


class Directions:
    """``into`` (``128 x SIZE``), ``back`` (``SIZE x 128``), ``prior`` (``SIZE``, variances)."""

    def __init__(self, path: Path) -> None:
        found = {name: value.astype(np.float64) for name, value in load_file(path).items()}
        weights = found["variance"] ** -0.25
        self.into = found["axes"].T * weights
        self.back = found["axes"] / weights[:, None]
        self.prior = found["prior"]

    def vectors(self, codes: Vectors) -> Vectors:
        """Codes, ``N x 128``, to vectors of length 1, ``N x SIZE``."""
        return unit(codes @ self.into)

    def codes(self, vectors: Vectors, deviation: float) -> Vectors:
        """Noised vectors to what the generator takes, ``N x 128``, length sqrt(128).

        Args:
            deviation: of the noise; 0: there is none.
        """
        estimate = vectors * (self.prior / (self.prior + deviation**2))
        codes = estimate @ self.back
        lengths = np.maximum(np.linalg.norm(codes, axis=1, keepdims=True), 1e-12)
        return codes * (codes.shape[1] ** 0.5 / lengths)


@lru_cache(maxsize=1)
def directions() -> Directions:
    """The shipped ones."""
    return Directions(DIRECTIONS)


@register("dp-template")
class Template(Drawn):
    def generator(self) -> StochasticLocal:
        return self._drawing("original")

    def weights_digest(self) -> str:
        return super().weights_digest() + file_digest(DIRECTIONS)

    def clipped(self, codes: Tensor) -> Tensor:
        return F.normalize(codes @ torch.from_numpy(directions().into).to(codes), dim=1)

    def vectors(self, faces: Faces) -> Vectors:
        return directions().vectors(self.encoded(faces))

    def anonymize(self, faces: Faces, draws: NDArray[np.float32]) -> Output:
        mechanism = self.mechanism()
        noised = mechanism.private(self.vectors(faces))
        codes = directions().codes(noised, mechanism.deviation)
        return Output(self.drawn(codes, draws), self.figures(len(faces)))
