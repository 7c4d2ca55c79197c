"""After the last unit: reconcile, write the manifest and what the owner asked for besides."""

import hashlib
import json
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ppfr_ops.contracts.dead_letters import REASONS
from ppfr_ops.contracts.ledger import LedgerEntry, Merged, is_shard
from ppfr_ops.contracts.manifest import Counts, Manifest, Method, Model, PhotographCounts, Verdict
from ppfr_ops.methods.base import Anonymizer
from ppfr_ops.options import digest, shown
from ppfr_ops.release import figures
from ppfr_ops.release.files import lay_out
from ppfr_ops.release.listing import Shards
from ppfr_ops.release.publish import looked_at, write_release
from ppfr_ops.release.signing import load_signing_key
from ppfr_ops.release.up_to_date import mark_up_to_date, shards_as_listed, up_to_date
from ppfr_ops.review.queue import Doubt, counts, doubts
from ppfr_ops.review.verdicts import listed, of_others
from ppfr_ops.sanitize import release_plan
from ppfr_ops.sanitize.identity import throw_away
from ppfr_ops.sanitize.increments import superseded
from ppfr_ops.sanitize.job import Job
from ppfr_ops.sanitize.marking import marks_told
from ppfr_ops.sanitize.vaulting import STRAY, sweep_vault
from ppfr_ops.source.plan import ids_of, labelled_by_paths
from ppfr_ops.source.units import stamps_of
from ppfr_ops.store.earlier import forget
from ppfr_ops.store.entries import Entries, HashSet
from ppfr_ops.store.ledger import DAMAGED, Ledger
from ppfr_ops.version import __version__


def finish(
    job: Job,
    engine: str,
    notice: Callable[[str], None] = lambda line: None,
    may_sign: bool = True,
    ledger: Ledger | None = None,
) -> tuple[Manifest, list[str]]:
    """Reconcile the ledger with the plan, look at every shard, and write the manifests if nothing
    is missing.

    Args:
        engine: name and version of what carried the units.
        notice: called with a line for whatever is not as it was committed.
        may_sign: False: leave the release unsigned, whatever the options say.
        ledger: of the run, which knows the entries that it has read; None: a new one.

    Returns:
        The manifest and the ids of the units that are still to be done, and of those that are
        damaged and cannot be done again (``ledger.kept``).
    """
    ledger = ledger or Ledger(job.options.output, job.fence)
    ledger.planned = HashSet(ids_of(job.plan.units))
    entries = ledger.entries()
    listed: dict[str, str] = {}
    tally = _Tally()
    thrown = ledger.thrown_away()
    if ledger.fenced_off():
        for entry in entries.values():
            tally.add(entry)
    else:
        _withdraw(job, ledger, entries)
        ledger.sweep(entries)
        listed = shards_as_listed(ledger)
        everything = job.options.check_shards == "all"
        for entry, holds in looked_at(ledger, entries.values(), everything):
            if holds:
                tally.add(entry)
            elif ledger.take_back(entry.unit, DAMAGED):
                notice(
                    f"unit {entry.unit}: a shard is not what was committed, or gone; to be done "
                    "again"
                )
                del entries[entry.unit]
        sweep_vault(job, ledger, entries)
    missing = [unit for unit in ids_of(job.plan.units) if unit not in entries]
    if job.independent:
        missing += release_plan.missing_shards(ledger, entries)
        tally.plan(release_plan.epochs(ledger))
    missing += [unit for unit, why in ledger.kept.items() if why != STRAY]
    manifest = _manifest(job, engine, tally)
    if missing:
        return manifest, missing
    if thrown or (may_sign and job.options.discard_key):
        throw_away(ledger)  # before anything is written that says that all is done
        entries = ledger.entries()
        listed |= {place: now for place, now in shards_as_listed(ledger).items() if "look" in place}
    if job.options.photographs is not None:
        manifest = manifest.model_copy(update={"photographs": _photographs(job, ledger)})
    if job.policy is not None:
        metrics = figures.read_all(ledger, entries.values(), "metrics")
        faces = figures.faces_of(ledger, manifest, entries)
        asked = {"structure_k", "singled_out"} & set(job.policy.dataset)
        alike = figures.singled_of(ledger, manifest) if asked else None
        found = figures.Figures(manifest.counts, metrics, faces=faces, singled=alike)
        checks = figures.assess(job.policy, found)
        passed = all(check.holds for check in checks)
        manifest = manifest.model_copy(update={"verdict": Verdict(passed=passed, checks=checks)})
    if not ledger.fenced_off():
        ledger.compact()
        signs = may_sign and job.options.signing_key is not None
        key = load_signing_key(str(job.options.signing_key)) if signs else None
        names, as_files = job.options.names, job.options.as_files
        listing = lay_out(ledger, entries.values(), names) if as_files else None
        write_release(ledger, manifest, tally.shards.table(), key, listing)
        forget(ledger)
        # Else units that are gone from the input are published still: there is to be told of them.
        told = sum(not is_shard(unit) for unit in entries) == len(job.plan.units)
        if may_sign and told and not ledger.kept:
            mark_up_to_date(ledger, command_of(job), manifest, listed, key)
    return manifest, missing


