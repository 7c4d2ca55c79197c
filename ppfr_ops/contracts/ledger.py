"""``evidence/ledger/``: one entry a unit; its presence is the commit.

Anyone who can write the output can plant an entry, so every name in one is held against a pattern
before anything makes a path of it.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from ppfr_ops.contracts import VERSIONS, Document

Kind = Literal["data", "metrics", "dead_letters", "detections", "look"]
KINDS: tuple[Kind, ...] = ("data", "metrics", "dead_letters")
"""What units have; dead letters only those that lost a row."""
ALL_KINDS: tuple[Kind, ...] = (*KINDS, "detections", "look")
"""Units of photographs have detections besides; units that were only looked at, what was noted."""

Stage = Literal["whole", "look", "draw"]
"""What was done with a unit. whole: a part of the input became a shard. Where pictures do not
depend on faces: look: a part of the input was looked at; draw: a shard of the release was drawn."""

PHOTOGRAPHS = "evidence/photographs"
"""Where the shards of ``data`` lie if the release holds their photographs as files."""

UNIT = re.compile(r"[us][0-9a-f]{0,64}")
"""Ids of units, inside. u: parts of the input; ordinals, or HMACs under the owner's key. s: shards
of a release whose rows come from anywhere in the input; ordinals."""
COPY = re.compile(r"[0-9a-f]{16}")
"""Ids of copies of the work on a unit; random."""
RELEASED = re.compile(r"[0-9a-f]{32}")
"""Ids of records and shards in a release: 128 bits that tell nothing."""

UnitId = Annotated[str, Field(pattern=rf"^{UNIT.pattern}$", max_length=65)]


def is_shard(unit: str) -> bool:
    """Whether an id is that of a shard whose rows come from anywhere, and not of a part of the
    input."""
    return unit.startswith("s")


Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


class _Fixed(Document):
    model_config = ConfigDict(frozen=True)


# What there are millions of in a driver goes without a dictionary of fields: half the memory.


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class Shard:
    """One Parquet file of the output."""

    path: str
    """Relative to the output."""
    rows: Count
    bytes: Count
    sha256: Digest
    md5: str | None = None
    """Hex, where a store lists objects by it (the ETag of S3); null elsewhere."""


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class Statistic:
    """A metric over the records of a unit or a run; null values left out."""

    count: int
    mean: float
    min: float
    max: float


class Source(_Fixed):
    """Fingerprint of what a unit was made of. All are HMACs under the owner's key, so nobody else
    can recognise an original by them."""

    stamp: str
    """Of sizes, and ETags or modification times."""
    content: str | None
    """Of the rows as they were read; null where the unit had to be taken apart."""
    pictures: str | None = None
    """Of their pictures alone; null there too, and in entries from before it was noted."""
    files: tuple[str, ...]
    rows: tuple[int, int] | None = None
    """The first row of the file, and the one after the last; null where every file is a row."""


class Tombstone(_Fixed):
    """A unit whose source was deleted upstream."""

    unit: UnitId
    seen: str
    """UTC, ISO 8601: when the deletion was noticed."""
    records: int
    removed: bool
    """Whether what was published of it was taken back."""


class LedgerEntry(_Fixed):
    schema_version: str = VERSIONS["ledger"]
    unit: UnitId
    copy_id: str = Field(pattern=rf"^{COPY.pattern}$")
    """Which attempt's files count."""
    rows_in: int
    records: int
    dead_letters: dict[str, int]
    """Count by reason code."""
    shards: dict[Kind, Shard]
    method_digest: str
    settings_digest: str
    metrics: dict[str, Statistic]
    stage: Stage = "whole"
    extra_faces: int = 0
    """Records and dead letters beyond one a row: a photograph's second, third … face."""
    respelled: Count = 0
    """Rows whose label was not read as it is stored: without blanks at its ends and the like."""
    verdicts: str = ""
    """The verdicts of people, ``ROW:DIGEST`` of each, and ``:other`` behind it where it is not
    known to be of the picture that the row held; empty: none."""
    source: Source | None = None
    """Only where units have keyed ids."""

    @model_validator(mode="after")
    def _places(self) -> "LedgerEntry":
        """Shards lie where shards lie, and nowhere else."""
        for kind, shard in self.shards.items():
            if not is_placed(kind, self.unit, shard.path):
                raise ValueError(f"the shard of {kind} lies where none may lie")
        return self


def shard_path(kind: Kind, name: str, as_files: bool = False) -> str:
    """Where a shard lies, relative to the output.

    Args:
        as_files: the release holds files, and the shards that they are laid out of stay outside.
        name: for ``data`` 32 digits of the release; else the unit's, or ``UNIT.COPY`` in a store
            without renames, where every copy of the work puts its shards under names of its own.
    """
    if kind == "data":
        return f"{PHOTOGRAPHS}/{name}.parquet" if as_files else f"release/data/{name}.parquet"
    return f"evidence/{kind}/{name}.parquet"


def is_placed(kind: Kind, unit: str, path: str) -> bool:
    """Whether a path is one where a unit's shard may lie: anyone who can write a document that
    names shards may name any file in it."""
    name = path.rpartition("/")[2].removesuffix(".parquet")
    as_files = kind == "data" and path.startswith(f"{PHOTOGRAPHS}/")
    if path != shard_path(kind, name, as_files):
        return False
    if kind == "data" and not as_files:
        return RELEASED.fullmatch(name) is not None
    own, _, copy = name.partition(".")
    copied = own == name or COPY.fullmatch(copy) is not None
    return copied and own == unit and UNIT.fullmatch(unit) is not None


SHARD_PLACES = (*(shard_path(kind, "u").rpartition("/")[0] for kind in ALL_KINDS), PHOTOGRAPHS)
"""Folders of shards, relative to the output."""


class Merged:
    """One statistic of each metric over those of many units, as they go by."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}

    def add(self, metrics: Mapping[str, Statistic]) -> None:
        for name, part in metrics.items():
            if part.count:
                sums = self._sums.setdefault(name, [0, 0.0, part.min, part.max])
                sums[0] += part.count
                sums[1] += part.mean * part.count
                sums[2], sums[3] = min(sums[2], part.min), max(sums[3], part.max)

    def statistics(self) -> dict[str, Statistic]:
        """By metric, of those with a value."""
        return {
            name: Statistic(count=int(count), mean=total / count, min=least, max=most)
            for name, (count, total, least, most) in self._sums.items()
        }
