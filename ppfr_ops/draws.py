"""Random draws: the r in y = A(x, r).

A draw is a vector of standard normals, one vector a face, handed to the anonymizer as an argument.
In production it comes from the operating system's CSPRNG and is forgotten with the batch; nothing
stores it. A seeded source exists for tests and for the attackers of the evaluation.
"""

import hashlib
import os
import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

DrawSource = Callable[[Sequence[str], int, int], NDArray[np.float32]]
"""(record ids, draw size, attempt) -> float32 ``len(ids) x size``, standard normal."""


def _normals(raw: bytes, shape: tuple[int, int]) -> NDArray[np.float32]:
    if not raw:
        return np.zeros(shape, np.float32)
    from scipy.special import ndtri  # half a second to import: not for a method without draws

    uniform = (np.frombuffer(raw, np.uint32).astype(np.float64) + 0.5) / 2.0**32
    return ndtri(uniform).astype(np.float32).reshape(shape)


def _hashed(secret: bytes, names: Sequence[str], size: int, attempt: int) -> NDArray[np.float32]:
    raw = b"".join(
        hashlib.shake_256(secret + f"|{name}|{attempt}".encode()).digest(4 * size) for name in names
    )
    return _normals(raw, (len(names), size))


def system_draws(record_ids: Sequence[str], size: int, attempt: int = 0) -> NDArray[np.float32]:
    """Fresh draws from the operating system's CSPRNG; the ids and the attempt play no part."""
    shape = (len(record_ids), size)
    return _normals(os.urandom(4 * shape[0] * shape[1]), shape)


def seeded_draws(seed: int) -> DrawSource:
    """Reproducible draws, a function of (seed, record id, attempt) alone. For tests only:
    anyone who knows the seed knows every draw."""

    def draw(record_ids: Sequence[str], size: int, attempt: int = 0) -> NDArray[np.float32]:
        return _hashed(str(seed).encode(), [_label(name) for name in record_ids], size, attempt)

    return draw


def keyed_draws(key: bytes) -> DrawSource:
    """Draws that are a function of (key, record id, attempt) alone, so that a record that is drawn
    again is drawn alike. As good as the system's for anyone who lacks the key, 32 bytes of the
    system's, which has to stay with the owner."""

    def draw(record_ids: Sequence[str], size: int, attempt: int = 0) -> NDArray[np.float32]:
        return _hashed(key, record_ids, size, attempt)

    return draw


def _label(record_id: str) -> str:
    """What a seeded draw depends on: of a unit's keyed id the 48 bits that it once had, so that a
    seed gives today what it gave then."""
    return re.sub(r"^(u[0-9a-f]{12})[0-9a-f]{20}(?=-)", r"\1", record_id)
