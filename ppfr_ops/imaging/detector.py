"""Find faces in photographs.

Convention: pictures are uint8 ``H x W x 3`` RGB; points are ``(x, y)`` in pixels, with the centre
of the upper left pixel at (0, 0); boxes are ``(x0, y0, x1, y1)`` and may reach over the edge.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import ArrayLike, NDArray

from ppfr_ops.imaging.arrays import Picture
from ppfr_ops.imaging.boxes import common, overlap
from ppfr_ops.imaging.edges import EdgeFaces, shares, unknown
from ppfr_ops.imaging.faint import doubtful
from ppfr_ops.imaging.views import STILL, View, by_quarters, close, seen_by, tiled, unusual

CENTERFACE = Path(__file__).parent / "centerface" / "centerface.onnx"

_TURNED_SIDE, _SMALL_TURNED_SIDE = 384, 128
"""Longest side of a picture that is looked at turned by quarters, px: half of it, within these. It
costs as much again as the upright look."""
_HINT, _CONFIRMED, _MOST_HINTS = 0.35, 0.75, 6
"""From this share of the threshold on a place is looked at closely, and is a face if it then scores
that share where the edge cuts it, or all elsewhere; and places of a picture, at most."""

_SURE, _RIVAL, _SMALL = 0.8, 0.05, 512
"""Score of another network from which on it is sure of an upright face, if no turned look comes so
near; and longest side of pictures in which it may be enough that it is, px."""

_CERTAIN, _OURS, _SHOWS = 0.5, 0.53, 0.15
"""Score of a face that no turned look has to confirm; from which on the detector's own word counts
more than another network's, whatever that scores; and from which on that shows it something."""

_CALL_PIXELS = 256 * 256
"""Of a call of the detector's network, where it takes several views at once."""


@dataclass(frozen=True)
class Detections:
    """Faces of one picture, best first.

    ``boxes`` float32 ``N x 4``; ``landmarks`` float32 ``N x 5 x 2``, NaN where there are none;
    ``scores`` float32 ``N``, 0 to 1; ``second`` bool ``N``, whether it took a second look to find
    the face. ``faint`` float32 ``M x 5``: where else there may be a head, boxes and how likely, 0
    to 1; None where the detector does not tell.
    """

    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]
    second: NDArray[np.bool_]
    faint: NDArray[np.float32] | None = None

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


