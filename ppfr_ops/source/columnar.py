"""Files whose schema is Arrow's: which column holds the pictures, and rows of batches."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ppfr_ops.errors import UserError
from ppfr_ops.source.kept import kept_field
from ppfr_ops.source.labels import stored_text
from ppfr_ops.source.picture_types import holds_pictures, is_image, is_list
from ppfr_ops.source.reader import Chosen, Listing, MissingColumnError
from ppfr_ops.source.sandboxed import Sandboxed
from ppfr_ops.source.units import READ_ERROR, Columns, Plan, damage_ends_it, errors

_ASKED = 25
"""Files that are asked for their columns."""
_SCHEMA_SECONDS = 10.0


class Columnar(Sandboxed):
    """A format of rows with named columns."""

    lists: ClassVar[str] = ""
    """The format that makes records of the lists of pictures in such files, if there is one."""

    def schema(self, fs: Any, path: str) -> pa.Schema:
        """Of a file; in the sandbox."""
        raise NotImplementedError

    def columns(self, listing: Listing, paths: Sequence[str], columns: Columns) -> Chosen:
        """As most of the files have them: a few all over the listing are asked, so that a bad one
        does not decide for all.

        Raises:
            UserError: no file can be read, or none has the columns.
        """
        found: list[Chosen] = []
        refusal = UserError(f"none of the input's {self.what} can be read")
        readable = False
        for path in dict.fromkeys(paths[len(paths) * place // _ASKED] for place in range(_ASKED)):
            with damage_ends_it():
                schema = self.apart(self.schema, listing.fs, path, seconds=_SCHEMA_SECONDS)
                try:
                    found.append(_chosen(schema, columns, self.lists))
                except UserError as error:
                    refusal, readable = (refusal if readable else error), True
        if not found:
            raise refusal
        return max(found, key=found.count)


def _chosen(schema: pa.Schema, columns: Columns, format_of_lists: str) -> Chosen:
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


def of_lists(schema: pa.Schema) -> pa.Schema:
    """A schema with pictures in place of lists of them, and no others."""
    fields = [
        pa.field(item.name, item.type.value_type) if is_list(item.type) else item
        for item in schema
        if not is_image(item.type)
    ]
    return pa.schema(fields)


def wanted(plan: Plan) -> list[str]:
    """The columns that are read of a file, the pictures' first."""
    return list(dict.fromkeys([cast(str, plan.columns.image), *plan.columns.beside]))


def records_in(batch: pa.RecordBatch, image: str | None) -> int:
    """Rows of a batch, or pictures, where it has lists of them; an empty list is one without.

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


def rows_of(plan: Plan, batches: Iterable[pa.RecordBatch], start: int, stop: int) -> pa.Table:
    """Records ``start`` to ``stop`` of batches that follow each other, as ``Reader.read`` gives
    them. After damage that is no row's own all that is left is errors."""
    image = cast(str, plan.columns.image)
    parts = [errors(plan, [])]
    row, done = 0, start
    with damage_ends_it():
        for batch in batches:
            records = records_in(batch, image)
            if row + records > start:
                piece = pa.Table.from_batches([batch])
                if is_list(batch.schema.field(image).type):
                    piece = _flat(piece, image)
                piece = piece.slice(max(start - row, 0), stop - max(start, row))
                parts += _checked(plan, piece, image)
                done += piece.num_rows
            row += records
            if done >= stop:
                break
    return pa.concat_tables([*parts, errors(plan, ["unreadable_row"] * (stop - done))])


def _flat(table: pa.Table, image: str) -> pa.Table:
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


def _checked(plan: Plan, piece: pa.Table, image: str) -> list[pa.Table]:
    """As ``_unit_table``, row by row if one of them is damaged, such as text that is no UTF-8."""
    with damage_ends_it():
        piece.validate(full=True)
        return [_unit_table(plan, piece, image)]
    if piece.num_rows == 1:
        return [errors(plan, ["unreadable_row"])]
    rows = range(piece.num_rows)
    return [part for row in rows for part in _checked(plan, piece.slice(row, 1), image)]


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
        texts = [stored_text(value) for value in piece[plan.columns.identity].to_pylist()]
        data["identity"] = pa.array(texts, pa.string())
    for role, name in plan.columns.given.items():
        texts = [None if value is None else json.dumps(value) for value in piece[name].to_pylist()]
        data[f"given.{role}"] = pa.array(texts, pa.string())
    for item in plan.keep:
        data[f"keep.{item.name}"] = piece[item.name].cast(item.type)
    return pa.table(data)
