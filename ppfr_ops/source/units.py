"""What planning and reading share: units, plans, and rows of which only the reason is known."""

import errno
import hashlib
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import IO, Any, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from ppfr_ops.contracts.ledger import Source
from ppfr_ops.store.storage import StoreError

_SUFFIXES = """
    .jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .avif .heic .heif .hif .jp2 .j2k .jpf
    .ppm .pgm .pnm
"""
IMAGE_SUFFIXES = frozenset(_SUFFIXES.split())

_FEW, FEW_PICTURES = 50, 16
"""Rows, and files of one picture each; a smaller unit is not worth its shards."""

UNIT_BYTES = 256 * 2**20
"""Bytes of a unit's pictures, about, at most: a worker holds them all in memory."""

READ_ERROR = "read_error"
"""Column of a unit table: why a row could not be read (a code of ``REASONS``), else null."""


RESPELLED = b"respelled"
"""In the metadata of a unit table's schema: rows whose label was not read as it is stored."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One piece of work.

    Rows ``start`` to ``stop`` (exclusive) of ``sources[0]``, a Parquet file; or the samples
    ``start`` to ``stop`` of a tar, from ``offset`` bytes on; or the pictures ``sources``.
    ``damaged`` is a reason code when planning found that the file breaks off (after ``stop``).
    """

    id: str
    format: str = field(repr=False)
    sources: tuple[str, ...] = field(repr=False)
    start: int = field(repr=False)
    stop: int = field(repr=False)
    offset: int = field(default=0, repr=False)
    damaged: str | None = field(default=None, repr=False)
    oversized: tuple[int, ...] = field(default=(), repr=False)
    """Which of the pictures ``sources`` are too large to be read."""
    source: Source | None = field(default=None, repr=False)
    """What it would be made of, as the listing has it; only with a key."""

    @property
    def rows(self) -> int:
        """Rows of the unit's table. What breaks off counts as one row, for nobody can count it."""
        return self.stop - self.start + (self.damaged is not None)


class Units(Sequence[Unit]):
    """Units in order, of which a million take some hundred MiB: their numbers and paths lie side by
    side, and a unit is made when it is asked for.

    Args:
        units: all of one format.
    """

    def __init__(self, units: Iterable[Unit] = ()) -> None:
        self._format = ""
        self._ids: list[str] = []
        self._numbers = array("q")
        """Of each unit start, stop, offset, its first path and how many it has."""
        self._paths: list[str] = []
        """Of all units; once where units that follow each other have the same."""
        self._odd: dict[int, tuple[str | None, tuple[int, ...]]] = {}
        """``damaged`` and ``oversized`` of those few that have them."""
        self._marks = bytearray()
        """Of each unit the stamp, and of each path the mark, of ``Source``."""
        self._stamps = bytearray()
        self._placed = False
        """Whether units are rows of a file each, and their ``Source`` says which."""
        last: tuple[str, ...] = ()
        for number, unit in enumerate(units):
            if unit.sources != last or not number:
                self._paths += unit.sources
                if unit.source is not None:
                    self._marks += bytes.fromhex("".join(unit.source.files))
                last = unit.sources
            if unit.source is not None:
                self._stamps += bytes.fromhex(unit.source.stamp)
                self._placed = unit.source.rows is not None
            if unit.damaged is not None or unit.oversized:
                self._odd[number] = unit.damaged, unit.oversized
            first = len(self._paths) - len(last)
            self._numbers.extend((unit.start, unit.stop, unit.offset, first, len(last)))
            self._ids.append(unit.id)
            self._format = unit.format

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def ids(self) -> Sequence[str]:
        return self._ids

    @property
    def stamps(self) -> bytes:
        return bytes(self._stamps)

    @overload
    def __getitem__(self, place: int) -> Unit: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Unit]: ...
    def __getitem__(self, place: int | slice) -> Unit | Sequence[Unit]:
        if isinstance(place, slice):
            return [self[number] for number in range(len(self))[place]]
        number = range(len(self))[place]
        numbers = self._numbers[_NUMBERS * number : _NUMBERS * (number + 1)]
        start, stop, offset, first, count = numbers
        paths = tuple(self._paths[first : first + count])
        damaged, oversized = self._odd.get(number, (None, ()))
        source = None
        if self._stamps:
            marks = [_mark(self._marks, place) for place in range(first, first + count)]
            rows = (start, stop + (damaged is not None)) if self._placed else None
            stamp = _mark(self._stamps, number)
            source = Source(stamp=stamp, content=None, files=tuple(marks), rows=rows)
        name = self._ids[number]
        return Unit(name, self._format, paths, start, stop, offset, damaged, oversized, source)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Units) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Units({len(self)})"


