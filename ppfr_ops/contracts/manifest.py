"""``manifest.json``: what was done, with what, and what came of it."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from ppfr_ops.contracts import VERSION
from ppfr_ops.contracts.ledger import Kind, Shard, Statistic


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Method(_Model):
    name: str
    options: dict[str, Any]
    digest: str
    """sha256 over name, options and weights."""


class Model(_Model):
    name: str
    digest: str
    """sha256 of the file."""


class Counts(_Model):
    units: int
    rows_in: int
    extra_faces: int = 0
    """``rows_in + extra_faces = records + dead_letters``: photographs may hold several faces."""
    records: int
    dead_letters: int
    dead_letters_by_code: dict[str, int]


class Check(_Model):
    """A requirement and what was found; what was not measured does not hold."""

    name: str
    bound: str
    """Sign and value: ``<= 0.6``."""
    found: float | None
    holds: bool

    def __str__(self) -> str:
        found = "not measured" if self.found is None else f"{self.found:.4g}"
        return f"{self.name}: {found}, required {self.bound}"


class Verdict(_Model):
    """Of a policy on the run."""

    passed: bool
    checks: list[Check]


class UnitShards(_Model):
    unit: str
    shards: dict[Kind, Shard]


class Manifest(_Model):
    schema_version: str = VERSION
    versions: dict[str, str]
    """Of this program, Python and the libraries that touch a pixel or a shard."""
    engine: str
    finished_at: str
    """UTC, ISO 8601."""
    method: Method
    recognizers: list[Model]
    options: dict[str, Any]
    """What shaped the output; no path of input, key or model, and no seed."""
    settings_digest: str
    plan_digest: str
    counts: Counts
    metrics: dict[str, Statistic]
    shards: list[UnitShards]
    verdict: Verdict | None = None
    """Null where the run was given no policy."""
