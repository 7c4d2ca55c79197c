"""Plan units from an fsspec input; read one into an Arrow table.

A unit is the smallest piece of work: a row range of a Parquet file, a run of samples in a tar, a
slice of a sorted listing of pictures. Units come from the listing alone, so planning twice gives
the same units. The repr of a unit shows its id only: engines print what they carry.
"""

import hashlib
import hmac
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal, cast

import pyarrow as pa

from ppfr_ops.contracts.ledger import Source
from ppfr_ops.errors import UserError
from ppfr_ops.source import parquet, tar, tree
from ppfr_ops.source.kept import refuse_pictures
from ppfr_ops.source.units import (
    IMAGE_SUFFIXES,
    READ_ERROR,
    Columns,
    Format,
    Plan,
    Unit,
    Units,
    errors,
    ids_of,
    record_id,
    relative,
    storable,
    suffix,
)
from ppfr_ops.store.storage import Patient, StoreError, open_store

__all__ = [
    "READ_ERROR",
    "Columns",
    "Format",
    "Plan",
    "Unit",
    "content",
    "ids_of",
    "plan",
    "read_unit",
    "record_id",
    "sources",
]

_READERS = {"parquet": parquet.read, "images": tree.read, "webdataset": tar.read}


def plan(
    source: str,
    columns: Columns,
    *,
    format: Format | Literal["auto"] = "auto",
    unit_rows: int = 1000,
    least_units: int = 1,
    key: bytes | None = None,
    limit: int | None = None,
) -> Plan:
    """Cut an input into units.

    Args:
        source: fsspec URL or path of a file, folder or glob.
        columns: where image, identity and the columns to keep are.
        unit_rows: rows of a unit, at most.
        least_units: units, if an input of Parquet or pictures has the rows, so that workers share
            a small one; without a key, with which units must not change as the input grows.
        key: with it, ids come from the sources by HMAC, so that they survive a growing input;
            without it they are ordinals.
        limit: rows of the plan, at most.

    Raises:
        UserError: nothing there, no such column, mixed formats.
    """
    fs, root, details, sizes = _listing(source)
    least = 1 if key is not None else least_units
    chosen, paths, ignored = _choose(sorted(details), format)
    if chosen == "parquet":
        columns, keep = parquet.choose_columns(fs, paths, columns)
        units = parquet.cut(fs, paths, unit_rows, least)
    elif chosen == "images":
        columns, keep = tree.choose_columns(columns)
        units = tree.cut(paths, sizes, unit_rows, root, key, least)
    else:
        keep = tuple(pa.field(name, pa.string()) for name in columns.keep)
        units = tar.cut(fs, paths, unit_rows)
    named = Units(
        replace(
            unit,
            id=_unit_id(ordinal, unit, root, key),
            source=None if key is None else _source(unit, root, key, details),
        )
        for ordinal, unit in enumerate(_limited(units, limit))
    )
    if not named:
        raise UserError("the input holds no rows")
    if len(set(named.ids)) < len(named):
        raise UserError("two units have the same id: is a file listed twice?")
    return Plan(source, chosen, named, columns, keep, ignored)


def content(table: pa.Table, key: bytes) -> str:
    """HMAC over everything in a unit's table, hex: changes when any row does."""
    digest = hmac.new(key, b"content|", hashlib.sha256)
    for column in table.column_names:
        digest.update(f"|{column}|".encode())
        for value in table[column]:
            data = _plain(value)
            digest.update(b"%d:" % len(data))
            digest.update(data)
    return digest.hexdigest()


def _plain(value: pa.Scalar) -> bytes:
    try:
        item = value.as_py()
    except (ValueError, ArithmeticError):  # a time that Python does not have
        return bytes(pa.record_batch([pa.repeat(value, 1)], names=["x"]).serialize())
    return item if isinstance(item, bytes) else repr(item).encode()


def _source(unit: Unit, root: str, key: bytes, details: Mapping[str, str]) -> Source:
    def mark(kind: bytes, text: bytes) -> str:
        return hmac.new(key, kind + b"|" + text, hashlib.sha256).hexdigest()[:32]

    names = [relative(path, root) for path in unit.sources]
    stamps = "|".join(details[path] for path in unit.sources).encode()
    return Source(
        stamp=mark(b"stamp", stamps),
        content=None,
        files=tuple(mark(b"file", name) for name in names),
    )


