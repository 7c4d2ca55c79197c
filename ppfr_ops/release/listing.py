"""What is too long for a document lies beside it as a Parquet file, of which the document has size,
digest and number of rows: so anyone who signs the document signs every row.

A file as it is read here is no larger in memory than on disk, whatever it says of itself: its
columns are not compressed, and of fixed width where strangers may have made it.
"""

import hashlib
import io
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ppfr_ops.contracts.ledger import RELEASED, LedgerEntry
from ppfr_ops.contracts.manifest import FILES, FILES_SCHEMA, File, ReleaseManifest
from ppfr_ops.store.folder import RELEASE, Folder
from ppfr_ops.store.shards import HashingWriter

LARGEST = 1 << 30
"""Bytes of a list that is read: some eight million shards."""

_ROW_GROUP = 1 << 16
_ROWS_AT_ONCE, _MOST_UNFOLDED = 256, 4
_PATH = r"^data/[0-9a-f]{32}\.parquet$"
_SHA256 = r"^[0-9a-f]{64}$"


class Unlisted(ValueError):
    """A file that is not what a document says of it; one line, without the name of the file."""


class Told(Protocol):
    """What a document says of a file."""

    @property
    def bytes(self) -> int: ...
    @property
    def sha256(self) -> str: ...


class Claims(Told, Protocol):
    """What a document says of a list."""

    @property
    def rows(self) -> int: ...


def write_rows(folder: Folder, rows: pa.Table, *place: str) -> dict[str, Any]:
    """Write a list; the same rows give the same bytes.

    Returns:
        ``bytes``, ``sha256`` and ``rows``, for the document.
    """
    with folder.writing(*place) as file:
        hashed = HashingWriter(file)
        pq.write_table(
            rows,
            hashed,
            row_group_size=_ROW_GROUP,
            compression="none",
            use_dictionary=False,
            write_statistics=False,
        )
    return {"bytes": hashed.count, "sha256": hashed.digest.hexdigest(), "rows": rows.num_rows}


def read_told(
    folder: Folder,
    told: Told,
    *place: str,
    most: int | None,
    too_large: str = "is larger than any list of what lies there",
    by: str = "the manifest",
) -> bytes:
    """The bytes of a file. Whatever is not what was made is given to no reader: one may crash on
    it.

    Args:
        most: bytes that it may have; None: as many as are told.
        too_large: what is said of more.
        by: the document.

    Raises:
        Unlisted: it is not there, or not what the document says.
    """
    size = folder.size(*place)
    if size is None:
        raise Unlisted("is missing")
    if size != told.bytes:
        raise Unlisted(f"{size} bytes, {by} says {told.bytes}")
    if most is not None and size > most:
        raise Unlisted(too_large)
    data = bytes(folder.fs.cat_file(folder.path(*place)))
    if hashlib.sha256(data).hexdigest() != told.sha256:
        raise Unlisted(f"its sha256 is not that in {by}")
    return data


def read_rows(
    folder: Folder, told: Claims, schema: pa.Schema, *place: str, most: int = LARGEST
) -> pa.Table:
    """Read a list.

    Args:
        most: as ``read_told`` has it.

    Raises:
        Unlisted: it is not there, or not what the document says, or of another form.
    """
    data = read_told(folder, told, *place, most=most)
    try:
        # The digest above is anybody's where nobody signed it.
        with pq.ParquetFile(io.BytesIO(data)) as file:
            if not file.schema_arrow.equals(schema, check_metadata=True):
                raise Unlisted("does not have the columns of a list")
            _check_claims(file.metadata, told, schema)
            return _bounded(file, told, schema)
    except (pa.ArrowException, OSError):
        raise Unlisted("is no readable Parquet file") from None


def _bounded(file: pq.ParquetFile, told: Claims, schema: pa.Schema) -> pa.Table:
    """All rows, as long as they are not more than a list of that size holds: a text can be written
    once and be that of every row."""
    batches, held = [], 0
    for batch in file.iter_batches(_ROWS_AT_ONCE):
        held += batch.nbytes
        if held > _MOST_UNFOLDED * told.bytes + (1 << 20):
            raise Unlisted("unfolds to more than a list of its size")
        batches.append(batch)
    return pa.Table.from_batches(batches, schema)


