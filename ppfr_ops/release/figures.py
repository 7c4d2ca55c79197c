"""An output as its owner sees it: manifest, every metric, every dead letter; and whether it meets
a policy. Reads no picture."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from ppfr_ops.contracts.dead_letters import DEAD_LETTERS_SCHEMA, REASONS
from ppfr_ops.contracts.detections import detections_schema
from ppfr_ops.contracts.evaluation import Evaluation
from ppfr_ops.contracts.ledger import Kind
from ppfr_ops.contracts.manifest import Check, Counts, Manifest, UnitShards
from ppfr_ops.contracts.metrics import metrics_schema
from ppfr_ops.contracts.policy import Policy
from ppfr_ops.errors import UserError
from ppfr_ops.store.ledger import Ledger, read_table

QUARANTINE = frozenset({"too_disclosing", "below_policy"})
"""Reason codes of records that were sound and fell short; other dead letters are failures."""

JUDGED = frozenset({"rec_ssim", "recovery_gain", "black_box_accuracy", "rank1", "rank1_student"})
"""Figures that only an evaluation of the method has."""


class ReleaseError(UserError):
    """An output that cannot be reported on; one line."""


def quarantined(counts: Counts) -> int:
    """Rows that were held back because they fell short."""
    codes = counts.dead_letters_by_code
    return sum(count for code, count in codes.items() if code in QUARANTINE)


def intended(counts: Counts) -> int:
    """Rows that were left out because the owner asked for it."""
    codes = counts.dead_letters_by_code
    return sum(count for code, count in codes.items() if REASONS[code].intended)


@dataclass(frozen=True)
class Figures:
    """What can be held against a policy."""

    counts: Counts
    metrics: pa.Table
    """All records, as ``ppfr_ops.contracts.metrics``."""

    @property
    def quarantined(self) -> int:
        return quarantined(self.counts)

    @property
    def failed(self) -> int:
        return self.counts.dead_letters - self.quarantined - intended(self.counts)

    def values(self, metric: str) -> NDArray[np.float64]:
        """One metric of every record that has it; ``N``."""
        if metric not in self.metrics.column_names:
            return np.zeros(0)
        return self.metrics[metric].drop_null().to_numpy().astype(np.float64)

    @property
    def measured(self) -> list[str]:
        """Metrics with at least one value."""
        return [name for name in self.metrics.column_names[1:] if len(self.values(name))]


@dataclass(frozen=True)
class Release(Figures):
    """What an output holds, less the pictures."""

    manifest: Manifest
    dead_letters: pa.Table
    columns: pa.Schema
    """Of ``data/``."""
    last: dict[str, object]
    """The last run: ``started``, ``finished``, ``exit_code``, where noted."""
    signed: bool


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
    try:
        return Release(
            counts=manifest.counts,
            metrics=read_all(ledger, manifest.shards, "metrics"),
            manifest=manifest,
            dead_letters=read_all(ledger, manifest.shards, "dead_letters"),
            columns=_columns(ledger, manifest),
            last=ledger.read("_ledger", "last.json") or {},
            signed=bool(ledger.fs.exists(ledger.path("manifest.sig"))),
        )
    except (pa.ArrowException, KeyError):
        raise ReleaseError("the shards do not fit together; see ppfr verify") from None


def read_all(ledger: Ledger, units: list[UnitShards], kind: Kind) -> pa.Table:
    """All shards of a kind as one table.

    Raises:
        ReleaseError: one is missing or unreadable.
        KeyError, pa.ArrowException: they do not fit together.
    """
    found = []
    for unit in units:
        shard = unit.shards[kind]
        try:
            found.append(read_table(ledger.fs.cat_file(ledger.path(shard.path))))
        except (OSError, pa.ArrowException):
            raise ReleaseError(f"{shard.path} cannot be read; see ppfr verify") from None
    if found:
        return pa.concat_tables(found)
    empty = {"metrics": metrics_schema(), "detections": detections_schema()}
    return empty.get(kind, DEAD_LETTERS_SCHEMA).empty_table()


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


def figure(name: str, release: Figures, evaluation: Evaluation | None) -> float | None:
    """A figure that a policy may name; None if it was not measured.

    ``METRIC_mean``, ``_min``, ``_max``, ``_p01`` … ``_p99`` over the records; counts and rates;
    from the evaluation ``rec_ssim``, ``recovery_gain``, ``black_box_accuracy``, ``rank1``,
    ``rank1_student``, and ``id_match_MODEL``: share of the records whose cosine is above the
    model's threshold of FAR 1e-3 on originals.
    """
    counts = release.counts
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


def assess(policy: Policy, release: Figures, evaluation: Evaluation | None = None) -> list[Check]:
    """Hold a release against a policy: every dataset figure, and the worst record of every
    metric that records are held to."""
    checks = []
    for name, bound in policy.record.items():
        values = release.values(name)
        short = len(values) < release.counts.records
        worst = None
        if len(values) and not short:
            worst = float(values.min() if bound.sign == ">=" else values.max())
        holds = (
            worst is not None
            and bound.holds(float(values.min()))
            and bound.holds(float(values.max()))
        )
        if not release.counts.records:
            holds = True
        checks.append(
            Check(name=f"every record's {name}", bound=str(bound), found=worst, holds=holds)
        )
    for name, bound in policy.dataset.items():
        found = figure(name, release, evaluation)
        holds = found is not None and bound.holds(found)
        checks.append(Check(name=name, bound=str(bound), found=found, holds=holds))
    return checks


def by_reason(release: Release) -> Counter[tuple[str, str]]:
    """Dead letters by code and message in words, without the figures behind the colon."""
    rows = zip(
        release.dead_letters["code"].to_pylist(),
        release.dead_letters["message"].to_pylist(),
        strict=True,
    )
    return Counter((code, message.partition(":")[0]) for code, message in rows)


@dataclass(frozen=True)
class Forecast:
    """A dataset figure on a sample, with its 95 % confidence interval."""

    name: str
    bound: str
    found: float | None
    low: float
    high: float
    holds: Literal["met", "open", "not met"]
    """``open``: the interval has values on both sides of the threshold."""


def forecast(policy: Policy, figures: Figures) -> list[Forecast]:
    """What a sample says of the whole. Shares get Wilson's interval, figures of metrics the
    percentile bootstrap; what only an evaluation or the whole can tell is left ``open``."""
    result = []
    for name, bound in policy.dataset.items():
        found = figure(name, figures, None)
        low, high = _interval(name, figures)
        if found is None or not low <= high:
            result.append(Forecast(name, str(bound), found, low, high, "open"))
            continue
        ends = {bound.holds(low), bound.holds(high)}
        holds: Literal["met", "open", "not met"] = "open"
        if len(ends) == 1:
            holds = "met" if ends == {True} else "not met"
        result.append(Forecast(name, str(bound), found, low, high, holds))
    return result


def _interval(name: str, figures: Figures) -> tuple[float, float]:
    """NaN where there is none."""
    from scipy.stats import binomtest, bootstrap  # a second to import; workers never need it

    shares = {"dead_letter_rate": figures.failed, "quarantine_rate": figures.quarantined}
    if name in shares and figures.counts.rows_in:
        found = binomtest(shares[name], figures.counts.rows_in).proportion_ci(method="wilson")
        return float(found.low), float(found.high)
    metric, _, kind = name.rpartition("_")
    values = figures.values(metric)
    # The extremes of a sample say nothing about those of the whole.
    if len(values) < 8 or not (kind == "mean" or kind.startswith("p")):
        return float("nan"), float("nan")

    def statistic(sample: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        if kind == "mean":
            return np.asarray(np.mean(sample, axis=axis))
        return np.asarray(np.percentile(sample, int(kind[1:]), axis=axis))

    spread = bootstrap(
        (values,), statistic, n_resamples=2000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return float(spread.low), float(spread.high)
