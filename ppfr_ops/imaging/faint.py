"""Places that may be heads, too faint to be taken for faces: how likely each is one.

Convention: as in ``imaging.detector``.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ppfr_ops.imaging.arrays import Picture
from ppfr_ops.imaging.boxes import alike
from ppfr_ops.imaging.edges import unknown

_WEIGHTS = (7.06, 1.27, 0.82, 1.90, -1.08)
"""Of one, and of the logarithms of the highest and the second highest score of a place among the
small network's looks, of the highest of the other's, and of its longer side in 40 px; logistic.
``bench/faint.py`` fits them to heads left bare in made scenes."""

LEAST = 0.05
"""Score of what a look does not show."""


def doubtful(
    picture: Picture,
    looks: Sequence[NDArray[np.float32]],
    other: NDArray[np.float32],
    known: NDArray[np.float32],
) -> NDArray[np.float32]:
    """As ``places``: boxes, and how likely each is a head, ``N x 5``."""
    boxes, told = places(picture, looks, other, known)
    return np.column_stack([boxes, chances(told)])


def places(
    picture: Picture,
    looks: Sequence[NDArray[np.float32]],
    other: NDArray[np.float32],
    known: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What networks show where no known box is, a place once, and what ``chances`` weighs.

    Args:
        looks: of a network, boxes and scores, ``N x 5`` or more each.
        other: of another network, all its looks together.
        known: boxes, ``N x 4``.

    Returns:
        Boxes, ``N x 4``; and highest and second highest score among the looks, highest of the
        other's, and longer side, px, ``N x 4``.
    """
    seen = np.concatenate([each[:, :5] for each in (*looks, other)])
    which = np.repeat(np.arange(len(looks) + 1.0), [len(each) for each in (*looks, other)])
    free = unknown(np.column_stack([seen, which]).astype(np.float32), picture, known)
    free = free[np.argsort(-free[:, 4], kind="stable")]
    seen, which = free[:, :5], free[:, 5].astype(int)
    left, boxes, told = np.ones(len(seen), bool), [], []
    for i in range(len(seen)):
        if not left[i]:
            continue
        mine = left & alike(seen[i, :4], seen[:, :4])
        left &= ~mine
        best = np.zeros(len(looks) + 1, np.float32)
        np.maximum.at(best, which[mine], seen[mine, 4])
        first, second = np.sort(best[:-1])[:-3:-1]
        boxes.append(seen[i, :4])
        told.append((first, second, best[-1], (seen[i, 2:4] - seen[i, :2]).max()))
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(told, np.float32).reshape(-1, 4)


def chances(told: NDArray[np.float32]) -> NDArray[np.float32]:
    """How likely places are heads, by what ``places`` tells of them; 0 to 1, ``N``."""
    scores = np.log(np.maximum(told[:, :3], LEAST))
    logit = _WEIGHTS[0] + scores @ _WEIGHTS[1:4] + _WEIGHTS[4] * np.log(told[:, 3] / 40)
    return (1 / (1 + np.exp(-logit))).astype(np.float32)
