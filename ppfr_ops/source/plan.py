"""Plan units from an fsspec input; read one into an Arrow table.

A unit is the smallest piece of work: a row range of a Parquet file, a run of samples in a tar, a
slice of a sorted listing of pictures. Units come from the listing alone, so planning twice gives
the same units. The repr of a unit shows its id only: engines print what they carry.
"""

import contextlib
import hashlib
import hmac
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import IO, Any, Literal, cast

import pyarrow as pa
import pyarrow.parquet as pq

from ppfr_ops.contracts.ledger import Source
from ppfr_ops.errors import UserError
from ppfr_ops.store.storage import Patient, StoreError, open_store

Format = Literal["parquet", "images", "webdataset"]
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}
)
FOLDER_COLUMN = "folder"
"""The one column that a tree of pictures has besides the pictures: the name of the folder."""

_BATCH_ROWS = 256

READ_ERROR = "read_error"
"""Column of a unit table: why a row could not be read (a code of ``REASONS``), else null."""


@dataclass(frozen=True)
class Unit:
    """One piece of work.

    Rows ``start`` to ``stop`` (exclusive) of ``sources[0]``, a Parquet file; or the samples
    ``start`` to ``stop`` of a tar, from ``offset`` bytes on; or the pictures ``sources``.
    ``damaged`` is a reason code when planning found that the file breaks off (after ``stop``).
    """

    id: str
    format: Format = field(repr=False)
    sources: tuple[str, ...] = field(repr=False)
    start: int = field(repr=False)
    stop: int = field(repr=False)
    offset: int = field(default=0, repr=False)
    damaged: str | None = field(default=None, repr=False)

    @property
    def rows(self) -> int:
        """Rows of the unit's table. What breaks off counts as one row, for nobody can count it."""
        return self.stop - self.start + (self.damaged is not None)


@dataclass(frozen=True)
class Columns:
    """Where things are in the input."""

    image: str | None = None
    """None: found out by the planner (Parquet), or whatever picture a sample holds (tar)."""
    identity: str | None = None
    keep: tuple[str, ...] = ()
    given: Mapping[str, str] = field(default_factory=dict)
    """Columns of what the owner knows of the faces: ``boxes``, ``landmarks``, ``regions``."""

    @property
    def beside(self) -> list[str]:
        """All that a row needs beside its picture."""
        identity = [self.identity] if self.identity else []
        return [*self.keep, *identity, *self.given.values()]


@dataclass(frozen=True, repr=False)
class Plan:
    """All units of an input, in order."""

    input: str
    format: Format
    units: tuple[Unit, ...]
    columns: Columns
    keep: tuple[pa.Field, ...]
    """The allow-list with the types that it has in the input."""
    ignored: int = 0
    """Files in the listing that are of another format."""
    fingerprints: Mapping[str, Source] = field(default_factory=dict)
    """By unit id: what it would be made of, as the listing has it; only with a key."""

    def __repr__(self) -> str:
        return f"Plan({len(self.units)} units)"

    @property
    def rows(self) -> int:
        return sum(unit.rows for unit in self.units)

    def digest(self) -> str:
        """sha256 over ids and sizes, hex; nothing of a source enters."""
        text = json.dumps([[unit.id, unit.start, unit.stop, unit.damaged] for unit in self.units])
        return hashlib.sha256(text.encode()).hexdigest()


def plan(
    source: str,
    columns: Columns,
    *,
    format: Format | Literal["auto"] = "auto",
    unit_rows: int = 1000,
    key: bytes | None = None,
    limit: int | None = None,
) -> Plan:
    """Cut an input into units.

    Args:
        source: fsspec URL or path of a file, folder or glob.
        columns: where image, identity and the columns to keep are.
        unit_rows: rows of a unit, at most.
        key: with it, ids come from the sources by HMAC, so that they survive a growing input;
            without it they are ordinals.
        limit: rows of the plan, at most.

    Raises:
        UserError: nothing there, no such column, mixed formats.
    """
    fs, root, details = _listing(source)
    chosen, paths, ignored = _choose(sorted(details), format)
    if chosen == "parquet":
        columns, keep = _parquet_columns(fs, paths, columns)
        units = _parquet_units(fs, paths, unit_rows)
    elif chosen == "images":
        columns, keep = _image_columns(columns)
        units = _image_units(paths, unit_rows, root, key)
    else:
        keep = tuple(pa.field(name, pa.string()) for name in columns.keep)
        units = _tar_units(fs, paths, unit_rows)
    found = list(_limited(units, limit))
    if not found:
        raise UserError("the input holds no rows")
    named = tuple(
        replace(unit, id=_unit_id(ordinal, unit, root, key)) for ordinal, unit in enumerate(found)
    )
    fingerprints = {}
    if key is not None:
        fingerprints = {unit.id: _source(unit, root, key, details) for unit in named}
    return Plan(source, chosen, named, columns, keep, ignored, fingerprints)