def ids_of(units: Sequence[Unit]) -> Sequence[str]:
    """Their ids, without making a unit of each where they lie side by side."""
    return units.ids if isinstance(units, Units) else [unit.id for unit in units]


def stamps_of(units: Sequence[Unit]) -> bytes:
    """The stamps of all, in order: another text where any input differs, as far as was listed."""
    if isinstance(units, Units):
        return units.stamps
    return "".join(unit.source.stamp for unit in units if unit.source is not None).encode()


_NUMBERS, _MARK_BYTES = 5, 16


def _mark(marks: bytearray, place: int) -> str:
    return marks[place * _MARK_BYTES : (place + 1) * _MARK_BYTES].hex()


@dataclass(frozen=True)
class Columns:
    """Where things are in the input."""

    image: str | None = None
    """None: found out by the planner (Parquet), or whatever picture a sample holds (tar)."""
    identity: str | None = None
    keep: tuple[str, ...] = ()
    given: Mapping[str, str] = field(default_factory=dict)
    """Columns of what the owner knows of the faces: ``boxes``, ``landmarks``, ``regions``."""
    identity_from: str | None = field(default=None, repr=False)
    """Where a path says who is in the picture (``paths.PathColumns``)."""
    labels: tuple[str, ...] = field(default=(), repr=False)
    """Tables that say of pictures what is in them."""
    labels_given: bool = False
    """Whether somebody named them; else they lie beside the pictures."""
    coarse: tuple[str, ...] = ()
    """Columns to keep that are made coarser as they are read (``source.coarsening``)."""

    def without(self, names: Iterable[str]) -> "Columns":
        """The same, without columns of these names."""
        gone = set(names)
        identity = None if self.identity in gone else self.identity
        keep = tuple(name for name in self.keep if name not in gone)
        return replace(self, identity=identity, keep=keep)

    @property
    def beside(self) -> list[str]:
        """All that a row needs beside its picture."""
        identity = [self.identity] if self.identity else []
        return [*self.keep, *identity, *self.given.values()]


@dataclass(frozen=True, repr=False)
class Plan:
    """All units of an input, in order."""

    input: str
    format: str
    units: Sequence[Unit]
    columns: Columns
    keep: tuple[pa.Field, ...]
    """The allow-list with the types that it has in the input."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Files (and folders) of the input that are not read, by what they are."""
    root: str = field(default="", repr=False)
    """The folder that paths are told below."""
    by_path: frozenset[str] = frozenset()
    """Columns that come from the files' paths."""
    deleted: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    """Rows of files that are no rows of the table that is read, in order, by path."""

    def __repr__(self) -> str:
        return f"Plan({len(self.units)} units)"

    @cached_property
    def own(self) -> "Plan":
        """What a reader reads: without what paths tell, and without the units."""
        keep = tuple(item for item in self.keep if item.name not in self.by_path)
        return replace(self, units=(), columns=self.columns.without(self.by_path), keep=keep)

    @cached_property
    def rows(self) -> int:
        return sum(unit.rows for unit in self.units)

    def digest(self) -> str:
        """sha256 over ids and sizes, hex; nothing of a source enters."""
        digest = hashlib.sha256(b"[")
        for number, unit in enumerate(self.units):
            text = json.dumps([unit.id, unit.start, unit.stop, unit.damaged])
            digest.update((f", {text}" if number else text).encode())
        digest.update(b"]")
        return digest.hexdigest()


