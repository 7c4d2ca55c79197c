"""Parquet and Arrow files whose rows hold lists of pictures: every picture is a record, and has the
row's labels. A list of none is a record without a picture."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from ppfr_ops.source import arrow, parquet
from ppfr_ops.source.arrow import flat
from ppfr_ops.source.parquet import apart, checked, chosen_of, held
from ppfr_ops.source.picture_types import is_image, is_list
from ppfr_ops.source.reader import Cutting, Listing, Reader
from ppfr_ops.source.units import (
    Columns,
    Plan,
    Unit,
    damage_ends_it,
    errors,
    even,
    open_file,
    shared_out,
)

_SECONDS = 60.0
_BATCH_ROWS = 16
_MOST_ROWS, _LEAST_BYTES = 2**20, 64


class _Lists(Reader):
    auto = False

    def columns(
        self, listing: Listing, paths: Sequence[str], columns: Columns
    ) -> tuple[Columns, tuple[pa.Field, ...]]:
        return chosen_of(listing.fs, paths, columns, read_schema, self.what)


class ParquetLists(_Lists, parquet.Parquet):
    """``list<binary>``, or ``list<struct{bytes}>`` as Hugging Face has sequences of images."""

    name = "parquet-lists"
    what = "Parquet files of lists of pictures"

    def cut(self, listing: Listing, paths: Sequence[str], cutting: Cutting) -> Iterator[Unit]:
        for path in paths:
            rows, size, damaged = 0, 0, "unreadable_unit"
            with damage_ends_it():
                counts, size = apart(count, listing.fs, path, cutting.image, seconds=_SECONDS)
                if counts is not None:
                    rows, damaged = sum(counts), ""
            most = shared_out(rows * len(paths), cutting.unit_rows, cutting.least)
            if cutting.unit_bytes is not None:
                most = max(1, min(most, cutting.unit_bytes * rows // max(1, size)))
            for start, stop in list(even(rows, most)) or [(0, 0)]:
                if start < stop or damaged:
                    yield Unit("", self.name, (path,), start, stop, damaged=damaged or None)

    def read(self, fs: Any, plan: Plan, unit: Unit) -> pa.Table:
        return parquet.read(fs, plan, unit, read_rows)


class ArrowLists(_Lists, arrow.ArrowFiles):
    """The same lists in Arrow files, as ``datasets.save_to_disk`` writes them."""

    name = "arrow-lists"
    what = "Arrow files of lists of pictures"


def read_schema(fs: Any, path: str) -> pa.Schema:
    """Of a file, with pictures in place of lists of them, and no others; for the sandbox."""
    with open_file(fs, path) as file:
        is_parquet = file.read(4) == b"PAR1"
        file.seek(0)
        schema = pq.read_schema(file) if is_parquet else arrow.schema_in(file)
    fields = [
        pa.field(item.name, item.type.value_type) if is_list(item.type) else item
        for item in schema
        if not is_image(item.type)
    ]
    return pa.schema(fields)


def _leaf(metadata: pq.FileMetaData, image: str) -> int:
    """Number of the column that holds the bytes of the pictures."""
    paths = [metadata.schema.column(place).path for place in range(metadata.num_columns)]
    found = [place for place, path in enumerate(paths) if path.startswith(f"{image}.")]
    return next((place for place in found if paths[place].endswith(".bytes")), found[0])


def _counts(metadata: pq.FileMetaData, image: str, size: int) -> list[int] | None:
    """Records of every row group; None: more than the file can hold."""
    leaf = _leaf(metadata, image)
    groups = [metadata.row_group(place) for place in range(metadata.num_row_groups)]
    counts = [max(0, group.column(leaf).num_values, group.num_rows) for group in groups]
    return counts if sum(counts) <= max(_MOST_ROWS, size // _LEAST_BYTES) else None


def count(fs: Any, path: str, image: str) -> tuple[list[int] | None, int]:
    """Records of a file's row groups, and its bytes; for the sandbox."""
    with open_file(fs, path) as file:
        size = held(fs, file)
        return _counts(pq.read_metadata(file), image, size), size


def read_rows(fs: Any, plan: Plan, path: str, start: int, stop: int) -> pa.Table:
    """Records of a file; for the sandbox."""
    image = cast(str, plan.columns.image)
    wanted = [name for name in dict.fromkeys(plan.columns.beside) if name != image]
    parts = [errors(plan, [])]
    with damage_ends_it(), open_file(fs, path) as file:
        size = held(fs, file)
        opened = pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
        schema = opened.schema_arrow
        if any(schema.get_field_index(name) < 0 for name in [image, *wanted]):
            return errors(plan, ["missing_column"] * (stop - start))
        leaf = opened.metadata.schema.column(_leaf(opened.metadata, image)).path
        first = 0
        for group, records in enumerate(_counts(opened.metadata, image, size) or ()):
            begin, end = max(start - first, 0), min(stop - first, records)
            if begin < end:
                parts += _read_group(plan, opened, group, begin, end, [leaf, *wanted])
            first += records
    done = sum(part.num_rows for part in parts)
    return pa.concat_tables([*parts, errors(plan, ["unreadable_row"] * (stop - start - done))])


def _read_group(
    plan: Plan, opened: pq.ParquetFile, group: int, start: int, stop: int, leaves: Sequence[str]
) -> list[pa.Table]:
    parts: list[pa.Table] = []
    row, done = 0, start
    with damage_ends_it():
        for batch in opened.iter_batches(_BATCH_ROWS, row_groups=[group], columns=list(leaves)):
            piece = flat(pa.Table.from_batches([batch]), cast(str, plan.columns.image))
            count = piece.num_rows
            piece = piece.slice(max(start - row, 0), stop - max(start, row))
            row += count
            if piece.num_rows:
                parts += checked(plan, piece, cast(str, plan.columns.image))
                done += piece.num_rows
            if done == stop:
                break
    return [*parts, errors(plan, ["unreadable_row"] * (stop - done))]
