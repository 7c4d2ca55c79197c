"""A unit's tables as Parquet files."""

import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ppfr_ops.contracts.ledger import Kind, Statistic

ROW_GROUP = 256
"""Rows a row group: what a reader of one record has to fetch."""


@dataclass(frozen=True)
class Tables:
    """What a unit became. All have their schema from ``contracts``; only units of photographs have
    ``detections``, and only units that were looked at have ``look``, for the owner alone."""

    records: pa.Table
    metrics: pa.Table
    dead_letters: pa.Table
    detections: pa.Table | None = None
    look: pa.Table | None = None

    def items(self) -> dict[Kind, pa.Table]:
        tables: dict[Kind, pa.Table | None] = {
            "data": self.records,
            "metrics": self.metrics,
            "dead_letters": self.dead_letters,
            "detections": self.detections,
            "look": self.look,
        }
        return {kind: table for kind, table in tables.items() if table is not None}


def concatenate(parts: Sequence[Tables]) -> Tables:
    """The parts of a unit, in order."""
    whole: dict[str, pa.Table] = {}
    for kind in ("records", "metrics", "dead_letters", "detections", "look"):
        found = [getattr(part, kind) for part in parts if getattr(part, kind) is not None]
        whole |= {kind: pa.concat_tables(found)} if found else {}
    return Tables(**whole)


def read_table(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """A Parquet file in memory as a table. ``pyarrow.parquet.read_table`` would let go of the
    bytes in a thread of its own, which ends the program with SIGABRT if it is about to exit."""
    return pq.ParquetFile(io.BytesIO(data)).read(columns)


def statistics(metrics: pa.Table) -> dict[str, Statistic]:
    """Count, mean and extremes of every numeric column."""
    result = {}
    for name in metrics.column_names[1:]:
        column = metrics[name].drop_null()
        if len(column):
            extremes = pc.min_max(column).as_py()
            result[name] = Statistic(count=len(column), mean=pc.mean(column).as_py(), **extremes)
    return result


def write_table(table: pa.Table, file: Any) -> tuple[int, str]:
    """Write a shard; returns its bytes and their sha256, hex."""
    hashed = HashingWriter(file)
    pq.write_table(
        table,
        hashed,
        row_group_size=ROW_GROUP,
        compression=_compression(table.schema),
        use_dictionary=False,
        store_schema=True,
    )
    hashed.flush()
    return hashed.count, hashed.digest.hexdigest()


_PLAIN = ("record_id", "image.bytes", "image.path")
"""Columns that are stored as they are, so that a verifier needs nothing but Python to look into
them (``release.standalone``). Pictures are compressed already."""


def _compression(schema: pa.Schema) -> dict[str, str]:
    """By column, as Parquet names them: inside lists and structs, too."""
    empty = io.BytesIO()
    pq.write_table(schema.empty_table(), empty)
    with pq.ParquetFile(empty) as file:
        columns = [file.schema.column(place).path for place in range(len(file.schema))]
    return {name: "none" if name in _PLAIN else "zstd" for name in columns}


def to_write(path: str, kind: Kind) -> Any:
    """A local file of a shard, new; closed to others from the start, unless it is to leave."""
    mode = 0o666 if kind == "data" else 0o600
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb")


class HashingWriter(io.RawIOBase):
    """A file that is written once, front to back, and hashed on the way."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.count = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self._file.write(view)
        self.digest.update(view)
        self.count += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        return self.count

    def flush(self) -> None:
        self._file.flush()
