"""What records and shards are called outside, and in which order they stand.

Inside, a record is known by its unit and row, so that seeds, verdicts and dead letters keep their
meaning. Outside, that would tell the source's row to anyone who has the listing. So ids are keyed:
128 bits of HMAC-SHA-256 under a secret of the output, which never leaves ``evidence/``. Rows are
sorted by id within a shard and shards by id in the manifest: a keyed shuffle, for the ids are
random to everybody else. The secret is the mapping: with it the owner finds a record's row again.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa

from ppfr_ops.contracts.records import FACE_COLUMNS, RELEASED_FACE_COLUMN, released
from ppfr_ops.store.shards import Tables, concatenate

_BYTES = 16


class Ids:
    """Inside to outside.

    Args:
        secret: of the output, 32 bytes.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def record(self, source_id: str) -> str:
        """Id of a record outside: 32 hex digits."""
        return self._keyed("record", source_id)

    def unit(self, unit: str) -> str:
        """Name of a unit's shard outside: 32 hex digits."""
        return self._keyed("unit", unit)

    def release(self) -> str:
        """Id of the output outside."""
        return self._keyed("release", "")

    def rows(self, source_ids: Iterable[str]) -> dict[str, str]:
        """Ids inside by those outside."""
        return {self.record(name): name for name in source_ids}

    def _keyed(self, kind: str, name: str) -> str:
        digest = hmac.new(self._secret, f"{kind}|{name}".encode(), hashlib.sha256)
        return digest.digest()[:_BYTES].hex()


def new_secret(seed: int | None = None) -> bytes:
    """32 bytes.

    Args:
        seed: for tests only: the same ids in every run.
    """
    if seed is None:
        return secrets.token_bytes(32)
    return hashlib.sha256(f"ids of a test|{seed}".encode()).digest()


def publish(
    tables: Tables,
    ids: Ids,
    paths: Mapping[str, str] | None = None,
    unchanged: Tables | None = None,
) -> Tables:
    """A unit as it is stored: records and metrics under the ids and in the order of the outside.

    Args:
        paths: what the pictures are called, without suffix, by id inside; None: as their ids.
        unchanged: what goes with it as it was stored before.

    Dead letters keep the ids of the inside, and so does ``source_id`` of detections: both are the
    owner's. Of a face's place in its photograph nothing is left in the records. What was drawn for
    nobody's photo bears its ids of the outside already, and what was only looked at is no record.

    Raises:
        ValueError: an id is there twice.
    """
    names = [ids.record(name) for name in tables.records["record_id"].to_pylist()]
    if len(set(names)) < len(names):
        raise ValueError("two records of a unit have the same id")
    detections = tables.detections
    if detections is not None:
        outside = [ids.record(name) for name in detections["record_id"].to_pylist()]
        detections = _renamed(detections, outside)
    called = names
    if paths is not None:
        called = [paths[name] for name in tables.records["record_id"].to_pylist()]
    renamed = Tables(
        _release_columns(_renamed(tables.records, names), called),
        _renamed(tables.metrics, names),
        tables.dead_letters,
        detections,
    )
    parts = [renamed] if unchanged is None else [renamed, unchanged]
    return Tables(**{name: _sorted(table) for name, table in vars(concatenate(parts)).items()})


def _sorted(table: pa.Table | None) -> pa.Table | None:
    """By record, in the order that there is within one."""
    if table is None:
        return None
    order = np.argsort(np.array(table["record_id"].to_pylist(), dtype=str), kind="stable")
    return table.take(pa.array(order, pa.int64()))


_ALIKE = {".jpg": (".jpg", ".jpeg", ".jpe", ".jfif")}


def suffixed(name: str, suffix: str) -> str:
    """A name with a suffix, unless it ends in one of the same format already."""
    return name if name.lower().endswith(_ALIKE.get(suffix, (suffix,))) else name + suffix


def _renamed(table: pa.Table, names: list[str]) -> pa.Table:
    field = table.schema.field("record_id")
    place = table.schema.get_field_index("record_id")
    return table.set_column(place, field, pa.array(names, field.type))


def _release_columns(records: pa.Table, names: list[str]) -> pa.Table:
    cells = records["image"]
    cells = pa.concat_arrays(cells.chunks) if cells.num_chunks else pa.array([], cells.type)
    data, paths = cells.flatten()
    suffixes = ["." + path.rpartition(".")[2] for path in paths.to_pylist()]
    renamed = pa.array([suffixed(a, b) for a, b in zip(names, suffixes, strict=True)], pa.string())
    pictures = pa.StructArray.from_arrays([data, renamed], fields=list(cells.type))
    place = records.schema.get_field_index("image")
    records = records.set_column(place, records.schema.field(place), pictures)
    if set(FACE_COLUMNS) <= set(records.column_names):
        place = records.schema.get_field_index(RELEASED_FACE_COLUMN)
        coarse = [kind.partition("_")[0] for kind in records[place].to_pylist()]
        field = records.schema.field(place)
        records = records.set_column(place, field, pa.array(coarse, field.type))
    schema = released(records.schema)
    return records.select(schema.names).cast(schema)
