"""Plan units from an fsspec input; read one into an Arrow table.

A unit is the smallest piece of work: a row range of a Parquet file, a run of samples in a tar, a
slice of a sorted listing of pictures. Units come from the listing alone, so planning twice gives
the same units. The repr of a unit shows its id only: engines print what they carry.
"""

import hashlib
import hmac
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from ppfr_ops.contracts.ledger import Source
from ppfr_ops.errors import UserError
from ppfr_ops.source.coarsening import coarsened, parse
from ppfr_ops.source.formats import chosen, reader_of
from ppfr_ops.source.kept import refuse_pictures
from ppfr_ops.source.labels import label, respelled, spelled
from ppfr_ops.source.listing import listing_of
from ppfr_ops.source.paths import IDENTITY, SPLIT, PathColumns
from ppfr_ops.source.reader import Cutting, Listing, MissingColumnError, Reader
from ppfr_ops.source.units import (
    READ_ERROR,
    RESPELLED,
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
    suffix,
)
from ppfr_ops.store.storage import open_store

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
    "told_by",
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
        source: fsspec URL or path of a file, folder or glob; of a table also ``URL@VERSION``.
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
    listing = listing_of(source)
    reader, paths = chosen(listing, format)
    told = PathColumns(
        listing.root,
        paths,
        columns.identity_from,
        not reader.by_place,
        reader.asked_paths(listing, paths),
    )
    columns, keep, by_path = _columns(reader, listing, paths, columns, told)
    least = 1 if key is not None else least_units
    cutting = Cutting(unit_rows, least, key, UNIT_BYTES if by_bytes else None, columns.image)
    units = reader.cut(listing, paths, cutting)
    named = Units(
        replace(
            unit,
            id=_unit_id(ordinal, unit, listing.root, key, reader.by_place),
            source=_source(unit, listing, key, reader.by_place, columns.labels),
        )
        for ordinal, unit in enumerate(_limited(units, limit, reader))
    )
    if not named:
        raise UserError("the input holds no rows")
    if len(set(named.ids)) < len(named):
        raise UserError("two units have the same id: is a file listed twice?")
    left_out = Counter(listing.left_out)
    read = {*paths, *columns.labels, *reader.companions(listing)}
    left_out.update(suffix(path) or "without suffix" for path in listing.files if path not in read)
    left_out.update(reader.left_out(listing, paths, columns))
    return Plan(
        listing.url or source,
        reader.name,
        named,
        columns,
        keep,
        dict(+left_out),
        listing.root,
        by_path,
        listing.deleted,
    )


def told_by(columns: Columns, identity_from: str | None, labels: str | None) -> Columns:
    """The columns with what paths (``--identity-from``) and a table (``--labels``) say of pictures.

    Raises:
        UserError: the identities are said to be elsewhere, too.
    """
    if identity_from is not None:
        if columns.identity not in (None, IDENTITY):
            raise UserError("--identity-from and --identity-column say different things")
        columns = replace(columns, identity=IDENTITY, identity_from=identity_from)
    if labels is not None:
        columns = replace(columns, labels=(open_store(labels)[1],), labels_given=True)
    return columns


def _columns(
    reader: Reader, listing: Listing, paths: Sequence[str], columns: Columns, told: PathColumns
) -> tuple[Columns, tuple[pa.Field, ...], frozenset[str]]:
    """The columns with what was left open filled in, the types of those to keep, and which of them
    come from the files' paths: what ``--identity-from`` names, and what the files do not have
    themselves. A split that paths tell is kept even if nobody asks."""
    by_path = {IDENTITY} if columns.identity_from is not None else set()
    while True:
        try:
            own, fields = reader.columns(listing, paths, columns.without(by_path))
            break
        except MissingColumnError as missing:
            if missing.name not in told.names or missing.name in by_path:
                raise
            by_path.add(missing.name)
    names = list(columns.keep)
    if SPLIT in told.names and SPLIT not in (*names, columns.identity):
        try:
            reader.columns(listing, paths, replace(own, keep=(SPLIT,)))
        except MissingColumnError:
            names.append(SPLIT)
            by_path.add(SPLIT)
    types = {item.name: item for item in fields}
    keep = tuple(types.get(name, pa.field(name, pa.string())) for name in names)
    whole = replace(columns, image=own.image, labels=own.labels, keep=tuple(names))
    return whole, keep, frozenset(by_path)


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


