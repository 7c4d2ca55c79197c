"""Parquet files: which column holds the pictures, row ranges as units, and their rows."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from ppfr_ops.errors import UserError
from ppfr_ops.source.units import READ_ERROR, Columns, Plan, Unit, errors, even

_BATCH_ROWS = 256


def _open_parquet(file: IO[bytes]) -> pq.ParquetFile:
    # A buffer makes pyarrow stream pages; without one it holds whole column chunks.
    return pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_bytes(kind.field(index).type)
    return _is_bytes(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _holds_bytes(kind: pa.DataType) -> bool:
    """Whether pixels could hide in it."""
    nested = (kind.field(index).type for index in range(kind.num_fields))
    return _is_bytes(kind) or any(_holds_bytes(part) for part in nested)


def choose_columns(
    fs: Any, paths: Sequence[str], columns: Columns
) -> tuple[Columns, tuple[pa.Field, ...]]:
    schema = None
    for path in paths:
        try:
            with fs.open(path, "rb") as file:
                schema = pq.read_schema(file)
            break
        except (OSError, pa.ArrowInvalid):
            continue
    if schema is None:
        raise UserError("no Parquet file of the input can be read")
    pictures = [item.name for item in schema if _is_image(item.type)]
    image = columns.image
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
            raise UserError(f"no column {name!r} in the input; there are: {_names(schema)}")
    keep = tuple(schema.field(name).remove_metadata() for name in columns.keep)
    for item in keep:
        if _holds_bytes(item.type):
            raise UserError(
                f"column {item.name!r} holds bytes, which may be a picture; it is not copied"
            )
    return replace(columns, image=image), keep


def _names(schema: pa.Schema) -> str:
    return ", ".join(schema.names)


def cut(fs: Any, paths: Sequence[str], unit_rows: int) -> Iterator[Unit]:
    for path in paths:
        try:
            with fs.open(path, "rb") as file:
                rows = pq.read_metadata(file).num_rows
        except (OSError, pa.ArrowInvalid):
            yield Unit("", "parquet", (path,), 0, 0, damaged="unreadable_unit")
            continue
        for start, stop in even(rows, unit_rows):
            yield Unit("", "parquet", (path,), start, stop)


def read(fs: Any, plan: Plan, unit: Unit) -> pa.Table:
    if unit.start == unit.stop:
        return errors(plan, [])
    image = cast(str, plan.columns.image)
    wanted = list(dict.fromkeys([image, *plan.columns.beside]))
    parts: list[pa.Table] = []
    with contextlib.suppress(OSError, pa.ArrowException), fs.open(unit.sources[0], "rb") as file:
        parquet = _open_parquet(file)
        schema = parquet.schema_arrow
        if any(schema.get_field_index(name) < 0 for name in wanted):
            return errors(plan, ["missing_column"] * (unit.stop - unit.start))
        nested = pa.types.is_struct(schema.field(image).type)
        leaves = [f"{image}.bytes" if nested else image, *wanted[1:]]
        first = 0
        for group in range(parquet.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            start, stop = max(unit.start - first, 0), min(unit.stop - first, rows)
            if start < stop:
                parts += _read_group(plan, parquet, group, start, stop, leaves, image)
            first += rows
    done = sum(part.num_rows for part in parts)
    parts.append(errors(plan, ["unreadable_row"] * (unit.stop - unit.start - done)))
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
    with contextlib.suppress(OSError, pa.ArrowException):
        for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=[group], columns=list(leaves)):
            piece = pa.Table.from_batches([batch])
            piece = piece.slice(max(start - row, 0), stop - max(start, row))
            row += batch.num_rows
            if piece.num_rows:
                parts.append(_unit_table(plan, piece, image))
                done += piece.num_rows
            if done == stop:
                break
    if done < stop:
        parts.append(errors(plan, ["unreadable_row"] * (stop - done)))
    return parts


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
    values = (None if value is None else str(value) for value in column.to_pylist())
    return pa.array(values, pa.string())
