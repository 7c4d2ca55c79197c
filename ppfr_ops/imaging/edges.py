"""A second network's opinion on faces that the edge of a picture cuts: half a face, turned, is what
the detector misses.

Convention: as in ``imaging.detector``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import cv2
import numpy as np
from cv2.utils import logging
from numpy.typing import NDArray

from ppfr_ops.imaging.arrays import Picture
from ppfr_ops.imaging.boxes import common
from ppfr_ops.imaging.views import View, around, by_quarters, seen_by

YUNET = Path(__file__).parent / "yunet" / "yunet.onnx"

_SIDES, _SMALLEST = (256, 384), 128
"""Longest side of what the network is shown of a whole picture, px; in between half of it. At one
size it sees what it misses at the other."""

_MOST_HINTS = 5
"""Places of a picture that are looked at closely, at most."""


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


class EdgeFaces:
    """YuNet, on a picture that goes on mirrored beyond its edge, in which half a face is one."""

    def __init__(self) -> None:
        self._lock = Lock()
        # What OpenCV says of its own engines is nothing to anybody.
        level = logging.setLogLevel(logging.LOG_LEVEL_ERROR)
        self._network = cv2.FaceDetectorYN.create(str(YUNET), "", (32, 32), _LARGE.hint)
        logging.setLogLevel(level)

    def __call__(self, picture: Picture, known: NDArray[np.float32]) -> NDArray[np.float32]:
        """Faces at the edge, where no known one is.

        Args:
            known: boxes, ``N x 4``.

        Returns:
            Boxes, ``N x 4``.
        """
        views = by_quarters(picture, _SIDES[0], _SMALLEST)
        if max(picture.shape[:2]) > 2 * _SIDES[0]:  # else it would be the same look again
            views += by_quarters(picture, _SIDES[1], _SMALLEST)
        places = np.concatenate([self._seen(picture, view) for view in views])
        places = places[np.argsort(-places[:, 4], kind="stable")]
        size = np.array(picture.shape[1::-1])
        frame = np.array([0, 0, *size], np.float32)
        hints: list[NDArray[np.float32]] = []
        for *corners, score in places:
            box = np.array(corners, np.float32)
            cut = (box[:2] < 0).any() or (box[2:] > size).any()
            within = common(frame, box[None])[0] >= 0.2 * np.prod(box[2:] - box[:2])
            others = np.concatenate([known, *(hint[None, :4] for hint in hints)])
            enough = score >= _wanted(box).hint
            if cut and within and enough and not _shares(box, others):
                hints.append(np.array([*box, score], np.float32))
        found = [hint[:4] for hint in hints[:_MOST_HINTS] if self._is_face(picture, hint)]
        return np.array(found, np.float32).reshape(-1, 4)

    def _is_face(self, picture: Picture, hint: NDArray[np.float32]) -> bool:
        wanted = _wanted(hint)
        if hint[4] >= wanted.face:
            return True
        quarters = self._best(picture, hint, (0, 90, 180, 270))
        if quarters < wanted.promising:
            return False
        others = [angle for angle in range(0, 360, 30) if angle % 90]
        return max(quarters, self._best(picture, hint, others)) >= wanted.face

    def _best(self, picture: Picture, hint: NDArray[np.float32], angles: Sequence[float]) -> float:
        """The highest score of a face in that place, turned by these angles."""
        middle, reach = (hint[:2] + hint[2:4]) / 2, (hint[2:4] - hint[:2]) / 2
        faces = np.concatenate([self._seen(picture, view) for view in around(hint[:4], angles)])
        near = (np.abs((faces[:, :2] + faces[:, 2:4]) / 2 - middle) < reach).all(1)
        return float(faces[near, 4].max(initial=0))

    def _seen(self, picture: Picture, view: View) -> NDArray[np.float32]:
        """Boxes and scores that a view shows, ``N x 5``; of one that is not turned by quarters the
        upright box around the centre."""
        pixels = seen_by(picture, view.matrix, view.height, view.width)
        with self._lock:
            self._network.setInputSize((view.width, view.height))
            _, faces = self._network.detect(np.ascontiguousarray(pixels[..., ::-1]))
        if faces is None:
            return np.zeros((0, 5), np.float32)
        back = np.asarray(cv2.invertAffineTransform(view.matrix))
        centre = (faces[:, :2] + faces[:, 2:4] / 2) @ back[:, :2].T + back[:, 2]
        half = faces[:, 2:4] / 2 * np.hypot(*back[0, :2])
        if abs(view.matrix[0, 1]) > abs(view.matrix[0, 0]):
            half = half[:, ::-1]
        return np.column_stack([centre - half, centre + half, faces[:, -1]]).astype(np.float32)


def _wanted(box: NDArray[np.float32]) -> _Scores:
    return _LARGE if (box[2:4] - box[:2]).max() >= _LARGE_SIDE else _SMALL


def _shares(box: NDArray[np.float32], others: NDArray[np.float32]) -> bool:
    """Whether a third of the smaller of two boxes is in both."""
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1)
    least = np.minimum(areas, np.prod(box[2:] - box[:2]))
    return bool((common(box, others) > 0.3 * least).any())
