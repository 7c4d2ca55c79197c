"""Drawn heads, cut out of what is behind them: silhouettes, without clothes, with a crown.

Convention: a picture is square, uint8 ``S x S x 3``; a silhouette float32 ``S x S``, 0 to 1.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from ppfr_ops.imaging.arrays import Picture
from ppfr_ops.imaging.geometry import whole_head

_EDGE, _CROWN, HIGH = 7, 10, 24
"""Of a picture of 128 px, px: over so many a head fades out towards the sides; so many rows are
stretched to a crown where hair is cut off by the upper edge; and how many are added for it."""

_HEADS, EYES = 1.12, 31 / 128
"""The template's pixels for one of a drawn picture of 128 px, and the distance of the eyes in it,
of its side."""

_NECK, _ALIKE, _SHADE = 27.0, 11.0, 0.78
"""Half of a neck's breadth, in the template's pixels; how far colours of hair or skin may lie from
those of the head, in Lab with a lightness that counts .4; and how bright a made neck is, of the
skin."""


def in_one_piece(
    silhouette: NDArray[np.float32], landmarks: NDArray[np.float32]
) -> NDArray[np.float32]:
    """A silhouette of 128 px without what does not hang together with the face."""
    solid = cv2.erode((silhouette > 0.5).astype(np.uint8), _disc(7))
    _, pieces = cv2.connectedComponents(solid)
    across, down = landmarks.mean(0).round().astype(int)
    own = (pieces == pieces[down, across]) & (solid > 0)
    kept = cv2.GaussianBlur(cv2.dilate(own.astype(np.float32), _disc(13)), (0, 0), 1.0)
    return np.asarray(silhouette * kept, np.float32)


def bare(
    picture: Picture,
    silhouette: NDArray[np.float32],
    marks: NDArray[np.float32],
    skin: NDArray[np.float64],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
    """A silhouette of 128 px without clothes, for the photograph has its own: beside and below the
    face stays what has colours of hair and skin, and a neck; how much of a pixel has to be made
    neck; and of which colour, ``3``."""
    (ax, ay, a0), (bx, by, b0) = placed(marks)
    across, down = np.arange(128.0), np.arange(128.0)[:, None]
    x, y = ax * across + ay * down + a0 - 56, bx * across + by * down + b0
    lab = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB).astype(np.float32) * np.array(
        [0.4, 1, 1], np.float32
    )
    low = (np.hypot(x / 37, (y - 66) / 57) > 1) & (y > 84)
    neck = low & (abs(x) < _NECK) & (y > 100)
    face, head = np.hypot(x / 26, (y - 72) / 36) < 1, (silhouette > 0.8) & (y < 76)
    kept = np.ones_like(silhouette)
    for where, alike in ((neck, lab[face]), (low & ~neck, lab[head])):
        if where.any() and len(alike) > 64:
            apart = lab[where][:, None] - alike[:: len(alike) // 64]
            kept[where] = np.sort(np.linalg.norm(apart, axis=2), axis=1)[:, 1] < _ALIKE
    bare = picture[neck & (kept > 0)]
    tone = bare.mean(0) if 3 * len(bare) > neck.sum() else _SHADE * skin
    # The last rows are what the neck is continued with.
    made = cv2.morphologyEx(neck * np.maximum(1 - kept, y > 121), cv2.MORPH_CLOSE, _disc(5))
    closed = cv2.morphologyEx(cv2.medianBlur(kept, 5), cv2.MORPH_CLOSE, _disc(9))
    opened = np.maximum(cv2.morphologyEx(closed, cv2.MORPH_OPEN, _disc(7)), neck)
    shape = silhouette * cv2.GaussianBlur(opened, (0, 0), 1)
    shape = np.maximum(shape, cv2.GaussianBlur(neck.astype(np.float32), (0, 0), 1.5))
    made = cv2.GaussianBlur(made.astype(np.float32), (0, 0), 2)
    return in_one_piece(shape, marks), np.asarray(made, np.float32), tone


def placed(marks: NDArray[np.floating], unit: float = 1.0) -> NDArray[np.float64]:
    """From a drawn picture to the template. Heads are as large in all of them, however far apart
    eyes and mouth are. ``unit``: its pixels for one of 128."""
    corners = np.concatenate([marks.min(0), marks.max(0)]).astype(np.float32)
    matrix, _ = whole_head(marks, corners)
    linear = matrix[:, :2] / np.hypot(*matrix[0, :2]) * (_HEADS / unit)
    middle = np.asarray(marks, np.float64)[[0, 1, 3, 4]].mean(0)
    return np.column_stack([linear, matrix @ [*middle, 1] - linear @ middle])


def _disc(side: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


def cut_out(
    picture: Picture, silhouette: NDArray[np.float32]
) -> tuple[Picture, NDArray[np.float32]]:
    """A picture in which the edge of the person has the colours within, not those of what is
    behind, and a silhouette that is a little smaller."""
    inside = (silhouette > 0.9).astype(np.float32)
    wide = 2.5 * len(picture) / 128
    mass = cv2.GaussianBlur(inside, (0, 0), wide)[..., None]
    within = cv2.GaussianBlur(picture * inside[..., None], (0, 0), wide) / np.maximum(mass, 1e-3)
    share = np.clip((silhouette - 0.6) / 0.35, 0, 1)[..., None]
    share = np.where(mass > 1e-2, share, 1)
    edged = share * picture + (1 - share) * within
    shrunk = np.clip((silhouette - 0.3) / 0.6, 0, 1)
    return np.asarray(np.clip(edged, 0, 255), np.uint8), np.asarray(shrunk, np.float32)


def crowned(
    picture: Picture, silhouette: NDArray[np.float32], unit: int
) -> tuple[Picture, NDArray[np.float32]]:
    """With more room above, where hair that the upper edge cuts off goes on, and ends round; and no
    hard edge at the sides. ``unit``: the picture's pixels for one of 128."""
    side, first = len(picture), unit * _CROWN
    above = np.arange(first + unit * HIGH, 0, -1, dtype=np.float32)
    rows = np.concatenate([first * (1 - np.tanh(above / first)), np.arange(first, side)])
    y = np.repeat(rows.astype(np.float32)[:, None], side, axis=1)
    x = np.repeat(np.arange(side, dtype=np.float32)[None], len(rows), axis=0)
    edge = cv2.BORDER_REPLICATE
    taller = cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=edge)
    shares = cv2.remap(silhouette, x, y, cv2.INTER_LINEAR, borderMode=edge)
    across, line = np.arange(side), silhouette[first]
    half = max(float(line.sum()) / 2, 1.0)
    middle = float((line * across).sum() / max(float(line.sum()), 1e-6))
    crown = np.hypot((x[: len(above)] - middle) / half, above[:, None] / (0.5 * half))
    shares[: len(above)] *= np.clip((1.08 - crown) / 0.16, 0, 1)
    near = np.minimum(across, across[::-1]) + 0.5
    shares *= np.clip(near / (_EDGE * unit), 0, 1).astype(np.float32)
    return np.asarray(taller, np.uint8), np.asarray(shares, np.float32)
