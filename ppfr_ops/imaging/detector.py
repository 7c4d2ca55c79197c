"""Photographs: find faces, align them to 112x112, put anonymized ones back over the whole head.

Convention: pictures are uint8 ``H x W x 3`` RGB; points are ``(x, y)`` in pixels, with the centre
of the upper left pixel at (0, 0); boxes are ``(x0, y0, x1, y1)`` and may reach over the edge.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import ArrayLike, NDArray

from ppfr_ops.imaging.arrays import FACE_SIZE, Faces, Picture

TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ],
    np.float32,
)
"""Left eye, right eye, nose tip, mouth corners, as seen in the picture (ArcFace, InsightFace)."""

HEAD = (56.0, 50.0, 78.0, 98.0)
"""Centre and half axes of the ellipse that covers hair, ears and chin, in the template's pixels."""

MARGIN = 0.12
"""Beyond the ellipse the change fades out over this share of its half axes."""

CENTERFACE = Path(__file__).parent / "centerface" / "centerface.onnx"

_CALL_PIXELS = 256 * 256
"""Of a call of the detector's network, where it takes several views at once."""

Treatment = Literal[
    "anonymized",
    "pixelated_small",
    "pixelated_unsure",
    "pixelated_no_landmarks",
    "pixelated_by_verdict",
    "left_alone",
]
"""What was done to a face; all but the last hide it."""


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
                pixels = [
                    cv2.warpAffine(pictures[i], matrix, (width, height), flags=_flag(matrix))
                    for i, matrix in chunk
                ]
                blob = np.stack(pixels).transpose(0, 3, 1, 2).astype(np.float32)
                outputs = self._network.run(None, {self._input: blob})
                for place, (index, matrix) in enumerate(chunk):
                    faces = self._decode(*(output[place] for output in outputs))
                    parts[index].append(_to_picture(faces, matrix))
        return [suppress(Detections.join(part)) for part in parts]

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


def _flag(matrix: NDArray[np.float64]) -> int:
    """Shrinking warps average, or they would skip pixels."""
    return cv2.INTER_AREA if np.hypot(*matrix[0, :2]) < 0.6 else cv2.INTER_LINEAR


def _to_picture(faces: Detections, matrix: NDArray[np.float64]) -> Detections:
    """From a view's pixels to the picture's; of turned boxes the upright one around the centre."""
    if len(faces) == 0:
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


def similarity(points: ArrayLike) -> NDArray[np.float64]:
    """The similarity transform of landmarks onto the template, least squares.

    Args:
        points: ``5 x 2``.

    Returns:
        float64 ``2 x 3``, from the picture's pixels to the 112x112 crop's.

    Raises:
        ValueError: landmarks that all lie on one spot, or are not finite.
    """
    found = np.asarray(points, np.float64)
    if found.shape != (5, 2) or not np.isfinite(found).all():
        raise ValueError("five finite points are needed")
    middle, goal = found.mean(0), TEMPLATE.mean(0).astype(np.float64)
    # As complex numbers z -> a z + b: a is the one-dimensional regression coefficient.
    source = (found - middle) @ np.array([1, 1j])
    target = (TEMPLATE - goal) @ np.array([1, 1j])
    power = float(np.vdot(source, source).real)
    if power < 1e-6:
        raise ValueError("landmarks that all lie on one spot")
    a = np.vdot(source, target) / power
    linear = np.array([[a.real, -a.imag], [a.imag, a.real]])
    return np.column_stack([linear, goal - linear @ middle])


def align(picture: Picture, landmarks: ArrayLike) -> NDArray[np.uint8]:
    """The 112x112 crops of a picture's faces; beyond its edge the edge goes on.

    Args:
        landmarks: ``N x 5 x 2``.

    Returns:
        uint8 ``N x 112 x 112 x 3``.
    """
    points = np.asarray(landmarks, np.float64).reshape(-1, 5, 2)
    return cut(picture, [similarity(face) for face in points])


