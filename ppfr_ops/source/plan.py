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
from typing import Any

import pyarrow as pa

from ppfr_ops.contracts.ledger import Source
from ppfr_ops.errors import UserError
from ppfr_ops.source.formats import chosen, reader_of
from ppfr_ops.source.kept import refuse_pictures
from ppfr_ops.source.reader import Cutting, File, Listing, Reader
from ppfr_ops.source.units import (
    READ_ERROR,
    UNIT_BYTES,
    Columns,
    Plan,
    Unit,
    Units,
    errors,
    ids_of,
    record_id,
    relative,
    storable,
)
from ppfr_ops.store.storage import Patient, StoreError, open_store

__all__ = [
    "READ_ERROR",
    "Columns",
    "Plan",
    "Unit",
    "content",
    "ids_of",
    "plan",
    "read_unit",
    "record_id",
    "sources",
]


def plan(
    source: str,
    columns: Columns,
    *,
    format: str = "auto",
    unit_rows: int = 1000,
    least_units: int = 1,
    key: bytes | None = None,
    limit: int | None = None,
    by_bytes: bool = True,
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
        by_bytes: cut a unit whose pictures are large before it has all its rows; else the bytes of
            a picture have no part in where a unit ends, and so in how many files there are.

    Raises:
        UserError: nothing there, no such column, mixed formats.
    """
    listing = _listing(source)
    reader, paths = chosen(listing, format)
    columns, keep = reader.columns(listing, paths, columns)
    least = 1 if key is not None else least_units
    cutting = Cutting(unit_rows, least, key, UNIT_BYTES if by_bytes else None)
    units = reader.cut(listing, paths, cutting)
    named = Units(
        replace(
            unit,
            id=_unit_id(ordinal, unit, listing.root, key, reader.by_place),
            source=None if key is None else _source(unit, listing, key),
        )
        for ordinal, unit in enumerate(_limited(units, limit, reader))
    )
    if not named:
        raise UserError("the input holds no rows")
    if len(set(named.ids)) < len(named):
        raise UserError("two units have the same id: is a file listed twice?")
    ignored = len(listing.files) - len(paths)
    return Plan(source, reader.name, named, columns, keep, ignored, listing.root)


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


def _source(unit: Unit, listing: Listing, key: bytes) -> Source:
    def mark(kind: bytes, text: bytes) -> str:
        return hmac.new(key, kind + b"|" + text, hashlib.sha256).hexdigest()[:32]

    names = [relative(path, listing.root) for path in unit.sources]
    stamps = "|".join(listing.files[path].stamp for path in unit.sources).encode()
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
    table = reader_of(unit.format).read(fs, plan, unit)
    if unit.damaged is not None:
        table = pa.concat_tables([table, errors(plan, [unit.damaged])])
    if table.num_rows != unit.rows:
        raise RuntimeError(f"unit {unit.id}: {table.num_rows} rows read, {unit.rows} planned")
    table = refuse_pictures(table)
    ids = pa.array([record_id(unit.id, row) for row in range(table.num_rows)], pa.string())
    return table.add_column(0, "record_id", ids)


def sources(plan: Plan, unit: Unit) -> Iterator[tuple[str, int]]:
    """(file, row in it) of every row of a unit, for the owner's mapping."""
    fs, _ = open_store(plan.input)
    yield from reader_of(unit.format).sources(fs, unit)
    if unit.damaged is not None:
        yield storable(unit.sources[0]), unit.stop


def _listing(source: str) -> Listing:
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
    shown = (path for path in found if not os.path.basename(path).startswith((".", "_")))
    files = {path: _file(found[path]) for path in sorted(shown)}
    return Listing(fs, root, files)


def _file(info: Mapping[str, Any]) -> File:
    return File(int(info.get("size") or 0), _stamp(info))


def _stamp(info: Mapping[str, Any]) -> str:
    """What changes when a file does: its size, and its ETag or modification time."""
    names = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created")
    version = next((info[name] for name in names if info.get(name) is not None), None)
    return f"{info.get('size')}|{version}"


def _limited(units: Iterator[Unit], limit: int | None, reader: Reader) -> Iterator[Unit]:
    left = limit
    for unit in units:
        if left is None:
            yield unit
            continue
        if left <= 0:
            return
        if unit.rows > left:
            unit = reader.first(unit, left)
        left -= unit.rows
        yield unit


def _unit_id(ordinal: int, unit: Unit, root: str, key: bytes | None, by_place: bool) -> str:
    if key is None:
        return f"u{ordinal:06d}"
    names = b"|".join(relative(path, root) for path in unit.sources)
    # Where a picture stands in the listing is no part of what it is.
    place = f"|{unit.start}|{unit.stop}" if by_place else ""
    text = b"unit|" + names + place.encode()
    return "u" + hmac.new(key, text, hashlib.sha256).hexdigest()[:32]
