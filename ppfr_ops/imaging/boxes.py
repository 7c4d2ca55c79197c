"""Boxes that overlap. Convention: as in ``imaging.detector``."""

import numpy as np
from numpy.typing import NDArray


def overlap(box: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of a box with every other; ``N``."""
    shared = common(box, boxes)
    areas = [np.prod(each[..., 2:] - each[..., :2], axis=-1) for each in (box, boxes)]
    shares: NDArray[np.float32] = shared / np.maximum(areas[0] + areas[1] - shared, 1e-6)
    return shares


def common(box: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Area of a box that is also in every other; ``N``."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[2:], boxes[:, 2:])
    area: NDArray[np.float32] = np.prod(np.clip(high - low, 0, None), axis=1)
    return area


def alike(
    box: NDArray[np.float32], boxes: NDArray[np.float32], least_share: float = 0.3
) -> NDArray[np.bool_]:
    """Whether more than such a share of the smaller of a box and every other is in both; ``N``."""
    least = np.minimum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), np.prod(box[2:] - box[:2]))
    return np.asarray(common(box, boxes) > least_share * least)


def covered(box: NDArray[np.float32], boxes: NDArray[np.float32], least: float = 0.5) -> bool:
    """Whether so much of a box lies in one of the others."""
    area = max(float(np.prod(box[2:] - box[:2])), 1e-6)
    return bool((common(box, boxes) >= least * area).any())
