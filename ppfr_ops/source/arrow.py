"""Arrow files, as ``datasets.save_to_disk`` writes them: streams and files of record batches.

Read in ``ppfr_ops.sandbox``, as Parquet is. To reach a unit, the batches before it are passed over;
where files are local, that costs nothing.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ppfr_ops.sandbox import LimitError
from ppfr_ops.source.parquet import apart, checked, chosen_of
from ppfr_ops.source.picture_types import is_list
from ppfr_ops.source.reader import Cutting, Listing, Reader
from ppfr_ops.source.units import (
    Columns,
    Plan,
    Unit,
    damage_ends_it,
    errors,
    in_file,
    open_file,
    shared_out,
)

_SECONDS = 60.0
_MOST_ROWS, _LEAST_BYTES = 2**20, 64
_MESSAGE = b"\xff" * 4
"""The start of every message, the last, empty one too; before 2019 there was none."""


class ArrowFiles(Reader):
    """``.arrow`` files; a row a row. ``dataset_info.json`` and the like are not needed."""

    name = "arrow"
    what = "Arrow files (save_to_disk)"
    suffixes = frozenset({".arrow", ".feather"})

    def companions(self, listing: Listing) -> list[str]:
        names = ("dataset_info.json", "state.json", "dataset_dict.json")
        return [path for path in listing.files if path.rpartition("/")[2] in names]

    def claims(self, listing: Listing) -> list[str]:
        """Not what ``map`` and ``filter`` of datasets keep there: rows of before or after them."""
        stored = {path.rpartition("/")[0] for path in self.companions(listing)}
        parts = [(path, *path.rpartition("/")) for path in super().claims(listing)]
        return [
            path
            for path, folder, _, name in parts
            if not (name.startswith("cache-") and folder in stored)
        ]

    def columns(
        self, listing: Listing, paths: Sequence[str], columns: Columns
    ) -> tuple[Columns, tuple[pa.Field, ...]]:
        return chosen_of(listing.fs, paths, columns, read_schema, self.what, "arrow-lists")

    def cut(self, listing: Listing, paths: Sequence[str], cutting: Cutting) -> Iterator[Unit]:
        for path in paths:
            rows, damaged = 0, "unreadable_unit"
            with damage_ends_it():
                rows, whole = apart(count, listing.fs, path, cutting.image, seconds=_SECONDS)
                damaged = "" if whole else "truncated_unit" if rows else "unreadable_unit"
            size = listing.files[path].size
            most = shared_out(rows * len(paths), cutting.unit_rows, cutting.least)
            if cutting.unit_bytes is not None:
                most = max(1, min(most, cutting.unit_bytes * rows // max(1, size)))
            yield from in_file(self.name, path, rows, most, damaged)

    def read(self, fs: Any, plan: Plan, unit: Unit) -> pa.Table:
        slim = replace(plan, units=())
        where = (unit.sources[0], unit.start, unit.stop)
        try:
            return apart(read_rows, fs, slim, *where, seconds=_SECONDS)
        except LimitError:
            return errors(plan, ["unreadable_row"] * (unit.stop - unit.start))


def _opened(file: IO[bytes]) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    magic = file.read(6)
    file.seek(0)
    if magic == b"ARROW1":
        reader = pa.ipc.open_file(file)
        batches = (reader.get_batch(n) for n in range(reader.num_record_batches))
        return reader.schema, _sound(file, batches)
    stream = pa.ipc.open_stream(file)
    return stream.schema, _sound(file, stream)


def _sound(file: IO[bytes], batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Batches, as long as each column's bytes are its own.

    Columns are found by their distances from a batch's start, and there is no checksum: bytes that
    were put in or lost, or a distance that changed, would give a number column bytes of names.

    Raises:
        ValueError: a batch does not end where the next message begins, or columns overlap.
    """
    for batch in batches:
        follows = file.read(4)
        file.seek(-len(follows), 1)
        buffers = [buffer for column in batch.columns for buffer in column.buffers() if buffer]
        spans = sorted((buffer.address, buffer.address + buffer.size) for buffer in buffers)
        if follows not in (b"", _MESSAGE) or any(
            start < stop for (_, stop), (start, _) in pairwise(spans)
        ):
            raise ValueError("a batch whose columns' bytes are not their own")
        yield batch


def read_schema(fs: Any, path: str) -> pa.Schema:
    """Of a file; for the sandbox."""
    with open_file(fs, path) as file:
        return schema_in(file)


def schema_in(file: IO[bytes]) -> pa.Schema:
    return _opened(file)[0]


def flat(table: pa.Table, image: str) -> pa.Table:
    """A row for every picture of a table with lists of them; of an empty list one without."""
    table.validate(full=True)
    lists = table[image].combine_chunks()
    lengths = np.asarray(pc.fill_null(pc.list_value_length(lists), 0), np.int64)
    rows = np.repeat(np.arange(len(lengths)), np.maximum(lengths, 1))
    places = np.full(len(rows), -1)
    places[lengths[rows] > 0] = np.arange(lengths.sum())
    index = pa.array(places, mask=places < 0)
    number = table.column_names.index(image)
    return table.take(pa.array(rows)).set_column(number, image, lists.flatten().take(index))


def _records(batch: pa.RecordBatch, image: str | None) -> int:
    """Rows of a batch, or pictures, where it has lists of them.

    Raises:
        ValueError, pa.ArrowException: lists of more pictures than there are.
    """
    if image is None or not is_list(batch.schema.field(image).type):
        return int(batch.num_rows)
    lists = batch.column(image)
    lists.validate()
    lengths = np.asarray(pc.fill_null(pc.list_value_length(lists), 0), np.int64)
    if len(lengths) and (lengths.min() < 0 or lengths.sum() > len(lists.values)):
        raise ValueError("lists of more pictures than there are")
    return int(np.maximum(lengths, 1).sum())


def count(fs: Any, path: str, image: str | None = None) -> tuple[int, bool]:
    """Records of a file, and whether it is whole; for the sandbox."""
    rows, whole = 0, False
    with damage_ends_it(), open_file(fs, path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        for batch in _opened(file)[1]:
            more = _records(batch, image)
            if rows + more > max(_MOST_ROWS, size // _LEAST_BYTES):
                return rows, False
            rows += more
        whole = True
    return rows, whole


def read_rows(fs: Any, plan: Plan, path: str, start: int, stop: int) -> pa.Table:
    """Rows of a file; for the sandbox."""
    image = cast(str, plan.columns.image)
    wanted = list(dict.fromkeys([image, *plan.columns.beside]))
    parts: list[pa.Table] = []
    done, row = start, 0
    with damage_ends_it(), open_file(fs, path) as file:
        schema, batches = _opened(file)
        if any(schema.get_field_index(name) < 0 for name in wanted):
            return errors(plan, ["missing_column"] * (stop - start))
        for batch in batches:
            first, records = max(start - row, 0), _records(batch, image)
            piece = pa.Table.from_batches([batch]).select(wanted)
            if first < records and is_list(schema.field(image).type):
                piece = flat(piece, image)
            piece = piece.slice(first, stop - max(start, row)) if stop > row else piece.slice(0, 0)
            row += records
            if piece.num_rows:
                parts += checked(plan, piece, image)
                done += piece.num_rows
            if done >= stop:
                break
    parts.append(errors(plan, ["unreadable_row"] * (stop - done)))
    return pa.concat_tables(parts)
