"""What became of the input since the last run: which units are new, changed, or gone.

A unit is known by its keyed id. Its stamp (sizes, and ETags or modification times) says quickly
that nothing changed; where it differs, the rows themselves are compared by a keyed digest.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ppfr_ops.contracts.ledger import LedgerEntry, Tombstone, is_shard
from ppfr_ops.errors import UserError
from ppfr_ops.sanitize.fingerprints import Fingerprints
from ppfr_ops.sanitize.job import Job
from ppfr_ops.source.plan import Unit, ids_of, read_unit
from ppfr_ops.store.entries import HashSet
from ppfr_ops.store.ledger import LEDGER, Ledger

DELETED_SHARE, DELETED_ROWS = 0.1, 1000
"""Rows that a run takes back by itself, at most, because they are gone from the input: so many, and
no greater share of what is published."""


@dataclass(frozen=True)
class Changes:
    """Units, by what became of them."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    superseded: int = 0
    """The file is there, but cut into other units now."""
    deleted: int = 0
    """Gone upstream, and still published."""
    removed: int = 0
    """Gone upstream, and taken back."""

    def __str__(self) -> str:
        return ", ".join(f"{count} {name}" for name, count in vars(self).items())


def reconcile(job: Job, ledger: Ledger) -> Changes:
    """Take back what is no longer as it was published, so that the run does it anew.

    Records that are gone from a file that is still there are taken back with their unit; a unit
    whose files are all gone only with ``--propagate-deletions``, and leaves a tombstone. A unit in
    whose place there are others now is taken back when those are done (``finish``).

    Args:
        ledger: opened, under the run's lease.

    Raises:
        UserError: more would be taken back than ``--allow-deletions`` says; nothing was.
    """
    entries = ledger.entries()
    tombstones = ledger.tombstones()
    units = job.plan.units
    there = _files(units)
    _refuse_many(job, entries, there)
    counts: Counter[str] = Counter()
    for unit in _by_id(units):
        counts[_update(job, ledger, unit, entries.get(unit.id))] += 1
        if unit.id in tombstones:
            ledger.remove(*LEDGER, "tombstones", f"{unit.id}.json")
    planned = HashSet(ids_of(units))
    for name, entry in entries.items():
        if name in planned or is_shard(name):
            continue
        if _is_superseded(entry, there):
            counts["superseded"] += 1
            continue
        removed = job.options.propagate_deletions
        if name not in tombstones or removed:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            seen = tombstones[name].seen if name in tombstones else now
            stone = Tombstone(unit=name, seen=seen, records=entry.records, removed=removed)
            ledger.add_tombstone(stone)
        if removed:
            ledger.retire(name)
        counts["removed" if removed else "deleted"] += 1
    return Changes(**counts)


def superseded(job: Job, entries: Mapping[str, LedgerEntry]) -> list[str]:
    """Units that are published, and in whose place the plan has others of the same files."""
    planned, there = HashSet(ids_of(job.plan.units)), _files(job.plan.units)
    return [
        name
        for name, entry in entries.items()
        if name not in planned and not is_shard(name) and _is_superseded(entry, there)
    ]


def _files(units: Sequence[Unit]) -> set[str]:
    return {mark for unit in units if unit.source is not None for mark in unit.source.files}


def _is_superseded(entry: LedgerEntry, there: set[str]) -> bool:
    return entry.source is None or bool(there.intersection(entry.source.files))


