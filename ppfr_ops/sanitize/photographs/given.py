"""What the owner knows of a photograph's faces: boxes, landmarks and regions, in whatever
convention they are kept, as detections in the upright photograph's pixels.
"""

import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ppfr_ops.imaging.boxes import covered, overlap
from ppfr_ops.imaging.detector import Detections, given

SURE = 0.5
"""Score from which on the detector surely sees a face."""

_LEAST_SIDE = 3.0
"""px of a box; a smaller one is in another unit."""
_LEAST_INSIDE = 0.25
"""Share of a box that is within the picture; else it is in another convention."""


class Owner:
    """Reads what the owner says of one photograph.

    Args:
        form: ``xyxy``, ``xywh`` or ``cxcywh``; with ``-relative`` in shares of the picture's sides.
        size: width and height of the upright picture, px.
        orientation: of the stored picture (EXIF, 1 to 8), if that is what the numbers are of.
    """

    def __init__(self, form: str, size: tuple[int, int], orientation: int = 1) -> None:
        self.corners, _, unit = form.partition("-")
        self.relative = unit == "relative"
        self.size = size
        self.orientation = orientation

    def boxes(self, text: str) -> Detections:
        """Boxes without landmarks.

        Raises:
            ValueError: no boxes, or none that can be of this picture; numbers at most.
        """
        return given(self._boxes(text), None, self.size)

    def faces(self, known: Mapping[str, str | None], detected: Detections) -> Detections:
        """Boxes with the landmarks that are given, or that the detector found there.

        Args:
            known: JSON by role, ``boxes`` and perhaps ``landmarks``.

        Raises:
            ValueError: as ``boxes``.
        """
        if known["boxes"] is None:
            raise ValueError("none are given")
        boxes = self._boxes(known["boxes"])
        if "landmarks" in known:
            if known["landmarks"] is None:
                raise ValueError("no landmarks are given")
            points = self._upright(self._scaled(_parse(known["landmarks"], 10).reshape(-1, 2)))
            return given(boxes, points.reshape(-1, 10), self.size)
        faces = given(boxes, None, self.size)
        for number, box in enumerate(faces.boxes):
            shares = overlap(box, detected.boxes)
            if len(shares) and shares.max() > 0.3:
                faces.landmarks[number] = detected.landmarks[shares.argmax()]
        return faces

    def _boxes(self, text: str) -> NDArray[np.float32]:
        values = _parse(text, 4)
        if self.corners != "xyxy":
            low, size = values[:, :2].copy(), values[:, 2:].copy()
            if self.corners == "cxcywh":
                low -= size / 2
            values = np.concatenate([low, low + size], 1)
        if len(values) and not self.relative and np.abs(values).max() <= 2 < min(self.size):
            raise ValueError("boxes within two pixels: in shares of the picture? --boxes-format")
        ends = self._upright(self._scaled(values.reshape(-1, 2))).reshape(-1, 2, 2)
        # What has no area stays without.
        if self.orientation != 1:
            order = (values[:, 2:] > values[:, :2]).all(1)
            ends[order] = np.stack([ends[order].min(1), ends[order].max(1)], 1)
        boxes = ends.reshape(-1, 4)
        _refuse_strange(boxes, self.size)
        return boxes

    def _scaled(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Points of the stored picture, in px."""
        if not self.relative:
            return points
        if points.size and not (np.abs(points - 0.5) <= 1).all():
            raise ValueError("shares of the picture are 0 to 1: in px? --boxes-format")
        return (points * np.array(self._stored, np.float32)).astype(np.float32)

    @property
    def _stored(self) -> tuple[int, int]:
        return self.size[::-1] if self.orientation >= 5 else self.size

    def _upright(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.orientation == 1:
            return points
        width, height = self._stored
        x, y = points[:, 0], points[:, 1]
        left, up = width - 1 - x, height - 1 - y
        turned = {
            2: (left, y),
            3: (left, up),
            4: (x, up),
            5: (y, x),
            6: (up, x),
            7: (up, left),
            8: (y, left),
        }[self.orientation]
        return np.stack(turned, 1).astype(np.float32)


def _refuse_strange(boxes: NDArray[np.float32], size: tuple[int, int]) -> None:
    sides = boxes[:, 2:] - boxes[:, :2]
    if not np.isfinite(boxes).all() or (sides <= 0).any():
        return  # ``given`` says so
    if (sides < _LEAST_SIDE).any():
        raise ValueError("a box smaller than 3 px: --boxes-format says what the numbers are")
    within = np.clip(boxes, 0, [*size, *size])
    shares = np.prod(within[:, 2:] - within[:, :2], axis=1) / np.prod(sides, axis=1)
    if ((shares > 0) & (shares < _LEAST_INSIDE)).any():
        raise ValueError("a box mostly outside the picture: --boxes-format, --boxes-frame")


def _parse(text: str, each: int) -> NDArray[np.float32]:
    """JSON of boxes or landmarks, nested as it likes, to ``N x each``."""
    try:
        return np.asarray(json.loads(text), np.float32).reshape(-1, each)
    except (ValueError, TypeError):
        raise ValueError(f"expected a list of {each} numbers for every face") from None


def beyond(faces: Detections, detected: Detections, sure: float = SURE) -> NDArray[np.intp]:
    """Which detected faces the detector is sure of and no box of ``faces`` covers."""
    seen = np.nonzero(detected.scores >= sure)[0]
    bare = [i for i in seen if not covered(detected.boxes[i], faces.boxes)]
    return np.array(bare, np.intp)