def cut(picture: Picture, matrices: Sequence[NDArray[np.float64]]) -> Faces:
    """As ``align``, by transforms from the picture's to the crop's pixels."""
    crops = np.zeros((len(matrices), FACE_SIZE, FACE_SIZE, 3), np.uint8)
    for crop, given_matrix in zip(crops, matrices, strict=True):
        matrix, source = given_matrix.copy(), picture
        scale = np.hypot(*matrix[0, :2])
        if scale < 0.5:  # average first what would be skipped, only around the face
            window = _window(matrix, picture.shape, FACE_SIZE)
            source = np.ascontiguousarray(picture[window])
            source = cv2.GaussianBlur(source, (0, 0), 0.4 / scale).astype(np.uint8)
            matrix[:, 2] += matrix[:, :2] @ (window[1].start, window[0].start)
        # Black beyond the edge would be the same before and after, and count as disclosed.
        crop[:] = cv2.warpAffine(
            source,
            matrix,
            (FACE_SIZE, FACE_SIZE),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
    return crops


def _window(matrix: NDArray[np.float64], shape: Sequence[int], side: float) -> tuple[slice, slice]:
    """The part of a picture that a square of the template with half of ``side`` around covers."""
    low, high = -side / 2, FACE_SIZE + side / 2
    corners = np.array([[low, low], [low, high], [high, low], [high, high]])
    back = np.asarray(cv2.invertAffineTransform(matrix), np.float64)
    return _clip(corners @ back[:, :2].T + back[:, 2], shape)


def _clip(points: NDArray[np.floating], shape: Sequence[int]) -> tuple[slice, slice]:
    low, high = np.floor(points.min(0)) - 1, np.ceil(points.max(0)) + 2
    x0, x1 = np.clip([low[0], high[0]], 0, shape[1]).astype(int)
    y0, y1 = np.clip([low[1], high[1]], 0, shape[0]).astype(int)
    return slice(y0, y1), slice(x0, x1)


def treat(faces: Detections, smallest: float = 32, sure: float = 0.35) -> list[Treatment]:
    """What has to be done to every face, by itself.

    Args:
        smallest: faces of shorter boxes are pixelated, px.
        sure: and so are those with a lower score.
    """
    treatments: list[Treatment] = []
    for marks, size, score in zip(faces.landmarks, faces.sizes, faces.scores, strict=True):
        if not np.isfinite(marks).all():
            treatments.append("pixelated_no_landmarks")
        elif size < smallest:
            treatments.append("pixelated_small")
        else:
            treatments.append("pixelated_unsure" if score < sure else "anonymized")
    return treatments


def transforms(faces: Detections) -> list[NDArray[np.float64]]:
    """Of every face to the template: by its landmarks, or by its box where they are of no use."""
    matrices = []
    for marks, box in zip(faces.landmarks, faces.boxes, strict=True):
        try:
            matrices.append(similarity(marks))
        except ValueError:
            matrices.append(_from_box(box))
    return matrices


def cover(
    picture: Picture,
    faces: Detections,
    treatments: Sequence[Treatment],
    published: Mapping[int, NDArray[np.uint8]],
    background: Literal["keep", "blur", "black"] = "keep",
) -> tuple[Picture, NDArray[np.bool_]]:
    """Cover every head: anonymized face in the middle, coarse pixels around it, faded edge.

    Nothing of the original is mixed in within the ellipse ``HEAD``; only in the margin beyond it.

    Args:
        treatments: one a face.
        published: by number of the face, what the method made of its crop, uint8
            ``112 x 112 x 3``; all others are pixelated, or left alone.
        background: what is not head: as it is, blurred, or black.

    Returns:
        The picture, and bool ``H x W``: inside a head or its margin, or changed background.
    """
    canvas, changed = picture.copy(), np.zeros(picture.shape[:2], bool)
    spared = np.zeros_like(changed)
    matrices = transforms(faces)
    for i in range(len(faces) - 1, -1, -1):  # the best last, on top
        if treatments[i] == "left_alone":
            spared[_clip(faces.boxes[i].reshape(2, 2), picture.shape)] = True
            continue
        _cover(canvas, changed, matrices[i], published.get(i))
        # Landmarks of a poor detection may lie anywhere, so its box is covered at any rate.
        if treatments[i] != "anonymized":
            _cover(canvas, changed, _from_box(faces.boxes[i]), None)
    if background != "keep":
        rest = np.zeros_like(canvas)
        if background == "blur":
            small = cv2.resize(canvas, (24, 24), interpolation=cv2.INTER_AREA)
            wide = cv2.resize(small, canvas.shape[1::-1], interpolation=cv2.INTER_LINEAR)
            rest = wide.astype(np.uint8)
        canvas = np.where((changed | spared)[..., None], canvas, rest)
        changed |= ~spared
    return canvas, changed


@dataclass(frozen=True)
class Protected:
    """A picture whose heads are covered; ``changed`` and ``treatments`` as in ``cover``."""

    picture: Picture
    changed: NDArray[np.bool_]
    treatments: tuple[Treatment, ...]


def protect(
    picture: Picture,
    faces: Detections,
    anonymize: Callable[[Faces], Faces],
    *,
    smallest: float = 32,
    sure: float = 0.35,
    background: Literal["keep", "blur", "black"] = "keep",
) -> Protected:
    """``treat``, anonymize, ``cover``: all for one picture.

    Args:
        anonymize: uint8 ``N x 112 x 112 x 3`` to the same; called once, if a face suits it.
    """
    treatments = treat(faces, smallest, sure)
    suited = [i for i, treatment in enumerate(treatments) if treatment == "anonymized"]
    crops = anonymize(align(picture, faces.landmarks[suited])) if suited else ()
    published = dict(zip(suited, crops, strict=True))
    return Protected(*cover(picture, faces, treatments, published, background), tuple(treatments))


def _from_box(box: NDArray[np.float32]) -> NDArray[np.float64]:
    """As if a face stood upright in the box: it spans about 80 x 104 of the template's pixels."""
    width, height = np.maximum(box[2:] - box[:2], 1)
    scale = min(80 / width, 104 / height)
    middle = (box[:2] + box[2:]) / 2
    return np.array(
        [[scale, 0, 56 - scale * middle[0]], [0, scale, 64 - scale * middle[1]]], np.float64
    )


def _cover(
    canvas: Picture,
    changed: NDArray[np.bool_],
    matrix: NDArray[np.float64],
    face: NDArray[np.uint8] | None,
) -> None:
    """Cover one head, in place; without a face all of it is coarse pixels."""
    x, y, half_x, half_y = HEAD
    reach = np.array([half_x, half_y]) * (1 + MARGIN)
    corners = np.array([x, y]) + reach * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    back = cv2.invertAffineTransform(matrix)
    window = _clip(corners @ back[:, :2].T + back[:, 2], canvas.shape)
    rows, columns = window
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    part = canvas[window]
    # In the template's pixels, by plane; float32 and OpenCV, for this is half the work of a run.
    across = np.arange(columns.start, columns.stop, dtype=np.float32)
    down = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
    (ax, ay, a0), (bx, by, b0) = matrix.astype(np.float32)
    place_x, place_y = (ax * across + a0) + ay * down, (bx * across + b0) + by * down
    radius = cv2.magnitude((place_x - x) / half_x, (place_y - y) / half_y)
    inside = np.clip((1 + MARGIN - radius) / MARGIN, 0, 1)  # 1 all over the head
    cells = [max(1, round(side * np.hypot(*matrix[0, :2]) / 28)) for side in part.shape[1::-1]]
    head = cv2.resize(part, cells, interpolation=cv2.INTER_AREA)
    head = cv2.resize(head, part.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    if face is not None:
        warped = cv2.remap(
            face, place_x, place_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        last = np.float32(FACE_SIZE - 1)
        edge = cv2.min(cv2.min(place_x, last - place_x), cv2.min(place_y, last - place_y))
        share = np.clip(edge / 6, 0, 1)
        head = cv2.blendLinear(warped, head, share, 1 - share)
    canvas[window] = cv2.blendLinear(head, part, inside, 1 - inside)
    changed[window] |= inside > 0
