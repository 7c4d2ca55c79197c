"""What an engine carries: the job to every worker, a unit's number to one of them, a status back.

Engines log and print what they carry, so a job hides its content and a status holds an id, counts
and a reason code, and nothing else.
"""

import contextlib
import csv
import hashlib
import json
import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import cv2
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import BaseModel, ConfigDict, Field

from ppfr_ops import __version__, sample
from ppfr_ops.contracts import VERSION
from ppfr_ops.contracts.dead_letters import REASONS
from ppfr_ops.contracts.ledger import LedgerEntry, Source, merge
from ppfr_ops.contracts.manifest import Counts, Manifest, Method, Model, UnitShards, Verdict
from ppfr_ops.contracts.policy import Policy, parse
from ppfr_ops.contracts.records import FACE_COLUMNS, RESERVED_COLUMNS
from ppfr_ops.draws import seeded_draws, system_draws
from ppfr_ops.errors import UserError, describe
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.memory import keep_freed_memory
from ppfr_ops.methods.registry import create
from ppfr_ops.recognizers import Recognizer, RecognizerSpec
from ppfr_ops.release.figures import Figures, assess, intended, quarantined, read_all
from ppfr_ops.release.verify import SIGNATURE, load_signing_key, sign
from ppfr_ops.sanitize import isolation
from ppfr_ops.sanitize.aligned import Base, Level, Sanitizer, pseudonyms
from ppfr_ops.sanitize.photographs.pictures import (
    CropSanitizer,
    Doubt,
    PhotographOptions,
    PictureSanitizer,
    Review,
    doubts,
    read_verdicts,
    verdict_digest,
)
from ppfr_ops.source.plan import Columns, Plan, Unit, content, plan, read_unit, record_id, sources
from ppfr_ops.store.files import inside
from ppfr_ops.store.ledger import Ledger, Tables, concatenate, new_copy_id
from ppfr_ops.vault import Access, Vault, load_key
from ppfr_ops.vault.keys import HOW_TO
from ppfr_ops.vault.recovery import SETTING as VAULT_SETTING
from ppfr_ops.vault.recovery import originals_of

MIN_KEY_BYTES = 16
MAX_ATTEMPTS = 3
"""How often a unit's process may die before the unit is taken apart; and how often, in one run,
while it is being taken apart, before all of it is given up."""


class SanitizeOptions(BaseModel):
    """What is to be done. The fields are the options of ``ppfr sanitize`` that every engine
    shares; its repr hides everything that names a source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: str = Field(repr=False)
    output: str = Field(repr=False)
    input_format: Literal["auto", "parquet", "images", "webdataset"] = "auto"
    image_column: str | None = None
    method: str = "stochastic-local"
    method_options: dict[str, str] = {}
    fr: tuple[str, ...] = Field((), repr=False)
    keep_columns: tuple[str, ...] = ()
    identity_column: str | None = None
    identity_key_file: str | None = Field(None, repr=False)
    output_format: Literal["jpeg", "png", "webp"] = "jpeg"
    quality: int = Field(95, ge=1, le=100)
    unit_rows: int = Field(1000, ge=1, le=100_000)
    batch_size: int = Field(32, ge=1, le=4096)
    metrics: Level = "full"
    limit: int | None = Field(None, ge=1)
    seed: int | None = Field(None, repr=False)
    max_disclosure: float | None = Field(None, gt=0, le=1)
    max_dead_letter_rate: float = Field(0.01, ge=0, le=1)
    policy: str | None = Field(None, repr=False)
    mapping: str | None = Field(None, repr=False)
    signing_key: str | None = Field(None, repr=False)
    vault: str | None = Field(None, repr=False)
    vault_key: str | None = Field(None, repr=False)
    overwrite: bool = False
    incremental: bool = False
    propagate_deletions: bool = False
    photographs: PhotographOptions | None = None
    """None: the input is aligned faces."""
    verdicts: str | None = Field(None, repr=False)
    detections_out: str | None = Field(None, repr=False)
    review_out: str | None = Field(None, repr=False)

    @property
    def encoding(self) -> Encoding:
        return Encoding(self.output_format, self.quality)

    def recognizer_specs(self) -> list[RecognizerSpec]:
        return [RecognizerSpec.parse(text) for text in self.fr]


@dataclass(frozen=True, repr=False)
class Job:
    """Everything that a worker needs to do any unit of a run."""

    options: SanitizeOptions
    plan: Plan
    key: bytes | None
    method_digest: str
    settings: Mapping[str, str]
    """Digests that an output's runs must agree on."""
    policy: Policy | None = None
    verdicts: Mapping[str, Review] | None = None
    """Of people on photographs; None: the run was given none."""
    vault: Access | None = None
    """Where originals are kept, encrypted; None: nowhere."""
    fence: int | None = None
    """Of the run's lease; a worker commits nothing once there is a higher one."""

    def __repr__(self) -> str:
        return f"Job({len(self.plan.units)} units)"

    def verdicts_on(self, unit: Unit) -> str:
        """Digest of the verdicts on a unit's photographs; empty where there are none."""
        ids = (record_id(unit.id, row) for row in range(unit.rows))
        return verdict_digest(self.verdicts, ids) if self.verdicts else ""

    @property
    def settings_digest(self) -> str:
        return _digest(dict(self.settings))