def _withdraw(job: Job, ledger: Ledger, entries: Entries) -> None:
    """Once all is done that the plan has: take back the units in whose place it has others."""
    if not job.options.incremental or any(u not in entries for u in ids_of(job.plan.units)):
        return
    gone = superseded(job, entries)
    if not gone:
        return
    sweep_vault(job, ledger, entries, gone)
    for unit in gone:
        ledger.retire(unit)
        del entries[unit]


class _Tally:
    """Sums over entries, as they go by."""

    def __init__(self) -> None:
        self.sums: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self.metrics = Merged()
        self.shards = Shards()

    def add(self, entry: LedgerEntry) -> None:
        self.sums["units"] += 1
        self.sums["rows_in"] += entry.rows_in if entry.stage != "draw" else 0
        for name in ("extra_faces", "records", "respelled"):
            self.sums[name] += getattr(entry, name)
        self.codes.update(entry.dead_letters)
        self.metrics.add(entry.metrics)
        self.shards.add(entry)

    def plan(self, epochs: Iterable[release_plan.Epoch]) -> None:
        """Count what a plan has besides rows, or leaves out of them."""
        for epoch in epochs:
            self.sums["drawn_besides"] += epoch.added
            self.sums["left_out"] += epoch.left_out

    def counts(self) -> Counts:
        names = ("units", "rows_in", "extra_faces", "drawn_besides", "left_out", "records")
        return Counts(
            **{name: self.sums[name] for name in (*names, "respelled")},
            dead_letters=self.codes.total(),
            dead_letters_by_code=dict(self.codes.most_common()),
        )


def settled_before(job: Job) -> Manifest | None:
    """The manifest of a run that has nothing to do and finds all as the last one left it; None: the
    run has to look."""
    options = job.options
    files = (options.mapping, options.detections_out, options.review_out)
    if options.overwrite or options.check_shards == "all" or options.retry_dead_letters:
        return None
    if any(file is not None for file in files):
        return None
    key = None if options.signing_key is None else load_signing_key(options.signing_key)
    return up_to_date(Ledger(options.output), command_of(job), key)


def command_of(job: Job) -> str:
    """Digest of what a run is asked for, and of its input as far as the run would look."""
    policy = None if job.policy is None else job.policy.model_dump(mode="json")
    reviewed = sorted(job.verdicts or ())
    verdicts = [reviewed, listed(job.verdicts or {}, reviewed)]
    sources = hashlib.sha256(stamps_of(job.plan.units))
    options = job.options.model_dump(mode="json", exclude={"seed", "check_shards"})
    return digest([options, job.settings_digest, policy, verdicts, sources.hexdigest()])


