"""Find faces in photographs.

Convention: pictures are uint8 ``H x W x 3`` RGB; points are ``(x, y)`` in pixels, with the centre
of the upper left pixel at (0, 0); boxes are ``(x0, y0, x1, y1)`` and may reach over the edge.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import ArrayLike, NDArray

from ppfr_ops.imaging.arrays import Picture

CENTERFACE = Path(__file__).parent / "centerface" / "centerface.onnx"

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


class CenterFace:
    """CenterFace (Xu et al. 2019, arXiv 1911.03599): boxes and five landmarks.

    A picture is looked at whole, shrunk to ``side`` if it is larger, and then in overlapping tiles
    at full size too, so that memory does not grow with the picture. Where nothing is found, and
    with ``thorough`` always, a second look takes it enlarged, mirrored and turned by 30 degrees.

    Args:
        threshold: score from which on something counts as a face.
        side: longest side of what the network sees at once, px; a multiple of 32.
        thorough: take the second look always.
        threads: of a call; 0: as onnxruntime likes.
    """

    def __init__(
        self,
        threshold: float = 0.2,
        side: int = 1024,
        thorough: bool = False,
        threads: int = 0,
    ) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        # Else a picture of every new size leaves its own plan of memory behind.
        options.enable_mem_pattern = False
        self._network = ort.InferenceSession(CENTERFACE, options)
        self._input = self._network.get_inputs()[0].name
        self.threshold, self.side, self.thorough = threshold, side, thorough

    def __call__(self, pictures: Sequence[Picture]) -> list[Detections]:
        found = self._look(pictures, [self._first_look(picture) for picture in pictures])
        again = [i for i, faces in enumerate(found) if self.thorough or len(faces) == 0]
        if again:
            views = [self._second_look(pictures[i]) for i in again]
            for i, more in zip(again, self._look([pictures[i] for i in again], views), strict=True):
                first, found[i] = found[i], suppress(Detections.join([found[i], more]))
                for face, box in enumerate(found[i].boxes):
                    found[i].second[face] = not (overlap(box, first.boxes) > 0.3).any()
        return found

    def _first_look(self, picture: Picture) -> list[NDArray[np.float64]]:
        """Views as 2x3 matrices from the picture's to the view's pixels."""
        height, width = picture.shape[:2]
        views = [_view(min(1.0, self.side / max(height, width)))]
        if max(height, width) > self.side:
            step = self.side * 3 // 4
            for top in range(0, max(1, height - self.side // 4), step):
                for left in range(0, max(1, width - self.side // 4), step):
                    views.append(_view(1.0, left, top))
        return views

    def _second_look(self, picture: Picture) -> list[NDArray[np.float64]]:
        height, width = picture.shape[:2]
        shrink = min(1.0, self.side / max(height, width))
        views = [_view(scale * shrink) for scale in (0.5, 2.0) if scale * shrink * 32 >= 1]
        views = [v for v in views if v[0, 0] * max(height, width) <= self.side]
        mirror = _view(shrink)
        mirror[0] = [-shrink, 0, (width - 1) * shrink]
        views.append(mirror)
        centre = ((width - 1) / 2, (height - 1) / 2)
        for angle in (-30, 30):
            turned = np.asarray(cv2.getRotationMatrix2D(centre, angle, 0.75 * shrink), np.float64)
            turned[:, 2] += (shrink - 1) * np.array(centre)
            views.append(turned.astype(np.float64))
        return views

    def _look(
        self, pictures: Sequence[Picture], views: Sequence[Sequence[NDArray[np.float64]]]
    ) -> list[Detections]:
        parts: list[list[Detections]] = [[] for _ in pictures]
        shapes: dict[tuple[int, int], list[tuple[int, NDArray[np.float64]]]] = {}
        for index, (picture, matrices) in enumerate(zip(pictures, views, strict=True)):
            for matrix in matrices:
                shapes.setdefault(self._shape(picture, matrix), []).append((index, matrix))
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

    def _shape(self, picture: Picture, matrix: NDArray[np.float64]) -> tuple[int, int]:
        height, width = picture.shape[:2]
        scale = float(np.hypot(matrix[0, 0], matrix[0, 1]))
        left, top = (max(0.0, -matrix[axis, 2]) for axis in (0, 1))
        if matrix[0, 0] < 0 or matrix[0, 1]:  # mirrored or turned within its own frame
            left = top = 0.0
            scale = min(1.0, self.side / max(height, width))
        sides = (height * scale - top, width * scale - left)
        rows, columns = (max(32, min(self.side, -int(-side // 32) * 32)) for side in sides)
        return rows, columns

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


def _view(scale: float, left: float = 0, top: float = 0) -> NDArray[np.float64]:
    return np.array([[scale, 0, -left], [0, scale, -top]], np.float64)


_WHOLE = _view(1.0)


def _seen(
    picture: Picture, matrix: NDArray[np.float64], height: int, width: int
) -> NDArray[np.uint8]:
    """A view of a picture, black beyond its edge."""
    if (matrix == _WHOLE).all():  # most are, and a warp takes fifty times as long
        part = picture[:height, :width]
        down, right = height - part.shape[0], width - part.shape[1]
        view = cv2.copyMakeBorder(part, 0, down, 0, right, cv2.BORDER_CONSTANT)
    else:
        view = cv2.warpAffine(picture, matrix, (width, height), flags=_flag(matrix))
    return view.astype(np.uint8, copy=False)


def _flag(matrix: NDArray[np.float64]) -> int:
    """Shrinking warps average, or they would skip pixels."""
    return cv2.INTER_AREA if np.hypot(*matrix[0, :2]) < 0.6 else cv2.INTER_LINEAR


def _to_picture(faces: Detections, matrix: NDArray[np.float64]) -> Detections:
    """From a view's pixels to the picture's; of turned boxes the upright one around the centre."""
    if len(faces) == 0 or (matrix == _WHOLE).all():
        return faces
    back = cv2.invertAffineTransform(matrix)
    marks = faces.landmarks @ back[:, :2].T + back[:, 2]
    if matrix[0, 0] < 0:
        marks = marks[:, [1, 0, 2, 4, 3]]
    centre = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2 @ back[:, :2].T + back[:, 2]
    half = (faces.boxes[:, 2:] - faces.boxes[:, :2]) / 2 * np.hypot(*back[0, :2])
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
