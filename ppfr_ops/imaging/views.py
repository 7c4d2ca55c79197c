"""Views of a picture, as a detector is shown it: whole, shrunk, turned, with a margin, close.

Convention: as in ``imaging.detector``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from ppfr_ops.imaging.arrays import Picture

_CLOSE = (96, 48)
"""Sides of a close look, and of the face in it, px."""

_FRAME_SHARE = 12
"""What part of a view's longest side the margin around is, in which the picture goes on mirrored:
the middle of a face that the edge cuts may lie there, and a mirrored half is a face."""


@dataclass(frozen=True)
class View:
    """What the network is shown of a picture: 2x3 from the picture's to the view's pixels, and the
    view's size."""

    matrix: NDArray[np.float64]
    height: int
    width: int


def close(boxes: NDArray[np.float32], landmarks: NDArray[np.float32]) -> list[View]:
    """Of every place three views around it.

    Args:
        boxes: ``N x 4``.
        landmarks: ``N x 5 x 2``.
    """
    views = []
    for box, marks in zip(boxes, landmarks, strict=True):
        across, down = marks[1] - marks[0], marks[3:].mean(0) - marks[:2].mean(0)
        # As if turned back: the eyes level, the mouth below them.
        upright = float(np.degrees(np.arctan2(across[1] - down[0], across[0] + down[1])))
        views += around(box, [upright + turn for turn in (-30, 0, 30)], *_CLOSE)
    return views


def around(box: NDArray[np.float32], angles: Sequence[float], side: int, face: int) -> list[View]:
    """A place turned by angles, degrees, with its longer side ``face`` px in views of ``side``."""
    x, y = (float(v) for v in (box[:2] + box[2:]) / 2)
    scale = face / max(float((box[2:] - box[:2]).max()), 1)
    views = []
    for angle in angles:
        matrix = np.asarray(cv2.getRotationMatrix2D((x, y), angle, scale), np.float64)
        matrix[:, 2] += np.array([side / 2 - x, side / 2 - y])
        views.append(View(matrix, side, side))
    return views


def by_quarters(picture: Picture, most: int, least: int) -> list[View]:
    """The whole picture at half its size, within ``least`` and ``most``, with a margin: upright,
    and turned by 90, 180 and 270 degrees."""
    most = min(most, max(least, max(picture.shape[:2]) // 2))
    upright = framed(picture, most, most // _FRAME_SHARE)
    high, wide = upright.height - 1, upright.width - 1
    views = [upright]
    for turn, swaps in (
        ([[0, -1, high], [1, 0, 0]], True),
        ([[-1, 0, wide], [0, -1, high]], False),
        ([[0, 1, 0], [-1, 0, wide]], True),
    ):
        matrix = np.array(turn, np.float64)
        whole = matrix[:, :2] @ upright.matrix
        whole[:, 2] += matrix[:, 2]
        sides = (upright.width, upright.height) if swaps else (upright.height, upright.width)
        views.append(View(whole, *sides))
    return views


def whole_blocks(side: float) -> int:
    return -int(-side // 32) * 32


def framed(picture: Picture, most: int, frame: int = 0) -> View:
    """The whole picture, shrunk to ``most`` if need be, with a margin."""
    height, width = picture.shape[:2]
    scale = min(1.0, most / max(height, width))
    rows, columns = (whole_blocks(side * scale + 2 * frame) for side in (height, width))
    return View(moved(scale, frame, frame), rows, columns)


def tiled(picture: Picture, side: int) -> list[View]:
    """The whole picture within ``side``, and a larger one at full size, too, in tiles that
    overlap."""
    height, width = picture.shape[:2]
    views = [framed(picture, side)]
    if max(height, width) > side:
        step = side * 3 // 4
        for top in range(0, max(1, height - side // 4), step):
            for left in range(0, max(1, width - side // 4), step):
                views.append(_upright(picture, moved(1.0, -left, -top), side))
    return views


def unusual(picture: Picture, side: int) -> list[View]:
    """The whole picture enlarged, halved, mirrored, and turned by 30 degrees, within ``side``."""
    height, width = picture.shape[:2]
    shrink = min(1.0, side / max(height, width))
    scales = [scale * shrink for scale in (0.5, 2.0) if scale * shrink * 32 >= 1]
    matrices = [moved(s) for s in scales if s * max(height, width) <= side]
    views = [_upright(picture, matrix, side) for matrix in matrices]
    frame = _upright(picture, moved(shrink), side)
    mirror = moved(shrink)
    mirror[0] = [-shrink, 0, (width - 1) * shrink]
    views.append(replace(frame, matrix=mirror))
    centre = ((width - 1) / 2, (height - 1) / 2)
    for angle in (-30, 30):
        turned = np.asarray(cv2.getRotationMatrix2D(centre, angle, 0.75 * shrink), np.float64)
        turned[:, 2] += (shrink - 1) * np.array(centre)
        views.append(replace(frame, matrix=turned))
    return views


def _upright(picture: Picture, matrix: NDArray[np.float64], side: int) -> View:
    """As large as it has to be and ``side`` at most."""
    height, width = picture.shape[:2]
    sides = (height * matrix[0, 0] + matrix[1, 2], width * matrix[0, 0] + matrix[0, 2])
    rows, columns = (max(32, min(side, whole_blocks(length))) for length in sides)
    return View(matrix, rows, columns)


def moved(scale: float, right: float = 0, down: float = 0) -> NDArray[np.float64]:
    return np.array([[scale, 0, right], [0, scale, down]], np.float64)


STILL = moved(1.0)


def seen_by(
    picture: Picture, matrix: NDArray[np.float64], height: int, width: int
) -> NDArray[np.uint8]:
    """A view of a picture, which goes on mirrored beyond its edge."""
    if (matrix[:, :2] == STILL[:, :2]).all():  # most are, and a warp takes fifty times as long
        right, down = (int(v) for v in matrix[:, 2])
        part = picture[max(0, -down) : height - down, max(0, -right) : width - right]
        top, left = max(0, down), max(0, right)
        rest = (height - top - part.shape[0], width - left - part.shape[1])
        view = cv2.copyMakeBorder(part, top, rest[0], left, rest[1], cv2.BORDER_REFLECT_101)
    else:
        # Shrinking warps average, or they would skip pixels.
        how = cv2.INTER_AREA if np.hypot(*matrix[0, :2]) < 0.6 else cv2.INTER_LINEAR
        size, border = (width, height), cv2.BORDER_REFLECT_101
        view = cv2.warpAffine(picture, matrix, size, flags=how, borderMode=border)
    return view.astype(np.uint8, copy=False)
