"""Is a drawn picture sound? Bounds on the drawn picture alone; no original is compared with it."""

import cv2
import numpy as np
from numpy.typing import NDArray

from ppfr_ops.imaging.geometry import TEMPLATE, similarity

LEAST_SCORE = 0.6
"""Of the detector."""
MOST_ASTRAY = 4.6
"""Root mean square distance of the landmarks from the template once aligned, px at 112."""
MOST_RED = 26.0
"""By how much the nose may be redder than the cheeks, grey levels."""

LEAST_OPEN = 0.44
"""Brightness of the eyes, their median, by that of the skin; below it are dark glasses."""
LEAST_EYES, LEAST_SHARP = 0.8, 5.0
"""Brightness of the brightest part of the eyes by that of the skin; mean absolute Laplacian, grey
levels."""

_EYES = ((slice(46, 58), slice(29, 48)), (slice(46, 58), slice(64, 83)))
_NOSE = (slice(64, 80), slice(48, 65))
_CHEEKS = ((slice(66, 82), slice(28, 42)), (slice(66, 82), slice(71, 85)))


def sound(crop: NDArray[np.uint8], landmarks: NDArray[np.float32], score: float) -> float:
    """How sound an aligned picture is: the least of its measures over their bounds, so that 1 and
    more is good enough.

    Args:
        crop: uint8 ``112 x 112 x 3``.
        landmarks: of the face before it was aligned, ``5 x 2``.
        score: the detector's, 0 to 1.
    """
    matrix = similarity(landmarks)
    placed = landmarks @ matrix[:, :2].T + matrix[:, 2]
    astray = float(np.sqrt(np.square(placed - TEMPLATE).sum(1).mean()))
    return min(
        score / LEAST_SCORE,
        MOST_ASTRAY / max(astray, 1e-6),
        MOST_RED / max(redness(crop), 1e-6),
        _eyes(crop, 50) / LEAST_OPEN,
    )


def plain(crop: NDArray[np.uint8]) -> float:
    """How fit a person's plain picture, aligned, is to draw photos of, 1 and more: eyes that can
    be seen (no dark glasses, not closed), and sharp."""
    sharp = float(np.abs(cv2.Laplacian(crop.astype(np.float64).mean(2), cv2.CV_64F)).mean())
    return min(_eyes(crop, 95) / LEAST_EYES, sharp / LEAST_SHARP)


def _eyes(crop: NDArray[np.uint8], percentile: float) -> float:
    """How bright the eyes are, by the skin's brightness."""
    eyes = [crop[part].mean(2) for part in _EYES]
    skin = float(np.median(crop[66:80, 30:82].mean(2)))
    return float(np.mean([np.percentile(eye, percentile) for eye in eyes])) / max(skin, 1)


def redness(crop: NDArray[np.uint8]) -> float:
    """By how much the nose is redder than the cheeks, grey levels; where the generator is pushed
    too far, a red or orange spot appears there first."""

    def red(part: tuple[slice, slice]) -> NDArray[np.float64]:
        pixels = crop[part].astype(np.float64)
        return pixels[..., 0] - (pixels[..., 1] + pixels[..., 2]) / 2

    cheeks = np.concatenate([red(part).ravel() for part in _CHEEKS])
    nose = red(_NOSE)
    return float(np.percentile(nose, 95) - np.percentile(cheeks, 75))
