"""The vault's files as tables: sealed originals, and the wrapped keys that open them.

Both are Parquet, one pair for every committed unit. A row is a record, or where several records
come of one original (faces cut out of a photograph) that original, once; the schemas are in
``contracts.vault``.
"""

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ppfr_ops.contracts.vault import KEYS_SCHEMA, SEALED_SCHEMA
from ppfr_ops.vault.sealing import Sealed, Wrapped

FORMAT = 1
ROW_GROUP = 64
"""Rows that a damaged spot costs at most, and that are in memory at once."""


class Damaged(Exception):
    """A file of the vault that is missing, cut off or changed."""


@dataclass(frozen=True)
class Entry:
    """What opens one original."""

    picture: bytes
    key: Wrapped | None
    """None: revoked."""


@dataclass(frozen=True)
class Keys:
    """The wrapped keys of a unit's copy."""

    unit: str
    copy: str
    salt: bytes
    entries: Mapping[str, Entry]

    def to_bytes(self) -> bytes:
        """As a Parquet file."""
        about = {"format": FORMAT, "unit": self.unit, "copy": self.copy, "salt": self.salt.hex()}
        pictures = [each.picture for each in self.entries.values()]
        keys = [each.key for each in self.entries.values()]
        table = pa.table(
            [
                list(self.entries),
                pa.array(pictures, pa.binary(32)),
                pa.array([None if key is None else key.nonce for key in keys], pa.binary(12)),
                pa.array([None if key is None else key.text for key in keys], pa.binary()),
            ],
            schema=KEYS_SCHEMA.with_metadata(
                {**KEYS_SCHEMA.metadata, "ppfr_vault": json.dumps(about)}
            ),
        )
        out = io.BytesIO()
        pq.write_table(table, out, compression="none", use_dictionary=False, write_statistics=False)
        return out.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Keys":
        """From a Parquet file.

        Raises:
            Damaged: it is none, or not of this form.
        """
        try:
            table = pq.ParquetFile(io.BytesIO(data)).read()
            about = json.loads(table.schema.metadata[b"ppfr_vault"])
            if about["format"] != FORMAT or table.schema.remove_metadata() != KEYS_SCHEMA:
                raise Damaged
            columns = (table[name].to_pylist() for name in KEYS_SCHEMA.names)
            entries = {
                entry: Entry(picture, None if text is None else Wrapped(nonce, text))
                for entry, picture, nonce, text in zip(*columns, strict=True)
            }
            return cls(about["unit"], about["copy"], bytes.fromhex(about["salt"]), entries)
        except (pa.ArrowException, KeyError, TypeError, ValueError, OSError):
            raise Damaged from None


def write_sealed(file: Any, rows: Iterable[tuple[str, Sealed]]) -> None:
    """Sealed originals as a Parquet file, a row group at a time."""
    with pq.ParquetWriter(
        file, SEALED_SCHEMA, compression="none", use_dictionary=False, write_statistics=False
    ) as writer:
        group: list[tuple[str, Sealed]] = []
        for row in rows:
            group.append(row)
            if len(group) == ROW_GROUP:
                writer.write_table(_table(group))
                group = []
        if group:
            writer.write_table(_table(group))


def _table(rows: list[tuple[str, Sealed]]) -> pa.Table:
    return pa.table(
        [
            [entry for entry, _ in rows],
            pa.array([sealed.nonce for _, sealed in rows], pa.binary(12)),
            pa.array([sealed.commitment for _, sealed in rows], pa.binary(32)),
            pa.array([sealed.text for _, sealed in rows], pa.binary()),
        ],
        schema=SEALED_SCHEMA,
    )


def read_sealed(file: Any, wanted: set[str] | None = None) -> Iterator[tuple[str, Sealed]]:
    """Sealed originals of a Parquet file; a damaged row group is left out.

    Args:
        file: open for reading.
        wanted: entries to give; None: all.

    Raises:
        Damaged: the file as a whole cannot be read.
    """
    try:
        source = pq.ParquetFile(file)
        groups = source.num_row_groups
    except (pa.ArrowException, OSError):
        raise Damaged from None
    for number in range(groups):
        try:
            table = source.read_row_group(number)
            if table.schema.remove_metadata() != SEALED_SCHEMA:
                raise Damaged
            rows = list(zip(*(table[name].to_pylist() for name in table.schema.names), strict=True))
        except (pa.ArrowException, OSError, ValueError):
            continue
        for entry, nonce, commitment, text in rows:
            if wanted is None or entry in wanted:
                yield entry, Sealed(nonce, commitment, text)
