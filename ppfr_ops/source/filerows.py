"""Formats in which a file holds many rows, one after the other: what they share."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import IO, Any

import pyarrow as pa

from ppfr_ops.source.archive import BrokenError
from ppfr_ops.source.reader import Chosen, Cutting, Listing, Reader, Record, as_texts, few, table_of
from ppfr_ops.source.units import (
    Columns,
    Plan,
    Unit,
    damage_ends_it,
    errors,
    most_rows,
    open_file,
    ranges,
    shared_out,
)

ASKED = 100
"""Rows of a file that are asked for their columns."""


class FileRows(Reader):
    """A format whose files are gone through from their beginning."""

    def rows(self, file: IO[bytes], image: str | None) -> Iterator[tuple[int, int]]:
        """Of every row where it begins and how large its picture is, bytes.

        Raises:
            BrokenError: after the last whole row, if the file is damaged there.
        """
        raise NotImplementedError

    def records(self, file: IO[bytes], plan: Plan, unit: Unit) -> Iterator[Record | None]:
        """The rows from a unit's first on; None: a row that cannot be read."""
        raise NotImplementedError

    def names(self, file: IO[bytes], plan: Plan) -> set[str]:
        """Columns that a file has beside the pictures."""
        found: set[str] = set()
        first = Unit("", self.name, (), 0, 0)
        for record in islice(self.records(file, plan, first), ASKED):
            found |= set() if record is None else record.values.keys()
        return found

    @contextmanager
    def opened(self, fs: Any, path: str) -> Iterator[IO[bytes]]:
        with open_file(fs, path) as file:
            yield file

    def columns(self, listing: Listing, paths: Sequence[str], columns: Columns) -> Chosen:
        there: set[str] | None = None
        plan = Plan("", self.name, (), columns, ())
        for path in few(paths) if columns.beside else ():
            with damage_ends_it(), self.opened(listing.fs, path) as file:
                there = (there or set()) | self.names(file, plan)
        return as_texts(columns, there)

    def cut(self, listing: Listing, paths: Sequence[str], cutting: Cutting) -> Iterator[Unit]:
        for path in paths:
            offsets: list[int] = []
            sizes: list[int] = []
            damaged: str | None = "unreadable_unit"
            with damage_ends_it(), self.opened(listing.fs, path) as file:
                try:
                    most = most_rows(listing.files[path].size)
                    for offset, size in self.rows(file, cutting.image):
                        if len(offsets) == most:
                            raise BrokenError  # more than it can hold
                        offsets.append(offset)
                        sizes.append(size)
                    damaged = None
                except Exception as error:
                    if offsets:
                        damaged = "truncated_unit"
                    if not isinstance(error, BrokenError):
                        raise
            most = shared_out(len(sizes) * len(paths), cutting.unit_rows, cutting.least)
            for start, stop in list(ranges(sizes, most, cutting.unit_bytes)) or [(0, 0)]:
                if start == stop and damaged is None:
                    break  # an empty file
                offset = offsets[start] if offsets else 0
                lost = damaged if stop == len(offsets) else None
                yield Unit("", self.name, (path,), start, stop, offset, lost)

    def read(self, fs: Any, plan: Plan, unit: Unit) -> pa.Table:
        count = unit.stop - unit.start
        lost = errors(plan, ["unreadable_row"])
        tables: list[pa.Table] = []
        with damage_ends_it(), self.opened(fs, unit.sources[0]) as file:
            for record in islice(self.records(file, plan, unit), count):
                table = lost
                with damage_ends_it():
                    table = lost if record is None else table_of(plan, [record])
                tables.append(table)
        return pa.concat_tables([*tables, *[lost] * (count - len(tables)), lost.slice(0, 0)])
