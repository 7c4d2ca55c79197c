"""A second network's opinion on faces that the edge of a picture cuts: half a face, turned, is what
the detector misses.

Convention: as in ``imaging.detector``.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
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

    def quarters(self, picture: Picture) -> list[NDArray[np.float32]]:
        """What it sees in a picture as it is, and turned by 90, 180 and 270 degrees: boxes in the
        picture and scores, ``N x 5`` each, faint ones too."""
        looks = [by_quarters(picture, _SIDES[0], _SMALLEST)]
        if max(picture.shape[:2]) > 2 * _SIDES[0]:  # else it would be the same look again
            looks.append(by_quarters(picture, _SIDES[1], _SMALLEST))
        return [
            np.concatenate([self._seen(picture, view) for view in views])
            for views in zip(*looks, strict=True)
        ]

    def __call__(
        self, picture: Picture, seen: Sequence[NDArray[np.float32]], known: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Faces at the edge, where no known one is.

        Args:
            seen: as ``quarters`` says.
            known: boxes, ``N x 4``.

        Returns:
            Boxes, ``N x 4``.
        """
        places = np.concatenate(seen)
        places = places[np.argsort(-places[:, 4], kind="stable")]
        size = np.array(picture.shape[1::-1])
        hints: list[NDArray[np.float32]] = []
        for place in unknown(places, picture, known):
            cut = (place[:2] < 0).any() or (place[2:4] > size).any()
            enough = place[4] >= _wanted(place).hint
            if cut and enough and not _shares(place[:4], np.array([hint[:4] for hint in hints])):
                hints.append(place)
        found = [hint[:4] for hint in hints[:_MOST_HINTS] if self._is_face(picture, hint)]
        return np.array(found, np.float32).reshape(-1, 4)

    def _is_face(self, picture: Picture, hint: NDArray[np.float32]) -> bool:
        wanted = _wanted(hint)
        enough = max(wanted.face, self.threshold)
        if hint[4] >= enough:
            return True
        best = 0.0
        for score in self._close(picture, hint, range(0, 360, 90)):
            best = max(best, score)
            if best >= enough:
                return True
        turned = (angle for angle in range(0, 360, 30) if angle % 90)
        return best >= wanted.promising and any(
            score >= enough for score in self._close(picture, hint, turned)
        )

    def _close(
        self, picture: Picture, hint: NDArray[np.float32], angles: Iterable[float]
    ) -> Iterator[float]:
        """The highest score of a face in that place, turned by each of these angles."""
        middle, reach = (hint[:2] + hint[2:4]) / 2, (hint[2:4] - hint[:2]) / 2
        for angle in angles:
            (view,) = around(hint[:4], [angle])
            faces = self._seen(picture, view)
            near = (np.abs((faces[:, :2] + faces[:, 2:4]) / 2 - middle) < reach).all(1)
            yield float(faces[near, 4].max(initial=0))

    def _seen(self, picture: Picture, view: View) -> NDArray[np.float32]:
        """Boxes and scores that a view shows, best first, ``N x 5``; of one that is not turned by
        quarters the upright box around the centre."""
        pixels = seen_by(picture, view.matrix, view.height, view.width)
        blob = cv2.dnn.blobFromImage(pixels, swapRB=True)
        centre, half, scores = _read(self._network.run(None, {"input": blob}), view)
        back = np.asarray(cv2.invertAffineTransform(view.matrix))
        centre = centre @ back[:, :2].T + back[:, 2]
        half = half * np.hypot(*back[0, :2])
        if abs(view.matrix[0, 1]) > abs(view.matrix[0, 0]):
            half = half[:, ::-1]
        return np.column_stack([centre - half, centre + half, scores]).astype(np.float32)


def _read(
    outputs: Sequence[NDArray[np.float32]], view: View
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Centres and half sides of a view's faces, ``N x 2``, and their scores, best first, as
    ``cv2.FaceDetectorYN`` reads the network's answers: what is a face, what is anything, boxes and
    landmarks, each on three grids."""
    face, there, boxes = (
        np.concatenate([grid[0] for grid in outputs[kind : kind + 3]]) for kind in (0, 3, 6)
    )
    scores = np.sqrt(face * there)[:, 0]
    cells = np.flatnonzero(scores >= _LARGE.hint)
    if len(cells) == 0:
        return boxes[:0, :2], boxes[:0, :2], scores[:0]
    sizes = [(view.height // stride, view.width // stride) for stride in _STRIDES]
    corners = np.concatenate([np.indices(size).reshape(2, -1).T[:, ::-1] for size in sizes])
    strides = np.repeat(_STRIDES, [high * wide for high, wide in sizes])[cells, None]
    centre = (corners[cells] + boxes[cells, :2]) * strides
    half = np.exp(boxes[cells, 2:]) * strides / 2
    rows = np.concatenate([centre - half, 2 * half], 1).tolist()
    kept = np.asarray(cv2.dnn.NMSBoxes(rows, scores[cells].tolist(), _LARGE.hint, _SAME), np.intp)
    return centre[kept], half[kept], scores[cells][kept]


def _wanted(place: NDArray[np.float32]) -> _Scores:
    return _LARGE if (place[2:4] - place[:2]).max() >= _LARGE_SIDE else _SMALL


def unknown(
    places: NDArray[np.float32], picture: Picture, known: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Places, ``N x 5``, of which a fifth lies in the picture, where no known box is, ``N x 4``."""
    frame = np.array([0, 0, *picture.shape[1::-1]], np.float32)
    areas = np.prod(places[:, 2:4] - places[:, :2], axis=1)
    within = common(frame, places[:, :4]) >= 0.2 * areas
    return places[[i for i in np.flatnonzero(within) if not _shares(places[i, :4], known)]]


def _shares(box: NDArray[np.float32], others: NDArray[np.float32]) -> bool:
    """Whether a third of the smaller of two boxes is in both."""
    if len(others) == 0:
        return False
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1)
    least = np.minimum(areas, np.prod(box[2:] - box[:2]))
    return bool((common(box, others) > 0.3 * least).any())