@dataclass(frozen=True)
class Status:
    """What became of a unit; safe to print, log and send anywhere."""

    unit: str
    state: Literal["committed", "skipped", "failed"]
    rows_in: int = 0
    records: int = 0
    dead_letters: int = 0
    attempts: int = 0
    """How often work on it had begun before in vain, which means: it took its process along."""
    reason: str = ""
    """Of a failed unit: the type of the error and where it came from."""


def prepare(options: SanitizeOptions) -> Job:
    """Check the options, plan the units, and digest what the output depends on.

    Raises:
        ValueError: anything that the user has to change; one line.
    """
    policy = _read_policy(options)
    key = _read_key(options)
    specs = options.recognizer_specs()
    names = [spec.name for spec in specs]
    if len(set(names)) < len(names):
        raise UserError("two FR models have the same name")
    photographs = options.photographs
    crops = photographs is not None and photographs.output_faces == "crops"
    reserved = RESERVED_COLUMNS.union(FACE_COLUMNS if crops else ())
    clash = sorted(reserved & set(options.keep_columns))
    if clash:
        raise UserError(f"--keep-column {clash[0]}: the output has a column of that name already")
    if options.identity_column in options.keep_columns:
        raise UserError("the identity column leaves as pseudonyms only; do not keep it as it is")
    if options.incremental and key is None:
        raise UserError(
            "--incremental needs --identity-key-file: ids have to survive a growing input, and "
            "must not tell names (make a key with: openssl rand -hex 32 > FILE)"
        )
    if options.incremental and (options.limit is not None or options.overwrite):
        raise UserError("--incremental goes with neither --limit nor --overwrite")
    if options.propagate_deletions and not options.incremental:
        raise UserError("--propagate-deletions needs --incremental")
    if options.signing_key is not None:
        load_signing_key(options.signing_key)
    if (options.vault is None) != (options.vault_key is None):
        raise UserError(f"--vault goes with --vault-key ({HOW_TO})")
    _check_photographs(options)
    verdicts = None if options.verdicts is None else read_verdicts(options.verdicts)
    _check_places(options)
    anonymizer = create(options.method, options.method_options)
    for spec in specs:
        if not os.path.isfile(spec.path):
            raise UserError(f"FR model {spec.name!r}: no such file")
    chosen = plan(
        options.input,
        Columns(
            options.image_column,
            options.identity_column,
            options.keep_columns,
            {} if photographs is None else photographs.given,
        ),
        format=options.input_format,
        unit_rows=options.unit_rows,
        key=key,
        limit=options.limit,
    )
    method_digest = anonymizer.digest()
    settings = {
        "schema version": VERSION,
        "method or method option": method_digest,
        "FR model": _digest([[spec.name, spec.digest()] for spec in specs]),
        "output format or quality": _digest([options.output_format, options.quality]),
        "choice of metrics": options.metrics,
        "set of columns": _digest(
            [
                options.image_column,
                options.identity_column,
                [[item.name, str(item.type)] for item in chosen.keep],
            ]
        ),
        # A keyed digest of a constant: tells another key, and nothing about this one.
        "identity key": "" if key is None else pseudonyms(key)("which key this is")[:16],
        "source of draws": "system" if options.seed is None else "seeded",
        "input": chosen.digest(),
    }
    if policy is not None:
        settings["policy for records"] = _digest(policy.model_dump(include={"record", "redraws"}))
    if photographs is not None:
        settings["option for photographs"] = photographs.digest()
    vault = None
    if options.vault is not None and options.vault_key is not None:
        vault = Vault(options.vault).access(load_key(options.vault_key))
        settings[VAULT_SETTING] = vault.release
    return Job(options, chosen, key, method_digest, settings, policy, verdicts, vault)


