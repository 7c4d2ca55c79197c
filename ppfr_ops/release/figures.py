"""An output as its owner sees it: manifest, every metric, every dead letter; and whether it meets
a policy. Reads no picture."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from ppfr_ops.contracts.dead_letters import DEAD_LETTERS_SCHEMA, REASONS
from ppfr_ops.contracts.detections import detections_schema
from ppfr_ops.contracts.evaluation import Evaluation
from ppfr_ops.contracts.ledger import Kind, LedgerEntry, is_shard
from ppfr_ops.contracts.manifest import FILES, Check, Counts, File, Manifest, ReleaseManifest
from ppfr_ops.contracts.metrics import METRICS, metrics_schema
from ppfr_ops.contracts.policy import Policy
from ppfr_ops.contracts.privacy_audit import DOCUMENT, PrivacyAudit
from ppfr_ops.errors import UserError
from ppfr_ops.release.listing import Unlisted, files_of, read_files
from ppfr_ops.release.publish import owners_manifest, read_release
from ppfr_ops.release.singled import SinglingOut, singled
from ppfr_ops.source.coarsening import parse
from ppfr_ops.store.folder import EVIDENCE, RELEASE, Folder
from ppfr_ops.store.ledger import LEDGER, Ledger
from ppfr_ops.store.shards import read_table

QUARANTINE = frozenset({"too_disclosing", "below_policy"})
"""Reason codes of records that were sound and fell short; other dead letters are failures."""

JUDGED = frozenset({"rec_ssim", "recovery_gain", "black_box_accuracy", "rank1", "rank1_student"})
"""Figures that only an evaluation of the method has."""


_PERSON, _LOOK = "identity", "look"
_PLAN, _ROWS = (*LEDGER, "plan"), ".rows.parquet"
"""The plan of a release (``sanitize.release_plan``), which has looks; the release has none."""
_SHARDS, _EXAMPLES, _SHOWN = 4, 5, 120
"""Shards that examples are taken from, examples of a column, characters of one."""


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
    faces: pa.Table | None = field(default=None, kw_only=True)
    """All faces, as ``ppfr_ops.contracts.detections``, where records are whole photographs. What
    a photograph's measures are taken from is its faces that went through the method; so it is
    those that a policy's bounds are held against, each by itself."""
    singled: SinglingOut | None = field(default=None, kw_only=True)
    """Whom the columns single out; None: the records say of nobody who it is."""

    @property
    def quarantined(self) -> int:
        return quarantined(self.counts)

    @property
    def failed(self) -> int:
        return self.counts.dead_letters - self.quarantined - intended(self.counts)

    @property
    def rows(self) -> int:
        """What may become a record: rows, or, where records are faces, the faces found in them."""
        return self.counts.rows_in + self.counts.extra_faces

    def values(self, metric: str) -> NDArray[np.float64]:
        """One metric of every record (or, of whole photographs, face) that has it; ``N``."""
        return self._column(metric).drop_null().to_numpy().astype(np.float64)

    def count_missing(self, metric: str) -> int:
        """How many records (or faces) should have a metric and do not."""
        column = self._column(metric)
        wanted = len(column) if self._by_face(metric) else self.counts.records
        return wanted - (len(column) - column.null_count)

    @property
    def unconfirmed_rate(self) -> float | None:
        """Share of the faces that are boxes of the owner in which the detector saw none; None where
        records are no photographs."""
        if self.faces is None:
            return None
        unseen = pc.and_(
            pc.ends_with(self.faces["treatment"], "_no_landmarks"),
            pc.equal(self.faces["score"], 1.0),  # of the owner
        )
        return float(pc.sum(unseen).as_py() or 0) / max(len(self.faces), 1)

    def _by_face(self, metric: str) -> bool:
        return self.faces is not None and metric in self.faces.column_names

    def _column(self, metric: str) -> pa.ChunkedArray:
        if self.faces is not None and self._by_face(metric):
            through = pc.is_in(self.faces["treatment"], pa.array(["anonymized", "covered"]))
            return self.faces.filter(through)[metric]
        if metric not in self.metrics.column_names:
            return pa.chunked_array([], pa.float32())
        return self.metrics[metric]

    @property
    def sampled(self) -> bool:
        """Whether the metrics are of a sample: of people who are in no release, held against rows
        (``sanitize.looking``)."""
        return self.faces is None and self.metrics.num_rows < self.counts.records

    @property
    def measured(self) -> list[str]:
        """Metrics with at least one value."""
        return [name for name in self.metrics.column_names[1:] if len(self.values(name))]


