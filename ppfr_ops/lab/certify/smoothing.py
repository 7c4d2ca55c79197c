"""Randomized smoothing of the verification decision.

The decision about a picture x against a fixed enrolled template t is ``cos(F(x), t) >= threshold``.
The smoothed decision is what most noisy copies ``x + N(0, sigma^2)`` are decided. If a share p of
them, more than half, is decided as claimed, no disturbance of L2 norm below ``sigma * Phi^-1(p)``
changes the smoothed decision (Cohen, Rosenfeld and Kolter, ICML 2019, theorem 1, two classes). p is
bounded from below by Clopper and Pearson at confidence 1 - alpha. The claim is fixed before any
copy is drawn, so none is spent on guessing it; where the bound is not above 1/2 we abstain.

What is certified is the smoothed decision of this recogniser at this threshold against this
template: who verifies has to decide by vote over noisy copies. Nothing follows for others.

Noise as floats have it proves nothing: an attacker can make use of which sums of a pixel and a
float exist (Voracek and Hein, ICLR 2023). Pictures have 8 bits, so the decision is taken, and
certified, on ``round(x + noise)``, in whole grey levels: of whole x that is x plus rounded noise,
drawn here as such, by integers of 64 bits against a table made with 128, from the operating
system's generator through AES. What that may be off by is counted into alpha. Sums are whole
numbers that float32 holds exactly; the model is taken as the function that it computes on them.
"""

import os
from dataclasses import dataclass
from functools import lru_cache

import mpmath
import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray
from scipy.stats import beta, norm

from ppfr_ops.imaging.arrays import FACE_SIZE, Faces, chunks
from ppfr_ops.recognizers import Embeddings, Recognizer

BATCH = 32
PIXELS = FACE_SIZE * FACE_SIZE * 3
_UNSURE = np.int16(-32768)


@dataclass(frozen=True)
class Certificate:
    """Of one decision. ``radius`` None: abstained."""

    at_least: float
    radius: float | None


def certificate(hits: int, samples: int, sigma: float, alpha: float) -> Certificate:
    """The radius that ``hits`` of ``samples`` noisy copies prove.

    >>> round(certificate(100, 100, 0.25, 0.001).radius, 3)
    0.375
    """
    alpha -= samples * PIXELS * off_by(sigma)
    low = float(beta.ppf(alpha, hits, samples - hits + 1)) if hits and alpha > 0 else 0.0
    return Certificate(low, sigma * float(norm.ppf(low)) if low > 0.5 else None)


def reach(samples: int, sigma: float, alpha: float) -> float:
    """The radius that is proven if every copy is decided as claimed; 0 if not even that proves any.

    >>> round(reach(200, 0.25, 0.001), 2), round(reach(1000, 0.25, 0.001), 2)
    (0.46, 0.61)
    """
    return certificate(samples, samples, sigma, alpha).radius or 0.0


def samples_for(radius: float, sigma: float, alpha: float) -> int:
    """Copies, rounded up to hundreds, that can prove a radius if all are decided as claimed; 0: no
    number under a million does."""
    for samples in range(100, 1_000_000, 100):
        if reach(samples, sigma, alpha) >= radius:
            return samples
    return 0


@lru_cache(maxsize=4)
def _table(sigma: float) -> tuple[NDArray[np.int16], NDArray[np.uint64], NDArray[np.int16]]:
    """Rounded Gaussian noise, grey levels, by a uniform number of 64 bits.

    Returns:
        By the first 16 bits the noise, or ``_UNSURE``; for those the ends of the noises' shares
        of 2^64 and, as long and one more, the noises.
    """
    with mpmath.workprec(128):
        scale, whole = mpmath.mpf(255) * sigma, mpmath.mpf(2) ** 64
        below: list[int] = []
        while not below or below[-1] > 0:  # shares of all that is less than -k - 1/2
            below.append(int(mpmath.floor(whole * mpmath.ncdf(-(len(below) + 0.5) / scale))))
    below.pop()
    ends = np.array([*reversed(below), *(2**64 - share for share in below)], np.uint64)
    noises = np.arange(-len(below), len(below) + 1, dtype=np.int16)
    first = np.arange(65536, dtype=np.uint64) << np.uint64(48)
    low = np.searchsorted(ends, first, "right")
    high = np.searchsorted(ends, first | np.uint64((1 << 48) - 1), "right")
    fast = np.where(low == high, noises[low], _UNSURE).astype(np.int16)
    return fast, ends, noises


def off_by(sigma: float) -> float:
    """Total variation between a pixel's noise and rounded Gaussian noise, at most: a unit of 2^-64
    at every end of a share."""
    return len(_table(sigma)[1]) * 2.0**-63


def rounded_noise(sigma: float, count: int) -> NDArray[np.int16]:
    """``round(N(0, (255 sigma)^2))``, grey levels, ``count``, from the system's generator."""
    fast, ends, noises = _table(sigma)
    cipher = Cipher(algorithms.AES(os.urandom(32)), modes.CTR(bytes(16))).encryptor()
    heads = np.frombuffer(cipher.update(bytes(2 * count)), np.uint16)
    found = fast[heads]
    unsure = np.flatnonzero(found == _UNSURE)
    tails = np.frombuffer(cipher.update(bytes(8 * len(unsure))), np.uint64) >> np.uint64(16)
    exact = heads[unsure].astype(np.uint64) << np.uint64(48) | tails
    found[unsure] = noises[np.searchsorted(ends, exact, "right")]
    return found


def noisy(face: Faces, sigma: float, count: int) -> NDArray[np.float32]:
    """Copies of a face under rounded Gaussian noise.

    Args:
        face: uint8 ``112 x 112 x 3``.
        sigma: pixels of 0..1.

    Returns:
        float32 ``count x 3 x 112 x 112``, whole numbers, 0..255 and beyond: nothing is clipped.
    """
    pixels = face.transpose(2, 0, 1).astype(np.int16)
    noise = rounded_noise(sigma, count * pixels.size).reshape(count, *pixels.shape)
    return (pixels + noise).astype(np.float32)


def noisy_templates(model: Recognizer, face: Faces, sigma: float, count: int) -> Embeddings:
    """Templates of noisy copies, float32 ``count x D``, unit length."""
    sizes = (part.stop - part.start for part in chunks(count, BATCH))
    return np.concatenate([model.embed_pixels(noisy(face, sigma, size)) for size in sizes])


def enrolled(model: Recognizer, face: Faces, sigma: float, count: int) -> NDArray[np.float32]:
    """What a picture is enrolled as: the mean template of noisy copies, unit length."""
    mean = noisy_templates(model, face, sigma, count).mean(0)
    return (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)


def decided(
    templates: Embeddings, reference: NDArray[np.float32], threshold: float, match: bool
) -> NDArray[np.bool_]:
    """Which templates are decided as claimed."""
    return (templates @ reference >= threshold) == match