def read_unit(plan: Plan, unit: Unit) -> pa.Table:
    """A unit as a table.

    Returns:
        ``unit.rows`` rows, in the order of the source: ``record_id`` string, ``image`` binary
        (null where there is none), ``read_error`` string, ``identity`` string (if asked for),
        ``given.boxes`` and the like as JSON texts (if there), and the columns to keep. A row that
        cannot be read is there all the same, with its reason.
    """
    fs, _ = open_store(plan.input)
    table = _READERS[unit.format](fs, plan, unit)
    if unit.damaged is not None:
        table = pa.concat_tables([table, errors(plan, [unit.damaged])])
    if table.num_rows != unit.rows:
        raise RuntimeError(f"unit {unit.id}: {table.num_rows} rows read, {unit.rows} planned")
    table = refuse_pictures(table)
    ids = pa.array([record_id(unit.id, row) for row in range(table.num_rows)], pa.string())
    return table.add_column(0, "record_id", ids)


def sources(plan: Plan, unit: Unit) -> Iterator[tuple[str, int]]:
    """(file, row in it) of every row of a unit, for the owner's mapping."""
    files = [storable(path) for path in unit.sources]
    if unit.format == "parquet":
        yield from ((files[0], row) for row in range(unit.start, unit.stop))
    elif unit.format == "images":
        yield from ((path, 0) for path in files)
    else:
        fs, _ = open_store(plan.input)
        for row, name in enumerate(tar.names(fs, unit), unit.start):
            yield f"{files[0]}#{name}", row
    if unit.damaged is not None:
        yield files[0], unit.stop


def _listing(source: str) -> tuple[Any, str, dict[str, str], dict[str, int]]:
    """The file system, the folder that ids are relative to, and the files with their stamps and
    their sizes."""
    try:
        fs, root = open_store(source)
        if isinstance(fs, Patient):
            fs.check(re.split(r"[*?\[]", root, maxsplit=1)[0])
        if any(sign in root for sign in "*?["):
            found = {
                path: info
                for path, info in fs.glob(root, detail=True).items()
                if info["type"] != "directory"
            }
            root = os.path.dirname(re.split(r"[*?\[]", root, maxsplit=1)[0])
        else:
            found = fs.find(root, detail=True)
            if root in found:
                root = os.path.dirname(root)
            elif not found and not fs.exists(root):
                raise UserError("the input does not exist")
    except StoreError as error:
        raise UserError(f"the input: {error}") from None
    except OSError as error:
        raise UserError(f"the input cannot be listed ({type(error).__name__})") from None
    shown = {
        path: info
        for path, info in found.items()
        if not os.path.basename(path).startswith((".", "_"))
    }
    stamps = {path: _stamp(info) for path, info in shown.items()}
    return fs, root, stamps, {path: int(info.get("size") or 0) for path, info in shown.items()}


def _stamp(info: Mapping[str, Any]) -> str:
    """What changes when a file does: its size, and its ETag or modification time."""
    names = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created")
    version = next((info[name] for name in names if info.get(name) is not None), None)
    return f"{info.get('size')}|{version}"


def _choose(paths: list[str], wanted: str) -> tuple[Format, list[str], int]:
    kinds: dict[Format, list[str]] = {
        "parquet": [path for path in paths if suffix(path) == ".parquet"],
        "webdataset": [path for path in paths if suffix(path) == ".tar"],
        "images": [path for path in paths if suffix(path) in IMAGE_SUFFIXES],
    }
    present = [kind for kind, found in kinds.items() if found]
    if wanted == "auto":
        if len(present) > 1:
            raise UserError(
                f"the input holds {' and '.join(present)}; choose one with --input-format"
            )
        if not present:
            raise UserError("the input holds no Parquet file, picture or tar")
        wanted = present[0]
    chosen = cast(Format, wanted)
    if not kinds[chosen]:
        raise UserError(f"the input holds no file of the format {chosen}")
    return chosen, kinds[chosen], len(paths) - len(kinds[chosen])


def _limited(units: Iterator[Unit], limit: int | None) -> Iterator[Unit]:
    left = limit
    for unit in units:
        if left is None:
            yield unit
            continue
        if left <= 0:
            return
        if unit.rows > left:
            stop = unit.start + left
            unit = replace(unit, stop=stop, sources=_slice(unit, left), damaged=None)
        left -= unit.rows
        yield unit


def _slice(unit: Unit, count: int) -> tuple[str, ...]:
    return unit.sources[:count] if unit.format == "images" else unit.sources


def _unit_id(ordinal: int, unit: Unit, root: str, key: bytes | None) -> str:
    if key is None:
        return f"u{ordinal:06d}"
    names = b"|".join(relative(path, root) for path in unit.sources)
    # Where a picture stands in the listing is no part of what it is.
    place = "" if unit.format == "images" else f"|{unit.start}|{unit.stop}"
    text = b"unit|" + names + place.encode()
    return "u" + hmac.new(key, text, hashlib.sha256).hexdigest()[:32]
