"""Find faces in photographs.

Convention: pictures are uint8 ``H x W x 3`` RGB; points are ``(x, y)`` in pixels, with the centre
of the upper left pixel at (0, 0); boxes are ``(x0, y0, x1, y1)`` and may reach over the edge.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import ArrayLike, NDArray

from ppfr_ops.imaging.arrays import Picture

CENTERFACE = Path(__file__).parent / "centerface" / "centerface.onnx"

_TURNED_SIDE, _SMALL_TURNED_SIDE = 384, 128
"""Longest side of a picture that is looked at turned by quarters, px: half of it, within these. It
costs as much again as the upright look. A face that only this look shows is in the review queue."""
_FRAME_SHARE = 12
"""What part of that side the margin around is, in which the picture goes on mirrored: the middle of
a face that the edge cuts may lie there, and a mirrored half is a face."""

_CALL_PIXELS = 256 * 256
"""Of a call of the detector's network, where it takes several views at once."""


@dataclass(frozen=True)
class Detections:
    """Faces of one picture, best first.

    ``boxes`` float32 ``N x 4``; ``landmarks`` float32 ``N x 5 x 2``, NaN where there are none;
    ``scores`` float32 ``N``, 0 to 1; ``second`` bool ``N``, whether it took a second look to find
    the face.
    """

    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]
    second: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def sizes(self) -> NDArray[np.float32]:
        """The longer side of every box, px."""
        return (self.boxes[:, 2:] - self.boxes[:, :2]).max(1, initial=0)

    def take(self, index: NDArray[np.intp]) -> "Detections":
        return Detections(
            self.boxes[index], self.landmarks[index], self.scores[index], self.second[index]
        )

    @classmethod
    def empty(cls) -> "Detections":
        boxes, landmarks, scores = (
            np.zeros(shape, np.float32) for shape in ((0, 4), (0, 5, 2), (0,))
        )
        return cls(boxes, landmarks, scores, np.zeros(0, bool))

    @classmethod
    def join(cls, parts: Sequence["Detections"]) -> "Detections":
        if not parts:
            return cls.empty()
        return cls(
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.landmarks for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.second for part in parts]),
        )


class Detector(Protocol):
    """Anything that finds faces."""

    def __call__(self, pictures: Sequence[Picture]) -> list[Detections]:
        """The faces of every picture, in the pictures' own pixels."""


def given(boxes: ArrayLike, landmarks: ArrayLike | None, size: tuple[int, int]) -> Detections:
    """The owner's own boxes and landmarks as detections with score 1.

    Args:
        boxes: ``N x 4``.
        landmarks: ``N x 5 x 2``, or None.
        size: (width, height) of the picture.

    Raises:
        ValueError: wrong shape, not finite, without area, or a box wholly outside the picture.
    """
    box = np.asarray(boxes, np.float32).reshape(-1, 4)
    if landmarks is None:
        points = np.full((len(box), 5, 2), np.nan, np.float32)
    else:
        points = np.asarray(landmarks, np.float32).reshape(-1, 5, 2)
        if len(points) != len(box):
            raise ValueError(f"{len(box)} boxes, {len(points)} sets of landmarks")
        if not np.isfinite(points).all():
            raise ValueError("a landmark is not finite")
        spread = np.ptp(points, axis=1).max(1)
        if (spread < 1).any():
            raise ValueError("landmarks that all lie on one spot")
    if not np.isfinite(box).all():
        raise ValueError("a box is not finite")
    if (box[:, 2:] - box[:, :2] <= 0).any():
        raise ValueError("a box without area")
    if (box[:, 2:] <= 0).any() or (box[:, :2] >= np.array(size)).any():
        raise ValueError("a box outside the picture")
    return Detections(box, points, np.ones(len(box), np.float32), np.zeros(len(box), bool))


@dataclass(frozen=True)
class _View:
    """What the network is shown of a picture: 2x3 from the picture's to the view's pixels, and the
    view's size."""

    matrix: NDArray[np.float64]
    height: int
    width: int


