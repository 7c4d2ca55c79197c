"""An invisible mark by which the holder of a key can tell that a picture is from a release.

A keyed pattern of the middle frequencies is added to the brightness of a picture, strong where the
picture is busy. Which of its 12,544 shifted copies is added depends on the key and the picture's
own pixels: the mark tells nothing else of a picture, and the mean over many pictures does not show
the pattern.

To read it, a picture is brought back to 112 x 112 in ways that undo cropping and scaling, and the
phases of its spectrum are compared with those of the pattern, at every shift. What that gives for a
picture that has nothing to do with the key is known without a model of pictures: the pattern's
phases are uniform and independent, so ``sqrt(2/N)`` times a sum of ``N`` cosines exceeds ``z`` with
a probability of at most ``exp(-z**2 / 2)`` (Chernoff; the moment generating function of a cosine of
a uniform phase is a Bessel function, at most ``exp(s**2 / 4)``), times the number of shifts and
ways (union bound).
"""

import hashlib
import hmac
import math
from collections.abc import Sequence

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.special import bdtrc

from ppfr_ops.imaging.arrays import Picture
from ppfr_ops.keys import derive

SIDE = 112
"""Of the pattern, and of a picture as it is read."""
_LOWEST, _HIGHEST = 6, 26
"""Frequencies of the pattern, waves a picture: halving a picture leaves them."""
_STRENGTH = 0.15
"""Of the pattern, per standard deviation of the picture around a pixel."""
_FLAT = 4.0
"""Grey levels added to that deviation, so that smooth skin has a part, too."""
_AROUND = 3.0
"""Pixels: the scale of "around"."""
_SIDES = (96, 100, 104, 108, 112)
"""What may be left of width and of height after cropping, of 112."""
TRIED = len(_SIDES) ** 2 * SIDE * SIDE
"""Comparisons a picture."""
FALSE_ALARM = 1e-7
"""Probability, at most, with which an unmarked picture is said to be marked."""
THRESHOLD = math.sqrt(2 * math.log(TRIED / FALSE_ALARM))
_WEAK_ALARM = 0.01
"""The same of a picture that counts as one of many."""


def _band() -> NDArray[np.bool_]:
    """In the spectrum of a picture, ``112 x 27``: higher frequencies of rows are not needed."""
    rows = scipy.fft.fftfreq(SIDE, 1 / SIDE)[:, None]
    columns = np.arange(_HIGHEST + 1)[None]
    radius = np.hypot(rows, columns)
    # Of two frequencies that are each other's mirror image, one.
    once = (columns > 0) | (rows > 0)
    return np.asarray((radius >= _LOWEST) & (radius <= _HIGHEST) & once)


BAND = _band()
_BINS = int(BAND.sum())


def chance(strength: float) -> float:
    """Probability, at most, that a picture without the mark reads as strong as that."""
    return min(1.0, TRIED * math.exp(-(strength**2) / 2)) if strength > 0 else 1.0


def pooled(strengths: Sequence[float]) -> float:
    """The same of many pictures together, by how many of them read as one in a hundred unmarked
    ones might: whether any of them is marked. It takes them to be different pictures, whose
    phases have nothing to do with each other."""
    count = sum(chance(strength) <= _WEAK_ALARM for strength in strengths)
    return float(bdtrc(count - 1, len(strengths), _WEAK_ALARM)) if count else 1.0


class InvisibleMark:
    """The mark of a release.

    Args:
        secret: of the owner, 16 bytes or more; another one for every release that is to be told
            apart.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = derive(secret, "invisible mark")
        stream = hashlib.shake_256(self._key + b"phases").digest(4 * _BINS)
        phases = np.frombuffer(stream, "<u4") * (2 * np.pi / 2**32)
        self._spectrum = np.zeros(BAND.shape, np.complex64)
        self._spectrum[BAND] = np.exp(1j * phases)
        pattern = picture_of(self._spectrum)
        self._pattern = np.asarray(pattern / pattern.std(), np.float32)

    def __repr__(self) -> str:
        return "InvisibleMark()"

    def embed(self, picture: Picture) -> Picture:
        """A picture with the mark; uint8 ``H x W x 3``, as it was given. The same picture always
        becomes the same."""
        told = hmac.digest(self._key, b"shift" + picture.tobytes(), "sha256")
        shift = tuple(int.from_bytes(told[i : i + 4], "big") % SIDE for i in (0, 4))
        pattern = np.roll(self._pattern, shift, (0, 1))
        height, width = picture.shape[:2]
        if (height, width) != (SIDE, SIDE):
            pattern = np.asarray(
                cv2.resize(pattern, (width, height), interpolation=cv2.INTER_CUBIC)
            )
        _, around = _moments(_grey(picture))
        added = _STRENGTH * (_FLAT + around) * pattern
        return np.clip(np.rint(picture + added[..., None]), 0, 255).astype(np.uint8)

    def read(self, picture: Picture) -> float:
        """How strongly a picture bears the mark: see ``chance`` for what that means, ``THRESHOLD``
        for what suffices."""
        return self.read_phases(phases(picture))

    def read_phases(self, seen: NDArray[np.complex64]) -> float:
        """The same from ``phases`` of the picture."""
        # Going back divides by the number of pixels, and counts every frequency of the band twice.
        sums = picture_of(seen * self._spectrum.conj()) * (SIDE * SIDE / 2)
        return float(sums.max() * math.sqrt(2 / _BINS))


def phases(picture: Picture) -> NDArray[np.complex64]:
    """What is compared with a pattern: numbers of length 1 in the band, 0 elsewhere; ways of
    bringing the picture back, ``K x 112 x 27``."""
    grey, back = _grey(picture), []
    for height in _SIDES:
        for width in _SIDES:
            shrinks = grey.shape[0] > height
            way = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
            part = np.asarray(cv2.resize(grey, (width, height), interpolation=way), np.float32)
            mean, around = _moments(part)
            whole = np.zeros((SIDE, SIDE), np.float32)
            whole[:height, :width] = (part - mean) / (around + 2)
            back.append(whole)
    spectra = spectra_of(np.stack(back))
    return np.asarray(spectra / (np.abs(spectra) + 1e-9) * BAND, np.complex64)


def spectra_of(grey: NDArray[np.float32]) -> NDArray[np.complex64]:
    """``... x 112 x 112`` to ``... x 112 x 27``."""
    rows = scipy.fft.rfft(grey, axis=-1)[..., : _HIGHEST + 1]
    return np.asarray(scipy.fft.fft(rows, axis=-2))


def picture_of(spectra: NDArray[np.complex64]) -> NDArray[np.float32]:
    """And back."""
    return np.asarray(scipy.fft.irfft(scipy.fft.ifft(spectra, axis=-2), SIDE, axis=-1))


def _grey(picture: Picture) -> NDArray[np.float32]:
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.float32)


def _moments(grey: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation around every pixel."""
    mean = cv2.GaussianBlur(grey, (0, 0), _AROUND)
    spread = cv2.GaussianBlur((grey - mean) ** 2, (0, 0), _AROUND)
    return np.asarray(mean), np.sqrt(np.asarray(spread))
