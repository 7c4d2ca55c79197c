"""A small network that looks first, at all angles; and its opinion on faces that the other misses:
half ones, which the edge of a picture cuts, and turned ones.

Convention: as in ``imaging.detector``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ppfr_ops.imaging.arrays import Picture
from ppfr_ops.imaging.boxes import alike, common
from ppfr_ops.imaging.views import View, around, by_quarters, framed, seen_by

YUNET = Path(__file__).parent / "yunet" / "yunet.onnx"

_SIDES, _SMALLEST = (256, 384), 128
"""Longest side of what the network is shown of a whole picture, px; in between half of it. At one
size it sees what it misses at the other."""

_CLOSE = (96, 48)
"""Sides of a close look, and of the face in it, px."""

_MOST_HINTS = 5
"""Places of a picture that are looked at closely, at most, at its edge and inside."""


@dataclass(frozen=True)
class _Scores:
    hint: float
    """From which on a place is looked at closely, turned by quarters."""
    promising: float
    """From which on then by 30 degrees, too."""
    face: float
    """From which on it is a face, if one of all these looks has it."""


_SMALL, _LARGE, _LARGE_SIDE = _Scores(0.15, 0.2, 0.6), _Scores(0.08, 0.1, 0.4), 56
"""What a face shows from this longer side on (px; half of what recognisers take) must not stay for
want of a score; of small ones at the edges of streets there are many, of whom little is seen."""

_INSIDE = 0.3
"""From which score on a place that no edge cuts is looked at closely: most turned faces have more,
and of what is none, shirts and badges, few."""

_STRIDES, _SAME = (8, 16, 32), 0.3
"""Of the network's three grids, px; and from which share of their union on two boxes are one."""


