"""The one place where a vector of a face becomes private: clip, round inwards, add exact noise.

A vector is scaled into a ball (L1 for Laplace, L2 for Gaussian noise), multiplied by a power of two
and rounded towards zero, which no norm survives larger than it was. So two neighbours differ by at
most twice an integer radius, and no float can break that. Noise is discrete, by OpenDP's exact
samplers (Canonne, Kamath and Steinke 2020, algorithms 1 to 3) from the operating system's CSPRNG:
what floats leak through their gaps (Mironov 2012) is not there to leak. All else is
post-processing.

Laplace: OpenDP's own map of the measurement is asked for epsilon, which is exact. Gaussian: its
standard deviation is the analytic mechanism's (Balle and Wang 2018), by dp-accounting, times
``1 + SLACK``, in which the grid is accounted for: a step is 2^-24 of the deviation or less, so
within 40 deviations each of d densities is within 2^-48 * 40^2 / 24 of the continuous noise's
rounded to the grid, and epsilon is off by less than d * 2^-40, where the slack gives about 1e-5 of
it. OpenDP's own zero-concentrated bound, which is proven for the discrete noise itself and looser,
stands beside it in the tests.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppfr_ops.errors import require
from ppfr_ops.privacy import Loss, Noise, gaussian_scale

SLACK = 1e-5
"""By how much the deviation of Gaussian noise is above the accountant's."""

_BITS = 24
"""A step of the grid is 2^-24 of the noise's scale or less."""
_MARGIN = 1e-9
"""Relative; what rounding in a norm could hide many times over."""

Vectors = NDArray[np.float64]
"""``N x d``."""


@dataclass(frozen=True)
class Mechanism:
    """Noise for one vector a record, of norm 1 at most.

    Args:
        noise: ``laplace`` (norm L1) or ``gaussian`` (norm L2).
        epsilon: of the record, more than 0.
        delta: of the record; Laplace needs none.
    """

    noise: Noise
    epsilon: float
    delta: float

    @property
    def scale(self) -> float:
        """Scale of the Laplace noise, or standard deviation of the Gaussian, for norms of at most
        1. Neighbours differ by 2.

        Raises:
            UserError: dp-accounting is not installed.
        """
        if self.noise == "laplace":
            return 2.0 / self.epsilon
        return 2.0 * gaussian_scale(self.epsilon, self.delta) * (1 + SLACK)

    @property
    def deviation(self) -> float:
        """Standard deviation of a coordinate's noise."""
        return self.scale * (2**0.5 if self.noise == "laplace" else 1.0)

    @property
    def loss(self) -> Loss:
        """What one record costs."""
        if self.noise == "laplace":
            return Loss(pure=self.epsilon)
        return Loss(square=(2.0 / self.scale) ** 2)

    @property
    def radius(self) -> int:
        """The norm 1 in steps of the grid."""
        return 1 << (_BITS + max(0, math.ceil(-math.log2(self.scale))))

    def private(self, vectors: Vectors) -> Vectors:
        """Clipped and noised. Total: whatever is given, something of the right shape comes back,
        for what fails would tell of the face by failing.

        Args:
            vectors: ``N x d``.

        Returns:
            ``N x d``, in the unit of the clipped vectors.

        Raises:
            UserError: OpenDP is not installed.
        """
        values = sample(self, self.clipped(vectors).ravel().tolist())
        return np.array(values, np.float64).reshape(vectors.shape) / self.radius

    def clipped(self, vectors: Vectors) -> NDArray[np.int64]:
        """In steps of the grid; norm ``radius`` at most."""
        finite = np.nan_to_num(vectors.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        finite = np.clip(finite, -1e100, 1e100)
        order = 1 if self.noise == "laplace" else 2
        norms = np.linalg.norm(finite, order, axis=1, keepdims=True)
        scaled = finite * ((1 - _MARGIN) / np.maximum(norms, 1.0))
        return np.trunc(scaled * self.radius).astype(np.int64)


def sample(mechanism: Mechanism, values: list[int]) -> list[int]:
    """Values in steps of the grid plus noise, exact, from the system's CSPRNG.

    Raises:
        UserError: OpenDP is not installed.
    """
    return list(measurement(mechanism)(values)) if values else []


@lru_cache(maxsize=16)
def measurement(mechanism: Mechanism) -> Any:
    """OpenDP's measurement on vectors of steps; its ``map`` takes ``2 * mechanism.radius``.

    Raises:
        UserError: OpenDP is not installed.
    """
    require("opendp")
    import opendp.prelude as dp

    dp.enable_features("contrib")
    vectors = dp.vector_domain(dp.atom_domain(T="i64"))
    steps = mechanism.scale * mechanism.radius
    if mechanism.noise == "gaussian":
        return dp.m.make_gaussian(vectors, dp.l2_distance(T="f64"), scale=steps)
    while True:  # a float or two away from it, at most
        made = dp.m.make_laplace(vectors, dp.l1_distance(T="i64"), scale=steps)
        if made.map(2 * mechanism.radius) <= mechanism.epsilon:
            return made
        steps = math.nextafter(steps, math.inf)
