"""Where a template's numbers go in a polynomial, so that a product of two holds inner products.

Convention. A template of D numbers is cut into K = ceil(D / m) slices of m. Slice k of the probe x
is P_k(X) = sum_i x[k m + i] X^i; slice k of a block of N / m records g_j is
G_k(X) = sum_j sum_i g_j[k m + i] X^(j m + m - 1 - i). Coefficient j m + m - 1 of sum_k P_k G_k is
<x, g_j>; the other coefficients mix records and mean nothing. Nothing is rotated, and plaintexts
have small coefficients, so noise hardly grows.

m trades sizes: a probe is K ciphertexts, a result ceil(n m / N); the work, n D / N products, is the
same for every m.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .bfv import DEGREE, SCORE_BITS

SCALE = 4096
"""A template's number x in [-1, 1] becomes round(4096 x); an inner product is 2^24 times a cosine.

Rounding two unit vectors moves their cosine by 0.41 / SCALE = 1e-4 (standard deviation)."""
UNIT = SCALE * SCALE
MAX_DIMENSIONS = 2048
MAX_RECORDS = 1 << 24

Templates = NDArray[np.float32]
"""float32 ``n x D``, unit length."""
Integers = NDArray[np.int16]
"""int16 ``n x D``, templates times SCALE."""


def quantise(templates: NDArray[np.floating]) -> Integers:
    """Templates as integers.

    Args:
        templates: ``n x D``; brought to unit length first.

    Raises:
        ValueError: not two axes, more than 2048 dimensions, or a row that is zero or not finite.
    """
    if templates.ndim != 2 or not 1 <= templates.shape[1] <= MAX_DIMENSIONS:
        raise ValueError(f"templates of shape {templates.shape}: expected n x D, D <= 2048")
    norms = np.linalg.norm(templates.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(norms).all() or (norms == 0).any():
        raise ValueError("a template is zero, infinite or NaN")
    return np.rint(templates / norms * SCALE).astype(np.int16)


@dataclass(frozen=True)
class Layout:
    """How n records of D numbers lie in polynomials. Raises ValueError: out of range."""

    records: int
    dimensions: int
    slice_width: int
    """m: a power of two, at most N."""

    def __post_init__(self) -> None:
        width = self.slice_width
        if not 1 <= self.records <= MAX_RECORDS or not 1 <= self.dimensions <= MAX_DIMENSIONS:
            raise ValueError("a gallery has 1 to 2^24 records of 1 to 2048 dimensions")
        if not 1 <= width <= DEGREE or width & (width - 1):
            raise ValueError("a slice is a power of two wide, at most the degree")

    @classmethod
    def smallest(cls, records: int, dimensions: int) -> "Layout":
        """The layout with the fewest ciphertexts there and back."""
        widths = [1 << i for i in range(12)]
        layouts = [cls(records, dimensions, w) for w in widths if w < 2 * dimensions]
        return min(layouts, key=lambda layout: layout.slices + layout.blocks)

    @property
    def slices(self) -> int:
        """K, ciphertexts of a probe."""
        return -(-self.dimensions // self.slice_width)

    @property
    def per_block(self) -> int:
        return DEGREE // self.slice_width

    @property
    def blocks(self) -> int:
        """Ciphertexts of a result."""
        return -(-self.records // self.per_block)

    def probe(self, template: Integers) -> NDArray[np.int64]:
        """The probe's polynomials, int64 ``K x m``, from int16 ``D``."""
        padded = np.zeros(self.slices * self.slice_width, np.int64)
        padded[: self.dimensions] = template
        return padded.reshape(self.slices, self.slice_width)

    def block(self, templates: Integers) -> NDArray[np.int64]:
        """The polynomials of up to N / m records, int64 ``K x N``."""
        width = self.slice_width
        padded = np.zeros((self.per_block, self.slices * width), np.int64)
        padded[: len(templates), : self.dimensions] = templates
        cut = padded.reshape(self.per_block, self.slices, width)[:, :, ::-1]
        return cut.transpose(1, 0, 2).reshape(self.slices, DEGREE)

    def pick(self, coefficients: NDArray[np.int64]) -> NDArray[np.int64]:
        """The coefficients that belong to records, ``n``, of a result's ``blocks x N``."""
        width = self.slice_width
        return coefficients[:, width - 1 :: width].reshape(-1)[: self.records]


def threshold_integer(threshold: float) -> int:
    """A cosine as an inner product of quantised templates."""
    if not -1 <= threshold <= 1:
        raise ValueError(f"threshold {threshold}: a cosine lies between -1 and 1")
    return round(threshold * UNIT)


assert 4 * UNIT <= 1 << SCORE_BITS, "score minus threshold must fit the plaintext ring"
