"""Randomized smoothing of the verification decision.

The decision about a picture x against a fixed enrolled template t is ``cos(F(x), t) >= threshold``.
The smoothed decision is what most noisy copies ``x + N(0, sigma^2)`` are decided. If a share p of
them, more than half, is decided as claimed, no disturbance of L2 norm below ``sigma * Phi^-1(p)``
changes the smoothed decision (Cohen, Rosenfeld and Kolter, ICML 2019, theorem 1, two classes). p is
bounded from below by Clopper and Pearson at confidence 1 - alpha. The claim is fixed before any
copy is drawn, so none is spent on guessing it; where the bound is not above 1/2 we abstain.

What is certified is the smoothed decision of this recogniser at this threshold against this
template: who verifies has to decide by vote over noisy copies. Nothing follows for others.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, norm

from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.recognizers import Embeddings, Recognizer

BATCH = 32


@dataclass(frozen=True)
class Certificate:
    """Of one decision. ``radius`` None: abstained."""

    hits: int
    at_least: float
    radius: float | None


def certificate(hits: int, samples: int, sigma: float, alpha: float) -> Certificate:
    """The radius that ``hits`` of ``samples`` noisy copies prove.

    >>> round(certificate(100, 100, 0.25, 0.001).radius, 3)
    0.375
    """
    low = float(beta.ppf(alpha, hits, samples - hits + 1)) if hits else 0.0
    return Certificate(hits, low, sigma * float(norm.ppf(low)) if low > 0.5 else None)


def noisy(face: Faces, sigma: float, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Copies of a face under Gaussian noise.

    Args:
        face: uint8 ``112 x 112 x 3``.
        sigma: pixels of 0..1.

    Returns:
        float32 ``count x 3 x 112 x 112``, 0..255 and beyond: nothing is clipped.
    """
    pixels = face.transpose(2, 0, 1).astype(np.float32)
    noise = rng.standard_normal((count, *pixels.shape), dtype=np.float32)
    return pixels + np.float32(255 * sigma) * noise


def noisy_templates(
    model: Recognizer, face: Faces, sigma: float, count: int, rng: np.random.Generator
) -> Embeddings:
    """Templates of noisy copies, float32 ``count x D``, unit length."""
    return np.concatenate(
        [model.embed_pixels(noisy(face, sigma, size, rng)) for size in _batches(count)]
    )


def enrolled(
    model: Recognizer, face: Faces, sigma: float, count: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """What a picture is enrolled as: the mean template of noisy copies, unit length."""
    mean = noisy_templates(model, face, sigma, count, rng).mean(0)
    return (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)


def decided(
    templates: Embeddings, reference: NDArray[np.float32], threshold: float, match: bool
) -> NDArray[np.bool_]:
    """Which templates are decided as claimed."""
    return (templates @ reference >= threshold) == match


def _batches(count: int) -> Iterator[int]:
    for start in range(0, count, BATCH):
        yield min(BATCH, count - start)
