"""The work on a unit: read, sanitize, commit."""

import contextlib
import os
import resource
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal

import cv2
import numpy as np
import pyarrow as pa

from ppfr_ops import sample
from ppfr_ops.contracts.ledger import LedgerEntry, Source
from ppfr_ops.draws import keyed_draws, seeded_draws, system_draws
from ppfr_ops.errors import UserError, describe
from ppfr_ops.memory import keep_freed_memory
from ppfr_ops.recognizers import Recognizer
from ppfr_ops.sanitize import isolation, naming
from ppfr_ops.sanitize.accounts import account_of, charge
from ppfr_ops.sanitize.aligned import AlignedFaces
from ppfr_ops.sanitize.drawing import PlannedRecords
from ppfr_ops.sanitize.fingerprints import Fingerprints
from ppfr_ops.sanitize.items import Item, Results
from ppfr_ops.sanitize.job import Job, Status
from ppfr_ops.sanitize.looking import PublishNothing
from ppfr_ops.sanitize.photographs.crops import FaceCrops
from ppfr_ops.sanitize.photographs.finder import Finder
from ppfr_ops.sanitize.photographs.output import paths_in
from ppfr_ops.sanitize.photographs.pictures import WholePictures
from ppfr_ops.sanitize.photographs.unchanged import unchanged
from ppfr_ops.sanitize.prefetch import prefetch
from ppfr_ops.sanitize.release_plan import PlanReader
from ppfr_ops.sanitize.run_context import RunContext, pseudonyms
from ppfr_ops.sanitize.sanitizer import Sanitizer
from ppfr_ops.sanitize.sealing import opened
from ppfr_ops.source.plan import Unit, read_unit, record_id
from ppfr_ops.source.sums import sum_of
from ppfr_ops.source.units import RESPELLED
from ppfr_ops.store.ledger import Ledger, Tables, concatenate, new_copy_id
from ppfr_ops.vault import Vault
from ppfr_ops.vault.recovery import originals_of

MAX_ATTEMPTS = 3
"""How often a unit's process may die before the unit is taken apart; and how often, in one run,
while it is being taken apart, before all of it is given up."""


AHEAD_BATCHES = 2
"""Batches that may wait between two steps of a worker."""


def build_sanitizer(
    job: Job, threads: int = 0, sample_every: int | None = None, keeps_metrics: bool = True
) -> Sanitizer[Any]:
    """Load method and models.

    Args:
        threads: of the numeric libraries; 0: as they like.
        sample_every: of both samples of ``RunContext``; None: as the options and the size of
            the run have it.
        keeps_metrics: as in ``RunContext``.

    Raises:
        UserError: a model cannot be loaded.
    """
    options = job.options
    method = job.build_method()
    draws = system_draws if options.seed is None else seeded_draws(options.seed)
    hide = pseudonyms(job.pseudonym_key) if job.pseudonym_key else None
    if job.stage == "look" and options.identity_column is None:
        hide = None
    if job.stage == "draw":
        draws = keyed_draws(Ledger(options.output).derived("draws"))
        hide = str if options.names_people else None  # what is planned is a pseudonym already
    run = RunContext(
        method=method,
        encoding=job.encoding(method),
        recognizers=[Recognizer(spec, threads) for spec in options.recognizer_specs()],
        draws=draws,
        keep=job.plan.keep,
        pseudonymize=hide,
        batch_size=options.batch_size,
        level="none" if job.stage == "draw" else options.metrics or "full",
        sample_every=sample_every or job.sample_every,
        look_every=sample_every or job.look_every,
        keeps_metrics=keeps_metrics,
        same_format=options.output_format == "same",
        template="off" if options.align == "check" else options.align,
        max_disclosure=options.max_disclosure,
        policy=job.policy,
    )
    if job.stage == "look":
        return Sanitizer(PublishNothing(run, naming.features if job.finds_people else None))
    if job.stage == "draw":
        return Sanitizer(PlannedRecords(run))
    if options.photographs is None:
        return Sanitizer(AlignedFaces(run))
    finder = Finder(options.photographs, job.verdicts or {}, threads)
    if options.photographs.output_faces == "crops":
        return Sanitizer(FaceCrops(run, finder))
    return Sanitizer(WholePictures(run, finder, job.people))


def reader_of(job: Job, ledger: Ledger) -> Callable[[Unit], pa.Table]:
    """What reads the units of a job, each as a table, as its sanitizer takes it."""
    if job.stage == "draw":
        return PlanReader(ledger).shard
    return partial(read_unit, job.plan)


def tune_process(threads: int) -> None:
    """Set this process up for bulk work.

    Args:
        threads: of a call into torch or OpenCV; 0: as they like.
    """
    keep_freed_memory()
    # The dump of a process that dies would hold originals.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if threads:
        cv2.setNumThreads(threads)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # for a torch that is imported later