@dataclass(frozen=True)
class Release(Figures):
    """What an output holds, less the pictures."""

    manifest: Manifest
    """The owner's."""
    told: ReleaseManifest
    """What everybody may know."""
    dead_letters: pa.Table
    columns: pa.Schema
    """Of ``data/``."""
    shards: list[File]
    """Of ``data/``, as the release lists them."""
    last: dict[str, object]
    """The last run: ``started``, ``finished``, ``exit_code``, where noted."""
    signed: bool
    examples: dict[str, list[str]] = field(default_factory=dict)
    """Of every kept column, some values, as text: what others will see."""
    audited: PrivacyAudit | None = None
    """What ``ppfr audit-privacy`` found of the method that made it."""

    @property
    def odd_shards(self) -> tuple[int, int]:
        """Shards with a number of rows that no other has, and all shards. Who knows how many rows
        each file of the input has may guess by it which file a shard was made of."""
        times = Counter(file.rows for file in self.shards)
        return sum(count == 1 for count in times.values()), len(self.shards)


def open_release(output: str) -> Release:
    """Read an output.

    Args:
        output: fsspec URL or path of a folder that ``ppfr sanitize`` finished.

    Raises:
        UserError: there is no manifest, or a shard of figures is missing or unreadable.
    """
    folder = Ledger(output)
    manifest = owners_manifest(folder)
    told = read_release(folder)
    if told is None:
        raise ReleaseError("release/manifest.json is missing or damaged; see ppfr verify")
    entries = folder.entries()
    try:
        shards = files_of(told, read_files(folder, told, RELEASE))
        return Release(
            told=told,
            counts=manifest.counts,
            metrics=read_all(folder, entries.values(), "metrics"),
            faces=faces_of(folder, manifest, entries),
            singled=singled_of(folder, manifest),
            manifest=manifest,
            dead_letters=read_all(folder, entries.values(), "dead_letters"),
            columns=_columns(folder, entries),
            shards=[file for file in shards if file.rows is not None],
            last=folder.read(EVIDENCE, "ledger", "last.json") or {},
            signed=folder.exists(RELEASE, "manifest.sig"),
            examples=_examples(folder, manifest, entries),
            audited=_audited(folder, manifest),
        )
    except Unlisted as fault:
        raise ReleaseError(f"release/{FILES}: {fault}") from None
    except (pa.ArrowException, KeyError):
        raise ReleaseError("the shards do not fit together; see ppfr verify") from None


@contextmanager
def _opened(folder: Folder, *place: str) -> Iterator[pq.ParquetFile]:
    """A shard; refused where it cannot be read."""
    try:
        with folder.reading(*place) as data, pq.ParquetFile(data) as file:
            yield file
    except (OSError, pa.ArrowException):
        raise ReleaseError(f"{'/'.join(place)} cannot be read; see ppfr verify") from None


def faces_of(
    folder: Folder, manifest: Manifest, entries: Mapping[str, LedgerEntry]
) -> pa.Table | None:
    """All faces of an output of whole photographs; None of any other.

    Raises:
        ReleaseError: a shard is missing or unreadable.
    """
    if manifest.options.get("output_faces") != "in-place":
        return None
    return read_all(folder, entries.values(), "detections")


def singled_of(folder: Folder, manifest: Manifest) -> SinglingOut | None:
    """Whom the columns in ``release/data`` single out, and what is kept of looks, which the plan of
    the release has; None: there are no pseudonyms, or no plan any more.

    Raises:
        ReleaseError: a shard is unreadable.
    """
    kept = (parse(str(text)).name for text in manifest.options.get("keep_columns", []))
    names, found = [_PERSON, *kept], []
    shards: list[tuple[str, ...]] = [
        (RELEASE, "data", name) for name in folder.names(RELEASE, "data")
    ]
    if manifest.method.options.get("keep_look"):
        names = [_PERSON, _LOOK, *(f"keep.{name}" for name in names[1:])]
        shards = [(*_PLAN, name) for name in folder.names(*_PLAN) if name.endswith(_ROWS)]
    for shard in shards:
        with _opened(folder, *shard) as part:
            if _PERSON not in part.schema_arrow.names:
                return None
            found.append(part.read([n for n in names if n in part.schema_arrow.names]))
    return singled(pa.concat_tables(found)) if found else None