class Checked:
    """A detector of which every answer is one: else a head would be covered nowhere.

    Args:
        detector: anybody's.
    """

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def __call__(self, pictures: Sequence[Picture]) -> list[Detections]:
        """As the detector's.

        Raises:
            ValueError: it did not answer for every picture, or a box has no area, or a number is
                none.
        """
        if len(found := list(self._detector(pictures))) != len(pictures):
            raise ValueError("not as many answers as pictures")
        for faces in found:
            count = len(faces)
            there = [np.shape(each) for each in (faces.boxes, faces.landmarks, faces.second)]
            if there != [(count, 4), (count, 5, 2), (count,)]:
                raise ValueError("boxes, landmarks and scores of different numbers of faces")
            if not (np.isfinite(faces.boxes).all() and np.isfinite(faces.scores).all()):
                raise ValueError("a box or score is not finite")
            if (faces.boxes[:, 2:] <= faces.boxes[:, :2]).any():
                raise ValueError("a box without area")
            points = np.isnan(faces.landmarks)
            faint = np.zeros((0, 5)) if faces.faint is None else faces.faint
            shaped = np.shape(faint)[1:] == (5,) and np.isfinite(faint).all()
            if not shaped or (faint[:, 2:4] <= faint[:, :2]).any():
                raise ValueError("faint places that are none")
            if np.isinf(faces.landmarks).any() or (points.any((1, 2)) != points.all((1, 2))).any():
                raise ValueError("landmarks that are there in part")
        return found


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

    Another network (``imaging.edges``) looks first, at all angles; then this, whose landmarks are
    better: at the whole picture, shrunk to ``side`` if it is larger, and in overlapping tiles at
    full size too, so that memory does not grow with it; and turned by quarters with a margin
    around, at half its size. A place that scores half of what a face has to, or that the other
    network shows faintly, is looked at closely, upright by its landmarks and turned by 30 degrees.
    Where nothing is found, and with ``thorough`` always, a second look takes all enlarged, mirrored
    and turned. What the other network sees besides is a face, too.

    Args:
        threshold: score from which on something counts as a face.
        side: longest side of what the network sees at once, px; a multiple of 32.
        thorough: take the second look always.
        threads: of a call; 0: as onnxruntime likes.
        once: look at the picture upright only, for faces that are known to be so.
        quick: leave out small pictures in which the other network surely sees upright faces and
            nothing else: its landmarks are a little less exact.
        tells: say where else there may be a head.
    """

    def __init__(
        self,
        threshold: float = 0.2,
        side: int = 1024,
        thorough: bool = False,
        threads: int = 0,
        once: bool = False,
        quick: bool = False,
        tells: bool = True,
    ) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        # Else a picture of every new size leaves its own plan of memory behind.
        options.enable_mem_pattern = False
        self._network = ort.InferenceSession(CENTERFACE, options)
        self._input = self._network.get_inputs()[0].name
        self.threshold, self.side, self.thorough, self.once = threshold, side, thorough, once
        self.quick, self.tells = quick and not thorough, tells
        if not once:
            self._edges = EdgeFaces(threads, threshold)

    def __call__(self, pictures: Sequence[Picture]) -> list[Detections]:
        if self.once:
            found = self._look(pictures, [tiled(picture, self.side) for picture in pictures])
            return [self._sure(faces) for faces in found]
        seen = [self._edges.whole(picture, self.side) for picture in pictures]
        found = [self._at_first(*each) for each in zip(pictures, seen, strict=True)]
        hard = [i for i, each in enumerate(seen) if self._is_hard(pictures[i], each[0], found[i])]
        whole = [tiled(pictures[i], self.side) for i in hard]
        for i, faces in zip(hard, self._look([pictures[i] for i in hard], whole), strict=True):
            found[i].scores[:] = np.minimum(found[i].scores, _OURS)
            found[i] = suppress(Detections.join([found[i], faces]))
        turned = {i: self._turned(pictures[i], seen[i][1:], found[i]) for i in hard}
        found = self._again(pictures, found, turned)
        closer = {i: self._close(faces) for i, faces in enumerate(found)}
        found = self._again(pictures, found, closer, _CONFIRMED * self.threshold)
        bare = [i for i, faces in enumerate(found) if self.thorough or not len(self._sure(faces))]
        views = {i: unusual(pictures[i], self.side) for i in bare}
        found = self._again(pictures, found, views)
        return [self._at_last(*each) for each in zip(pictures, seen, found, strict=True)]

    def _at_first(self, picture: Picture, seen: Sequence[NDArray[np.float32]]) -> Detections:
        """What another network sees: faces, and places to look at closely. What only a turned look
        shows took a second one."""
        parts, turned = [], np.concatenate(seen[2:])
        for number, places in enumerate(seen):
            scores = np.array([self._worth(place, turned) for place in places], np.float32)
            second = np.full(len(places), number > 1)
            marks = places[:, 5:].reshape(-1, 5, 2)
            parts.append(Detections(places[:, :4], marks, scores, second))
        faces = suppress(_within(Detections.join(parts), picture))
        return faces.take(np.flatnonzero(faces.scores >= self.threshold * _SHOWS))

    def _worth(self, place: NDArray[np.float32], turned: NDArray[np.float32]) -> float:
        """The other network's score of a face that it is sure of, upright, for it hardly knows
        which way up a face is; the least of one that it takes for a face; a hint's below that."""
        score, rivals = float(place[4]), turned[turned[:, 4] > place[4] - _RIVAL, :4]
        if score >= _SURE and not shares(place[:4], rivals):
            return score
        known = score >= max(_CERTAIN, self.threshold)
        return float(self._least) if known else self.threshold * score

    def _is_hard(self, picture: Picture, upright: NDArray[np.float32], faces: Detections) -> bool:
        """Whether the other network sees nothing for sure, or more, or the picture is large."""
        sure = faces.boxes[faces.scores > self._least]
        if not self.quick or max(picture.shape[:2]) > _SMALL or len(sure) == 0:
            return True
        more = unknown(upright[upright[:, 4] >= _SHOWS], picture, sure)
        return len(more) > 0 or bool((faces.scores == self._least).any())

    def _turned(
        self, picture: Picture, seen: Sequence[NDArray[np.float32]], faces: Detections
    ) -> list[View]:
        """The picture turned by those quarters in which another network sees anything, if faintly,
        where no face is known for certain; by all where none is."""
        known = faces.boxes[faces.scores > max(_CERTAIN, self.threshold)]
        views = by_quarters(picture, min(self.side, _TURNED_SIDE), _SMALL_TURNED_SIDE)
        every = self.thorough or len(known) == 0
        shown = [places[places[:, 4] >= _SHOWS] for places in seen]
        each = list(zip(views, shown, strict=True))[1:]
        return [view for view, places in each if every or len(unknown(places, picture, known))]

    def _at_last(
        self, picture: Picture, seen: Sequence[NDArray[np.float32]], faces: Detections
    ) -> Detections:
        """With what another network sees besides: it has no landmarks, so that it is covered, and
        only just the score of a face; and what else may be one."""
        sure = self._sure(faces)
        boxes = self._edges(picture, seen[1:], sure.boxes)
        points = np.full((len(boxes), 5, 2), np.nan, np.float32)
        scores, second = np.full(len(boxes), self._least), np.ones(len(boxes), bool)
        every = Detections.join([sure, Detections(boxes, points, scores, second)])
        rest = faces.take(np.flatnonzero(faces.scores <= self.threshold))
        other = np.column_stack([rest.boxes, rest.scores])
        faint = doubtful(picture, seen, other, every.boxes) if self.tells else None
        return replace(every, faint=faint)

    @property
    def _least(self) -> np.float32:
        """The lowest score of a face."""
        return np.nextafter(np.float32(self.threshold), np.float32(1))

    def _sure(self, faces: Detections) -> Detections:
        return faces.take(np.flatnonzero(faces.scores > self.threshold))

    def _close(self, faces: Detections) -> list[View]:
        """Of those that nearly count, or only just, best first, where no face is."""
        unsure = np.flatnonzero(faces.scores <= self._least)
        sure = faces.boxes[faces.scores > self._least]
        alone = [i for i in unsure if not (common(faces.boxes[i], sure) > 0).any()]
        hints = faces.take(np.array(alone[:_MOST_HINTS], np.intp))
        return close(hints.boxes, hints.landmarks)

    def _again(
        self,
        pictures: Sequence[Picture],
        found: list[Detections],
        views: Mapping[int, list[View]],
        enough: float = 1,
    ) -> list[Detections]:
        """What was found, and what other views of some pictures show; at the edge a score of
        ``enough`` makes it a face."""
        which = [i for i, several in views.items() if several]
        more = self._look([pictures[i] for i in which], [views[i] for i in which])
        out = list(found)
        for i, seen in zip(which, more, strict=True):
            first = self._sure(found[i])
            corners, size = seen.boxes, np.array(pictures[i].shape[1::-1])
            beyond = ((corners[:, :2] < 0) | (corners[:, 2:] > size)).any(1)
            lift = (seen.scores > enough) & beyond
            seen.scores[lift] = np.maximum(seen.scores[lift], self._least)
            out[i] = suppress(Detections.join([found[i], seen]))
            for face, box in enumerate(out[i].boxes):
                known = overlap(box, first.boxes) > 0.3
                out[i].second[face] = first.second[known].all() if known.any() else True
        return out

    def _look(
        self, pictures: Sequence[Picture], views: Sequence[Sequence[View]]
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
                pixels = [seen_by(pictures[i], matrix, height, width) for i, matrix in chunk]
                blob = np.stack(pixels).transpose(0, 3, 1, 2).astype(np.float32)
                outputs = self._network.run(None, {self._input: blob})
                for place, (index, matrix) in enumerate(chunk):
                    faces = self._decode(*(output[place] for output in outputs))
                    parts[index].append(_within(_to_picture(faces, matrix), pictures[index]))
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
        least = self.threshold * (1 if self.once else _HINT)
        row, column = np.nonzero(heat[0] > least)
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


def _to_picture(faces: Detections, matrix: NDArray[np.float64]) -> Detections:
    """From a view's pixels to the picture's; of boxes that are not turned by quarters the upright
    one around the centre."""
    if len(faces) == 0 or (matrix == STILL).all():
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


def _within(faces: Detections, picture: Picture) -> Detections:
    """Those of which a fifth lies in the picture: others are mirror images of faces in it."""
    frame = np.array([0, 0, picture.shape[1], picture.shape[0]], np.float32)
    areas = np.prod(faces.boxes[:, 2:] - faces.boxes[:, :2], axis=1)
    return faces.take(np.flatnonzero(common(frame, faces.boxes) >= 0.2 * areas))


def suppress(faces: Detections, most: float = 0.3) -> Detections:
    """Greedy non-maximum suppression; best first.

    Args:
        most: intersection over union, or 0.7 of the smaller box, from which on two are one.
    """
    if len(faces) < 2:
        return faces
    order = np.argsort(-faces.scores, kind="stable")
    kept: list[int] = []
    area = np.prod(faces.boxes[:, 2:] - faces.boxes[:, :2], axis=1)
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        both = common(faces.boxes[best], faces.boxes[rest])
        union = area[best] + area[rest] - both
        same = (both > most * union) | (both > 0.7 * np.minimum(area[best], area[rest]))
        order = rest[~same]
    return faces.take(np.array(kept, np.intp))