def _manifest(job: Job, engine: str, tally: _Tally) -> Manifest:
    """The manifest of the units that were counted, without a verdict."""
    method = job.build_method()
    specs = job.options.recognizer_specs()
    return Manifest(
        versions=versions(),
        engine=engine,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        method=Method(
            name=method.name,
            options=method.options(),
            digest=job.method_digest,
            figures=method.about_release(),
            columns=[item.name for item in method.record_figures],
            draws_faces=method.draws_faces,
        ),
        recognizers=[Model(name=spec.name, digest=spec.digest()) for spec in specs],
        options=_options(job, method),
        settings_digest=job.settings_digest,
        plan_digest=job.settings["input"],
        counts=tally.counts(),
        metrics=tally.metrics.statistics(),
    )


def _options(job: Job, method: Anonymizer) -> dict[str, Any]:
    """The options as the manifest shows them, and what they came to where they said nothing."""
    options = job.options
    told = shown(options)
    # A split that paths tell is kept, too.
    unasked = [name for name in job.plan.columns.keep if name not in options.keep_columns]
    return told | {
        **marks_told(options),
        "keep_columns": [*told.get("keep_columns", ()), *unasked],
        "input_format": job.plan.format,
        "unit_rows": options.rows_per_unit,
        "least_units": options.least_units,
        "max_disclosure": (options.max_disclosure or method.disclosure_limit)
        if method.selects
        else None,
        "identity": "pseudonyms" if options.names_people else "none",
        "labelled_by_paths": labelled_by_paths(job.plan),
        "reads_faces": not job.independent,
        "draws": "system" if options.seed is None else "seeded, for tests only",
    }


def too_many_dead(job: Job, manifest: Manifest) -> str | None:
    """Why the run's exit code is 3; None if it is not."""
    counts = manifest.counts
    fatal = [code for code in counts.dead_letters_by_code if REASONS[code].fatal]
    if fatal:
        return f"input was lost that cannot be counted ({', '.join(fatal)})"
    allowed = job.options.max_dead_letter_rate
    # How much may be held back is for the policy to say.
    dead = counts.dead_letters - figures.intended(counts)
    dead -= figures.quarantined(counts) if job.policy is not None else 0
    rows = counts.rows_in + counts.extra_faces
    if dead > allowed * rows:
        return f"{dead} dead letters of {rows} rows, allowed: {allowed:.2%}"
    return None


def write_detections(job: Job, ledger: Ledger) -> int:
    """Write ``--detections-out``: ``NAME.parquet`` and ``NAME.jsonl``; returns the faces."""
    target = Path(os.path.abspath(str(job.options.detections_out)))
    target = target.with_suffix("") if target.suffix in (".parquet", ".jsonl") else target
    table = figures.read_all(ledger, ledger.entries().values(), "detections")
    pq.write_table(table, f"{target}.parquet")
    with open(f"{target}.jsonl", "w", encoding="utf-8") as file:
        for batch in table.to_batches(10_000):
            file.writelines(json.dumps(row) + "\n" for row in batch.to_pylist())
    return int(table.num_rows)


def review_queue(job: Job, ledger: Ledger) -> list[Doubt]:
    """Photographs that a person should look at, worst first."""
    assert job.options.photographs is not None
    entries = ledger.entries()
    return doubts(
        figures.read_all(ledger, entries.values(), "detections"),
        figures.read_all(ledger, entries.values(), "dead_letters"),
        job.options.photographs.face_sure,
        job.verdicts or (),
        unheeded(job, ledger),
    )


def unheeded(job: Job, ledger: Ledger) -> set[str]:
    """Photographs with a verdict that is not known to be of them."""
    return of_others(ledger.entries().values()).keys() & (job.verdicts or {}).keys()


def _photographs(job: Job, ledger: Ledger) -> PhotographCounts:
    assert job.options.photographs is not None
    found = figures.read_all(ledger, ledger.entries().values(), "detections")
    queue = review_queue(job, ledger)
    settled = (job.verdicts or {}).keys() - unheeded(job, ledger)
    return counts(found, queue, settled, job.options.photographs.face_sure)


def versions() -> dict[str, str]:
    """Of this program, Python and the libraries that touch a pixel or a shard."""
    names = ("ppfr-sanitizer", "torch", "numpy", "opencv-python-headless", "pillow", "onnxruntime")
    found = {"python": platform.python_version()}
    for name in (*names, "pyarrow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = __version__ if name == "ppfr-sanitizer" else "none"
    return found