@dataclass
class _Task:
    """A unit on its way through a worker."""

    unit: Unit
    results: Results[Any]
    source: Source | None
    table: pa.Table | None = None
    """As it was read; None: it was not."""
    respelled: int = 0
    """Rows whose label was not read as it is stored."""
    verdicts: str = ""
    """Those on its photographs."""
    kept: Tables | None = None
    """What is taken over as it was stored before, and was therefore not read; None: nothing."""
    tables: Tables | None = None
    """What it has become."""
    status: Status | None = None
    """Once it is settled: it was committed before, or it failed."""
    died: int = 0
    """Attempts before this one that ended with their process."""


class Worker:
    """Does units, one after the other. Built once per process; ``threads`` as ``tune_process`` has
    them."""

    def __init__(self, job: Job, threads: int = 0) -> None:
        tune_process(threads)
        self.job = job
        self.threads = threads
        self.ledger = Ledger(job.options.output, job.fence)
        self.ledger.looks_first = job.options.single_writer
        self.vault = None if job.vault is None else Vault(job.vault.url, job.vault.fence)
        self.account = account_of(job)
        self.sanitizer = build_sanitizer(job, threads)
        self.read = reader_of(job, self.ledger)

    @cached_property
    def _fingerprints(self) -> Fingerprints:
        return Fingerprints(self.job.key, self.ledger)

    def process(self, ordinal: int) -> Status:
        """Read, sanitize and commit a unit, unless that was done before. Raises nothing."""
        task = self._begin(ordinal)
        if task.status is None:
            try:
                if task.tables is None and task.table is not None:
                    task.tables = self.sanitizer(task.table, task.unit.id)
            except Exception as error:
                self._fail(task, error)
        return self._end(task)

    def stream(self, ordinals: Iterable[int]) -> Iterator[Status]:
        """As ``process``, for one unit after the other, in order; while the method works on one
        batch, the next is read and decoded, the last encoded and measured, and the unit before
        committed, each in a thread of its own."""
        fed = prefetch(self._feed(ordinals), AHEAD_BATCHES)
        drawn = prefetch(self._drawn(fed), AHEAD_BATCHES)
        return prefetch(map(self._end, prefetch(self._finished(drawn), 1)), 1)

    def _feed(self, ordinals: Iterable[int]) -> Iterator[tuple["_Task", list[Any] | None]]:
        """The batches of every unit, and after them None."""
        for ordinal in ordinals:
            task = self._begin(ordinal)
            if task.table is not None and task.tables is None:
                try:
                    for batch in self.sanitizer.batches(task.table, task.results):
                        yield task, batch
                except Exception as error:
                    self._fail(task, error)
            yield task, None

    def _drawn(
        self, fed: Iterable[tuple["_Task", list[Any] | None]]
    ) -> Iterator[tuple["_Task", list[Any] | None, Any]]:
        for task, batch in fed:
            yield task, batch, None if batch is None else self.sanitizer.start(batch)
            if batch is None:
                self.sanitizer.run.forget()

    def _finished(
        self, drawn: Iterable[tuple["_Task", list[Any] | None, Any]]
    ) -> Iterator["_Task"]:
        for task, batch, made in drawn:
            if task.status is None and task.tables is None:
                try:
                    if batch is not None:
                        self.sanitizer.finish(batch, made, task.results)
                    elif task.table is not None:
                        task.tables = self.sanitizer.way.tables(task.table, task.results)
                        if self.vault is None:
                            task.table = None  # nobody wants the originals any more
                except Exception as error:
                    self._fail(task, error)
            if batch is None:
                yield task

    def _begin(self, ordinal: int) -> "_Task":
        """A unit that is read, or done with: because it was committed before, taken apart, or
        given up; or because it failed.

        Attempts that left no commit ended with their process. After three of them, whatever
        they died of, the unit is taken apart in child processes, which costs time and no record.
        Only if that kills the worker three times in one run, while the driver lives, is the unit
        given up."""
        unit = self.job.plan.units[ordinal]
        task = _Task(unit, Results(unit.id), unit.source)
        try:
            before = self.ledger.begin(unit.id)
            if isinstance(before, LedgerEntry):
                task.status = _status(before, "skipped")
                return task
            task.died = before.here + before.earlier
            # Nobody here reads the pictures of a unit that kills.
            task.verdicts = self.job.verdicts_on(unit, [None] * unit.rows)
            if task.died < MAX_ATTEMPTS:
                task.table = self.read(unit)
                task.respelled = int((task.table.schema.metadata or {}).get(RESPELLED, 0))
                if task.source is not None:
                    task.source = self._fingerprints.of(task.source, task.table)
                if self.job.verdicts:
                    pictures = [sum_of(value.as_py()) for value in task.table["image"]]
                    task.verdicts = self.job.verdicts_on(unit, pictures)
                kept = unchanged(
                    self.job, unit, task.source, self.ledger, self.sanitizer.way, task.verdicts
                )
                if kept is not None:
                    task.kept = kept.tables
                    task.table = task.table.take(pa.array(kept.left, pa.int64()))
            elif self.ledger.attempt(unit.id, apart=True).here >= MAX_ATTEMPTS:
                ids = [record_id(unit.id, row) for row in range(unit.rows)]
                task.tables = self.sanitizer.add_dead_letters(ids, unit.id, "killed_worker")
            else:
                task.tables = isolation.sanitize_apart(
                    self.job, ordinal, self.sanitizer, self.threads
                )
        except Exception as error:
            self._fail(task, error)
        return task

    def _end(self, task: "_Task") -> Status:
        """Commit."""
        if task.status is not None:
            return task.status
        unit, tables = task.unit, task.tables
        assert tables is not None
        try:
            copy = new_copy_id()
            self._seal(unit, copy, tables, task.table)
            # before anything is published
            charge(self.job, self.account, self.ledger, unit.id, copy, tables)
            entry = self.ledger.commit(
                unit.id,
                tables,
                unit.rows,
                method_digest=self.job.method_digest,
                settings_digest=self.job.settings_digest,
                source=task.source,
                verdicts=task.verdicts,
                respelled=task.respelled,
                copy_id=copy,
                stage=self.job.stage,
                paths=paths_in(self.job, unit),
                unchanged=task.kept,
            )
            if self.vault is not None and entry.copy_id != copy:
                self.vault.discard(unit.id, copy)
        except Exception as error:
            return self._fail(task, error)
        return _status(entry, "committed", task.died)

    def _fail(self, task: "_Task", error: Exception) -> Status:
        """It failed, but its process lives: that is no reason to take it apart one day."""
        with contextlib.suppress(Exception):
            self.ledger.forget_attempts(task.unit.id)
        task.status = Status(task.unit.id, "failed", reason=describe(error))
        return task.status

    def _seal(self, unit: Unit, copy: str, tables: Tables, read: pa.Table | None) -> None:
        """Commit the originals of what is about to be published to the vault, if there is one."""
        if self.vault is None or self.job.vault is None:
            return
        if read is None and tables.records.num_rows:
            read = read_unit(self.job.plan, unit)
        originals = () if read is None else originals_of(tables.records, read)
        self.vault.commit(self.job.vault, unit.id, copy, originals)


