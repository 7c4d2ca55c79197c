"""An output as its owner sees it: manifest, every metric, every dead letter; and whether it meets
a policy. Reads no picture."""

import io
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from schemas.dead_letters import DEAD_LETTERS_SCHEMA
from schemas.evaluation import Evaluation
from schemas.ledger import Kind
from schemas.manifest import Manifest
from schemas.policy import Policy

from .ledger import Ledger

QUARANTINE = frozenset({"too_disclosing", "below_policy"})
"""Reason codes of records that were sound and fell short; other dead letters are failures."""

JUDGED = frozenset({"rec_ssim", "recovery_gain", "black_box_accuracy", "rank1", "rank1_student"})
"""Figures that only an evaluation of the method has."""


class ReleaseError(ValueError):
    """An output that cannot be reported on; one line."""


@dataclass(frozen=True)
class Release:
    """What an output holds, less the pictures."""

    manifest: Manifest
    metrics: pa.Table
    """All records, as ``schemas.metrics``."""
    dead_letters: pa.Table
    columns: pa.Schema
    """Of ``data/``."""
    last: dict[str, object]
    """The last run: ``started``, ``finished``, ``exit_code``, where noted."""
    signed: bool

    @property
    def quarantined(self) -> int:
        codes = self.manifest.counts.dead_letters_by_code
        return sum(count for code, count in codes.items() if code in QUARANTINE)

    @property
    def failed(self) -> int:
        return self.manifest.counts.dead_letters - self.quarantined

    def values(self, metric: str) -> NDArray[np.float64]:
        """One metric of every record that has it; ``N``."""
        if metric not in self.metrics.column_names:
            return np.zeros(0)
        return self.metrics[metric].drop_null().to_numpy().astype(np.float64)

    @property
    def measured(self) -> list[str]:
        """Metrics with at least one value."""
        return [name for name in self.metrics.column_names[1:] if len(self.values(name))]


def open_release(output: str) -> Release:
    """Read an output.

    Args:
        output: fsspec URL or path of a folder that ``ppfr sanitize`` finished.

    Raises:
        ReleaseError: there is no manifest, or a shard of figures is missing or unreadable.
    """
    ledger = Ledger(output)
    path = ledger.path("manifest.json")
    if not ledger.fs.exists(path):
        raise ReleaseError("no manifest.json: not an output, or its run has not finished")
    try:
        manifest = Manifest.model_validate_json(ledger.fs.cat_file(path))
    except ValidationError:
        raise ReleaseError("manifest.json does not have the form of a manifest") from None

    def tables(kind: Kind) -> list[pa.Table]:
        found = []
        for unit in manifest.shards:
            shard = unit.shards[kind]
            try:
                data = ledger.fs.cat_file(ledger.path(shard.path))
                found.append(pq.read_table(io.BytesIO(data)))
            except (OSError, pa.ArrowException):
                raise ReleaseError(f"{shard.path} cannot be read; see ppfr verify") from None
        return found

    try:
        metrics, dead = tables("metrics"), tables("dead_letters")
        return Release(
            manifest=manifest,
            metrics=pa.concat_tables(metrics) if metrics else pa.table({"record_id": []}),
            dead_letters=pa.concat_tables(dead) if dead else DEAD_LETTERS_SCHEMA.empty_table(),
            columns=_columns(ledger, manifest),
            last=ledger.read("_ledger", "last.json") or {},
            signed=bool(ledger.fs.exists(ledger.path("manifest.sig"))),
        )
    except (pa.ArrowException, KeyError):
        raise ReleaseError("the shards do not fit together; see ppfr verify") from None


def _columns(ledger: Ledger, manifest: Manifest) -> pa.Schema:
    if not manifest.shards:
        return pa.schema([])
    shard = manifest.shards[0].shards["data"]
    try:
        with ledger.fs.open(ledger.path(shard.path), "rb") as file:
            return pq.read_schema(file)
    except (OSError, pa.ArrowException):
        raise ReleaseError(f"{shard.path} cannot be read; see ppfr verify") from None


def read_evaluation(text: str | bytes) -> Evaluation:
    """``evaluation.json``.

    Raises:
        ReleaseError: it has another form.
    """
    try:
        return Evaluation.model_validate_json(text)
    except ValidationError:
        raise ReleaseError("the evaluation does not have the form of evaluation.json") from None


def figure(name: str, release: Release, evaluation: Evaluation | None) -> float | None:
    """A figure that a policy may name; None if it was not measured.

    ``METRIC_mean``, ``_min``, ``_max``, ``_p01`` … ``_p99`` over the records; counts and rates;
    from the evaluation ``rec_ssim``, ``recovery_gain``, ``black_box_accuracy``, ``rank1``,
    ``rank1_student``, and ``id_match_MODEL``: share of the records whose cosine is above the
    model's threshold of FAR 1e-3 on originals.
    """
    counts = release.manifest.counts
    rows = max(counts.rows_in, 1)
    fixed = {
        "records": counts.records,
        "dead_letters": release.failed,
        "dead_letter_rate": release.failed / rows,
        "quarantined": release.quarantined,
        "quarantine_rate": release.quarantined / rows,
    }
    if name in fixed:
        return float(fixed[name])
    if name.startswith("id_match_"):
        model = name.removeprefix("id_match_")
        utility = (evaluation.utility or {}).get(model) if evaluation is not None else None
        values = release.values(f"id_cosine_{model}")
        if utility is None or not len(values):
            return None
        return float((values > utility.threshold).mean())
    if name in JUDGED:
        found = getattr(evaluation.headline, name) if evaluation is not None else None
        return None if found is None else float(found)
    metric, _, kind = name.rpartition("_")
    values = release.values(metric)
    if not len(values):
        return None
    if kind.startswith("p") and kind[1:].isdigit():
        return float(np.percentile(values, int(kind[1:])))
    whole = {"mean": values.mean(), "min": values.min(), "max": values.max()}
    return float(whole[kind]) if kind in whole else None


@dataclass(frozen=True)
class Check:
    """A threshold and what was found; what was not measured does not hold."""

    name: str
    bound: str
    found: float | None
    holds: bool

    def __str__(self) -> str:
        found = "not measured" if self.found is None else f"{self.found:.4g}"
        return f"{self.name}: {found}, required {self.bound}"


def assess(policy: Policy, release: Release, evaluation: Evaluation | None = None) -> list[Check]:
    """Hold a release against a policy: every dataset figure, and the worst record of every
    metric that records are held to."""
    checks = []
    for name, bound in policy.record.items():
        values = release.values(name)
        short = len(values) < release.manifest.counts.records
        worst = None
        if len(values) and not short:
            worst = float(values.min() if bound.sign == ">=" else values.max())
        holds = worst is not None and bound.holds(values.min()) and bound.holds(values.max())
        if not release.manifest.counts.records:
            holds = True
        checks.append(Check(f"every record's {name}", str(bound), worst, holds))
    for name, bound in policy.dataset.items():
        found = figure(name, release, evaluation)
        checks.append(Check(name, str(bound), found, found is not None and bound.holds(found)))
    return checks


def by_reason(release: Release) -> Counter[tuple[str, str]]:
    """Dead letters by code and message in words, without the figures behind the colon."""
    rows = zip(
        release.dead_letters["code"].to_pylist(),
        release.dead_letters["message"].to_pylist(),
        strict=True,
    )
    return Counter((code, message.partition(":")[0]) for code, message in rows)
