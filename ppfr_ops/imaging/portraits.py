"""Drawn faces in photographs: in the light of the photograph, as sharp and as grainy as it, on top
of a cover that hides the whole original head first."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from ppfr_ops.imaging.arrays import Picture

if TYPE_CHECKING:
    from ppfr_ops.imaging.covers import Head

FACE = (56.0, 60.0, 49.0, 66.0)
"""Centre and half axes of the drawn face, in the template's pixels; its edge is soft."""

_SOLID, _GONE = 0.78, 1.12
"""Within the first share of its half axes it is all there, beyond the second it is not."""

_SKIN = (slice(58, 84), slice(30, 82))
"""Cheeks and nose in an aligned face: what the colour of a drawn face is matched to."""

_STEP = 12.0
"""Grey levels that the colour of the original's skin is rounded to before anything is matched."""

_SHARPER = 1.5
"""How much more detail than its surroundings a drawn face may have."""


@dataclass(frozen=True)
class Portrait:
    """A drawn person. ``picture`` uint8 ``S x S x 3`` RGB; ``matrix`` float64 ``2 x 3``, from its
    pixels to the template's; ``seed`` of the grain."""

    picture: Picture
    matrix: NDArray[np.float64]
    seed: int


def yaw(landmarks: NDArray[np.floating]) -> float:
    """How far the nose stands aside of the middle of eyes and mouth, in eye distances; 0: ahead.

    Args:
        landmarks: ``5 x 2``.
    """
    marks = np.asarray(landmarks, np.float64)
    across = marks[1] - marks[0]
    wide = max(float(np.hypot(*across)), 1e-6)
    middle = (marks[:2].mean(0) + marks[3:].mean(0)) / 2
    return float((marks[2] - middle) @ across) / wide**2


def skin_colour(aligned: Picture) -> NDArray[np.float64]:
    """Mean colour of cheeks and nose of an aligned face, uint8 ``112 x 112 x 3``; ``3``."""
    return np.asarray(aligned[_SKIN].reshape(-1, 3).mean(0), np.float64)


def lit(drawn: Picture, skin: NDArray[np.float64], own: NDArray[np.float64]) -> Picture:
    """A drawn picture in the light of a photograph.

    Args:
        skin: mean colour of the original's skin, of which a rounded value is used; ``3``.
        own: of the drawn face; ``3``.
    """
    coarse = np.round(skin / _STEP) * _STEP
    gain = np.clip((coarse + 10) / (own + 10), 0.45, 1.7).astype(np.float32)
    return np.asarray(np.clip(drawn * gain, 0, 255), np.uint8)


def put_portrait(filled: Picture, part: Picture, head: "Head", portrait: Portrait) -> Picture:
    """A drawn face over a cover.

    Args:
        filled: what covers the head in its window; nothing of the original face is in it.
        part: the photograph in that window, for what lies around the head.
    """
    back = cv2.invertAffineTransform(portrait.matrix).astype(np.float32)
    drawn = portrait.picture
    # Pixels of the drawn picture for one of the photograph: average what would be skipped.
    scale = back[:, :2] @ head.matrix[:, :2]
    shrunk = float(np.linalg.norm(scale, axis=1)[0])
    if shrunk > 1.2:
        drawn = np.asarray(cv2.GaussianBlur(drawn, (0, 0), 0.4 * shrunk), np.uint8)
    x = back[0, 0] * head.x + back[0, 1] * head.y + back[0, 2]
    y = back[1, 0] * head.x + back[1, 1] * head.y + back[1, 2]
    edge = cv2.BORDER_REPLICATE
    warped = np.asarray(cv2.remap(drawn, x, y, cv2.INTER_LINEAR, borderMode=edge), np.uint8)
    around = head.radius > 1
    if np.ptp(part, axis=2).mean() < 4:  # a photograph without colours
        warped = np.repeat(warped[..., 1:2], 3, axis=2)
    grainy = _grained(warped, part, around, portrait.seed)
    centre_x, centre_y, half_x, half_y = FACE
    radius = cv2.magnitude((head.x - centre_x) / half_x, (head.y - centre_y) / half_y)
    linear = np.clip((_GONE - radius) / (_GONE - _SOLID), 0, 1)
    share = np.asarray(linear * linear * (3 - 2 * linear), np.float32)
    return np.asarray(cv2.blendLinear(grainy, filled, share, 1 - share), np.uint8)


def _grained(drawn: Picture, photograph: Picture, around: NDArray[np.bool_], seed: int) -> Picture:
    """A drawn picture no sharper than its surroundings, and as grainy."""
    if around.sum() < 64:
        return drawn
    goal = cv2.cvtColor(photograph, cv2.COLOR_RGB2GRAY)
    detail = np.abs(cv2.Laplacian(goal, cv2.CV_32F))[around]
    most, noise = (float(np.percentile(detail, share)) for share in (90, 20))
    softer = drawn
    for sigma in (0.0, 0.6, 1.0, 1.6):
        if sigma:
            softer = np.asarray(cv2.GaussianBlur(drawn, (0, 0), sigma), np.uint8)
        light = cv2.cvtColor(softer, cv2.COLOR_RGB2GRAY)
        if np.percentile(np.abs(cv2.Laplacian(light, cv2.CV_32F)), 90) <= _SHARPER * most:
            break
    grain = np.asarray(np.random.default_rng(seed).standard_normal(goal.shape), np.float32)
    noisy = softer + grain[..., None] * min(noise / 1.15, 6.0)
    return np.asarray(np.clip(noisy, 0, 255), np.uint8)
