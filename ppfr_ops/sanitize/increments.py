"""What became of the input since the last run: which units are new, changed, or gone.

A unit is known by its keyed id. Its stamp (sizes, and ETags or modification times) says quickly
that nothing changed; where it differs, the rows themselves are compared by a keyed digest.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ppfr_ops.contracts.ledger import LedgerEntry, Tombstone
from ppfr_ops.sanitize.job import Job
from ppfr_ops.source.plan import Unit, content, ids_of, read_unit
from ppfr_ops.store.entries import Marks
from ppfr_ops.store.ledger import LEDGER, Ledger


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

    Records that are gone from a file that is still there are always taken back with their unit;
    a unit whose files are all gone only with ``--propagate-deletions``, and leaves a tombstone.

    Args:
        ledger: opened, under the run's lease.
    """
    entries = ledger.entries()
    tombstones = ledger.tombstones()
    units = job.plan.units
    there = {mark for unit in units if unit.source is not None for mark in unit.source.files}
    counts: Counter[str] = Counter()
    for unit in _by_id(units):
        counts[_update(job, ledger, unit, entries.get(unit.id))] += 1
        if unit.id in tombstones:
            ledger.remove(*LEDGER, "tombstones", f"{unit.id}.json")
    planned = Marks(ids_of(units))
    for name, entry in entries.items():
        if name in planned:
            continue
        if entry.source is None or there.intersection(entry.source.files):
            ledger.retire(name)
            counts["superseded"] += 1
            continue
        removed = job.options.propagate_deletions
        if name not in tombstones or removed:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            seen = tombstones[name].seen if name in tombstones else now
            stone = Tombstone(unit=name, seen=seen, records=entry.records, removed=removed)
            ledger.bury(stone)
        if removed:
            ledger.retire(name)
        counts["removed" if removed else "deleted"] += 1
    return Changes(**counts)


def _update(job: Job, ledger: Ledger, unit: Unit, entry: LedgerEntry | None) -> str:
    if entry is None:
        return "new"
    source = unit.source
    if entry.source is not None and source is not None:
        if entry.source.stamp == source.stamp:
            return "unchanged"
        if entry.source.content is not None and job.key is not None:
            now = content(read_unit(job.plan, unit), job.key)
            if now == entry.source.content:
                ledger.restamp(entry, source.model_copy(update={"content": now}))
                return "unchanged"
    ledger.retire(unit.id)
    return "changed"


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
    planned = Marks(ids_of(job.plan.units))
    count = 0
    for unit, entry in ledger.entries().items():
        if unit in planned and codes & entry.dead_letters.keys():
            ledger.retire(unit)
            count += 1
    return count


def _by_id(units: Sequence[Unit]) -> Iterator[Unit]:
    """In the order in which entries lie, so that each block of them is unpacked once."""
    for number in sorted(range(len(units)), key=ids_of(units).__getitem__):
        yield units[number]