def read_all(folder: Folder, units: Iterable[LedgerEntry], kind: Kind) -> pa.Table:
    """All shards of a kind as one table, in the order of the units.

    Raises:
        ReleaseError: one is missing or unreadable.
        KeyError, pa.ArrowException: they do not fit together.
    """
    found = []
    for unit in units:
        if kind not in unit.shards and (kind == "dead_letters" or unit.stage != "whole"):
            continue
        with _opened(folder, unit.shards[kind].path) as file:
            found.append(file.read())
    if found:
        return pa.concat_tables(found)
    empty = {"metrics": metrics_schema(), "detections": detections_schema()}
    return empty.get(kind, DEAD_LETTERS_SCHEMA).empty_table()


def _audited(folder: Folder, manifest: Manifest) -> PrivacyAudit | None:
    """None: there was no audit, or one of another method than made the output."""
    found = folder.model(PrivacyAudit, EVIDENCE, DOCUMENT)
    if found is None and folder.exists(EVIDENCE, DOCUMENT):
        raise ReleaseError(f"evidence/{DOCUMENT} is damaged; ppfr audit-privacy makes it")
    same = found is not None and found.method_digest == manifest.method.digest
    return found if same else None


def _columns(folder: Folder, entries: Mapping[str, LedgerEntry]) -> pa.Schema:
    shard = next((one.shards["data"] for one in entries.values() if "data" in one.shards), None)
    if shard is None:
        return pa.schema([])
    with _opened(folder, shard.path) as file:
        return file.schema_arrow


def _examples(
    folder: Folder, manifest: Manifest, entries: Mapping[str, LedgerEntry]
) -> dict[str, list[str]]:
    """The values that come most often in a few shards from all over, and the longest."""
    names = [str(name) for name in manifest.options.get("keep_columns", [])]
    if not names:
        return {}
    with_data = [unit for unit in entries if is_shard(unit)] or list(entries)
    units = list(islice(with_data, 0, None, max(1, len(with_data) // _SHARDS)))[:_SHARDS]
    paths = [one.path for unit in units if (one := entries[unit].shards.get("data")) is not None]
    if not paths:
        return {}
    tables = [read_table(folder.fs.cat_file(folder.path(path)), names) for path in paths]
    found = {}
    for name in names:
        texts = [str(value) for table in tables for value in _values(table[name])]
        often = [text for text, _ in Counter(texts).most_common(_EXAMPLES)]
        longest = sorted(set(texts), key=len)[-1:]
        found[name] = [text[:_SHOWN] for text in dict.fromkeys([*often, *longest])]
    return found


def _values(column: pa.ChunkedArray) -> list[object]:
    try:
        return list(column.drop_null().to_pylist())
    except (ValueError, ArithmeticError):
        return ["(values that Python does not have)"]


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
    ``structure_k`` and ``singled_out``, of people by their number of records and kept columns;
    from the evaluation ``rec_ssim``, ``recovery_gain``, ``black_box_accuracy``, ``rank1``,
    ``rank1_student``, and ``id_match_MODEL``: share of the records whose cosine is above the
    model's threshold of FAR 1e-3 on originals.
    """
    counts = release.counts
    rows = max(release.rows, 1)
    fixed = {
        "records": counts.records,
        "dead_letters": release.failed,
        "dead_letter_rate": release.failed / rows,
        "quarantined": release.quarantined,
        "quarantine_rate": release.quarantined / rows,
    }
    if release.singled is not None:
        fixed["structure_k"] = release.singled.structure_k
        fixed["singled_out"] = release.singled.singled_out
    if name in fixed:
        return float(fixed[name])
    if name == "unconfirmed_rate":
        return release.unconfirmed_rate
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
        worst = None
        holds = release.count_missing(name) == 0
        if len(values) and holds:
            worst = float(values.min() if bound.sign == ">=" else values.max())
            holds = bound.holds(float(values.min())) and bound.holds(float(values.max()))
        checks.append(
            Check(name=f"every record's {name}", bound=str(bound), found=worst, holds=holds)
        )
    for name, bound in policy.dataset.items():
        found = figure(name, release, evaluation)
        holds = found is not None and bound.holds(found)
        metric = name.rpartition("_")[0]
        measured = len(release.values(metric))
        # Whether it tells of the method, not of the record, and is measured on a sample.
        of_method = metric == "residual_faces" or (metric in METRICS and METRICS[metric].sampled)
        sampled = of_method or release.sampled
        if measured and sampled and release.count_missing(metric):
            name = f"{name} (of a sample of {measured:,})"
        checks.append(Check(name=name, bound=str(bound), found=found, holds=holds))
    return checks


def by_reason(release: Release) -> Counter[tuple[str, str]]:
    """Dead letters by code and message in words, without the figures behind the colon."""
    rows = release.dead_letters.select(["code", "message"]).to_pylist()
    return Counter((row["code"], row["message"].partition(":")[0]) for row in rows)
