"""Rows to records, records to an order that tells nothing: the arithmetic of ``release_plan``.

Arrow and numpy columns throughout: a record takes some fifty bytes while it is dealt.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from ppfr_ops.keys import derive
from ppfr_ops.sanitize.group_sizes import Rounding, Sizes, cap, rounded

ID_BYTES, CODE_BYTES = 16, 32
"""Of a record's id, and of a person's pseudonym."""
_SHORT = 12
"""Bytes of a person's pseudonym that are enough to tell people apart."""

Codes = NDArray[np.uint8]
"""Pseudonyms, ``N x 32``."""
Numbers = NDArray[np.int64]

NEW = -1
"""History of anyone who was in no version before."""


@dataclass(frozen=True)
class People:
    """Everybody who has records."""

    codes: Codes
    rows: Sizes
    """Of the input."""
    published: Sizes
    histories: Sizes
    """The same number for those who were alike in all versions."""

    def table(self) -> pa.Table:
        """As it is stored."""
        numbers = {"rows": self.rows, "published": self.published, "history": self.histories}
        return pa.table({"person": _binary(self.codes), **numbers})

    @classmethod
    def of(cls, table: pa.Table) -> Self:
        """As ``table`` gave it."""
        numbers = [table[name].to_numpy() for name in ("rows", "published", "history")]
        return cls(_bytes(table["person"]), *numbers)


class Keyed:
    """Pseudorandom functions of a person and a number, under one key.

    Args:
        key: 32 bytes.
        purpose: functions of different purposes have nothing to do with each other.
    """

    def __init__(self, key: bytes, purpose: str) -> None:
        self._key = derive(key, purpose)

    def blocks(self, codes: Codes, numbers: Numbers) -> NDArray[np.uint8]:
        """16 bytes each, ``N x 16``; no two alike: a permutation (AES) of pseudonym and number."""
        plain = np.empty((len(numbers), ID_BYTES), np.uint8)
        plain[:, :_SHORT] = codes[:, :_SHORT]
        plain[:, _SHORT:] = numbers.astype(">u4").view(np.uint8).reshape(-1, 4)
        cipher = Cipher(algorithms.AES(self._key), modes.ECB()).encryptor()
        return np.frombuffer(cipher.update(plain.tobytes()), np.uint8).reshape(-1, ID_BYTES)

    def codes(self, codes: Codes, numbers: Numbers) -> Codes:
        """Pseudonyms of others, ``N x 32``."""
        halves = [self.blocks(codes, 2 * numbers + half) for half in (0, 1)]
        return np.concatenate(halves, 1)

    def numbers(self, codes: Codes, numbers: Numbers) -> NDArray[np.uint64]:
        """64 random bits each, ``N``."""
        return np.ascontiguousarray(self.blocks(codes, numbers)[:, :8]).view(np.uint64)[:, 0]


@dataclass(frozen=True)
class Dealt:
    """Records in the order of their ids."""

    people: People
    """With records in this epoch or an earlier one in force."""
    whose: NDArray[np.int32]
    """Row of ``people``, of every record."""
    ids: NDArray[np.uint8]
    """``N x 16``."""
    sources: Numbers | None
    """Row of ``kept`` that a record has its values from; None: nothing is kept."""
    kept: pa.Table
    added: int
    """Records beyond one a row."""
    left_out: int
    """Rows without a record."""

    @property
    def count(self) -> int:
        return len(self.whose)

    def rows(self, start: int, stop: int) -> pa.Table:
        """Some records, as the plan holds them."""
        part = slice(start, stop)
        columns = {
            "record_id": _binary(self.ids[part]),
            "identity": _binary(self.people.codes[self.whose[part]]),
        }
        if self.sources is not None:
            some = self.kept.take(pa.array(self.sources[part]))
            columns |= {name: some[name].combine_chunks() for name in some.column_names}
        return pa.table(columns)


def deal(
    rows: pa.Table,
    fresh: NDArray[np.bool_],
    before: People | None,
    key: bytes,
    *,
    k: int,
    rounding: Rounding,
) -> Dealt:
    """Deal the records of an epoch.

    Args:
        rows: of all units: ``person`` and the columns to keep. Their order plays no part.
        fresh: which of them no earlier epoch in force has, ``N``; all: everything is dealt anew.
        before: everybody, as of the last epoch; None: there was none.
        key: of the release, 32 bytes.
        k, rounding: as ``group_sizes.rounded`` has them.
    """
    kept = rows.drop_columns(["person"])
    ranks = [_ranks(column) for column in kept.columns]
    codes, base = _unique(_named(rows["person"], fresh, ranks, key))
    order = _order(base, fresh, ranks, codes, key) if ranks else None
    whole = _split(codes, np.bincount(base, minlength=len(codes)), key, k, rounding)
    arrived = np.bincount(base[fresh], minlength=len(codes))
    takes = whole.rows if fresh.all() else arrived
    people, had = _sized(whole, before, takes, k, rounding)
    makes = people.published - had
    whose = np.repeat(np.arange(len(makes), dtype=np.int32), makes)
    within = _counted(makes)
    sources = None
    if order is not None:
        ends = np.cumsum(people.rows)
        copies = Keyed(key, "copies").numbers(people.codes[whose], had[whose] + within)
        copies = (copies % people.rows[whose].astype(np.uint64)).astype(np.int64)
        own = (people.rows - takes)[whose] + within
        place = np.where(within < takes[whose], own, copies)
        sources = order[(ends - people.rows)[whose] + place]
    ids = Keyed(key, "records").blocks(people.codes[whose], had[whose] + within)
    by_id = _sorting(ids)
    return Dealt(
        people,
        whose[by_id],
        ids[by_id],
        None if sources is None else sources[by_id],
        kept,
        int(np.maximum(0, makes - takes).sum()),
        int(np.maximum(0, takes - makes).sum()),
    )


