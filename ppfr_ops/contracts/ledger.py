"""``_ledger/``: one entry a unit; its presence is the commit."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from ppfr_ops.contracts import VERSION

Kind = Literal["data", "metrics", "dead_letters", "detections"]
KINDS: tuple[Kind, ...] = ("data", "metrics", "dead_letters")
"""What every unit has."""
ALL_KINDS: tuple[Kind, ...] = (*KINDS, "detections")
"""Units of photographs have detections besides."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Shard(_Model):
    """One Parquet file of the output."""

    path: str
    """Relative to the output."""
    rows: int
    bytes: int
    sha256: str


class Statistic(_Model):
    """A metric over the records of a unit or a run; null values left out."""

    count: int
    mean: float
    min: float
    max: float


class Source(_Model):
    """Fingerprint of what a unit was made of. All are HMACs under the owner's key, so nobody else
    can recognise an original by them."""

    stamp: str
    """Of sizes, and ETags or modification times."""
    content: str | None
    """Of the rows as they were read; null where the unit had to be taken apart."""
    files: tuple[str, ...]


class Tombstone(_Model):
    """A unit whose source was deleted upstream."""

    unit: str
    seen: str
    """UTC, ISO 8601: when the deletion was noticed."""
    records: int
    removed: bool
    """Whether what was published of it was taken back."""


class LedgerEntry(_Model):
    schema_version: str = VERSION
    unit: str
    copy_id: str
    """Which attempt's files count; random."""
    rows_in: int
    records: int
    dead_letters: dict[str, int]
    """Count by reason code."""
    shards: dict[Kind, Shard]
    method_digest: str
    settings_digest: str
    metrics: dict[str, Statistic]
    extra_faces: int = 0
    """Records and dead letters beyond one a row: a photograph's second, third … face."""
    verdicts: str = ""
    """Digest of the verdicts of people that were heeded; empty: none."""
    source: Source | None = None
    """Only where units have keyed ids."""


def merge(parts: list[Statistic]) -> Statistic | None:
    """One statistic over several; None if there is nothing in them."""
    count = sum(part.count for part in parts)
    if not count:
        return None
    filled = [part for part in parts if part.count]
    return Statistic(
        count=count,
        mean=sum(part.mean * part.count for part in filled) / count,
        min=min(part.min for part in filled),
        max=max(part.max for part in filled),
    )