def build_sanitizer(job: Job, threads: int = 0) -> Base[Any]:
    """Load method and models.

    Raises:
        ValueError: a model cannot be loaded.
    """
    options = job.options
    common: dict[str, Any] = {
        "anonymizer": create(options.method, options.method_options),
        "encoding": options.encoding,
        "recognizers": [Recognizer(spec, threads) for spec in options.recognizer_specs()],
        "draws": system_draws if options.seed is None else seeded_draws(options.seed),
        "keep": job.plan.keep,
        "pseudonymize": pseudonyms(job.key) if job.key and options.identity_column else None,
        "batch_size": options.batch_size,
        "level": options.metrics,
        "max_disclosure": options.max_disclosure,
        "policy": job.policy,
    }
    if options.photographs is None:
        return Sanitizer(**common)
    kind = CropSanitizer if options.photographs.output_faces == "crops" else PictureSanitizer
    return kind(options.photographs, job.verdicts or {}, threads, **common)


def tune_process(threads: int) -> None:
    """Set this process up for bulk work.

    Args:
        threads: of a call into torch or OpenCV; 0: as they like.
    """
    keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)


class Worker:
    """Does units, one after the other. Built once per process.

    Args:
        job: the job.
        threads: threads that the numeric libraries may use; 0: as they like.
    """

    def __init__(self, job: Job, threads: int = 0) -> None:
        tune_process(threads)
        self.job = job
        self.threads = threads
        self.ledger = Ledger(job.options.output, job.fence)
        self.vault = None if job.vault is None else Vault(job.vault.url)
        self.sanitizer = build_sanitizer(job, threads)

    def process(self, ordinal: int) -> Status:
        """Read, sanitize and commit a unit, unless that was done before. Raises nothing."""
        unit = self.job.plan.units[ordinal]
        try:
            entry = self.ledger.committed(unit.id)
            if entry is not None:
                return _status(entry, "skipped")
            before = self.ledger.attempt(unit.id)
            died = before.here + before.earlier
            tables, source, read = self._sanitize(ordinal, died)
            copy = new_copy_id()
            self._seal(unit, copy, tables, read)
            entry = self.ledger.commit(
                unit.id,
                tables,
                unit.rows,
                method_digest=self.job.method_digest,
                settings_digest=self.job.settings_digest,
                source=source,
                verdicts=self.job.verdicts_on(unit),
                copy_id=copy,
            )
            if self.vault is not None and entry.copy_id != copy:
                self.vault.discard(unit.id, copy)
        except Exception as error:
            # It failed, but its process lives: that is no reason to take it apart one day.
            with contextlib.suppress(Exception):
                self.ledger.forget_attempts(unit.id)
            return Status(unit.id, "failed", reason=describe(error))
        return _status(entry, "committed", died)

    def _seal(self, unit: Unit, copy: str, tables: Tables, read: pa.Table | None) -> None:
        """Commit the originals of what is about to be published to the vault, if there is one."""
        if self.vault is None or self.job.vault is None:
            return
        if read is None and tables.records.num_rows:
            read = read_unit(self.job.plan, unit)
        originals = () if read is None else originals_of(tables.records, read)
        self.vault.commit(self.job.vault, unit.id, copy, originals)

    def _sanitize(self, ordinal: int, died: int) -> tuple[Tables, Source | None, pa.Table | None]:
        """Tables, fingerprint, and the unit as it was read here, if it was.

        Attempts that left no commit ended with their process. After three of them, whatever
        they died of, the unit is taken apart in child processes, which costs time and no record.
        Only if that kills the worker three times in one run, while the driver lives, is the unit
        given up."""
        unit = self.job.plan.units[ordinal]
        source = self.job.plan.fingerprints.get(unit.id)
        if died >= MAX_ATTEMPTS:
            if self.ledger.attempt(unit.id, apart=True).here >= MAX_ATTEMPTS:
                ids = [record_id(unit.id, row) for row in range(unit.rows)]
                return self.sanitizer.bury(ids, unit.id, "killed_worker"), source, None
            apart = isolation.sanitize_apart(self.job, ordinal, self.sanitizer, self.threads)
            return apart, source, None
        table = read_unit(self.job.plan, unit)
        if source is not None and self.job.key is not None:
            source = source.model_copy(update={"content": content(table, self.job.key)})
        return self.sanitizer(table, unit.id), source, table


