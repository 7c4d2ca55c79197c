"""What may be kept of how a photo shows somebody: a few features, each in a few bins.

A look is a text with a digit a feature, in the order of ``EDGES``: which bin, from 0; ``-`` where
nothing is known or kept.
"""

import hashlib
import math
from bisect import bisect
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate

import cv2
import numpy as np
from numpy.typing import NDArray

from ppfr_ops.imaging.arrays import Faces, Picture
from ppfr_ops.imaging.detector import CenterFace
from ppfr_ops.imaging.portraits import yaw

PARTS = {"pose": ("yaw", "pitch"), "light": ("side", "brightness")}
"""What can be asked for, and the features that it comes to."""

NO_AIM: Mapping[str, float] = {}
"""Of a photo of which nothing is kept."""

EDGES = {
    "yaw": (-0.28, -0.18, -0.06, 0.06, 0.18, 0.28),
    "pitch": (0.52, 0.555, 0.59, 0.63),
    "side": (-0.45, -0.15, 0.15, 0.45),
    "brightness": (85.0, 120.0, 155.0, 190.0),
}
"""Of the bins; what lies beyond the first or last belongs to the bin there.

``yaw``: as ``portraits.yaw``. ``pitch``: how far the nose lies below the eyes, by how far the mouth
does. ``side``: logarithm of the left half of the inner face by the
right one, as seen. ``brightness``: of the inner face, 0 to 255."""

_AT_EDGE = 0.2
"""Of a bin's breadth, where nothing is aimed at."""

BORDER = 24
"""Around an aligned face before a detector sees it, px."""

WHOLE = 2**53
"""What the weights of ``response`` add up to."""

INNER = (slice(20, 100), slice(25, 87))
"""Of an aligned face what is never background."""


def parts(text: str) -> str:
    """A list of parts with commas, sorted.

    Raises:
        ValueError: there is no such part.
    """
    named = {part.strip() for part in text.split(",") if part.strip()}
    if unknown := sorted(named - PARTS.keys()):
        raise ValueError(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    return ",".join(sorted(named))


@lru_cache(maxsize=1)
def _detector() -> CenterFace:
    return CenterFace(threshold=0.35, threads=1, once=True)


def landmarks(faces: Faces) -> NDArray[np.float32]:
    """What a detector finds in aligned faces, ``N x 5 x 2``; NaN where it finds no face."""
    points = np.full((len(faces), 5, 2), np.nan, np.float32)
    for row, face in enumerate(faces):
        wide = cv2.copyMakeBorder(face, *(BORDER,) * 4, cv2.BORDER_REPLICATE)
        found = _detector()([wide.astype(np.uint8)])[0]
        if len(found):
            points[row] = found.landmarks[found.scores.argmax()] - BORDER
    return points


def shape(points: NDArray[np.floating]) -> dict[str, float]:
    """Features that landmarks tell, ``5 x 2``; NaN where there are none."""
    marks = np.asarray(points, np.float64)
    eyes, lips = marks[:2].mean(0), marks[3:].mean(0)
    height = max(float((lips - eyes) @ (lips - eyes)), 1e-6)
    return {"yaw": yaw(marks), "pitch": float((marks[2] - eyes) @ (lips - eyes)) / height}


def shading(face: Picture) -> dict[str, float]:
    """Features that the pixels of an aligned face tell."""
    inner = face[INNER].astype(np.float64) + 0.5
    half = inner.shape[1] // 2
    luma = inner @ np.array([0.299, 0.587, 0.114])
    side = np.log(luma[:, :half].mean() / luma[:, half:].mean())
    return {"side": float(side), "brightness": float(inner.mean())}


def noted(faces: Faces, kept: Collection[str]) -> list[str]:
    """Of aligned faces, uint8 ``N x 112 x 112 x 3``, the parts that are kept, a look a face."""
    wanted = {name for part in kept for name in PARTS[part]}
    shaped = not wanted <= set(PARTS["light"])
    points = landmarks(faces) if shaped else [None] * len(faces)
    looks = []
    for face, marks in zip(faces, points, strict=True):
        values = shading(face) | ({} if marks is None else shape(marks))
        looks.append("".join(_bin(name, values[name]) if name in wanted else "-" for name in EDGES))
    return looks


def response(bins: int, epsilon: float, true: int | None) -> list[int]:
    """How likely each bin is told, out of ``WHOLE``: k-ary randomised response (Kairouz, Oh and
    Viswanath, arXiv 1407.1338). No two rows of the table differ at a bin by more than e^epsilon,
    rounding included.

    Args:
        bins: how many there are.
        epsilon: of this feature, 1e-4 to 64.
        true: None: nothing is known, and all are alike.
    """
    if true is None:
        return [WHOLE // bins + (place < WHOLE % bins) for place in range(bins)]
    other = math.ceil(WHOLE / (math.exp(epsilon) + bins - 1)) + 1
    return [WHOLE - (bins - 1) * other if place == true else other for place in range(bins)]


def noised(
    faces: Faces, looks: Sequence[str], kept: Collection[str], epsilon: float, key: bytes
) -> list[str]:
    """Looks, each bin of which went through ``response``: what is told of a photo's look is
    ``epsilon``-private. Draws are a function of key, photo and a feature's epsilon, so that who
    notes it once more, or has it twice, averages nothing out; and with another epsilon they are
    others, for two answers of one draw can tell the bin for sure.

    Args:
        faces: uint8 ``N x 112 x 112 x 3``, as for ``noted``.
        looks: as ``noted`` gives them, ``N``.
        kept: parts that are kept; their features share epsilon evenly.
        key: 32 bytes of the system's, which stays with the owner.
    """
    wanted = [name for part in kept for name in PARTS[part]]
    each, found = epsilon / len(wanted), []
    for face, look in zip(faces, looks, strict=True):
        told = key + np.float64(each).tobytes() + face.tobytes()
        raw = hashlib.shake_256(told).digest(8 * len(EDGES))
        draws = np.frombuffer(raw, ">u8") >> np.uint64(11)
        bins = list(look)
        for place, name in enumerate(EDGES):
            if name in wanted:
                true = None if look[place] == "-" else int(look[place])
                table = response(len(EDGES[name]) - 1, each, true)
                bins[place] = str(bisect(list(accumulate(table)), int(draws[place])))
        found.append("".join(bins))
    return found


def _bin(name: str, value: float) -> str:
    if not np.isfinite(value):
        return "-"
    return str(int(np.searchsorted(EDGES[name][1:-1], value)))


def aims(look: str | None, places: Mapping[str, float]) -> dict[str, float]:
    """Values to draw features with: somewhere in the bin.

    Args:
        look: None: nothing is kept.
        places: where in it, 0 to 1.
    """
    found = {}
    for (name, edges), digit in zip(EDGES.items(), look or "", strict=False):
        if digit != "-":
            low, high = edges[int(digit) : int(digit) + 2]
            found[name] = low + (high - low) * (_AT_EDGE + (1 - 2 * _AT_EDGE) * places[name])
    return found
