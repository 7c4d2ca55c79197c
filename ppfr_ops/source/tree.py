"""Trees of pictures: slices of the sorted listing as units, and their files."""

import hmac
import os
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from ppfr_ops.errors import UserError
from ppfr_ops.source.units import READ_ERROR, Columns, Plan, Unit, even

FOLDER_COLUMN = "folder"
"""The one column that a tree of pictures has besides the pictures: the name of the folder."""


def choose_columns(columns: Columns) -> tuple[Columns, tuple[pa.Field, ...]]:
    for name in columns.beside:
        if name != FOLDER_COLUMN or name in columns.given.values():
            raise UserError(f"no column {name!r}: pictures have only the column {FOLDER_COLUMN!r}")
    return columns, tuple(pa.field(name, pa.string()) for name in columns.keep)


def cut(paths: Sequence[str], unit_rows: int, root: str, key: bytes | None) -> Iterator[Unit]:
    if key is None:
        ranges = list(even(len(paths), unit_rows))
    else:
        ranges = list(_by_names(paths, unit_rows, root, key))
    for start, stop in ranges:
        yield Unit("", "images", tuple(paths[start:stop]), start, stop)


def _by_names(
    paths: Sequence[str], unit_rows: int, root: str, key: bytes
) -> Iterator[tuple[int, int]]:
    """Ranges that end where a keyed hash of a name says so (content-defined chunking), or where
    they are full: a file more or less changes the units around it and no others."""
    start = 0
    for place, path in enumerate(paths, 1):
        name = os.path.relpath(path, root or None).encode()
        ends = int.from_bytes(hmac.digest(key, b"cut|" + name, "sha256")[:8]) % unit_rows < 2
        if place - start == unit_rows or place == len(paths) or (ends and unit_rows > 2):
            yield start, place
            start = place


def read(fs: Any, plan: Plan, unit: Unit) -> pa.Table:
    data: list[bytes | None] = []
    codes: list[str | None] = []
    for path in unit.sources:
        try:
            data.append(fs.cat_file(path))
            codes.append(None)
        except OSError:
            data.append(None)
            codes.append("unreadable_file")
    folders = pa.array([os.path.basename(os.path.dirname(p)) for p in unit.sources], pa.string())
    columns = {"image": pa.array(data, pa.large_binary()), READ_ERROR: pa.array(codes, pa.string())}
    if plan.columns.identity:
        columns["identity"] = folders
    for item in plan.keep:
        columns[f"keep.{item.name}"] = folders
    return pa.table(columns)