def _status(
    entry: LedgerEntry, state: Literal["committed", "skipped"], attempts: int = 0
) -> Status:
    dead = sum(entry.dead_letters.values())
    return Status(entry.unit, state, entry.rows_in, entry.records, dead, attempts)


def preflight(job: Job) -> None:
    """Load everything once and sanitize a drawn face, so that a method or model that cannot work
    is known before any worker starts.

    Raises:
        ValueError: one line that says what does not work.
    """
    sanitizer = build_sanitizer(job)
    drawn = sample.faces(1)
    draws = sanitizer.draws(["preflight"], sanitizer.anonymizer.draw_size, 0)
    try:
        published = sanitizer.anonymizer(drawn, draws)
    except Exception as error:
        raise UserError(f"method {job.options.method!r} fails: {describe(error)}") from None
    if isinstance(sanitizer, CropSanitizer | PictureSanitizer):
        try:
            sanitizer.find.detect(list(drawn))
        except Exception as error:
            raise UserError(f"the detector fails: {describe(error)}") from None
    for recognizer in sanitizer.recognizers:
        try:
            recognizer.embed(published)
        except Exception as error:
            raise UserError(f"FR model {recognizer.name!r} fails: {describe(error)}") from None


def preview(job: Job, records: int = 64) -> Tables:
    """Sanitize a few rows from all over the plan and write nothing.

    Args:
        records: rows, about.
    """
    sanitizer = build_sanitizer(job)
    units = job.plan.units[:: max(1, len(job.plan.units) // 4)][:4]
    parts = []
    for unit in units:
        table = read_unit(job.plan, unit)
        step = max(1, table.num_rows * len(units) // records)
        parts.append(sanitizer(table.take(list(range(0, table.num_rows, step))), unit.id))
    return concatenate(parts)


def finish(job: Job, engine: str) -> tuple[Manifest, list[str]]:
    """Reconcile the ledger with the plan and write the manifest if nothing is missing.

    Args:
        engine: name and version of what carried the units.

    Returns:
        The manifest and the ids of the units that are still to be done.
    """
    ledger = Ledger(job.options.output, job.fence)
    if not ledger.fenced_off():
        ledger.sweep()
        sweep_vault(job, ledger)
    entries = ledger.entries()
    missing = [unit.id for unit in job.plan.units if unit.id not in entries]
    done = [entries[unit.id] for unit in job.plan.units if unit.id in entries]
    # Published once, gone from the input since, and not taken back.
    planned = {unit.id for unit in job.plan.units}
    done += [entry for unit, entry in sorted(entries.items()) if unit not in planned]
    codes: Counter[str] = Counter()
    for entry in done:
        codes.update(entry.dead_letters)
    names = list(dict.fromkeys(name for entry in done for name in entry.metrics))
    merged = {
        name: merge([entry.metrics[name] for entry in done if name in entry.metrics])
        for name in names
    }
    options = job.options
    anonymizer = create(options.method, options.method_options)
    manifest = Manifest(
        versions=versions(),
        engine=engine,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        method=Method(
            name=anonymizer.name,
            options=anonymizer.options(),
            digest=job.method_digest,
        ),
        recognizers=[
            Model(name=spec.name, digest=spec.digest()) for spec in options.recognizer_specs()
        ],
        options={
            "input_format": job.plan.format,
            "keep_columns": list(options.keep_columns),
            "identity": "pseudonyms" if options.identity_column else "none",
            "output_format": options.output_format,
            "quality": options.quality,
            "unit_rows": options.unit_rows,
            "metrics": options.metrics,
            **({} if options.photographs is None else options.photographs.model_dump()),
            "limit": options.limit,
            "max_disclosure": options.max_disclosure or anonymizer.disclosure_limit,
            "max_dead_letter_rate": options.max_dead_letter_rate,
            "draws": "system" if options.seed is None else "seeded, for tests only",
            **({} if job.vault is None else {"vault": "originals kept, encrypted"}),
        },
        settings_digest=job.settings_digest,
        plan_digest=job.settings["input"],
        counts=Counts(
            units=len(done),
            rows_in=sum(entry.rows_in for entry in done),
            extra_faces=sum(entry.extra_faces for entry in done),
            records=sum(entry.records for entry in done),
            dead_letters=sum(codes.values()),
            dead_letters_by_code=dict(codes.most_common()),
        ),
        metrics={name: value for name, value in merged.items() if value is not None},
        shards=[UnitShards(unit=entry.unit, shards=entry.shards) for entry in done],
    )
    if job.policy is not None and not missing:
        metrics = read_all(ledger, manifest.shards, "metrics")
        checks = assess(job.policy, Figures(manifest.counts, metrics))
        passed = all(check.holds for check in checks)
        manifest = manifest.model_copy(update={"verdict": Verdict(passed=passed, checks=checks)})
    if not missing and not ledger.fenced_off():
        ledger.remove(SIGNATURE)  # of an earlier manifest
        ledger.write_manifest(manifest.model_dump_json(indent=1))
        if options.signing_key is not None:
            sign(options.output, load_signing_key(options.signing_key))
    return manifest, missing


def check_vault(job: Job, ledger: Ledger) -> None:
    """Find out whether the job's vault is for its output; changes nothing.

    Raises:
        UserError: it holds originals of something else.
    """
    if job.vault is None:
        return
    vault = Vault(job.vault.url)
    begun = ledger.read("_ledger", "run.json") is not None and not job.options.overwrite
    if not begun and vault.describe() is not None and vault.copies():
        raise UserError(
            "the vault holds originals of an earlier run; give another --vault, for this run "
            "would remove what is not published by it"
        )


def sweep_vault(job: Job, ledger: Ledger) -> int:
    """Remove from the vault what is not published, or no longer; returns how many units."""
    if job.vault is None:
        return 0
    published = {(entry.unit, entry.copy_id) for entry in ledger.entries().values()}
    return Vault(job.vault.url).sweep(published)


def too_many_dead(job: Job, manifest: Manifest) -> str | None:
    """Why the run's exit code is 3; None if it is not."""
    counts = manifest.counts
    fatal = [code for code in counts.dead_letters_by_code if REASONS[code].fatal]
    if fatal:
        return f"input was lost that cannot be counted ({', '.join(fatal)})"
    allowed = job.options.max_dead_letter_rate
    # How much may be held back is for the policy to say.
    dead = counts.dead_letters - intended(counts)
    dead -= quarantined(counts) if job.policy is not None else 0
    if dead > allowed * counts.rows_in:
        return f"{dead} dead letters of {counts.rows_in} rows, allowed: {allowed:.2%}"
    return None


def retire_reviewed(job: Job, ledger: Ledger) -> int:
    """Take back the units on whose photographs there are other verdicts now; returns how many."""
    if job.verdicts is None:
        return 0
    entries = ledger.entries()
    units = [unit for unit in job.plan.units if unit.id in entries]
    changed = [unit.id for unit in units if entries[unit.id].verdicts != job.verdicts_on(unit)]
    for unit in changed:
        ledger.retire(unit)
    return len(changed)


def write_detections(job: Job, manifest: Manifest) -> int:
    """Write ``--detections-out``: ``NAME.parquet`` and ``NAME.jsonl``; returns the faces."""
    target = Path(os.path.abspath(str(job.options.detections_out)))
    target = target.with_suffix("") if target.suffix in (".parquet", ".jsonl") else target
    table = read_all(Ledger(job.options.output), manifest.shards, "detections")
    pq.write_table(table, f"{target}.parquet")
    with open(f"{target}.jsonl", "w", encoding="utf-8") as file:
        for batch in table.to_batches(10_000):
            file.writelines(json.dumps(row) + "\n" for row in batch.to_pylist())
    return int(table.num_rows)


def review_queue(job: Job, manifest: Manifest) -> list[Doubt]:
    """Photographs that a person should look at, worst first."""
    assert job.options.photographs is not None
    ledger = Ledger(job.options.output)
    return doubts(
        read_all(ledger, manifest.shards, "detections"),
        read_all(ledger, manifest.shards, "dead_letters"),
        job.options.photographs.face_sure,
        job.verdicts or (),
    )


def write_review(job: Job, queue: Sequence[Doubt]) -> None:
    """Write ``--review-out``, a table to be filled in and given back as ``--verdicts``. It names
    the sources, so it is for the owner alone: mode 0600."""
    wanted = {doubt.source_id for doubt in queue}
    places: dict[str, tuple[str, int]] = {}
    for unit in job.plan.units:
        names = [record_id(unit.id, row) for row in range(unit.rows)]
        if wanted.intersection(names):
            places.update(zip(names, sources(job.plan, unit), strict=True))
    target = str(job.options.review_out)
    descriptor = os.open(target, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ("source_id", "reason", "score", "faces", "source", "row", "verdict", "boxes")
        )
        for doubt in queue:
            source, row = places[doubt.source_id]
            score = f"{doubt.score:.3f}"
            writer.writerow(
                (doubt.source_id, doubt.reason, score, doubt.faces, source, row, "", "")
            )


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


def write_mapping(job: Job) -> int:
    """Write the owner's mapping; returns its rows. Mode 0600, complete or not there at all."""
    target = Path(os.path.abspath(str(job.options.mapping)))
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    schema = pa.schema([("record_id", pa.string()), ("source", pa.string()), ("row", pa.int64())])
    rows = 0
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file, pq.ParquetWriter(file, schema) as writer:
            for unit in job.plan.units:
                found = list(sources(job.plan, unit))
                ids = [record_id(unit.id, row) for row in range(len(found))]
                names, positions = zip(*found, strict=True)
                writer.write_table(pa.table([ids, list(names), list(positions)], schema=schema))
                rows += len(found)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    return rows


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _read_key(options: SanitizeOptions) -> bytes | None:
    if options.identity_key_file is None:
        if options.identity_column is not None:
            raise UserError(
                "--identity-column needs --identity-key-file: identities leave as keyed "
                "pseudonyms only (make a key with: openssl rand -hex 32 > FILE)"
            )
        return None
    return read_key(options.identity_key_file)


def read_key(path: str) -> bytes:
    """The owner's key of the pseudonyms.

    Raises:
        UserError: no readable file, or too short.
    """
    try:
        key = Path(path).read_bytes().strip()
    except OSError as error:
        raise UserError(f"the identity key cannot be read ({type(error).__name__})") from None
    if len(key) < MIN_KEY_BYTES:
        raise UserError(
            f"the identity key has {len(key)} bytes, needed: {MIN_KEY_BYTES} or more "
            "(make one with: openssl rand -hex 32 > FILE)"
        )
    return key


def _read_policy(options: SanitizeOptions) -> Policy | None:
    if options.policy is None:
        return None
    try:
        policy = parse(Path(options.policy).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the policy cannot be read ({type(error).__name__})") from None
    names = [spec.name for spec in options.recognizer_specs()]
    for metric in policy.record:
        model = metric.removeprefix("id_cosine_")
        if model != metric and model not in names:
            raise UserError(f"policy, record.{metric}: there is no --fr {model}=…")
        slow = metric in ("disclosure", "draw_similarity")
        if options.metrics == "none" or (slow and options.metrics == "basic"):
            raise UserError(f"policy, record.{metric}: not measured by --metrics {options.metrics}")
    return policy


def _check_photographs(options: SanitizeOptions) -> None:
    chosen = options.photographs
    if chosen is None:
        names = ("verdicts", "detections_out", "review_out")
        given = [name for name in names if getattr(options, name) is not None]
        if given:
            raise UserError(f"--{given[0].replace('_', '-')} goes with --faces detect")
        return
    if chosen.output_faces == "crops" and chosen.no_face == "pass":
        raise UserError("--no-face pass goes with --output-faces in-place")
    if chosen.output_faces == "crops" and chosen.background != "keep":
        raise UserError("--background goes with --output-faces in-place")
    if chosen.landmarks_column is not None and chosen.boxes_column is None:
        raise UserError("--landmarks-column goes with --boxes-column")


def _check_places(options: SanitizeOptions) -> None:
    source = options.input.partition("*")[0]
    if _overlap(options.output, source):
        raise UserError("input and output must not lie inside each other")
    for name, path in (
        ("the mapping", options.mapping),
        ("the identity key", options.identity_key_file),
        ("the signing key", options.signing_key),
        ("the review queue", options.review_out),
        ("the verdicts", options.verdicts),
        ("--detections-out", options.detections_out),
        ("the vault", options.vault),
        ("the vault's key", options.vault_key),
    ):
        if path is not None and inside(path, options.output):
            raise UserError(f"{name} must not lie inside the output: it is for the owner alone")
    if options.vault is not None and options.vault_key is not None:
        if inside(options.vault_key, options.vault):
            raise UserError("the vault's key must not lie inside the vault")
        if _overlap(options.vault, source) or inside(options.output, options.vault):
            raise UserError("vault, input and output must not lie inside each other")


def _overlap(one: str, other: str) -> bool:
    return inside(one, other) or inside(other, one)