def _source(
    unit: Unit, listing: Listing, key: bytes | None, by_place: bool, labels: Sequence[str]
) -> Source:
    """A unit's fingerprint, of its files and of the tables that say what is in them. Without a key,
    that of one plan for the next: nothing is written of it but under the output's secret."""

    def mark(kind: bytes, text: bytes) -> str:
        return hmac.new(key or b"", kind + b"|" + text, hashlib.sha256).hexdigest()[:32]

    names = [relative(path, listing.root) for path in unit.sources]
    files = tuple(mark(b"file", name) for name in names)
    rows = (unit.start, unit.start + unit.rows) if by_place else None
    if key is not None:
        stamps = "|".join(map(listing.stamp, (*unit.sources, *labels))).encode()
        stamp = mark(b"stamp", stamps)
    else:
        known = (listing.files.get(path) for path in unit.sources)
        found = ["" if file is None else file.stamp for file in known]
        stamps = "|".join([*found, *map(listing.stamp, labels)]).encode()
        stamp = mark(b"named", b"|".join([*names, stamps]))
    return Source(stamp=stamp, content=None, files=files, rows=rows)


def labelled_by_paths(plan: Plan) -> bool:
    """Whether people are named by paths: these are no numbers, and ``1.0`` is not ``1``."""
    return plan.columns.identity in plan.by_path | reader_of(plan.format).by_path


def read_unit(plan: Plan, unit: Unit) -> pa.Table:
    """A unit as a table.

    Returns:
        ``unit.rows`` rows, in the order of the source: ``record_id`` string, ``image`` binary
        (null where there is none), ``read_error`` string, ``identity`` string (if asked for),
        ``given.boxes`` and the like as JSON texts (if there), and the columns to keep. A row that
        cannot be read is there all the same, with its reason. The schema's metadata has
        ``RESPELLED``.
    """
    fs, _ = open_store(plan.input)
    own = plan.own
    reader = reader_of(unit.format)
    table = reader.read(fs, own, unit)
    changed = 0
    if unit.damaged is not None:
        table = pa.concat_tables([table, errors(own, [unit.damaged])])
    if table.num_rows != unit.rows:
        raise RuntimeError(f"unit {unit.id}: {table.num_rows} rows read, {unit.rows} planned")
    if plan.by_path:
        inside = plan.columns.identity_from is not None
        files = list(reader.row_paths(fs, unit) if inside else reader.files(unit))
        files += list(unit.sources[-1:]) * (table.num_rows - len(files))
        table = _with_paths(plan, table, files)
    if plan.columns.identity is not None:
        place = table.schema.get_field_index("identity")
        spell = spelled if labelled_by_paths(plan) else label
        stored = table["identity"].to_pylist()
        changed = sum(map(respelled, stored))
        names = [spell(value) for value in stored]
        table = table.set_column(place, "identity", pa.array(names, pa.string()))
    table = refuse_pictures(table)
    for text in plan.columns.coarse:
        kept = parse(text)
        place = table.schema.get_field_index(f"keep.{kept.name}")
        table = table.set_column(place, f"keep.{kept.name}", coarsened(table.column(place), kept))
    ids = pa.array([record_id(unit.id, row) for row in range(table.num_rows)], pa.string())
    table = table.add_column(0, "record_id", ids)
    return table.replace_schema_metadata({RESPELLED: str(changed)})


def _with_paths(plan: Plan, table: pa.Table, files: Sequence[str]) -> pa.Table:
    """The table with the columns that paths give, in the order that it would have them."""
    told = PathColumns(
        plan.root, (), plan.columns.identity_from, not reader_of(plan.format).by_place
    )
    columns = {name: table[name] for name in table.column_names}
    for name in plan.by_path:
        values = pa.array(told.column(name, files), pa.string())
        if name == plan.columns.identity or name == IDENTITY:
            columns["identity"] = values
        if name in plan.columns.keep:
            columns[f"keep.{name}"] = values
    if IDENTITY in plan.by_path and plan.columns.identity_from is not None:
        stray = pc.and_(pc.is_null(columns["identity"]), pc.is_null(columns[READ_ERROR]))
        columns[READ_ERROR] = pc.if_else(stray, "unlabelled", columns[READ_ERROR])
    return pa.table({name: columns[name] for name in errors(plan, []).column_names})


def sources(plan: Plan, unit: Unit) -> Iterator[tuple[str, int]]:
    """(file, row in it) of every row of a unit, for the owner's mapping."""
    fs, _ = open_store(plan.input)
    yield from reader_of(unit.format).sources(fs, unit)
    if unit.damaged is not None:
        yield storable(unit.sources[0]), unit.stop


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
