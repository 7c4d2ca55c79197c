"""The two kinds of pictures, as arrays; and what is done to the rows of arrays in many places."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

FACE_SIZE = 112
"""Side in px of an aligned face (the ArcFace template)."""

Faces = NDArray[np.uint8]
"""uint8 ``N x 112 x 112 x 3``, RGB, aligned."""

Picture = NDArray[np.uint8]
"""uint8 ``H x W x 3``, RGB."""


def chunks(count: int, size: int = 64) -> Iterator[slice]:
    """Slices of at most ``size`` that cover ``count``."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def in_chunks(work: Callable[..., Any], *arrays: Any, size: int = 64) -> NDArray[Any]:
    """What ``work`` gives of the arrays, ``size`` rows at a time; one row at least."""
    parts = chunks(len(arrays[0]), size)
    return np.concatenate([np.asarray(work(*(rows[part] for rows in arrays))) for part in parts])


def unit(rows: NDArray[Any]) -> NDArray[Any]:
    """``N x D`` to length 1; a row of zeros stays."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
