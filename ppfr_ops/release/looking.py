"""Look at what a shard holds, and believe nothing: it may have been made by anybody.

A file of two megabytes can unfold to gigabytes, so what nobody signed is read in a child process
that may take as much memory and time as an honest file of that size.
"""

import hashlib
import io
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, TypeVar

import pyarrow as pa

from ppfr_ops.contracts.manifest import ReleaseManifest
from ppfr_ops.contracts.metrics import is_measure
from ppfr_ops.contracts.records import FACE_COLUMNS, RESERVED_COLUMNS, records_schema, released
from ppfr_ops.imaging.credentials import can_check, credentials_fault
from ppfr_ops.imaging.marks import without_credentials
from ppfr_ops.imaging.scans import fills_its_scan
from ppfr_ops.release.foreign import Mark, foreign_part, mark_of
from ppfr_ops.release.listing import Told, Unlisted, packed, read_told
from ppfr_ops.release.standalone.parquet import Unreadable, is_filled, read_footer
from ppfr_ops.sandbox import LimitError, Sandbox
from ppfr_ops.store.folder import Folder
from ppfr_ops.store.shards import read_table

BEYOND = "holds figures of originals, which the epsilon that is claimed does not cover"
UNREADABLE = "is no readable Parquet file"
LARGEST_UNSIGNED_SHARD = 1 << 30
"""Bytes of a shard that is read though nobody vouches for it: a file may be a hole with nothing in
it."""
UNPOINTED = "holds bytes to which nothing points"
BEHIND = "bytes behind its pixels"
TOO_MUCH = "takes more memory or time to read than a file of its size may"

_LEAST_MEMORY = 512 << 20
_MEMORY_A_BYTE = 8
_LEAST_SECONDS, _SECONDS_A_BYTE = 5.0, 1 / (1 << 20)

T = TypeVar("T")


def read_shard(
    folder: Folder, told: Told, *place: str, trusted: bool, by: str = "the manifest"
) -> bytes:
    """As ``read_told``.

    Args:
        trusted: whether somebody who is trusted has signed it.
    """
    most = None if trusted else LARGEST_UNSIGNED_SHARD
    return read_told(folder, told, *place, most=most, too_large=TOO_MUCH, by=by)


def looked_at(function: Callable[..., T], data: bytes, *args: Any, trusted: bool) -> T:
    """Call one of the functions below.

    Args:
        data: as ``read_shard`` gives it.
        trusted: as of ``read_shard``.

    Raises:
        Unlisted: it takes too much.
    """
    if trusted:
        return function(data, *args)
    seconds = _LEAST_SECONDS + len(data) * _SECONDS_A_BYTE
    box = _sandbox((len(data) * _MEMORY_A_BYTE).bit_length())
    try:
        return box.call(function, data, *args, seconds=seconds)
    except LimitError:
        raise Unlisted(TOO_MUCH) from None


@lru_cache(maxsize=4)
def _sandbox(bits: int) -> Sandbox:
    return Sandbox(_LEAST_MEMORY + (1 << bits))


def shard_faults(
    data: bytes, manifest: ReleaseManifest, rows: int | None
) -> tuple[bytes | None, list[str]]:
    """What is wrong with a shard of a release; also the ids of its records, packed; None: they
    cannot be read."""
    try:
        table = read_table(data)
        footer = read_footer(io.BytesIO(data), len(data))
        found = [] if is_filled(io.BytesIO(data), len(data), footer) else [UNPOINTED]
    except (pa.ArrowException, OSError, Unreadable):
        return None, [UNREADABLE]
    expected = _expected_schema(manifest, table.schema)
    extra = [name for name in table.column_names if name not in expected.names]
    measured = [name for name in table.column_names if is_measure(name)]
    if measured and manifest.method.claims_epsilon:
        found.append(f"{BEYOND}: column {', '.join(measured)}")
    elif extra:
        allowed = "reserved" if extra[0] in RESERVED_COLUMNS else "not on the allow-list"
        found.append(f"column {extra[0]!r} is {allowed}")
    elif not _same(table.schema, expected):
        found.append("does not have the schema of a release")
    if table.num_rows != rows:
        found.append(f"{table.num_rows} rows, the manifest says {rows}")
    if "record_id" not in table.column_names:
        return None, found
    ids = table["record_id"].to_pylist()
    if (names := packed(ids)) is None:
        return None, [*found, "a record id is not made of 128 bits"]
    if ids != sorted(ids):
        found.append("its rows do not stand in the order of their ids")
    return names, [*found, *_picture_faults(manifest, table)]


