"""A run from its options to its exit code, whatever engine carries the units."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from ppfr_ops.cli.console import (
    RunProgress,
    announce,
    conclude,
    console,
    rest,
    show_preview,
)
from ppfr_ops.release.settled import unsettle
from ppfr_ops.release.signing import distrust, load_signing_key
from ppfr_ops.sanitize import crowd
from ppfr_ops.sanitize.accounts import held, refuse_overdrawn
from ppfr_ops.sanitize.finish import finish, settled_before
from ppfr_ops.sanitize.identity import discard, with_release_key
from ppfr_ops.sanitize.increments import reconcile, retire_dead, retire_reviewed
from ppfr_ops.sanitize.job import Job, Status
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.prepare import prepare
from ppfr_ops.sanitize.vaulting import check_vault, sweep_vault
from ppfr_ops.sanitize.worker import preflight, preview
from ppfr_ops.store.lease import EXPIRY_SECONDS, Lease
from ppfr_ops.store.ledger import LEDGER, Ledger
from ppfr_ops.vault import Vault, audit

Engine = Callable[[Job, list[int]], Iterator[Status]]
"""Does the units of these numbers; a status of each as it comes, in any order."""

MAX_FAILED_IN_A_ROW = 5
"""Units; then it is the disk or the store, and the run ends."""


def drive(
    options: SanitizeOptions, engine: Engine, carrier: str, *, dry_run: bool, as_json: bool
) -> int:
    """Plan, take the lease, let the engine work, reconcile, sum up.

    Args:
        carrier: name and version of the engine, for the manifest.

    Returns:
        The exit code.

    Raises:
        UserError: wrong usage or input.
    """
    began = time.monotonic()
    job = prepare(options)
    preflight(job)
    if dry_run:
        show_preview(job, preview(job))
        return 0
    ledger = Ledger(options.output)
    ledger.check(job.settings, options.overwrite, options.incremental)
    check_vault(job, ledger)
    # Needs no lease: it changes nothing but when the last run was, and a run at work has removed
    # the note that it goes by.
    if job.vault is None and (code := _nothing_to_do(job, ledger, carrier, as_json)) is not None:
        return code
    if not options.single_writer:
        ledger.refuse_unconditional()
    try:
        lease = Lease(Ledger(options.output), _say_waiting)
    except ValueError as error:
        console.print(f"Error: {error}; nothing was done", markup=False)
        return 1
    with lease, held(job), _vault_of(job):
        code = _work(replace(job, fence=lease.fence), engine, carrier, began, as_json)
    return code


@contextmanager
def _vault_of(job: Job) -> Iterator[None]:
    """The job's vault, made if need be, to oneself; and a line in its log."""
    if job.vault is None:
        yield
        return
    vault = Vault(job.vault.url)
    vault.establish(job.vault)
    with Lease(vault.files, _say_waiting):
        vault.recover()
        before = len(vault.copies())
        yield
        outcome = f"{before} units sealed before, {len(vault.copies())} now"
        audit.append(vault.files, audit.login(), "sanitize", "what was published", outcome)


def _say_waiting() -> None:
    console.print(
        f"another run holds the lease; waiting up to {EXPIRY_SECONDS:g} s to see if it lives"
    )


def _work(job: Job, engine: Engine, carrier: str, began: float, as_json: bool) -> int:
    options = job.options
    ledger = Ledger(options.output, job.fence)
    if (done := _nothing_to_do(job, ledger, carrier, as_json)) is not None:
        return done  # by a run that this one waited for
    last = _run_of(job, carrier)
    unsettle(ledger)
    ledger.open(job.settings, options.overwrite, options.incremental, options.seed)
    unvouched = None
    if options.signing_key is not None:
        unvouched = distrust(ledger, load_signing_key(options.signing_key))
    for line in ledger.noticed:
        console.print(line, markup=False)
    ledger.write(last, *LEDGER, "last.json")
    if options.incremental:
        console.print(f"since the last run: {reconcile(job, ledger)} units", soft_wrap=True)
    if job.verdicts is not None:
        console.print(f"{retire_reviewed(job, ledger)} units to be done anew, by verdicts")
    if options.retry_dead_letters:
        console.print(f"{retire_dead(job, ledger)} units to be done anew, for their dead letters")
    if gone := sweep_vault(job, ledger):
        console.print(f"{gone} units removed from the vault, keys first: published no more")
    faces = _carry(job, engine, ledger)
    rotten: list[str] = []
    manifest, missing = finish(job, carrier, rotten.append, unvouched is None, ledger)
    if rotten:
        for line in rotten:
            console.print(line, markup=False)
        faces += _carry(job, engine, ledger)
        manifest, missing = finish(job, carrier, _notice, unvouched is None, ledger)
    if ledger.fenced_off():
        console.print("Error: another run has taken over this output, or it was removed")
        code = 1
    elif missing:
        console.print(f"Error: {len(missing)} units unfinished; the same command goes on")
        code = 1
    else:
        code = conclude(job, manifest, time.monotonic() - began, faces, as_json)
        if options.discard_key and code != 1:
            discard(ledger)
            console.print("the key of the release is removed: nobody can say who is whom")
        if unvouched is not None:
            console.print(f"Error: {unvouched}", markup=False)
            code = code or 1
    if not ledger.fenced_off():
        ledger.write({**last, "finished": _now(), "exit_code": code}, *LEDGER, "last.json")
    return code


def _nothing_to_do(job: Job, ledger: Ledger, carrier: str, as_json: bool) -> int | None:
    """The exit code of a run that finds all as the last one left it; None: there is to be done."""
    manifest = settled_before(job)
    if manifest is None:
        return None
    last = _run_of(job, carrier)
    code = rest(job, manifest, as_json)
    ledger.write({**last, "finished": _now(), "exit_code": code}, *LEDGER, "last.json")
    return code


def _run_of(job: Job, carrier: str) -> dict[str, Any]:
    """What ``last.json`` says of a run that begins."""
    units, rows = len(job.plan.units), job.plan.rows
    run = {"engine": carrier, "units": units, "rows": rows, "started": _now()}
    return run | {"finished": None, "exit_code": None}


def _carry(job: Job, engine: Engine, ledger: Ledger) -> int:
    """Let the engine do what is still to be done; returns the faces that it did."""
    todo = announce(job, ledger.committed_ids())
    if not todo:
        crowd.assemble(job, ledger, looked=False)
        return 0
    job = with_release_key(job, ledger)
    refuse_overdrawn(job, todo)
    _look(job, engine, ledger)
    return _through(job, engine, todo)


def _through(job: Job, engine: Engine, todo: list[int]) -> int:
    """Let the engine do these units, until too many fail in a row; returns the faces."""
    progress = RunProgress(len(todo))
    with progress:
        for status in engine(job, todo):
            progress.add(status)
            if progress.failed_in_a_row == MAX_FAILED_IN_A_ROW:
                break
    return progress.faces


def _look(job: Job, engine: Engine, ledger: Ledger) -> None:
    """The first look, for a method that gathers."""
    todo = crowd.to_look_at(job, ledger)
    if todo:
        console.print(
            f"a first look at {len(todo)} units: which photos seem to be the same person's"
        )
        _through(crowd.looking(job), engine, todo)
    crowd.assemble(job, ledger, looked=True)


def _notice(line: str) -> None:
    console.print(line, markup=False)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
