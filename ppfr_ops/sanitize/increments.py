"""What became of the input since the last run: which units are new, changed, or gone.

A unit is known by its keyed id. Its stamp (sizes, and ETags or modification times) says quickly
that nothing changed; where it differs, the rows themselves are compared by a keyed digest.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from ppfr_ops.contracts.ledger import LedgerEntry, Source, Tombstone, is_shard
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.decoding import ImageError, decode
from ppfr_ops.review.verdicts import without_pictures
from ppfr_ops.sanitize.fingerprints import Fingerprints
from ppfr_ops.sanitize.job import Job
from ppfr_ops.sanitize.photographs.unchanged import takes_over
from ppfr_ops.source.plan import Unit, ids_of, read_unit
from ppfr_ops.store.earlier import supersede
from ppfr_ops.store.entries import HashSet
from ppfr_ops.store.ledger import LEDGER, Ledger

DELETED_SHARE, DELETED_ROWS = 0.1, 1000
"""Rows that a run takes back by itself, at most, because they are gone from the input: so many, and
no greater share of what is published."""


CHANGES = ("new", "changed", "unchanged", "superseded", "deleted", "removed")
"""What became of units. superseded: the file is there, but cut into other units now; deleted: gone
upstream, and still published; removed: gone upstream, and taken back."""


def changes_in_words(counts: Mapping[str, int]) -> str:
    """How many units became what."""
    return ", ".join(f"{counts.get(name, 0)} {name}" for name in CHANGES)


def reconcile(job: Job, ledger: Ledger) -> Counter[str]:
    """Take back what is no longer as it was published, so that the run does it anew.

    Records that are gone from a file that is still there are taken back with their unit; a unit
    whose files are all gone only with ``--propagate-deletions``, and leaves a tombstone. A unit in
    whose place there are others now is taken back when those are done (``finish``).

    Returns:
        Units, by what became of them (``CHANGES``).

    Raises:
        UserError: more would be taken back than ``--allow-deletions`` says; nothing was.
    """
    entries = ledger.entries()
    tombstones = ledger.tombstones()
    units = job.plan.units
    there = _files(units)
    _refuse_many(job, entries, there)
    counts: Counter[str] = Counter()
    changed: dict[str, int] = {}
    for unit in _by_id(units):
        state, spoilt = _compared(job, ledger, unit, entries.get(unit.id))
        counts[state] += 1
        if state == "changed":
            changed[unit.id] = spoilt
    if spoilt := sum(changed.values()):
        _refuse_many(job, entries, there, spoilt)
    for name in changed:
        ledger.retire(name)
    for unit in _by_id(units) if tombstones else ():
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
    return counts


def superseded(job: Job, entries: Mapping[str, LedgerEntry]) -> list[str]:
    """Units that are published, and in whose place the plan has others of the same files, all of
    which are done.

    Raises:
        UserError: more of the rows that they published have become dead letters than
            ``--allow-deletions`` says.
    """
    planned, there = HashSet(ids_of(job.plan.units)), _files(job.plan.units)
    gone = [
        name
        for name, entry in entries.items()
        if name not in planned and not is_shard(name) and _is_superseded(entry, there)
    ]
    if gone:
        _refuse_spoilt(job, entries, gone)
    return gone


def _refuse_spoilt(job: Job, entries: Mapping[str, LedgerEntry], gone: Sequence[str]) -> None:
    before, there, files, dead = _Rows(), _Rows(), set[str](), 0
    for name, entry in entries.items():
        if not is_shard(name):
            there.add(entry.source, entry.rows_in)
    for source, entry in ((entries[unit].source, entries[unit]) for unit in gone):
        before.add(source, entry.rows_in)
        dead += sum(entry.dead_letters.values())
        files.update(() if source is None else source.files)
    lost = sum(map(before.of, files)) - dead
    for unit in job.plan.units:
        if unit.source is not None and not files.isdisjoint(unit.source.files):
            entry = entries[unit.id]
            lost -= entry.rows_in - sum(entry.dead_letters.values())
    if lost > allowed_deletions(job.options.allow_deletions, rows := there.total()):
        raise UserError(
            f"{lost:,} of the {rows:,} rows that are published hold no picture that can be read "
            "now, more than a run takes back by itself; they are published as they were. Is the "
            "input whole? If they are to go, with their originals in the vault: "
            f"--allow-deletions {lost}"
        )


def _files(units: Sequence[Unit]) -> set[str]:
    return {mark for unit in units if unit.source is not None for mark in unit.source.files}


def _is_superseded(entry: LedgerEntry, there: set[str]) -> bool:
    return entry.source is None or bool(there.intersection(entry.source.files))


def _refuse_many(
    job: Job, entries: Mapping[str, LedgerEntry], there: set[str], spoilt: int = 0
) -> None:
    """Rows are counted by the file that they came from: those that the plan has no more of it, of
    what would be taken back; and besides the ``spoilt``, which are there and hold no picture."""
    before, now, at_stake = _Rows(), _Rows(), set[str]()
    for name, entry in entries.items():
        if is_shard(name):
            continue
        before.add(entry.source, entry.rows_in)
        if job.options.propagate_deletions or _is_superseded(entry, there):
            at_stake.update(() if entry.source is None else entry.source.files)
    for unit in job.plan.units:
        now.add(unit.source, unit.rows)
    lost = spoilt + sum(max(0, before.of(file) - now.of(file)) for file in at_stake)
    rows = before.total()
    if lost > allowed_deletions(job.options.allow_deletions, rows):
        raise UserError(
            f"{lost:,} of the {rows:,} rows that are published are not in the input any more"
            f"{' or hold no picture that can be read' * (spoilt > 0)}, more than a run takes back "
            "by itself; nothing was done. Is the input whole? If they are to go, with their "
            f"originals in the vault: --allow-deletions {lost}"
        )


class _Rows:
    """Rows of the input, each counted once: of an input that was cut anew, and not done to its end,
    the units of both cuts are published."""

    def __init__(self) -> None:
        self._pictures: set[str] = set()
        self._ranges: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._others: Counter[str] = Counter()
        """Rows of which nobody noted where they are in their file (empty: nor of which file)."""

    def add(self, source: Source | None, count: int) -> None:
        """The rows of a unit."""
        if source is not None and source.rows is not None:
            self._ranges[source.files[0]].append(source.rows)
        elif source is not None and len(source.files) == count:
            self._pictures.update(source.files)
        else:
            self._others["" if source is None else "".join(source.files[:1])] += count

    def of(self, file: str) -> int:
        count, end = self._others[file] + (file in self._pictures), 0
        for start, stop in sorted(self._ranges.get(file, ())):
            count += max(0, stop - max(start, end))
            end = max(end, stop)
        return count

    def total(self) -> int:
        return sum(map(self.of, {*self._pictures, *self._ranges, *self._others}))


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


def _compared(job: Job, ledger: Ledger, unit: Unit, entry: LedgerEntry | None) -> tuple[str, int]:
    """What became of a unit, and how many of its rows that are published have no picture now."""
    if entry is None:
        return "new", 0
    source = unit.source
    if entry.source is None or source is None:
        return "changed", 0
    if entry.source.stamp == source.stamp:
        return "unchanged", 0
    table = read_unit(job.plan, unit)
    now = Fingerprints(job.key, ledger).of(source, table)
    if now.content == entry.source.content:
        ledger.restamp(entry, now)
        return "unchanged", 0
    sound = sum(map(_is_picture, table["image"].to_pylist()))
    return "changed", max(0, entry.rows_in - sum(entry.dead_letters.values()) - sound)


def _is_picture(data: bytes | None) -> bool:
    """Whether it is whole, as far as its beginning and end tell, or can be decoded."""
    data = data or b""
    if data.startswith(b"\xff\xd8\xff") and data.endswith(b"\xff\xd9"):
        return True
    if data.startswith(b"\x89PNG") and data[-8:-4] == b"IEND":
        return True
    try:
        decode(data)
    except ImageError:
        return False
    return True


def refuse_changed(job: Job, ledger: Ledger) -> None:
    """Refuse to go on where rows that were done are other rows now; an incremental run does such
    units anew instead.

    Raises:
        UserError: they are.
    """
    entries = ledger.entries()
    if job.options.incremental or not entries or ledger.thrown_away():
        return
    fingerprints, changed = Fingerprints(job.key, ledger), 0
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
    entries = ledger.entries()
    count = 0
    for unit in _by_id(job.plan.units):
        entry = entries.get(unit.id)
        if entry is not None and without_pictures(entry.verdicts) != job.verdicts_on(unit):
            if takes_over(job):
                supersede(ledger, unit.id)
            else:
                ledger.retire(unit.id)
            count += 1
    return count


def retire_dead(job: Job, ledger: Ledger) -> int:
    """Take back the units that hold dead letters of the codes to try again; returns how many."""
    codes = set(job.options.retry_dead_letters)
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