def _status(
    entry: LedgerEntry, state: Literal["committed", "skipped"], attempts: int = 0
) -> Status:
    dead = sum(entry.dead_letters.values())
    return Status(entry.unit, state, entry.rows_in, entry.records, dead, attempts)


class Unbuilt:
    """In the place of a worker that could not be built: every unit fails for the same reason. An
    engine would print an error that is raised, with its arguments, and build it again for ever."""

    def __init__(self, job: Job, reason: str) -> None:
        self._units, self._reason = job.plan.units, reason

    def process(self, ordinal: int) -> Status:
        return Status(self._units[ordinal].id, "failed", reason=self._reason)

    def stream(self, ordinals: Iterable[int]) -> Iterator[Status]:
        return map(self.process, ordinals)


def worker_of(job: Job, threads: int = 0, key: bytes | None = None) -> Worker | Unbuilt:
    """What an engine lets do the units of a job. Raises nothing.

    Args:
        key: of a job that is sealed, as in ``sealing.opened``.
    """
    try:
        return Worker(opened(job, key), threads)
    except Exception as error:
        return Unbuilt(job, describe(error))


def preflight(job: Job) -> None:
    """Load everything once and sanitize a drawn face, so that a method or model that cannot work
    is known before any worker starts.

    Raises:
        UserError: one line that says what does not work.
    """
    sanitizer = build_sanitizer(job)
    run = sanitizer.run
    drawn = sample.faces(1)
    context = run.context(dict.fromkeys(run.method.needed_context()))
    try:
        published = run.publish(drawn, ["preflight"], [Item("preflight", 0, drawn[0], context)], 0)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"method {job.options.method!r} fails: {describe(error)}") from None
    sanitizer.way.check(drawn)
    for recognizer in run.recognizers:
        try:
            recognizer.embed(published.faces)
        except Exception as error:
            raise UserError(f"FR model {recognizer.name!r} fails: {describe(error)}") from None


PREVIEW_UNITS = 4


def preview(job: Job, records: int = 64) -> Tables:
    """Sanitize a few rows from all over the plan and write nothing.

    Args:
        records: rows, about.
    """
    if job.independent:
        job = replace(job, stage="look")
    sanitizer = build_sanitizer(job, sample_every=1)
    last = len(job.plan.units) - 1
    places = sorted({round(place) for place in np.linspace(0, last, PREVIEW_UNITS)} - {-1})
    parts = []
    for unit in (job.plan.units[place] for place in places):
        table = read_unit(job.plan, unit)
        step = max(1, table.num_rows * len(places) // records)
        parts.append(sanitizer(table.take(list(range(0, table.num_rows, step))), unit.id))
    return concatenate(parts)