def _check_claims(found: pq.FileMetaData, told: Claims, schema: pa.Schema) -> None:
    if found.num_rows != told.rows:
        raise Unlisted(f"{found.num_rows} rows, the manifest says {told.rows}")
    least = sum(item.type.bit_width // 8 for item in schema if pa.types.is_primitive(item.type))
    least += sum(
        item.type.byte_width for item in schema if pa.types.is_fixed_size_binary(item.type)
    )
    if found.num_rows * least > told.bytes:
        raise Unlisted("says that it has more rows than it has room for")
    for group in map(found.row_group, range(found.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            if column.compression != "UNCOMPRESSED":
                raise Unlisted("is compressed, which lists are not")


# -- the shards of a release ----------------------------------------------------------------


class Shards:
    """The rows of ``files.pq``, as entry after entry is looked at."""

    _AT_ONCE = 1 << 14

    def __init__(self) -> None:
        self._batches: list[pa.RecordBatch] = []
        self._rows: list[tuple[bytes, int, int, bytes]] = []

    def add(self, entry: LedgerEntry) -> None:
        shard = entry.shards.get("data")
        if shard is not None and shard.path.startswith(f"{RELEASE}/"):
            path = shard.path.removeprefix(f"{RELEASE}/").encode()
            self._rows.append((path, shard.rows, shard.bytes, shard.sha256.encode()))
        if len(self._rows) == self._AT_ONCE:
            self._pack()

    def _pack(self) -> None:
        columns = list(map(list, zip(*self._rows, strict=True))) or [[]] * len(FILES_SCHEMA)
        self._batches.append(pa.record_batch(columns, schema=FILES_SCHEMA))
        self._rows = []

    def table(self) -> pa.Table:
        """All, sorted by path: nothing follows the order in which they were added."""
        self._pack()
        found = pa.Table.from_batches(self._batches, FILES_SCHEMA)
        self._batches = []
        return found.take(pc.sort_indices(found["path"]))


def read_files(
    folder: Folder, manifest: ReleaseManifest, *place: str, most: int = LARGEST
) -> pa.Table:
    """The shards of a release by ``files.pq``; none, where it holds files instead.

    Args:
        place: of the release in the folder.
        most: as ``read_told`` has it.

    Raises:
        Unlisted: the file is not what the manifest says, or what it lists is not what may be in it.
    """
    if manifest.listing.path != FILES:
        return FILES_SCHEMA.empty_table()
    table = read_rows(folder, manifest.listing, FILES_SCHEMA, *place, FILES, most=most)
    for name, pattern in (("path", _PATH), ("sha256", _SHA256)):
        try:
            texts = table[name].cast(pa.binary()).cast(pa.string())
        except pa.ArrowException:  # not even UTF-8
            raise Unlisted(f"lists a {name} that is none") from None
        if not pc.all(pc.match_substring_regex(texts, pattern), min_count=0).as_py():
            raise Unlisted(f"lists a {name} that is none")
    for name in ("rows", "bytes"):
        if not pc.all(pc.greater_equal(table[name], 0), min_count=0).as_py():
            raise Unlisted(f"lists a number of {name} below zero")
    paths = table["path"].combine_chunks()
    if not pc.all(pc.less(paths[:-1], paths[1:]), min_count=0).as_py():
        raise Unlisted("does not list each shard once, in the order of their names")
    return table


def files_of(manifest: ReleaseManifest, shards: pa.Table) -> Iterator[File]:
    """Every file that a release lists, one after the other.

    Args:
        shards: as ``read_files`` gives them.
    """
    yield from manifest.files
    for batch in shards.to_batches(1 << 12):
        for path, rows, size, digest in zip(*(column.to_pylist() for column in batch), strict=True):
            yield File(path=path.decode(), rows=rows, bytes=size, sha256=digest.decode())


# -- the ids of records ---------------------------------------------------------------------

_ID_BYTES = 16


def packed(ids: list[str]) -> bytes | None:
    """Ids of records, 16 bytes each; None if one is not made of 128 bits."""
    if not all(isinstance(name, str) and RELEASED.fullmatch(name) for name in ids):
        return None
    return bytes.fromhex("".join(ids))


def unpacked(ids: bytes) -> list[str]:
    return [ids[place : place + _ID_BYTES].hex() for place in range(0, len(ids), _ID_BYTES)]


def twice(ids: Mapping[str, bytes]) -> Iterator[tuple[str, str, str]]:
    """Every id that is there again, with the shard where it is again, and that where it was.

    Args:
        ids: packed, by shard.
    """
    halves = np.sort(np.frombuffer(b"".join(ids.values()), np.uint64)[::2])
    # Two different ids may agree in a half; what is left is looked at whole.
    again = {int(half) for half in halves[1:][halves[1:] == halves[:-1]]}
    if not again:
        return
    found: dict[bytes, str] = {}
    for path, some in ids.items():
        for number, half in enumerate(np.frombuffer(some, np.uint64)[::2].tolist()):
            if half in again:
                name = some[number * _ID_BYTES : (number + 1) * _ID_BYTES]
                if name in found:
                    yield name.hex(), path, found[name]
                found[name] = path
