"""Ledger entries in the memory of a driver, a million of them in a few hundred MiB.

As an object an entry takes 7 KiB. Here 256 that follow each other are one compressed piece of JSON,
which is parsed when it is asked for; the piece that was asked for last stays open, so anyone who
goes over entries in the order of their units pays for each once.
"""

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import numpy as np
import pyarrow as pa

from ppfr_ops.contracts.ledger import LedgerEntry

T = TypeVar("T")

BLOCK = 256
"""Entries that are packed together."""

STAMP_BYTES, DIGEST_BYTES = 16, 32
_UNKNOWN = bytes(DIGEST_BYTES)
_CODEC = pa.Codec("zstd")


def line(unit: str, stamp: bytes) -> bytes:
    """A unit and the stamp of its file as one thing, which sorts by units."""
    return unit.encode() + b"\0" + stamp


def unit_in(line: bytes) -> str:
    return line[: -STAMP_BYTES - 1].decode()


def short(stamp: str) -> bytes:
    """A stamp of a file in 16 bytes."""
    return hashlib.blake2b(stamp.encode(errors="surrogateescape"), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Row:
    """An entry as it is packed."""

    unit: str
    stamp: bytes
    """Of its file, ``short``."""
    text: bytes
    """JSON, in one line."""
    digest: bytes = _UNKNOWN
    """sha256 of its file, as it was read; zeros: it was not."""


@dataclass(frozen=True, slots=True)
class Block:
    """Entries that follow each other."""

    units: tuple[str, ...]
    stamps: bytes
    digests: bytearray
    packed: bytes
    size: int
    """Bytes of what is packed."""

    @classmethod
    def of(cls, rows: list[Row]) -> "Block":
        text = b"\n".join(row.text for row in rows)
        return cls(
            tuple(row.unit for row in rows),
            b"".join(row.stamp for row in rows),
            bytearray(b"".join(row.digest for row in rows)),
            _CODEC.compress(text, asbytes=True),
            len(text),
        )

    def texts(self) -> list[bytes]:
        return _CODEC.decompress(self.packed, self.size, asbytes=True).split(b"\n")

    def stamp(self, place: int) -> bytes:
        return self.stamps[place * STAMP_BYTES : (place + 1) * STAMP_BYTES]

    def digest(self, place: int) -> bytes:
        return bytes(self.digests[place * DIGEST_BYTES : (place + 1) * DIGEST_BYTES])


@dataclass
class _Opened:
    """The block that was asked for last."""

    number: int = -1
    texts: list[bytes] = field(default_factory=list)


class Entries(Mapping[str, LedgerEntry]):
    """Valid entries by unit, in the order of the units. For one thread.

    Args:
        blocks: none empty, in the order of their units.
    """

    def __init__(self, blocks: Iterable[Block] = ()) -> None:
        self._blocks = list(blocks)
        self._firsts = [block.units[0] for block in self._blocks]
        self._count = sum(len(block.units) for block in self._blocks)
        self._gone: set[str] = set()
        self._opened = _Opened()

    def __len__(self) -> int:
        return self._count - len(self._gone)

    def __iter__(self) -> Iterator[str]:
        for block in self._blocks:
            yield from (unit for unit in block.units if unit not in self._gone)

    def __contains__(self, unit: object) -> bool:
        return isinstance(unit, str) and self._place(unit) is not None

    def __getitem__(self, unit: str) -> LedgerEntry:
        place = self._place(unit)
        if place is None:
            raise KeyError(unit)
        number, row = place
        return LedgerEntry.model_validate_json(self._texts(number)[row])

    def __delitem__(self, unit: str) -> None:
        if unit not in self:
            raise KeyError(unit)
        self._gone.add(unit)

    def _place(self, unit: str) -> tuple[int, int] | None:
        """Block and row in it."""
        number = bisect_right(self._firsts, unit) - 1
        if number < 0 or unit in self._gone:
            return None
        units = self._blocks[number].units
        row = bisect_left(units, unit)
        return (number, row) if row < len(units) and units[row] == unit else None

    def _texts(self, number: int) -> list[bytes]:
        if self._opened.number != number:
            self._opened = _Opened(number, self._blocks[number].texts())
        return self._opened.texts

    # -- what is known of the files ---------------------------------------------------------

    def stamp(self, unit: str) -> bytes | None:
        """Of the entry's file when it was read, ``short``; None if there is no such entry."""
        place = self._place(unit)
        return None if place is None else self._blocks[place[0]].stamp(place[1])

    def digest(self, unit: str) -> bytes | None:
        """sha256 of the entry's file, if that was read; else None."""
        place = self._place(unit)
        found = _UNKNOWN if place is None else self._blocks[place[0]].digest(place[1])
        return None if found == _UNKNOWN else found

    def note(self, unit: str, digest: bytes) -> None:
        """Remember the sha256 of an entry's file."""
        if (place := self._place(unit)) is not None:
            number, row = place
            self._blocks[number].digests[row * DIGEST_BYTES : (row + 1) * DIGEST_BYTES] = digest

    def rows(self) -> Iterator[list[Row]]:
        """All, a block at a time."""
        for number, block in enumerate(self._blocks):
            texts = self._texts(number)
            found = [
                Row(unit, block.stamp(row), texts[row], block.digest(row))
                for row, unit in enumerate(block.units)
                if unit not in self._gone
            ]
            if found:
                yield found

    def renewed(self, files: list[bytes], read: Iterator[Row]) -> "Entries":
        """These entries as the files are now. A block all of whose files are as they were is taken
        over as it is packed.

        Args:
            files: the lines of all files, sorted.
            read: the rows of the files that are not known by their stamps, in order; those that
                hold no valid entry are missing.
        """
        return Entries(self._renewed(files, read))

    def _renewed(self, files: list[bytes], read: Iterator[Row]) -> Iterator[Block]:
        rows: list[Row] = []
        fresh = next(read, None)
        place = 0
        while place < len(files):
            unit, stamp = unit_in(files[place]), files[place][-STAMP_BYTES:]
            known = self._place(unit)
            block = None if known is None else self._blocks[known[0]]
            if known is not None and block is not None and block.stamp(known[1]) == stamp:
                number, row = known
                if row == 0 and self._as_before(block, files, place):
                    if rows:
                        yield Block.of(rows)
                        rows = []
                    yield block
                    place += len(block.units)
                    continue
                rows.append(Row(unit, stamp, self._texts(number)[row], block.digest(row)))
            elif fresh is not None and fresh.unit == unit:
                rows.append(fresh)
                fresh = next(read, None)
            if len(rows) == BLOCK:
                yield Block.of(rows)
                rows = []
            place += 1
        if rows:
            yield Block.of(rows)

    def _as_before(self, block: Block, files: list[bytes], place: int) -> bool:
        lines = [line(unit, block.stamp(row)) for row, unit in enumerate(block.units)]
        there = lines == files[place : place + len(lines)]
        return there and not self._gone.intersection(block.units)


class HashSet:
    """A set that only says whether something is in it, at 8 bytes each. That it says so
    of something that is not has a chance of one in 2^64 for each: the hash is keyed anew by every
    process."""

    def __init__(self, things: Iterable[Hashable]) -> None:
        self._sorted = np.sort(np.fromiter(map(hash, things), np.int64))

    def __contains__(self, thing: Hashable) -> bool:
        mark = hash(thing)
        place = int(np.searchsorted(self._sorted, mark))
        return place < len(self._sorted) and int(self._sorted[place]) == mark

    def __len__(self) -> int:
        return len(self._sorted)


def batched(things: Iterable[T]) -> Iterator[list[T]]:
    """Things, some at a time."""
    left = iter(things)
    while some := list(islice(left, BLOCK)):
        yield some
