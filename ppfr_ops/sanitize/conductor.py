"""A run from its options to its result, whatever engine carries the units."""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from ppfr_ops.contracts.manifest import Manifest
from ppfr_ops.release.signing import drop_unsealed_units, load_signing_key
from ppfr_ops.release.up_to_date import unmark_up_to_date
from ppfr_ops.review.queue import write_review
from ppfr_ops.sanitize import events
from ppfr_ops.sanitize.accounts import refuse_overdrawn
from ppfr_ops.sanitize.events import Listener, RunResult
from ppfr_ops.sanitize.finish import (
    finish,
    review_queue,
    settled_before,
    too_many_dead,
    unheeded,
    write_detections,
)
from ppfr_ops.sanitize.identity import with_release_key
from ppfr_ops.sanitize.increments import (
    changes_in_words,
    reconcile,
    refuse_changed,
    retire_dead,
    retire_reviewed,
)
from ppfr_ops.sanitize.job import Job, Status
from ppfr_ops.sanitize.mapping import write_mapping
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.prepare import prepare
from ppfr_ops.sanitize.release_plan import plan_release, shards_of
from ppfr_ops.sanitize.vaulting import check_vault
from ppfr_ops.sanitize.worker import preflight, preview
from ppfr_ops.source.listing import said
from ppfr_ops.source.plan import ids_of
from ppfr_ops.store.entries import HashSet
from ppfr_ops.store.lease import EXPIRY_SECONDS, Lease
from ppfr_ops.store.ledger import LEDGER, Ledger
from ppfr_ops.vault import Vault, audit
from ppfr_ops.words import counted

Engine = Callable[[Job, list[int]], Iterator[Status]]
"""Does the units of these numbers; a status of each as it comes, in any order."""

KEPT = (
    "kept as it is, with its originals; put back the shard (any copy of the release has it) or the "
    "source, or let it go with --incremental --propagate-deletions"
)
"""What becomes of a unit that is not as it should be and cannot be made again."""

MAX_FAILED_IN_A_ROW = 5
"""Units; then it is the disk or the store, and the run ends."""


def conduct(
    options: SanitizeOptions,
    engine: Engine,
    carrier: str,
    listener: Listener,
    *,
    dry_run: bool = False,
) -> RunResult:
    """Plan, take the lease, let the engine work, reconcile, write the manifests.

    Args:
        carrier: name and version of the engine, for the manifest.
        listener: is told what happens.
        dry_run: sanitize a sample of rows, tell ``Previewed``, and write nothing.

    Raises:
        UserError: wrong usage or input.
    """
    return _Run(options, engine, carrier, listener).go(dry_run)