class EdgeFaces:
    """YuNet, on a picture that goes on mirrored beyond its edge, in which half a face is one.

    Args:
        threads: of a call; 0: as onnxruntime likes.
        threshold: that a face has to score, besides what its size asks for.
    """

    def __init__(self, threads: int = 0, threshold: float = 0) -> None:
        self.threshold = threshold
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        options.enable_mem_pattern = False
        self._network = ort.InferenceSession(YUNET, options)

    def whole(self, picture: Picture, side: int) -> list[NDArray[np.float32]]:
        """What it sees in a picture as it is, ``side`` px at most; and in one of half the size,
        upright and turned by 90, 180 and 270 degrees: boxes in the picture, scores and landmarks,
        ``N x 15`` each, faint ones too."""
        looks = [by_quarters(picture, _SIDES[0], _SMALLEST)]
        if max(picture.shape[:2]) > 2 * _SIDES[0]:  # else it would be the same look again
            looks.append(by_quarters(picture, _SIDES[1], _SMALLEST))
        views = [
            framed(picture, side),
            *(view for turned in zip(*looks, strict=True) for view in turned),
        ]
        first, *seen = self._seen(picture, views)
        count = len(looks)
        return [first, *(np.concatenate(seen[i : i + count]) for i in range(0, len(seen), count))]

    def __call__(
        self, picture: Picture, seen: Sequence[NDArray[np.float32]], known: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Faces where no known one is.

        Args:
            seen: as ``whole`` says, without the first.
            known: boxes, ``N x 4``.

        Returns:
            Boxes, ``N x 4``.
        """
        places = np.concatenate(seen)
        places = places[np.argsort(-places[:, 4], kind="stable")]
        size = np.array(picture.shape[1::-1])
        at_edge: list[NDArray[np.float32]] = []
        inside: list[NDArray[np.float32]] = []
        for place in unknown(places, picture, known):
            cut = (place[:2] < 0).any() or (place[2:4] > size).any()
            hints = at_edge if cut else inside
            enough = place[4] >= (_wanted(place).hint if cut else _INSIDE)
            if enough and not shares(place[:4], np.array([hint[:4] for hint in hints])):
                hints.append(place)
        hints = at_edge[:_MOST_HINTS] + inside[:_MOST_HINTS]
        found = [hint[:4] for hint in hints if self._is_face(picture, hint)]
        return np.array(found, np.float32).reshape(-1, 4)

    def _is_face(self, picture: Picture, hint: NDArray[np.float32]) -> bool:
        wanted = _wanted(hint)
        enough = max(wanted.face, self.threshold)
        if hint[4] >= enough:
            return True
        best = self._close(picture, hint, range(0, 360, 90))
        if wanted.promising <= best < enough:
            best = self._close(picture, hint, [turn for turn in range(0, 360, 30) if turn % 90])
        return best >= enough

    def _close(self, picture: Picture, hint: NDArray[np.float32], angles: Sequence[float]) -> float:
        """The highest score of a face in that place, turned by any of these angles."""
        middle, reach = (hint[:2] + hint[2:4]) / 2, (hint[2:4] - hint[:2]) / 2
        faces = np.concatenate(self._seen(picture, around(hint[:4], angles, *_CLOSE)))
        near = (np.abs((faces[:, :2] + faces[:, 2:4]) / 2 - middle) < reach).all(1)
        return float(faces[near, 4].max(initial=0))

    def _seen(self, picture: Picture, views: Sequence[View]) -> list[NDArray[np.float32]]:
        """Boxes, scores and landmarks that views show, best first, ``N x 15`` each; of one that is
        not turned by quarters the upright box around the centre. Views of one size are a call."""
        found = [np.zeros((0, 15), np.float32)] * len(views)
        shapes: dict[tuple[int, int], list[int]] = {}
        for number, view in enumerate(views):
            shapes.setdefault((view.height, view.width), []).append(number)
        for (height, width), numbers in shapes.items():
            pixels = [seen_by(picture, views[n].matrix, height, width) for n in numbers]
            blob = cv2.dnn.blobFromImages(pixels, swapRB=True)
            outputs = self._network.run(None, {"input": blob})
            for place, n in enumerate(numbers):
                found[n] = _read([output[place] for output in outputs], views[n])
        return found


@lru_cache(64)
def _grids(height: int, width: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Of the network's cells, one grid after the other, ``(x, y)`` in their grid, ``N x 2``, and
    their side, px, ``N x 1``."""
    sizes = [(height // stride, width // stride) for stride in _STRIDES]
    corners = np.concatenate([np.indices(size).reshape(2, -1).T[:, ::-1] for size in sizes])
    return corners, np.repeat(_STRIDES, [high * wide for high, wide in sizes])[:, None]


def _read(outputs: Sequence[NDArray[np.float32]], view: View) -> NDArray[np.float32]:
    """Faces that a view shows, as ``cv2.FaceDetectorYN`` reads the network's answers: what is a
    face, what is anything, boxes and landmarks, each on three grids; in the picture's pixels."""
    face, there = (np.concatenate(outputs[kind : kind + 3])[:, 0] for kind in (0, 3))
    scores = np.sqrt(face * there)
    cells = np.flatnonzero(scores >= _LARGE.hint)
    if len(cells) == 0:
        return np.zeros((0, 15), np.float32)
    boxes, points = (np.concatenate(outputs[kind : kind + 3])[cells] for kind in (6, 9))
    scores = scores[cells]
    corners, strides = (each[cells] for each in _grids(view.height, view.width))
    centre = (corners + boxes[:, :2]) * strides
    half = np.exp(boxes[:, 2:]) * strides / 2
    rows = np.concatenate([centre - half, 2 * half], 1).tolist()
    kept = np.asarray(cv2.dnn.NMSBoxes(rows, scores.tolist(), _LARGE.hint, _SAME), np.intp)
    marks = (points.reshape(-1, 5, 2) + corners[:, None]) * strides[:, None]
    back = np.asarray(cv2.invertAffineTransform(view.matrix))
    centre, marks = (each[kept] @ back[:, :2].T + back[:, 2] for each in (centre, marks))
    half = half[kept] * np.hypot(*back[0, :2])
    if abs(view.matrix[0, 1]) > abs(view.matrix[0, 0]):
        half = half[:, ::-1]
    columns = [centre - half, centre + half, scores[kept], marks.reshape(-1, 10)]
    return np.column_stack(columns).astype(np.float32)


def _wanted(place: NDArray[np.float32]) -> _Scores:
    return _LARGE if (place[2:4] - place[:2]).max() >= _LARGE_SIDE else _SMALL


def unknown(
    places: NDArray[np.float32], picture: Picture, known: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Places, ``N x 5`` or more, of which a fifth lies in the picture, where no known box is."""
    frame = np.array([0, 0, *picture.shape[1::-1]], np.float32)
    areas = np.prod(places[:, 2:4] - places[:, :2], axis=1)
    within = common(frame, places[:, :4]) >= 0.2 * areas
    return places[[i for i in np.flatnonzero(within) if not shares(places[i, :4], known)]]


def shares(box: NDArray[np.float32], others: NDArray[np.float32]) -> bool:
    """Whether a third of the smaller of two boxes is in both."""
    return len(others) > 0 and bool(alike(box, others).any())