def content(table: pa.Table, key: bytes) -> str:
    """HMAC over everything in a unit's table, hex: changes when any row does."""
    digest = hmac.new(key, b"content|", hashlib.sha256)
    for column in table.column_names:
        digest.update(f"|{column}|".encode())
        for value in table[column]:
            item = value.as_py()
            data = item if isinstance(item, bytes) else repr(item).encode()
            digest.update(b"%d:" % len(data))
            digest.update(data)
    return digest.hexdigest()


def _source(unit: Unit, root: str, key: bytes, details: Mapping[str, str]) -> Source:
    def mark(kind: str, text: str) -> str:
        return hmac.new(key, f"{kind}|{text}".encode(), hashlib.sha256).hexdigest()[:32]

    names = [os.path.relpath(path, root or None) for path in unit.sources]
    stamps = "|".join(details[path] for path in unit.sources)
    return Source(
        stamp=mark("stamp", stamps),
        content=None,
        files=tuple(mark("file", name) for name in names),
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
    read = {"parquet": _read_parquet, "images": _read_images, "webdataset": _read_tar}[unit.format]
    table = read(fs, plan, unit)
    if unit.damaged is not None:
        table = pa.concat_tables([table, _errors(plan, [unit.damaged])])
    if table.num_rows != unit.rows:
        raise RuntimeError(f"unit {unit.id}: {table.num_rows} rows read, {unit.rows} planned")
    ids = pa.array([record_id(unit.id, row) for row in range(table.num_rows)], pa.string())
    return table.add_column(0, "record_id", ids)


def record_id(unit: str, row: int) -> str:
    """Pseudonym of a record: its unit and its position in it."""
    return f"{unit}-{row:06d}"


def sources(plan: Plan, unit: Unit) -> Iterator[tuple[str, int]]:
    """(file, row in it) of every row of a unit, for the owner's mapping."""
    if unit.format == "parquet":
        yield from ((unit.sources[0], row) for row in range(unit.start, unit.stop))
    elif unit.format == "images":
        yield from ((path, 0) for path in unit.sources)
    else:
        fs, _ = open_store(plan.input)
        with fs.open(unit.sources[0], "rb") as file:
            for row, sample in enumerate(_samples(file, unit.offset, unit.stop - unit.start)):
                yield f"{unit.sources[0]}#{sample.key}", unit.start + row
    if unit.damaged is not None:
        yield unit.sources[0], unit.stop


# -- planning ---------------------------------------------------------------------------------


def _listing(source: str) -> tuple[Any, str, dict[str, str]]:
    """The file system, the folder that ids are relative to, and the files with their stamps."""
    try:
        fs, root = open_store(source)
        if isinstance(fs, Patient):
            fs.check(re.split(r"[*?\[]", root, maxsplit=1)[0])
        if any(sign in root for sign in "*?["):
            found = {
                path: info
                for path, info in fs.glob(root, detail=True).items()
                if info["type"] == "file"
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
    return (
        fs,
        root,
        {
            path: _stamp(info)
            for path, info in found.items()
            if not os.path.basename(path).startswith((".", "_"))
        },
    )


def _stamp(info: Mapping[str, Any]) -> str:
    """What changes when a file does: its size, and its ETag or modification time."""
    names = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created")
    version = next((info[name] for name in names if info.get(name) is not None), None)
    return f"{info.get('size')}|{version}"


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _choose(paths: list[str], wanted: str) -> tuple[Format, list[str], int]:
    kinds: dict[Format, list[str]] = {
        "parquet": [path for path in paths if _suffix(path) == ".parquet"],
        "webdataset": [path for path in paths if _suffix(path) == ".tar"],
        "images": [path for path in paths if _suffix(path) in IMAGE_SUFFIXES],
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
    names = "|".join(os.path.relpath(path, root or None) for path in unit.sources)
    # Where a picture stands in the listing is no part of what it is.
    place = "" if unit.format == "images" else f"|{unit.start}|{unit.stop}"
    text = f"unit|{names}{place}"
    return "u" + hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:12]


def _even(rows: int, most: int) -> Iterator[tuple[int, int]]:
    """Ranges of nearly equal length, none longer than ``most``."""
    pieces = -(-rows // most)
    for piece in range(pieces):
        yield rows * piece // pieces, rows * (piece + 1) // pieces


# -- Parquet ----------------------------------------------------------------------------------


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


def _parquet_columns(
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


def _parquet_units(fs: Any, paths: Sequence[str], unit_rows: int) -> Iterator[Unit]:
    for path in paths:
        try:
            with fs.open(path, "rb") as file:
                rows = pq.read_metadata(file).num_rows
        except (OSError, pa.ArrowInvalid):
            yield Unit("", "parquet", (path,), 0, 0, damaged="unreadable_unit")
            continue
        for start, stop in _even(rows, unit_rows):
            yield Unit("", "parquet", (path,), start, stop)


def _read_parquet(fs: Any, plan: Plan, unit: Unit) -> pa.Table:
    if unit.start == unit.stop:
        return _errors(plan, [])
    image = cast(str, plan.columns.image)
    wanted = list(dict.fromkeys([image, *plan.columns.beside]))
    parts: list[pa.Table] = []
    with contextlib.suppress(OSError, pa.ArrowException), fs.open(unit.sources[0], "rb") as file:
        parquet = _open_parquet(file)
        schema = parquet.schema_arrow
        if any(schema.get_field_index(name) < 0 for name in wanted):
            return _errors(plan, ["missing_column"] * (unit.stop - unit.start))
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
    parts.append(_errors(plan, ["unreadable_row"] * (unit.stop - unit.start - done)))
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
        parts.append(_errors(plan, ["unreadable_row"] * (stop - done)))
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


def _errors(plan: Plan, codes: Sequence[str]) -> pa.Table:
    """Rows of which nothing but the reason is known."""
    count = len(codes)
    data = {
        "image": pa.nulls(count, pa.large_binary()),
        READ_ERROR: pa.array(codes, pa.string()),
    }
    if plan.columns.identity:
        data["identity"] = pa.nulls(count, pa.string())
    for role in plan.columns.given:
        data[f"given.{role}"] = pa.nulls(count, pa.string())
    for item in plan.keep:
        data[f"keep.{item.name}"] = pa.nulls(count, item.type)
    return pa.table(data)


# -- pictures ---------------------------------------------------------------------------------


def _image_columns(columns: Columns) -> tuple[Columns, tuple[pa.Field, ...]]:
    for name in columns.beside:
        if name != FOLDER_COLUMN or name in columns.given.values():
            raise UserError(f"no column {name!r}: pictures have only the column {FOLDER_COLUMN!r}")
    return columns, tuple(pa.field(name, pa.string()) for name in columns.keep)


def _image_units(
    paths: Sequence[str], unit_rows: int, root: str, key: bytes | None
) -> Iterator[Unit]:
    if key is None:
        ranges = list(_even(len(paths), unit_rows))
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


def _read_images(fs: Any, plan: Plan, unit: Unit) -> pa.Table:
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


# -- WebDataset tars --------------------------------------------------------------------------


@dataclass
class _Sample:
    key: str
    offset: int
    members: dict[str, tarfile.TarInfo]


class _Truncated(Exception):
    """The tar breaks off."""


def _samples(file: IO[bytes], offset: int, count: int | None = None) -> Iterator[_Sample]:
    """Runs of members that share a key: the path up to the first dot of the file name.

    Raises:
        _Truncated: after the last whole sample, if the archive ends without its end marker.
    """
    file.seek(offset)
    current: _Sample | None = None
    done = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # or it remembers every header of the archive
                if not member.isfile():
                    continue
                folder, _, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                key = f"{folder}/{stem}"
                if current is None or current.key != key:
                    if current is not None:
                        yield current
                        done += 1
                        if done == count:
                            return
                    current = _Sample(key, member.offset, {})
                current.members[suffix.lower()] = member
            end = tar.offset
    except (tarfile.TarError, OSError, EOFError):
        # The sample that the break is in may lack members, so it is not handed out.
        raise _Truncated from None
    file.seek(end)
    # tarfile takes garbage and a bare end of file for an end; an archive ends with a zero block.
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise _Truncated
    if current is not None:
        yield current


def _tar_units(fs: Any, paths: Sequence[str], unit_rows: int) -> Iterator[Unit]:
    for path in paths:
        offsets: list[int] = []
        damaged = None
        try:
            with fs.open(path, "rb") as file:
                for sample in _samples(file, 0):
                    offsets.append(sample.offset)
        except _Truncated:
            damaged = "truncated_unit" if offsets else "unreadable_unit"
        except OSError:
            offsets, damaged = [], "unreadable_unit"
        ranges = list(_even(len(offsets), unit_rows)) or ([(0, 0)] if damaged else [])
        for start, stop in ranges:
            last = stop == len(offsets)
            yield Unit(
                "",
                "webdataset",
                (path,),
                start,
                stop,
                offsets[start] if offsets else 0,
                damaged if last else None,
            )


def _read_tar(fs: Any, plan: Plan, unit: Unit) -> pa.Table:
    rows: list[dict[str, Any]] = []
    count = unit.stop - unit.start
    if count:
        try:
            # A second handle reads bodies, so that the scan keeps its place.
            with fs.open(unit.sources[0], "rb") as file, fs.open(unit.sources[0], "rb") as body:
                for sample in _samples(file, unit.offset, count):
                    rows.append(_sample_row(plan, sample, _reader(body)))
        except (_Truncated, OSError):
            pass
    lost = _errors(plan, ["unreadable_row"] * (count - len(rows)))
    return pa.concat_tables([pa.Table.from_pylist(rows[:count], lost.schema), lost])


def _reader(file: IO[bytes]) -> Callable[[tarfile.TarInfo], bytes]:
    def read(member: tarfile.TarInfo) -> bytes:
        file.seek(member.offset_data)
        return file.read(member.size)

    return read


def _sample_row(
    plan: Plan, sample: _Sample, read: Callable[[tarfile.TarInfo], bytes]
) -> dict[str, Any]:
    wanted = plan.columns.image
    if wanted is not None:
        pictures = [wanted] if wanted in sample.members else []
    else:
        pictures = [name for name in sample.members if _suffix(f"x.{name}") in IMAGE_SUFFIXES]
    row: dict[str, Any] = {"image": None, READ_ERROR: None}
    if len(pictures) > 1:
        row[READ_ERROR] = "several_images"
    elif pictures:
        row["image"] = read(sample.members[pictures[0]])
    names = [(name, f"keep.{name}") for name in plan.columns.keep]
    names += [(name, f"given.{role}") for role, name in plan.columns.given.items()]
    if plan.columns.identity or names:
        values = _sample_values(sample, read)
        if plan.columns.identity:
            row["identity"] = values.get(plan.columns.identity)
        row.update({target: values.get(name) for name, target in names})
    return row


def _sample_values(
    sample: _Sample, read: Callable[[tarfile.TarInfo], bytes]
) -> dict[str, str | None]:
    """The members ``json`` (its top-level keys), ``cls`` and ``txt`` as strings."""
    values: dict[str, str | None] = {}
    for name in ("cls", "txt"):
        if name in sample.members:
            values[name] = read(sample.members[name]).decode("utf-8", "replace").strip()
    if "json" in sample.members:
        try:
            parsed = json.loads(read(sample.members["json"]))
        except ValueError:
            parsed = None
        if isinstance(parsed, dict):
            for key, value in parsed.items():
                if value is not None:
                    values[key] = value if isinstance(value, str) else json.dumps(value)
    return values