class _Run:
    def __init__(
        self, options: SanitizeOptions, engine: Engine, carrier: str, listener: Listener
    ) -> None:
        self.options = options
        self.engine = engine
        self.carrier = carrier
        self.tell = listener
        self.began = time.monotonic()

    def go(self, dry_run: bool) -> RunResult:
        options = self.options
        job = prepare(options)
        for notice in job.notices:
            self._say(notice)
        preflight(job)
        if dry_run:
            self._announce(job, ())
            self.tell(events.Previewed(job, preview(job)))
            return RunResult(0, options.output)
        ledger = Ledger(options.output)
        ledger.check(job.settings, options.overwrite, options.incremental)
        check_vault(job, ledger)
        # Needs no lease: it changes nothing but when the last run was, and a run at work has
        # removed the note that it goes by.
        if job.vault is None and (found := self._up_to_date(job, ledger)) is not None:
            return found
        if not options.single_writer:
            ledger.refuse_unconditional()
        try:
            lease = Lease(Ledger(options.output), self._say_waiting)
        except ValueError as error:
            return self._failed(f"{error}; nothing was done")
        with lease, self._vault_of(job) as opened:
            return self._work(replace(opened, fence=lease.fence))

    @contextmanager
    def _vault_of(self, job: Job) -> Iterator[Job]:
        """The job with its vault, made if need be, to oneself; and a line in its log."""
        if job.vault is None:
            yield job
            return
        vault = Vault(job.vault.url)
        vault.establish(job.vault)
        with Lease(vault.files, self._say_waiting) as lease:
            vault.fence = lease.fence
            vault.recover()
            before = len(vault.copies())
            yield replace(job, vault=vault.current(job.vault))
            outcome = f"{before} units sealed before, {len(vault.copies())} now"
            audit.append(vault.files, audit.login(), "sanitize", "what was published", outcome)

    def _say_waiting(self) -> None:
        self._say(
            f"another run holds the lease; waiting up to {EXPIRY_SECONDS:g} s to see if it is alive"
        )

    def _work(self, job: Job) -> RunResult:
        options = self.options
        ledger = Ledger(options.output, job.fence)
        if (found := self._up_to_date(job, ledger)) is not None:
            return found  # by a run that this one waited for
        last = self._last(job)
        unmark_up_to_date(ledger)
        planned = HashSet(ids_of(job.plan.units))
        ledger.open(job.settings, options.overwrite, options.incremental, options.seed, planned)
        refuse_changed(job, ledger)
        unvouched = None
        if options.signing_key is not None:
            unvouched = drop_unsealed_units(ledger, load_signing_key(options.signing_key))
        for line in ledger.noticed:
            self._say(line)
        ledger.write(last, *LEDGER, "last.json")
        self._retire(job, ledger)
        faces = self._carry(job, ledger)
        rotten: list[str] = []
        manifest, missing = finish(job, self.carrier, rotten.append, unvouched is None, ledger)
        if rotten:
            for line in rotten:
                self._say(line)
            faces += self._carry(job, ledger)
            manifest, missing = finish(job, self.carrier, self._say, unvouched is None, ledger)
        if ledger.fenced_off():
            return self._failed("another run has taken over this output, or it was removed")
        faults = [f"unit {unit}: {why}; {KEPT}" for unit, why in ledger.kept.items()]
        if missing:
            undone = sum(unit not in ledger.kept for unit in missing)
            left = f"{undone} units unfinished; run the same command again to resume"
            said = [left] if undone else []
            result = self._failed(*said, *faults)
        else:
            self._owner_files(job)
            faults = faults if unvouched is None else [unvouched, *faults]
            result = self._concluded(job, manifest, faces, faults)
            if ledger.thrown_away():
                self._say("everything that tells who is whom was deleted")
        if not ledger.fenced_off():
            _note_end(ledger, last, result)
        return result

    def _retire(self, job: Job, ledger: Ledger) -> None:
        """Take back what is to be done anew, and what is gone."""
        options = self.options
        if options.incremental:
            self._say(f"since the last run: {changes_in_words(reconcile(job, ledger))} units")
        if job.verdicts is not None:
            units = counted(retire_reviewed(job, ledger), "unit")
            self._say(f"{units} with new verdicts, of which what changes is done again")
        if options.retry_dead_letters:
            self._say(f"{retire_dead(job, ledger)} units to be done anew, for their dead letters")

    def _up_to_date(self, job: Job, ledger: Ledger) -> RunResult | None:
        """The result of a run that finds all as the last one left it; None: there is to be done."""
        manifest = settled_before(job)
        if manifest is None:
            return None
        last = self._last(job)
        self._announce(job, set(ids_of(job.plan.units)))
        if job.options.incremental:
            unchanged = changes_in_words({"unchanged": len(job.plan.units)})
            self._say(f"since the last run: {unchanged} units")
        self._say(
            "nothing to do; the shards are listed as they were when the last run ended, so none "
            "was read and nothing written (--check-shards all reads them)"
        )
        result = self._concluded(job, manifest, 0)
        _note_end(ledger, last, result)
        return result

    def _last(self, job: Job) -> dict[str, Any]:
        """What ``last.json`` says of a run that begins."""
        units, rows = len(job.plan.units), job.plan.rows
        run = {"engine": self.carrier, "units": units, "rows": rows, "started": _now()}
        return run | {"finished": None, "exit_code": None}

    def _carry(self, job: Job, ledger: Ledger) -> int:
        """Let the engine do what is still to be done; returns the faces that it did."""
        todo = self._announce(job, ledger.committed_ids())
        if ledger.thrown_away():
            return 0
        if job.independent:
            return self._look_and_draw(job, ledger, todo)
        if not todo:
            return 0
        job = with_release_key(job, ledger)
        refuse_overdrawn(job, todo)
        return self._through(job, todo)

    def _look_and_draw(self, job: Job, ledger: Ledger, todo: list[int]) -> int:
        """As ``_carry``, where no picture depends on a face."""
        job = with_release_key(job, ledger)
        if todo:
            refuse_overdrawn(job, todo)
            self._say("reading every row: who is in the photo, and the columns to keep")
            self._through(replace(job, stage="look"), todo)
        if not ledger.committed_ids().issuperset(ids_of(job.plan.units)):
            return 0
        planned = plan_release(job, ledger)
        if planned is not None:
            self._say(planned)
        shards = shards_of(job, ledger)
        done = ledger.committed_ids()
        left = [n for n, unit in enumerate(ids_of(shards.plan.units)) if unit not in done]
        return self._through(shards, left) if left else 0

    def _through(self, job: Job, todo: list[int]) -> int:
        """Let the engine do these units, until too many fail in a row; returns the faces."""
        faces = failed = 0
        self.tell(events.Started(len(todo)))
        try:
            for status in self.engine(job, todo):
                faces += status.rows_in
                failed = failed + 1 if status.state == "failed" else 0
                self.tell(events.UnitDone(status))
                if failed == MAX_FAILED_IN_A_ROW:
                    break
        finally:
            self.tell(events.Stopped())
        return faces

    def _announce(self, job: Job, done: Collection[str]) -> list[int]:
        """Tell what there is to do; returns the numbers of the units still to be done."""
        plan = job.plan
        todo = [number for number, unit in enumerate(ids_of(plan.units)) if unit not in done]
        before = len(plan.units) - len(todo)
        seeded = job.options.seed is not None
        self.tell(events.Planned(plan.rows, len(plan.units), before, said(plan.left_out), seeded))
        return todo

    def _owner_files(self, job: Job) -> None:
        """What the owner asked for besides."""
        options = self.options
        if options.mapping:
            rows = write_mapping(job)
            self._say(f"mapping of {rows:,} rows written; it undoes the pseudonyms, lock it away")
        if options.photographs is None:
            return
        ledger = Ledger(options.output)  # of which both below read the entries, once
        if options.detections_out:
            self._say(f"{write_detections(job, ledger):,} faces written to --detections-out")
        if others := len(unheeded(job, ledger)):
            said = f"{counted(others, 'verdict')} not given on the pictures that are there now"
            self._say(f"{said}, or saying not on which: only drop was heeded, look at them again")
        queue = review_queue(job, ledger)
        if options.review_out:
            write_review(options.review_out, queue, job.plan)
            listed = counted(len(queue), "photograph")
            self._say(f"{listed} that a person should look at, listed in --review-out")
        elif queue:
            listed = counted(len(queue), "photograph")
            look = f"ppfr review {options.output} --input INPUT"
            self._say(f"{listed} that a person should look at: {look} shows them in a browser")

    def _concluded(
        self, job: Job, manifest: Manifest, faces: int, faults: Collection[str] = ()
    ) -> RunResult:
        """The result of a run that left no unit undone; faults are of what earlier runs left."""
        if changed := manifest.counts.respelled:
            self._say(
                f"{counted(changed, 'row')} with a label that was read without blanks at its ends, "
                "doubled ones or signs that nobody sees: whose labels differ in these only, is "
                "one person"
            )
        short = [] if manifest.verdict is None else manifest.verdict.checks
        dead = too_many_dead(job, manifest)
        problems = [] if dead is None else [dead]
        problems += [f"policy not met: {check}" for check in short if not check.holds]
        code = 3 if problems else 0
        if faults:
            problems += faults
            code = code or 1
        result = RunResult(
            code, self.options.output, manifest, tuple(problems), self._seconds, faces
        )
        self.tell(events.Finished(result))
        return result

    def _failed(self, *problems: str) -> RunResult:
        for problem in problems:
            self.tell(events.Notice(problem, "error"))
        return RunResult(1, self.options.output, problems=problems, seconds=self._seconds)

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self.began

    def _say(self, line: str) -> None:
        self.tell(events.Notice(line))


def _note_end(ledger: Ledger, last: dict[str, Any], result: RunResult) -> None:
    ended = {"finished": _now(), "exit_code": result.exit_code}
    ledger.write({**last, **ended}, *LEDGER, "last.json")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