def _named(
    people: pa.ChunkedArray, fresh: NDArray[np.bool_], ranks: list[Numbers], key: bytes
) -> Codes:
    """A pseudonym for every row: of whom nobody is named, somebody who has this photo only."""
    known = people.is_valid().to_numpy(zero_copy_only=False)
    codes = np.zeros((len(people), CODE_BYTES), np.uint8)
    codes[known] = _bytes(people.drop_null())
    nobody = np.flatnonzero(~known)
    # Those of earlier epochs first, each part in the order of what is kept.
    nobody = nobody[np.lexsort([*(rank[nobody] for rank in ranks), fresh[nobody]])]
    codes[nobody] = Keyed(key, "nobody").codes(codes[nobody], np.arange(len(nobody)))
    return codes


def _split(codes: Codes, counts: Sizes, key: bytes, k: int, rounding: Rounding) -> People:
    """People as they are to be published; anyone who has more photos than most is several."""
    if rounding != "split" or k == 1:
        return People(codes, counts, counts, np.full(len(codes), NEW))
    largest = max(1, cap(counts, k))
    pieces = -(-counts // largest)
    base, part = np.repeat(np.arange(len(codes)), pieces), _counted(pieces)
    rows = np.minimum(largest, counts[base] - part * largest)
    found = codes[base].copy()
    later = np.flatnonzero(part)
    found[later] = Keyed(key, "parts of people").codes(codes[base[later]], part[later])
    return People(found, rows, rows, np.full(len(found), NEW))


def _sized(
    people: People, before: People | None, takes: Sizes, k: int, rounding: Rounding
) -> tuple[People, Sizes]:
    """People with the sizes to publish; and how many of their records stay."""
    sizes, histories = people.rows.copy(), people.histories.copy()
    had = np.zeros(len(sizes), np.int64)
    if before is not None:
        place = _places(people.codes, before.codes)
        there = place >= 0
        place = place[there]
        change = people.rows[there] - before.rows[place]
        sizes[there] = np.maximum(1, before.published[place] + change)
        histories[there] = before.histories[place]
        stays = takes[there] < people.rows[there]
        had[there] = np.where(stays, before.published[place], 0)
    published = rounded(sizes, histories, k, rounding)
    pairs = np.stack([histories, published], 1)
    alike = np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)
    return People(people.codes, people.rows, published, alike.astype(np.int64)), had


def _order(
    base: Numbers, fresh: NDArray[np.bool_], ranks: list[Numbers], codes: Codes, key: bytes
) -> Numbers:
    """All rows by person, new ones last; within these as the key shuffles them, whatever order they
    came in."""
    by_value = np.lexsort([*ranks, fresh, base])
    within = _counted(np.bincount(base, minlength=len(codes)))
    shuffle = Keyed(key, "rows").numbers(codes[base[by_value]], within)
    return by_value[np.lexsort([shuffle, fresh[by_value], base[by_value]])]


# -- columns --------------------------------------------------------------------------------------


def _ranks(column: pa.ChunkedArray) -> Numbers:
    """Whole numbers in the order of the values, equal ones for equal values."""
    try:
        found = pc.rank(column.combine_chunks(), sort_keys="ascending", tiebreaker="dense")
        return np.asarray(found, dtype=np.int64)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):  # of lists, structs and the like
        texts = np.array([repr(value) for value in column.to_pylist()], dtype=object)
        return np.unique(texts, return_inverse=True)[1].astype(np.int64)


def _unique(codes: Codes) -> tuple[Codes, Numbers]:
    """Each pseudonym once, sorted; and which one each row has."""
    order = _sorting(codes)
    ordered = codes[order]
    starts = np.ones(len(codes), bool)
    starts[1:] = (ordered[1:] != ordered[:-1]).any(1)
    which = np.empty(len(codes), np.int64)
    which[order] = np.cumsum(starts) - 1
    return ordered[starts], which


def _places(codes: Codes, among: Codes) -> Numbers:
    """Where each pseudonym stands among others, of which none is there twice; -1: nowhere."""
    _, which = _unique(np.concatenate([among, codes]))
    place = np.full(len(which), -1, np.int64)
    place[which[: len(among)]] = np.arange(len(among))
    return place[which[len(among) :]]


def _sorting(rows: NDArray[np.uint8]) -> Numbers:
    """The order of rows of bytes."""
    words = np.ascontiguousarray(rows).view(">u8").astype(np.uint64)
    return np.lexsort([words[:, place] for place in reversed(range(words.shape[1]))])


def _counted(counts: Sizes) -> Numbers:
    """0, 1, 2 … for each count, one after the other."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)


def _binary(rows: NDArray[np.uint8]) -> pa.Array:
    data = pa.py_buffer(np.ascontiguousarray(rows))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(rows.shape[1]), len(rows), [None, data])


def _bytes(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    """A column of pseudonyms without nulls, ``N x 32``."""
    parts = [
        np.frombuffer(chunk.buffers()[1], np.uint8).reshape(-1, CODE_BYTES)[
            chunk.offset : chunk.offset + len(chunk)
        ]
        for chunk in column.chunks
        if len(chunk)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, CODE_BYTES), np.uint8)