def photographs_in(data: bytes) -> list[tuple[str, str, str]]:
    """Of every photograph in a shard its record, path and sha256.

    Raises:
        Unlisted: they cannot be read.
    """
    try:
        table = read_table(data, ["record_id", "image"])
        cells = zip(table["record_id"].to_pylist(), table["image"], strict=True)
        return [
            (name, cell["path"].as_py(), hashlib.sha256(cell["bytes"].as_py()).hexdigest())
            for name, cell in cells
        ]
    except (pa.ArrowException, OSError, TypeError, KeyError):
        raise Unlisted(UNREADABLE) from None


def _expected_schema(manifest: ReleaseManifest, found: pa.Schema) -> pa.Schema:
    allowed = [str(name) for name in manifest.options.get("keep_columns", [])]
    keep = [found.field(name) for name in allowed if name in found.names]
    crops = manifest.options.get("output_faces") == "crops"
    if crops:
        keep = [item for item in keep if item.name not in FACE_COLUMNS]
    figures = [found.field(name) for name in manifest.method.columns if name in found.names]
    made = records_schema(keep, manifest.options.get("identity") == "pseudonyms", crops, figures)
    return released(made)


_WORDS = re.compile(r"[ -~]{0,400}")
"""What a column may say of itself: a sentence or two."""


def _same(found: pa.Schema, expected: pa.Schema) -> bool:
    """Whether a schema is what was expected, but for the words in which it describes its columns:
    those may have been others when the release was made."""
    if not found.equals(expected) or found.metadata != expected.metadata:
        return False
    for one, other in zip(found, expected, strict=True):
        said, due = one.metadata or {}, other.metadata or {}
        if said.keys() != due.keys():
            return False
        for name, text in said.items():
            if name == b"description":
                if not _WORDS.fullmatch(text.decode("ascii", "replace")) and text != due[name]:
                    return False
            elif text != due[name]:
                return False
    return True


def picture_fault(data: bytes, mark: Mark | None) -> str | None:
    """As ``foreign_part``; whether pixels fill the scan of a JPEG; and whether Content Credentials
    hold, if the extra for them is there."""
    fault = foreign_part(data, mark)
    if fault is None and data[:2] == b"\xff\xd8":
        try:
            fault = None if fills_its_scan(data) else BEHIND
        except (OSError, SyntaxError, ValueError, LookupError):
            fault = "damaged JPEG"
    if fault is not None or mark is None or not (mark.credentials and can_check()):
        return fault
    if without_credentials(data) is None:
        return None  # a photograph in which no face was drawn
    return credentials_fault(data, mark.source_type, mark.training)


def _picture_faults(manifest: ReleaseManifest, table: pa.Table) -> Iterator[str]:
    if "image" not in table.column_names:
        return
    mark = mark_of(manifest.options, manifest.method.draws_faces)
    for record, cell in zip(table["record_id"], table["image"], strict=True):
        image = cell.as_py() or {}
        reason = picture_fault(image.get("bytes") or b"", mark)
        name = (image.get("path") or "").rpartition(".")[0]
        if reason is None and name != record.as_py():
            reason = "its path is not made from the record id"
        if reason is not None:
            yield f"record {record.as_py()}: {reason}"


def table_faults(
    data: bytes, expected: pa.Schema, kind: str, rows: int
) -> tuple[list[str] | None, list[str]]:
    """What is wrong with a shard of the evidence; also the ids of its rows; None: they cannot be
    read."""
    try:
        table = read_table(data)
    except (pa.ArrowException, OSError):
        return None, [UNREADABLE]
    found = []
    if not table.schema.equals(expected):
        found.append(f"does not have the schema of {kind}")
    if table.num_rows != rows:
        found.append(f"{table.num_rows} rows, the manifest says {rows}")
    ids = table["record_id"].to_pylist() if "record_id" in table.column_names else None
    return ids, found
