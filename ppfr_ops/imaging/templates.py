"""Faces as others crop them: where the five landmarks lie, and the way from there to the crop of
112x112 that FR models take.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ppfr_ops.imaging.arrays import FACE_SIZE, Picture
from ppfr_ops.imaging.detector import Detector
from ppfr_ops.imaging.geometry import TEMPLATE, cut

Points = NDArray[np.float64]
"""``5 x 2``, in the order of ``geometry.TEMPLATE``, as shares of the crop's width and height."""

_NEAR, _SCATTER = 0.15, 0.25
"""Of the distance of the eyes: how far landmarks may lie from a template on average, and faces from
each other."""


def _ffhq() -> Points:
    """By the recipe of FFHQ, for a face of the proportions of ``TEMPLATE``."""
    eyes, mouth = TEMPLATE[:2].mean(0), TEMPLATE[3:].mean(0)
    down, across = np.linalg.norm(mouth - eyes), np.linalg.norm(TEMPLATE[1] - TEMPLATE[0])
    half = max(2.0 * across, 1.8 * down)
    return (TEMPLATE - (eyes + 0.1 * (mouth - eyes))) / (2 * half) + 0.5


def _mtcnn(side: int, margin: int) -> Points:
    """A box of MTCNN made square, as facenet-pytorch crops it; medians over 150 frontal faces of
    CFP, found 2026-11-29."""
    box = np.array(
        [[0.2722, 0.4015], [0.738, 0.3971], [0.5034, 0.6028], [0.2985, 0.7497], [0.7217, 0.749]]
    )
    return (box * (side - margin) + margin / 2) / side


_CELEBA = np.array([[69.4, 111.2], [107.6, 111.2], [88.0, 135.0], [71.2, 152.1], [104.8, 152.1]])

KNOWN: dict[str, Points] = {
    "arcface": TEMPLATE.astype(np.float64) / FACE_SIZE,
    "ffhq": _ffhq(),
    "celeba": _CELEBA / (178, 218),
    "mtcnn": _mtcnn(160, 0),
    "mtcnn-160": _mtcnn(160, 32),
    "mtcnn-182": _mtcnn(182, 44),
}
"""ArcFace's own; FFHQ; CelebA as it comes aligned (178x218); crops of facenet-pytorch without a
margin, of 160 px with margin 32, and of 182 px with margin 44."""


def shape_of(name: str) -> float:
    """Width by height of its crops."""
    return 178 / 218 if name == "celeba" else 1.0


def warped(picture: Picture, name: str) -> Picture:
    """The aligned face, uint8 ``112 x 112 x 3``, of a crop of any size by a known template."""
    height, width = picture.shape[:2]
    points = np.column_stack([KNOWN[name] * (width, height), np.ones(5)])
    matrix = np.linalg.lstsq(points, TEMPLATE.astype(np.float64), rcond=None)[0].T
    return cut(picture, [matrix])[0]


def landmarks(pictures: Sequence[Picture], detector: Detector) -> NDArray[np.float64]:
    """Of the main face of each picture in which one is found, as shares of its sides,
    ``N x 5 x 2``; crops are tight, so each is looked at with a margin."""
    found = []
    for picture in pictures:
        height, width = picture.shape[:2]
        edge = min(height, width) // 2
        wide = cv2.copyMakeBorder(picture, edge, edge, edge, edge, cv2.BORDER_REPLICATE)
        faces = detector([wide.astype(np.uint8)])[0]
        sound = np.isfinite(faces.landmarks).all((1, 2)) & (faces.scores > 0.5)
        if sound.any():
            best = int(np.argmax(np.where(sound, faces.scores * faces.sizes, 0)))
            found.append((faces.landmarks[best] - edge) / (width, height))
    return np.array(found, np.float64).reshape(-1, 5, 2)


def recognised(points: NDArray[np.float64], size: tuple[int, int]) -> str | None:
    """The known template that faces are aligned by; None: none, or they are not aligned alike.

    Args:
        points: ``N x 5 x 2``, as of ``landmarks``.
        size: width and height of the pictures.
    """
    middle = np.median(points, 0) * size
    apart = float(np.linalg.norm(middle[1] - middle[0]))
    if apart == 0:
        return None
    scatter = np.median(np.linalg.norm(points * size - middle, axis=2)) / apart
    away = {
        name: float(np.linalg.norm(middle - known * size, axis=1).mean()) / apart
        for name, known in KNOWN.items()
        if abs(size[0] / size[1] / shape_of(name) - 1) < 0.02
    }
    nearest = min(away, key=lambda name: away[name], default=None)
    if nearest is None or away[nearest] > _NEAR or scatter > _SCATTER:
        return None
    return nearest
