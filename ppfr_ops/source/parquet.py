"""Parquet files: which column holds the pictures, row ranges as units, and their rows.

A number in a footer can crash pyarrow, so all that is read is read in ``ppfr_ops.sandbox``.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from ppfr_ops.errors import UserError
from ppfr_ops.sandbox import LimitError, sandbox
from ppfr_ops.source.kept import kept_field
from ppfr_ops.source.labels import stored_text
from ppfr_ops.source.picture_types import holds_pictures, is_image, is_list
from ppfr_ops.source.reader import Cutting, Listing, MissingColumnError, Reader
from ppfr_ops.source.units import (
    READ_ERROR,
    UNIT_BYTES,
    Columns,
    Plan,
    Unit,
    damage_ends_it,
    errors,
    even,
    open_file,
    shared_out,
    suffix,
)

_BATCH_ROWS = 256
_ASKED = 25
"""Files that are asked for their columns."""
_MAX_EMPTY_ROWS = 2**20
_LEAST_BYTES = 64
"""Of a row, where there are many; no picture of a face is smaller."""
_FOOTER_SECONDS, _READ_SECONDS = 10.0, 60.0
_MAX_DEATHS = 8
_MOST_BARE = 10_000
"""Files without a suffix that are looked into."""

T = TypeVar("T")


def _open_parquet(file: IO[bytes]) -> pq.ParquetFile:
    # A buffer makes pyarrow stream pages; without one it holds whole column chunks.
    return pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)


def choose_columns(
    fs: Any, paths: Sequence[str], columns: Columns
) -> tuple[Columns, tuple[pa.Field, ...]]:
    """The picture column and the types of those to keep, as most of the files have them.

    A few files all over the listing are asked, so that a bad one does not decide for all.

    Raises:
        UserError: no file can be read, or none has the columns.
    """
    return chosen_of(fs, paths, columns, read_schema, "Parquet files", "parquet-lists")


def chosen_of(
    fs: Any,
    paths: Sequence[str],
    columns: Columns,
    schema_of: Callable[[Any, str], pa.Schema],
    what: str,
    lists: str = "",
) -> tuple[Columns, tuple[pa.Field, ...]]:
    """As ``choose_columns``, for files of any format whose schema is Arrow's.

    Args:
        lists: name of the format that reads such files of lists of pictures, if there is one.
    """
    found: list[tuple[Columns, tuple[pa.Field, ...]]] = []
    refusal = UserError(f"none of the input's {what} can be read")
    readable = False
    for path in dict.fromkeys(paths[len(paths) * place // _ASKED] for place in range(_ASKED)):
        with damage_ends_it():
            schema = apart(schema_of, fs, path, seconds=_FOOTER_SECONDS)
            try:
                found.append(_chosen(schema, columns, lists))
            except UserError as error:
                refusal, readable = (refusal if readable else error), True
    if not found:
        raise refusal
    return max(found, key=found.count)


def _chosen(
    schema: pa.Schema, columns: Columns, format_of_lists: str
) -> tuple[Columns, tuple[pa.Field, ...]]:
    pictures = [item.name for item in schema if is_image(item.type)]
    deeper = [i.name for i in schema if holds_pictures(i.type) and not is_image(i.type)]
    image = columns.image
    if image in deeper or (image is None and deeper and not pictures):
        name = image or deeper[0]
        if format_of_lists and is_list(schema.field(name).type):
            raise UserError(
                f"column {name!r} holds lists of pictures: --input-format {format_of_lists} makes "
                "a record of each"
            )
        raise UserError(
            f"column {name!r} holds pictures within lists or structs: make a row of each first, "
            "such as by explode() of pandas or Polars, or flatten() of datasets"
        )
    if image is None:
        if "image" in pictures:
            image = "image"
        elif len(pictures) == 1:
            image = pictures[0]
        else:
            raise UserError(
                f"name the picture column with --image-column; there are: "
                f"{', '.join(pictures) or 'none'}"
            )
    elif image not in pictures:
        raise UserError(
            f"column {image!r} holds no pictures (binary, or a struct with binary 'bytes'); "
            f"these do: {', '.join(pictures) or 'none'}"
        )
    for name in columns.beside:
        if schema.get_field_index(name) < 0:
            raise MissingColumnError(name, schema.names)
    keep = tuple(kept_field(schema.field(name)) for name in columns.keep)
    return replace(columns, image=image), keep


def cut(
    fs: Any,
    paths: Sequence[str],
    unit_rows: int,
    least: int = 1,
    unit_bytes: int | None = UNIT_BYTES,
    deleted: Mapping[str, npt.NDArray[np.int64]] | None = None,
) -> Iterator[Unit]:
    """Units of the files, in order; none is read before it is asked for.

    Args:
        deleted: rows of files that do not count, by path.
        least: units, if there are the rows and files are alike.
    """
    for path in paths:
        counted = None
        with damage_ends_it():
            counted, size = apart(count, fs, path, seconds=_FOOTER_SECONDS)
        if counted is None:
            yield Unit("", "parquet", (path,), 0, 0, damaged="unreadable_unit")
            continue
        rows = max(0, counted.rows - len((deleted or {}).get(path, ())))
        most = shared_out(rows * len(paths), unit_rows, least)
        if unit_bytes is not None:
            most = max(1, min(most, unit_bytes * counted.rows // max(1, size)))
        damaged = None if counted.agree else "contradictory_unit"
        for start, stop in list(even(rows, most)) or [(0, 0)]:
            if start == stop and damaged is None:
                break  # an empty file
            last = stop == rows
            yield Unit("", "parquet", (path,), start, stop, damaged=damaged if last else None)


def apart(function: Callable[..., T], fs: Any, *args: Any, seconds: float) -> T:
    """Call in the sandbox, except where the files are in the memory of this process."""
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    if "memory" in protocols:
        return function(fs, *args)
    return sandbox.call(function, fs, *args, seconds=seconds)


def read_schema(fs: Any, path: str) -> pa.Schema:
    """Of a file; for the sandbox."""
    with open_file(fs, path) as file:
        return pq.read_schema(file)


def count(fs: Any, path: str) -> tuple["_Count | None", int]:
    """Rows and bytes of a file; for the sandbox."""
    with open_file(fs, path) as file:
        size = held(fs, file)
        return _count(pq.read_metadata(file), size), size


def held(fs: Any, file: IO[bytes]) -> int:
    """Bytes of a file; without its holes, which cost anyone who made it nothing."""
    size = file.seek(0, os.SEEK_END)
    blocks = os.fstat(file.fileno()).st_blocks if isinstance(fs, LocalFileSystem) else 0
    # Some file systems count no blocks.
    return min(size, 512 * blocks) if blocks else size


@dataclass(frozen=True)
class _Count:
    """Rows of a file, by row groups."""

    groups: tuple[int, ...]
    agree: bool
    """Whether all that the file says of them agrees, so that none can be missing."""

    @property
    def rows(self) -> int:
        return sum(self.groups)


def _count(metadata: pq.FileMetaData, size: int) -> _Count | None:
    """Count the rows of a file, and believe none of its numbers by itself.

    The file's own total is not needed. A row group's rows are what most of its columns without
    repetition say; where columns differ, the larger number counts, and what is not there will be
    dead letters.

    Args:
        size: of the file, bytes.

    Returns:
        None if the file claims more rows than it can hold: more than a million, which
        well-compressed empty rows may need no byte for, and less than ``_LEAST_BYTES`` for each.
        What a plan takes is so bounded by what there is.
    """
    schema = metadata.schema
    flat = [i for i in range(metadata.num_columns) if schema.column(i).max_repetition_level == 0]
    groups = []
    agree = True
    for place in range(metadata.num_row_groups):
        group = metadata.row_group(place)
        claims = Counter([group.num_rows, *(group.column(i).num_values for i in flat)])
        rows = max(claims, key=lambda claim: (claims[claim], claim))
        groups.append(max(0, rows))
        agree &= len(claims) == 1 and rows >= 0
    if sum(groups) > max(_MAX_EMPTY_ROWS, size // _LEAST_BYTES):
        return None
    return _Count(tuple(groups), agree and metadata.num_rows <= sum(groups))


def read(
    fs: Any, plan: Plan, unit: Unit, rows_of: Callable[..., pa.Table] | None = None
) -> pa.Table:
    """Rows ``start`` to ``stop`` of a file; those that cannot be read with their reason.

    Rows at which the reading process dies are found by halving; after a few deaths all that is
    left is given up.
    """
    parts: dict[int, pa.Table] = {}
    ranges = [(unit.start, unit.stop)]
    deaths = 0
    # What a child needs of a plan; it may have a million units.
    slim = replace(plan, units=(), deleted={})
    while ranges:
        start, stop = ranges.pop()
        rows = (unit.sources[0], start, stop)
        try:
            parts[start] = apart(rows_of or read_rows, fs, slim, *rows, seconds=_READ_SECONDS)
        except LimitError:
            deaths += 1
            if deaths >= _MAX_DEATHS or stop - start == 1:
                parts[start] = errors(plan, ["unreadable_row"] * (stop - start))
            else:
                middle = (start + stop) // 2
                ranges += [(middle, stop), (start, middle)]
    return pa.concat_tables([parts[start] for start in sorted(parts)])


def read_rows(fs: Any, plan: Plan, path: str, start: int, stop: int) -> pa.Table:
    """Rows of a file; for the sandbox."""
    if start == stop:
        return errors(plan, [])
    image = cast(str, plan.columns.image)
    wanted = list(dict.fromkeys([image, *plan.columns.beside]))
    parts: list[pa.Table] = []
    with damage_ends_it(), open_file(fs, path) as file:
        size = held(fs, file)
        parquet = _open_parquet(file)
        schema = parquet.schema_arrow
        if any(schema.get_field_index(name) < 0 for name in wanted):
            return errors(plan, ["missing_column"] * (stop - start))
        nested = pa.types.is_struct(schema.field(image).type)
        leaves = [f"{image}.bytes" if nested else image, *wanted[1:]]
        counted = _count(parquet.metadata, size)
        first = 0
        for group, rows in enumerate(counted.groups if counted else ()):
            begin, end = max(start - first, 0), min(stop - first, rows)
            if begin < end:
                parts += _read_group(plan, parquet, group, begin, end, leaves, image)
            first += rows
    done = sum(part.num_rows for part in parts)
    parts.append(errors(plan, ["unreadable_row"] * (stop - start - done)))
    return pa.concat_tables(parts)


def _read_group(
    plan: Plan,
    parquet: pq.ParquetFile,
    group: int,
    start: int,
    stop: int,
    leaves: Sequence[str],
    image: str,
) -> list[pa.Table]:
    """Rows ``start`` to ``stop`` of a row group; what is damaged as errors."""
    parts: list[pa.Table] = []
    row = 0
    done = start
    with damage_ends_it():
        for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=[group], columns=list(leaves)):
            piece = pa.Table.from_batches([batch])
            piece = piece.slice(max(start - row, 0), stop - max(start, row))
            row += batch.num_rows
            if piece.num_rows:
                parts += checked(plan, piece, image)
                done += piece.num_rows
            if done == stop:
                break
    if done < stop:
        parts.append(errors(plan, ["unreadable_row"] * (stop - done)))
    return parts


def checked(plan: Plan, piece: pa.Table, image: str) -> list[pa.Table]:
    """As ``_unit_table``, row by row if one of them is damaged, such as text that is no UTF-8."""
    table = None
    with damage_ends_it():
        piece.validate(full=True)
        table = _unit_table(plan, piece, image)
    if table is not None:
        return [table]
    if piece.num_rows == 1:
        return [errors(plan, ["unreadable_row"])]
    rows = range(piece.num_rows)
    return [part for row in rows for part in checked(plan, piece.slice(row, 1), image)]


def _unit_table(plan: Plan, piece: pa.Table, image: str) -> pa.Table:
    pictures = piece[image].combine_chunks()
    if pa.types.is_struct(pictures.type):
        # flatten() carries a null struct over to its children; field() would not.
        pictures = pictures.flatten()[pictures.type.get_field_index("bytes")]
    data = {
        "image": pictures.cast(pa.large_binary()),
        READ_ERROR: pa.nulls(piece.num_rows, pa.string()),
    }
    if plan.columns.identity:
        data["identity"] = _text(piece[plan.columns.identity])
    for role, name in plan.columns.given.items():
        texts = [None if value is None else json.dumps(value) for value in piece[name].to_pylist()]
        data[f"given.{role}"] = pa.array(texts, pa.string())
    for item in plan.keep:
        data[f"keep.{item.name}"] = piece[item.name].cast(item.type)
    return pa.table(data)


def _text(column: pa.ChunkedArray) -> pa.Array:
    return pa.array([stored_text(value) for value in column.to_pylist()], pa.string())


class Parquet(Reader):
    """Parquet files; a unit is a range of a file's rows."""

    name = "parquet"
    what = "Parquet files"
    suffixes = frozenset({".parquet", ".parq", ".pq"})

    def claims(self, listing: Listing) -> list[str]:
        """Those without a suffix too, as some writers leave them, by their first bytes."""
        named = set(super().claims(listing))
        bare = [path for path in listing.files if not suffix(path)][:_MOST_BARE]
        for path in bare:
            with damage_ends_it(), open_file(listing.fs, path) as file:
                if file.read(4) == b"PAR1":
                    named.add(path)
        return sorted(named)

    def columns(
        self, listing: Listing, paths: Sequence[str], columns: Columns
    ) -> tuple[Columns, tuple[pa.Field, ...]]:
        return choose_columns(listing.fs, paths, columns)

    def cut(self, listing: Listing, paths: Sequence[str], cutting: Cutting) -> Iterator[Unit]:
        rows, least, most = cutting.unit_rows, cutting.least, cutting.unit_bytes
        return cut(listing.fs, paths, rows, least, most, listing.deleted)

    def read(self, fs: Any, plan: Plan, unit: Unit) -> pa.Table:
        deleted = plan.deleted.get(unit.sources[0])
        if deleted is None or unit.start == unit.stop:
            return read(fs, plan, unit)
        # Of every row that counts its place in the file: it comes after so many that do not.
        places = np.arange(unit.start, unit.stop)
        places += np.searchsorted(deleted - np.arange(len(deleted)), places, side="right")
        first = int(places[0])
        return read(fs, plan, replace(unit, start=first, stop=int(places[-1]) + 1)).take(
            pa.array(places - first)
        )