def record_id(unit: str, row: int) -> str:
    """Pseudonym of a record: its unit and its position in it."""
    return f"{unit}-{row:06d}"


def suffix(path: str) -> str:
    """Of a file name, with the dot, in small letters."""
    return os.path.splitext(path)[1].lower()


def most_rows(size: int) -> int:
    """Rows that a file of so many bytes may have: 64 bytes each, for no picture of a face is
    smaller; a million at any rate, for well-compressed empty rows may need none. So what a plan
    takes is bounded by what there is."""
    return max(2**20, size // 64)


def even(rows: int, most: int) -> Iterator[tuple[int, int]]:
    """Ranges of nearly equal length, none longer than ``most``."""
    pieces = -(-rows // most)
    for piece in range(pieces):
        yield rows * piece // pieces, rows * (piece + 1) // pieces


def shared_out(rows: int, most: int, units: int, few: int = _FEW) -> int:
    """Rows of a unit, at most, if there are to be so many units of an input of so many rows: then
    workers have something to share. Never under ``few`` for that reason."""
    return min(most, max(few, -(-rows // units)))


def ranges(sizes: Sequence[int], most: int, unit_bytes: int | None) -> Iterator[tuple[int, int]]:
    """As ``even``; a range of more bytes is cut where it is full.

    Args:
        sizes: of the rows, bytes.
        unit_bytes: of a range, about, at most; None: as they come.
    """
    for first, stop in even(len(sizes), most):
        start = first
        held = 0
        for row in range(first, stop):
            if unit_bytes is not None and held and held + sizes[row] > unit_bytes:
                yield start, row
                start, held = row, 0
            held += sizes[row]
        yield start, stop


def relative(path: str, root: str) -> bytes:
    """A path as it is hashed: below the input's root, whatever bytes it is made of. That of a
    member without a name is that of its folder."""
    return os.path.relpath(path or os.curdir, root or None).encode("utf-8", "surrogateescape")


def storable(text: str) -> str:
    """Text as UTF-8 can have it: a lone surrogate, as names of other encodings have, is escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


@contextmanager
def open_file(fs: Any, path: str) -> Iterator[IO[bytes]]:
    """Open for reading, if it is a file: a pipe would block, and a device might never end.

    Raises:
        OSError: it is not, or cannot be read.
    """
    if isinstance(fs, LocalFileSystem) and fs.info(path)["type"] != "file":
        raise FileNotFoundError(errno.ENOENT, "no regular file")
    with fs.open(path, "rb") as file:
        yield file


def errors(plan: Plan, codes: Sequence[str]) -> pa.Table:
    """Rows of which nothing but the reason is known."""
    count = len(codes)
    data = {"image": pa.nulls(count, pa.large_binary()), READ_ERROR: pa.array(codes, pa.string())}
    if plan.columns.identity:
        data["identity"] = pa.nulls(count, pa.string())
    for role in plan.columns.given:
        data[f"given.{role}"] = pa.nulls(count, pa.string())
    for item in plan.keep:
        data[f"keep.{item.name}"] = pa.nulls(count, item.type)
    return pa.table(data)


_PASSING = {
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EINTR,
    errno.EAGAIN,
    errno.ENOBUFS,
    errno.ETIMEDOUT,
    errno.ESTALE,
}


def passes(error: BaseException) -> bool:
    """Whether it is the machine's or the store's trouble, and no damage of the input."""
    if isinstance(error, StoreError):
        return True
    return isinstance(error, OSError) and error.errno in _PASSING


@contextmanager
def damage_ends_it() -> Iterator[None]:
    """Leave the block at damage; whatever libraries raise on hostile bytes is damage.

    Raises:
        OSError, StoreError: trouble that may pass; the unit fails, and the next run tries again.
    """
    try:
        yield
    except Exception as error:
        if passes(error):
            raise
