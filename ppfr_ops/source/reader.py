"""The contract of a reader: what a format of inputs has to say and to do.

A format is a class with a name and suffixes that finds its files in a listing, cuts them into units
and reads a unit into a table. ``formats`` knows them all.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ppfr_ops.errors import UserError
from ppfr_ops.source.units import (
    READ_ERROR,
    UNIT_BYTES,
    Columns,
    Plan,
    Unit,
    errors,
    storable,
    suffix,
)


class MissingColumnError(UserError):
    """The input has no column of that ``name``."""

    def __init__(self, name: str, there_are: Iterable[str], what: str = "the input") -> None:
        super().__init__(f"no column {name!r} in {what}; there are: {', '.join(there_are)}")
        self.name = name


@dataclass(frozen=True)
class File:
    """A file as the listing has it."""

    size: int
    stamp: str
    """Changes when the file does."""


Chosen = tuple[Columns, tuple[pa.Field, ...]]
"""The columns with what was left open filled in, and the types of those to keep."""


def stamp_of(info: Mapping[str, Any]) -> str:
    """What changes when a file does: its size, and its digest, ETag or modification time."""
    names = (
        *("ETag", "etag", "md5Hash", "blob_id", "mtime", "LastModified", "last_modified"),
        "created",
    )
    version = next((info[name] for name in names if info.get(name) is not None), None)
    return f"{info.get('size')}|{version}"


@dataclass(frozen=True, repr=False)
class Listing:
    """The files of an input.

    Args:
        fs: fsspec file system.
        root: the folder that ids are relative to.
        files: by path, in order.
        left_out: what is not among them, by what it is, and how many there are.
        url: of a table, with the version that the listing is of; empty: of no table.
        deleted: rows of files that a table deleted, in order, by path.
    """

    fs: Any
    root: str
    files: Mapping[str, File]
    left_out: Mapping[str, int] = field(default_factory=dict)
    url: str = ""
    deleted: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)

    def stamp(self, path: str) -> str:
        """Of a file, even of one that only a table names."""
        if path in self.files:
            return self.files[path].stamp
        try:
            return stamp_of(self.fs.info(path))
        except OSError:
            return "gone"


@dataclass(frozen=True)
class Cutting:
    """How units are to be cut: rows of a unit at most, units at least (where rows allow), and the
    key if there is one, with which units must not change as the input grows. ``unit_bytes``: of a
    unit's pictures, about, at most; None: the number of rows alone says where a unit ends."""

    unit_rows: int
    least: int = 1
    key: bytes | None = field(default=None, repr=False)
    unit_bytes: int | None = UNIT_BYTES
    image: str | None = None
    """Where the pictures are, as ``columns`` filled it in."""


class Reader:
    """One format. Stateless; what a worker needs travels in plan and unit."""

    name: ClassVar[str]
    """As ``--input-format`` has it."""
    what: ClassVar[str]
    """Its files in words, plural."""
    suffixes: ClassVar[frozenset[str]] = frozenset()
    """With the dot, in small letters."""
    auto: ClassVar[bool] = True
    """Whether it is chosen by its files' names."""
    fallback: ClassVar[bool] = False
    """Whether it is chosen only where there is nothing else."""
    by_place: ClassVar[bool] = True
    """Whether a unit's rows are named by their places; else by its files alone."""
    by_path: ClassVar[frozenset[str]] = frozenset()
    """Columns that it takes from paths itself: their values are names, never numbers."""

    def claims(self, listing: Listing) -> list[str]:
        """The files of this format, in order."""
        return [path for path in listing.files if suffix(path) in self.suffixes]

    def companions(self, listing: Listing) -> list[str]:
        """Files that belong to those of this format, and are not needed."""
        return []

    def left_out(
        self, listing: Listing, paths: Sequence[str], columns: Columns
    ) -> Mapping[str, int]:
        """What is not read of these files, by what it is, and how many there are."""
        return {}

    def columns(self, listing: Listing, paths: Sequence[str], columns: Columns) -> Chosen:
        """Where things are in these files.

        Raises:
            MissingColumnError: one is not there.
            UserError: it cannot be used.
        """
        raise NotImplementedError

    def cut(self, listing: Listing, paths: Sequence[str], cutting: Cutting) -> Iterator[Unit]:
        """Units of the files, in order, without ids; none is read before it is asked for."""
        raise NotImplementedError

    def read(self, fs: Any, plan: Plan, unit: Unit) -> pa.Table:
        """The rows ``start`` to ``stop`` of a unit; those that cannot be read with their reason.

        Returns:
            Columns as ``errors`` has them, in that order.
        """
        raise NotImplementedError

    def sources(self, fs: Any, unit: Unit) -> Iterator[tuple[str, int]]:
        """(file, row in it) of the rows ``start`` to ``stop`` of a unit, for the owner."""
        name = storable(unit.sources[0])
        yield from ((name, row) for row in range(unit.start, unit.stop))

    def files(self, unit: Unit) -> Sequence[str]:
        """The file that each of the rows ``start`` to ``stop`` is of."""
        return [unit.sources[0]] * (unit.stop - unit.start)

    def row_paths(self, fs: Any, unit: Unit) -> Sequence[str]:
        """As ``files``; of a picture in an archive its path in there (``paths.in_archive``), of one
        that cannot be read the archive's."""
        return self.files(unit)

    def asked_paths(self, listing: Listing, paths: Sequence[str]) -> Iterable[str]:
        """Paths as of ``row_paths``, of all rows or of enough of them to see what they are like."""
        return paths

    def first(self, unit: Unit, rows: int) -> Unit:
        """The unit's first rows."""
        return replace(unit, stop=unit.start + rows, damaged=None)


def few(paths: Sequence[str]) -> Iterable[str]:
    """Files that are asked for what all have."""
    return dict.fromkeys((*paths[:3], paths[-1]))


def as_texts(columns: Columns, there: Collection[str] | None, what: str = "the input") -> Chosen:
    """What ``Reader.columns`` gives of a format whose columns are texts.

    Args:
        there: the columns that files have; None: no file could be asked.

    Raises:
        MissingColumnError: one is not there.
    """
    for name in columns.beside if there is not None else ():
        if name not in (there or ()):
            raise MissingColumnError(name, sorted(there or ()) or ["none"], what)
    return columns, tuple(pa.field(name, pa.string()) for name in columns.keep)


@dataclass(frozen=True)
class Record:
    """What a reader finds of one row."""

    image: bytes | None = field(default=None, repr=False)
    code: str | None = None
    """Why there is no picture (a code of ``REASONS``)."""
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """By column; those that are not there are null, and a row that says nothing at all of whose it
    is counts as damaged."""


def table_of(plan: Plan, records: Sequence[Record]) -> pa.Table:
    """Rows as ``Reader.read`` gives them; what of them cannot be stored is an error."""
    schema = errors(plan, []).schema
    return pa.Table.from_pylist([_row(plan, record) for record in records], schema)


def _row(plan: Plan, record: Record) -> dict[str, Any]:
    row: dict[str, Any] = {"image": record.image, READ_ERROR: record.code}
    columns, values = plan.columns, record.values
    if columns.identity:
        row["identity"] = values.get(columns.identity)
        if record.code is None and columns.identity not in values:
            row.update({"image": None, READ_ERROR: "unlabelled"})
    row.update({f"keep.{name}": values.get(name) for name in columns.keep})
    row.update({f"given.{role}": values.get(name) for role, name in columns.given.items()})
    return row
