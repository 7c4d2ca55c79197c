"""Somebody who holds candidate originals, in the order of the source, and a release without its
pictures: which candidate is which record?"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.stats import binom


@dataclass(frozen=True)
class Seen:
    """What the guesser has.

    ``truth`` is for counting hits alone: the candidate that each record was made of.
    """

    candidates: NDArray[np.uint8]
    """``N x 112 x 112 x 3``, in the order of the source."""
    encoded: list[bytes]
    table: pa.Table
    """Everything told of the records, in the order of the release; pictures left out."""
    pictures: NDArray[np.uint8]
    """As published: what a figure was measured on can be measured on again."""
    truth: list[int]
    release: Path | None = None


Guess = list[int]
"""A candidate for each record."""


def guesses(seen: Seen) -> Iterator[tuple[str, Guess]]:
    """Every way of guessing, by name."""
    count = len(seen.truth)
    ids = seen.table["record_id"].to_pylist()
    yield "order of the rows", list(range(count))
    by_id = np.argsort(np.array(ids, dtype=str), kind="stable")
    yield "order of the ids", np.argsort(by_id).tolist()
    yield "numbers in the ids", [_number(name) % count for name in ids]
    for name in ("md5", "sha1", "sha256", "blake2b"):
        known = {hashlib.new(name, data).hexdigest()[:32]: i for i, data in enumerate(seen.encoded)}
        known |= {hashlib.new(name, str(i).encode()).hexdigest()[:32]: i for i in range(count)}
        yield f"{name} as id", [known.get(record, -1) for record in ids]
    if seen.release is not None:
        yield "times of the shards", _by_time(seen)
    for name in seen.table.column_names[1:]:
        column = seen.table[name]
        if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
            values = column.to_numpy(zero_copy_only=False).astype(float)
            for how, figure in FIGURES.items():
                distance = np.abs(figure(seen) - values[:, None])
                yield f"{name} by {how}", np.nan_to_num(distance, nan=np.inf).argmin(1).tolist()


def _number(name: str) -> int:
    digits = "".join(c for c in name if c.isdigit())
    return int(digits[-6:] or 0)


def _by_time(seen: Seen) -> Guess:
    """Shards in the order in which they were written, rows as they stand."""
    assert seen.release is not None
    shards = sorted((seen.release / "data").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    place = {}
    for path in shards:
        for record in pq.read_table(path, columns=["record_id"])["record_id"].to_pylist():
            place[record] = len(place)
    return [place[record] for record in seen.table["record_id"].to_pylist()]


def _psnr(seen: Seen) -> NDArray[np.float64]:
    x = seen.candidates.reshape(len(seen.candidates), -1).astype(np.float64) / 255
    y = seen.pictures.reshape(len(seen.pictures), -1).astype(np.float64) / 255
    error = (y**2).mean(1)[:, None] + (x**2).mean(1)[None] - 2 * y @ x.T / x.shape[1]
    return -10 * np.log10(np.maximum(error, 1e-10))


def _alone(figure: Callable[[NDArray[np.uint8]], float]) -> Callable[[Seen], NDArray[np.float64]]:
    return lambda seen: np.array([[figure(face) for face in seen.candidates]])


FIGURES: dict[str, Callable[[Seen], NDArray[np.float64]]] = {
    "psnr": _psnr,
    "brightness": _alone(lambda face: float(face.mean())),
    "contrast": _alone(lambda face: float(face.std())),
    "row": lambda seen: np.arange(len(seen.candidates), dtype=float)[None],
    "bytes": lambda seen: np.array([[float(len(data)) for data in seen.encoded]]),
}


def hits(guess: Guess, truth: list[int]) -> int:
    return sum(a == b for a, b in zip(guess, truth, strict=True))


def better_than_twice_chance(found: int, count: int) -> bool:
    """Whether so many hits among ``count`` records with ``count`` candidates each are more than one
    would see once in a million by guessing at twice chance."""
    return bool(binom.sf(found - 1, count, min(1.0, 2 / count)) < 1e-6)