class CenterFace:
    """CenterFace (Xu et al. 2019, arXiv 1911.03599): boxes and five landmarks.

    A picture is looked at whole, shrunk to ``side`` if it is larger, and then in overlapping tiles
    at full size too, so that memory does not grow with the picture; and turned by 90, 180 and 270
    degrees with a margin around, at half its size. Where nothing is found, and with
    ``thorough`` always, a second look takes it enlarged, mirrored and turned by 30 degrees.

    Args:
        threshold: score from which on something counts as a face.
        side: longest side of what the network sees at once, px; a multiple of 32.
        thorough: take the second look always.
        threads: of a call; 0: as onnxruntime likes.
        once: look at the picture upright only, for faces that are known to be so: a sixth of the
            time.
    """

    def __init__(
        self,
        threshold: float = 0.2,
        side: int = 1024,
        thorough: bool = False,
        threads: int = 0,
        once: bool = False,
    ) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        # Else a picture of every new size leaves its own plan of memory behind.
        options.enable_mem_pattern = False
        self._network = ort.InferenceSession(CENTERFACE, options)
        self._input = self._network.get_inputs()[0].name
        self.threshold, self.side, self.thorough, self.once = threshold, side, thorough, once

    def __call__(self, pictures: Sequence[Picture]) -> list[Detections]:
        found = self._look(pictures, [self._upright(picture) for picture in pictures])
        if self.once:
            return found
        found = self._again(pictures, found, range(len(found)), self._turned)
        again = [i for i, faces in enumerate(found) if self.thorough or len(faces) == 0]
        return self._again(pictures, found, again, self._second_look)

    def _again(
        self,
        pictures: Sequence[Picture],
        found: list[Detections],
        which: Sequence[int],
        look: Callable[[Picture], list[_View]],
    ) -> list[Detections]:
        """What was found, and what other views of some pictures show."""
        more = self._look([pictures[i] for i in which], [look(pictures[i]) for i in which])
        out = list(found)
        for i, seen in zip(which, more, strict=True):
            first = found[i]
            out[i] = suppress(Detections.join([first, seen]))
            for face, box in enumerate(out[i].boxes):
                shares = overlap(box, first.boxes)
                known = shares > 0.3
                out[i].second[face] = first.second[known].all() if known.any() else True
        return out

    def _upright(self, picture: Picture) -> list[_View]:
        height, width = picture.shape[:2]
        views = [_framed(picture, self.side)]
        if max(height, width) > self.side:
            step = self.side * 3 // 4
            for top in range(0, max(1, height - self.side // 4), step):
                for left in range(0, max(1, width - self.side // 4), step):
                    views.append(self._view(picture, _moved(1.0, -left, -top)))
        return views

    def _turned(self, picture: Picture) -> list[_View]:
        """By quarters."""
        half = max(picture.shape[:2]) // 2
        most = min(self.side, _TURNED_SIDE, max(_SMALL_TURNED_SIDE, half))
        upright = _framed(picture, most, most // _FRAME_SHARE)
        high, wide = upright.height - 1, upright.width - 1
        views = []
        for turn, swaps in (
            ([[0, -1, high], [1, 0, 0]], True),
            ([[-1, 0, wide], [0, -1, high]], False),
            ([[0, 1, 0], [-1, 0, wide]], True),
        ):
            matrix = np.array(turn, np.float64)
            whole = matrix[:, :2] @ upright.matrix
            whole[:, 2] += matrix[:, 2]
            sides = (upright.width, upright.height) if swaps else (upright.height, upright.width)
            views.append(_View(whole, *sides))
        return views

    def _second_look(self, picture: Picture) -> list[_View]:
        height, width = picture.shape[:2]
        shrink = min(1.0, self.side / max(height, width))
        scales = [scale * shrink for scale in (0.5, 2.0) if scale * shrink * 32 >= 1]
        matrices = [_moved(s) for s in scales if s * max(height, width) <= self.side]
        views = [self._view(picture, matrix) for matrix in matrices]
        frame = self._view(picture, _moved(shrink))
        mirror = _moved(shrink)
        mirror[0] = [-shrink, 0, (width - 1) * shrink]
        views.append(replace(frame, matrix=mirror))
        centre = ((width - 1) / 2, (height - 1) / 2)
        for angle in (-30, 30):
            turned = np.asarray(cv2.getRotationMatrix2D(centre, angle, 0.75 * shrink), np.float64)
            turned[:, 2] += (shrink - 1) * np.array(centre)
            views.append(replace(frame, matrix=turned))
        return views

    def _view(self, picture: Picture, matrix: NDArray[np.float64]) -> _View:
        """An upright one, as large as it has to be and ``side`` at most."""
        height, width = picture.shape[:2]
        sides = (height * matrix[0, 0] + matrix[1, 2], width * matrix[0, 0] + matrix[0, 2])
        rows, columns = (max(32, min(self.side, _whole_blocks(side))) for side in sides)
        return _View(matrix, rows, columns)

    def _look(
        self, pictures: Sequence[Picture], views: Sequence[Sequence[_View]]
    ) -> list[Detections]:
        parts: list[list[Detections]] = [[] for _ in pictures]
        shapes: dict[tuple[int, int], list[tuple[int, NDArray[np.float64]]]] = {}
        for index, several in enumerate(views):
            for view in several:
                jobs = shapes.setdefault((view.height, view.width), [])
                jobs.append((index, view.matrix))
        for (height, width), jobs in shapes.items():
            # What does not fit the processor's cache is slower together than one by one.
            room = max(1, _CALL_PIXELS // (height * width))
            for start in range(0, len(jobs), room):
                chunk = jobs[start : start + room]
                pixels = [_seen(pictures[i], matrix, height, width) for i, matrix in chunk]
                blob = np.stack(pixels).transpose(0, 3, 1, 2).astype(np.float32)
                outputs = self._network.run(None, {self._input: blob})
                for place, (index, matrix) in enumerate(chunk):
                    faces = self._decode(*(output[place] for output in outputs))
                    parts[index].append(_to_picture(faces, matrix))
        # What one view shows is suppressed already.
        return [p[0] if len(p) == 1 else suppress(Detections.join(p)) for p in parts]

    def _decode(
        self,
        heat: NDArray[np.float32],
        scale: NDArray[np.float32],
        offset: NDArray[np.float32],
        points: NDArray[np.float32],
    ) -> Detections:
        """Faces of one view, from ``1|2|2|10 x h x w`` at a quarter of the view's size."""
        row, column = np.nonzero(heat[0] > self.threshold)
        high, wide = (np.exp(scale[axis, row, column]) * 4 for axis in (0, 1))
        top = (row + offset[0, row, column] + 0.5) * 4 - high / 2
        left = (column + offset[1, row, column] + 0.5) * 4 - wide / 2
        place = points[:, row, column].reshape(5, 2, -1)  # y, x
        marks = np.stack([place[:, 1] * wide + left, place[:, 0] * high + top], -1)
        boxes = np.stack([left, top, left + wide, top + high], 1)
        return suppress(
            Detections(
                boxes.astype(np.float32),
                marks.transpose(1, 0, 2).astype(np.float32),
                heat[0, row, column].astype(np.float32),
                np.zeros(len(row), bool),
            )
        )


def _whole_blocks(side: float) -> int:
    return -int(-side // 32) * 32


def _framed(picture: Picture, most: int, frame: int = 0) -> _View:
    """The whole picture, shrunk to ``most`` if need be, with a margin."""
    height, width = picture.shape[:2]
    scale = min(1.0, most / max(height, width))
    rows, columns = (_whole_blocks(side * scale + 2 * frame) for side in (height, width))
    return _View(_moved(scale, frame, frame), rows, columns)


def _moved(scale: float, right: float = 0, down: float = 0) -> NDArray[np.float64]:
    return np.array([[scale, 0, right], [0, scale, down]], np.float64)


_STILL = _moved(1.0)


def _seen(
    picture: Picture, matrix: NDArray[np.float64], height: int, width: int
) -> NDArray[np.uint8]:
    """A view of a picture, which goes on mirrored beyond its edge."""
    if (matrix[:, :2] == _STILL[:, :2]).all():  # most are, and a warp takes fifty times as long
        right, down = (int(v) for v in matrix[:, 2])
        part = picture[max(0, -down) : height - down, max(0, -right) : width - right]
        top, left = max(0, down), max(0, right)
        rest = (height - top - part.shape[0], width - left - part.shape[1])
        view = cv2.copyMakeBorder(part, top, rest[0], left, rest[1], cv2.BORDER_REFLECT_101)
    else:
        view = cv2.warpAffine(
            picture, matrix, (width, height), flags=_flag(matrix), borderMode=cv2.BORDER_REFLECT_101
        )
    return view.astype(np.uint8, copy=False)


def _flag(matrix: NDArray[np.float64]) -> int:
    """Shrinking warps average, or they would skip pixels."""
    return cv2.INTER_AREA if np.hypot(*matrix[0, :2]) < 0.6 else cv2.INTER_LINEAR


def _to_picture(faces: Detections, matrix: NDArray[np.float64]) -> Detections:
    """From a view's pixels to the picture's; of boxes that are not turned by quarters the upright
    one around the centre."""
    if len(faces) == 0 or (matrix == _STILL).all():
        return faces
    back = cv2.invertAffineTransform(matrix)
    marks = faces.landmarks @ back[:, :2].T + back[:, 2]
    if np.linalg.det(matrix[:, :2]) < 0:  # mirrored
        marks = marks[:, [1, 0, 2, 4, 3]]
    centre = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2 @ back[:, :2].T + back[:, 2]
    half = (faces.boxes[:, 2:] - faces.boxes[:, :2]) / 2 * np.hypot(*back[0, :2])
    if abs(matrix[0, 1]) > abs(matrix[0, 0]):
        half = half[:, ::-1]
    boxes = np.concatenate([centre - half, centre + half], 1)
    return replace(faces, boxes=boxes.astype(np.float32), landmarks=marks.astype(np.float32))


def overlap(box: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of a box with every other; ``N``."""
    common = _common(box, boxes)
    areas = [np.prod(each[..., 2:] - each[..., :2], axis=-1) for each in (box, boxes)]
    shares: NDArray[np.float32] = common / np.maximum(areas[0] + areas[1] - common, 1e-6)
    return shares


def _common(box: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[2:], boxes[:, 2:])
    area: NDArray[np.float32] = np.prod(np.clip(high - low, 0, None), axis=1)
    return area


def covered(box: NDArray[np.float32], boxes: NDArray[np.float32], least: float = 0.5) -> bool:
    """Whether so much of a box lies in one of the others."""
    area = max(float(np.prod(box[2:] - box[:2])), 1e-6)
    return bool((_common(box, boxes) >= least * area).any())


def suppress(faces: Detections, most: float = 0.3) -> Detections:
    """Greedy non-maximum suppression; best first.

    Args:
        most: intersection over union, or 0.7 of the smaller box, from which on two are one.
    """
    order = np.argsort(-faces.scores, kind="stable")
    kept: list[int] = []
    area = np.prod(faces.boxes[:, 2:] - faces.boxes[:, :2], axis=1)
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        common = _common(faces.boxes[best], faces.boxes[rest])
        union = area[best] + area[rest] - common
        same = (common > most * union) | (common > 0.7 * np.minimum(area[best], area[rest]))
        order = rest[~same]
    return faces.take(np.array(kept, np.intp))