def _refuse_many(job: Job, entries: Mapping[str, LedgerEntry], there: set[str]) -> None:
    """Rows are counted by the file that they came from: those that the plan has no more of it, of
    what would be taken back."""
    before: dict[str, float] = defaultdict(float)
    rows = 0
    for name, entry in entries.items():
        if is_shard(name):
            continue
        rows += entry.rows_in
        if entry.source is None:
            continue
        if job.options.propagate_deletions or _is_superseded(entry, there):
            for file in entry.source.files:
                before[file] += entry.rows_in / len(entry.source.files)
    now: dict[str, float] = defaultdict(float)
    for unit in job.plan.units:
        files = () if unit.source is None else unit.source.files
        for file in files:
            now[file] += unit.rows / len(files)
    lost = math.ceil(sum(max(0.0, count - now[file]) for file, count in before.items()) - 1e-6)
    if lost > allowed_deletions(job.options.allow_deletions, rows):
        raise UserError(
            f"{lost:,} of the {rows:,} rows that are published are not in the input any more, more "
            "than a run takes back by itself; nothing was done. Is the input whole? If they are to "
            f"go, with their originals in the vault: --allow-deletions {lost}"
        )


def allowed_deletions(text: str | None, rows: int) -> int:
    """How many of so many rows a run may take back.

    Args:
        text: a number of rows, or a share: ``0.2``, ``20%``; None: the default.

    Raises:
        UserError: neither.
    """
    if text is None:
        return min(int(rows * DELETED_SHARE), DELETED_ROWS)
    try:
        if text.isdecimal():
            return int(text)
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise UserError(f"--allow-deletions {text!a}: expected a number of rows, 0.2 or 20%")
    return int(rows * share)


def _update(job: Job, ledger: Ledger, unit: Unit, entry: LedgerEntry | None) -> str:
    if entry is None:
        return "new"
    source = unit.source
    if entry.source is not None and source is not None:
        if entry.source.stamp == source.stamp:
            return "unchanged"
        now = Fingerprints(job, ledger).of(source, read_unit(job.plan, unit))
        if now.content == entry.source.content:
            ledger.restamp(entry, now)
            return "unchanged"
    ledger.retire(unit.id)
    return "changed"


def refuse_changed(job: Job, ledger: Ledger) -> None:
    """Refuse to go on where rows that were done are other rows now; an incremental run does such
    units anew instead.

    Raises:
        UserError: they are.
    """
    entries = ledger.entries()
    if job.options.incremental or not entries or ledger.thrown_away():
        return
    fingerprints, changed = Fingerprints(job, ledger), 0
    for unit in _by_id(job.plan.units):
        entry = entries.get(unit.id)
        if entry is None or entry.source is None or unit.source is None:
            continue
        if fingerprints.of(unit.source).stamp == entry.source.stamp:
            continue
        now = fingerprints.of(unit.source, read_unit(job.plan, unit))
        if now.content == entry.source.content:
            ledger.restamp(entry, now)
        else:
            changed += 1
    if changed:
        raise UserError(
            f"the input is not what it was when this output was begun: {changed:,} of the units "
            "that are done hold other rows now, or in another order; put it back, or --overwrite "
            "begins anew"
        )


def retire_reviewed(job: Job, ledger: Ledger) -> int:
    """Take back the units on whose photographs there are other verdicts now; returns how many."""
    if job.verdicts is None:
        return 0
    entries = ledger.entries()
    count = 0
    for unit in _by_id(job.plan.units):
        entry = entries.get(unit.id)
        if entry is not None and entry.verdicts != job.verdicts_on(unit):
            ledger.retire(unit.id)
            count += 1
    return count


def retire_dead(job: Job, ledger: Ledger) -> int:
    """Take back the units that hold dead letters of the codes to try again; returns how many."""
    codes = set(job.options.retry_dead_letters)
    if not codes:
        return 0
    planned = HashSet(ids_of(job.plan.units))
    count = 0
    for unit, entry in ledger.entries().items():
        if (unit in planned or is_shard(unit)) and codes & entry.dead_letters.keys():
            ledger.retire(unit)
            count += 1
    return count


def _by_id(units: Sequence[Unit]) -> Iterator[Unit]:
    """In the order in which entries lie, so that each block of them is unpacked once."""
    for number in sorted(range(len(units)), key=ids_of(units).__getitem__):
        yield units[number]
