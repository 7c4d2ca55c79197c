"""What the ledger of an output says: entries, tombstones, attempts, the secret of the ids.

Nothing that is read here is believed: a document that is damaged, or says what it must not, counts
as not there.
"""

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from ppfr_ops.contracts.ledger import UNIT, Kind, LedgerEntry, Source, Tombstone, is_shard
from ppfr_ops.store.entries import (
    BLOCK,
    STAMP_BYTES,
    Block,
    Entries,
    Row,
    batched,
    line,
    short,
    unit_in,
)
from ppfr_ops.store.folder import EVIDENCE, LARGEST_DOCUMENT, LedgerError
from ppfr_ops.store.lease import newest
from ppfr_ops.store.secret import LEDGER, Secret

COMPACTED = (*LEDGER, "entries.parquet")
ATTEMPTS = (*LEDGER, "attempts")

_COPIES = pa.schema(
    [("unit", pa.string()), ("stamp", pa.binary(STAMP_BYTES)), ("entry", pa.string())]
)
"""Columns of ``COMPACTED``."""
_LARGEST_GROUP = 64 << 20
"""Bytes of a row group of it that is read, by what its footer says."""

_LONGEST_MARK = 200


@dataclass(frozen=True)
class Attempts:
    """How often work on a unit began before, in vain: it ended with the death of its process."""

    here: int = 0
    """In this run, whose driver lives, so it was the worker alone that died."""
    earlier: int = 0
    """In runs that are over. Driver and workers may have died together, of whatever it was, which
    says nothing about the unit."""


class Documents(Secret):
    """The documents of a ledger.

    Args:
        output: any fsspec URL or local path of a folder.
        fence: of the lease that this run holds; None: of no run.
    """

    def __init__(self, output: str, fence: int | None = None) -> None:
        super().__init__(output)
        self.fence = fence
        self.noticed: list[str] = []
        """What was found damaged and set aside, a line each."""
        self.trusts_copies = True
        """Whether ``entries`` may read what ``compact`` kept, which can say more than it holds."""
        self.planned: Container[str] | None = None
        """Units that the run can do again; None: all. What it cannot is kept, whatever is wrong."""
        self.kept: dict[str, str] = {}
        """Units that are kept although something is wrong with them, and what."""
        self._alone: set[str] = set()
        """Units on which nobody else began to work."""
        self._known = Entries()
        """What ``entries`` read last."""

    def can_redo(self, unit: str) -> bool:
        """Whether the run can do a unit again."""
        if self.thrown_away():
            return False
        return self.planned is None or is_shard(unit) or unit in self.planned

    def fenced_off(self) -> bool:
        """Whether another run has taken over, or the output was removed."""
        return self.fence is not None and newest(self) != self.fence

    def still_mine(self) -> None:
        """Before anything that was published is changed.

        Raises:
            LedgerError: another run has taken over the output, or it was removed.
        """
        if self.fenced_off():
            raise LedgerError("another run has taken over this output, or it was removed")

    def _begun(self, settings: Mapping[str, str]) -> dict[str, str] | None:
        """The settings of the run that this output is of; None: of none. A run that was refused
        before it did anything leaves an output that is nobody's."""
        begun = self.read(*LEDGER, "run.json") or None
        if begun is None or begun == dict(settings):
            return begun
        done = self.committed_ids() or self.names("release", "data") or self.thrown_away()
        return begun if done or self.names(*LEDGER, "plan") else None

    def committed_ids(self) -> set[str]:
        """Ids of the units that have an entry; reads none of them."""
        names = self.names(*LEDGER, "units")
        return {name.removesuffix(".json") for name in names if name.endswith(".json")}

    def entries(self) -> Entries:
        """All valid entries by unit id, as they are now."""
        files = sorted(self._entry_files())
        known = self._known
        if files and not known and self.trusts_copies:
            known = self._compacted()
        unread = (file for file in files if known.stamp(unit_in(file)) != file[-STAMP_BYTES:])
        self._known = known.renewed(files, self._read_rows(unread))
        return self._known

    def _entry_files(self) -> Iterator[bytes]:
        """A line for every file that may hold an entry."""
        for name, file in self.listing(*LEDGER, "units"):
            unit = name.removesuffix(".json")
            fits = file.plain and file.size <= LARGEST_DOCUMENT
            if name != unit and UNIT.fullmatch(unit) and fits:
                yield line(unit, short(file.stamp))

    def _read_rows(self, files: Iterable[bytes]) -> Iterator[Row]:
        """The valid entries among these files."""
        for some in batched(files):
            paths = [self._entry_path(unit_in(file)) for file in some]
            for file, data in zip(some, self.read_many(paths), strict=True):
                if entry := entry_of(unit_in(file), data):
                    text = entry.model_dump_json().encode()
                    digest = hashlib.sha256(data or b"").digest()
                    yield Row(entry.unit, file[-STAMP_BYTES:], text, digest)

    def _entry_path(self, unit: str) -> str:
        return self.path(*LEDGER, "units", f"{unit}.json")

    def entry(self, unit: str) -> LedgerEntry | None:
        """None if there is none, or none that holds: it must be of this unit, and name no place
        but a shard's."""
        if not UNIT.fullmatch(unit):
            return None
        place = (*LEDGER, "units", f"{unit}.json")
        if self.local:
            return entry_of(unit, self.read_bytes(*place))
        return entry_of(unit, self._read_path(self.path(*place)))  # one request rather than two

    def digests(self, units: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        """sha256 of the file of each unit's entry, as ``entries`` read it or as it is now; None
        for a unit that had no valid one when ``entries`` was called last."""
        known = self._known or self.entries()
        for some in batched(units):
            unread = [unit for unit in some if unit in known and known.digest(unit) is None]
            paths = [self._entry_path(unit) for unit in unread]
            for unit, data in zip(unread, self.read_many(paths), strict=True):
                if data is not None:
                    known.note(unit, hashlib.sha256(data).digest())
            yield from ((unit, known.digest(unit)) for unit in some)

    def compact(self) -> None:
        """Keep what ``entries`` read last in one file, which the next run reads instead of one a
        unit. It is no more than a copy: an entry in it counts while its own file is there and
        bears the stamp that it had."""
        if not self._known:
            return
        self.still_mine()
        with (
            self.writing(*COMPACTED) as file,
            pq.ParquetWriter(file, _COPIES, compression="zstd") as writer,
        ):
            for rows in self._known.rows():
                texts = [row.text.decode() for row in rows]
                columns = [[row.unit for row in rows], [row.stamp for row in rows], texts]
                writer.write_table(pa.table(columns, schema=_COPIES))

    def _compacted(self) -> Entries:
        """What ``compact`` kept; what is damaged is not there."""
        return Entries(Block.of(rows) for rows in self._compacted_rows() if rows)

    def _compacted_rows(self) -> Iterator[list[Row]]:
        """A row group at a time, in the order of the units, each once."""
        last = ""
        try:
            with self.reading(*COMPACTED) as data, pq.ParquetFile(data) as file:
                if not file.schema_arrow.equals(_COPIES):
                    return
                for number in range(file.num_row_groups):
                    group = file.metadata.row_group(number)
                    if group.num_rows > BLOCK or group.total_byte_size > _LARGEST_GROUP:
                        return
                    rows = []
                    for row in map(_row, file.read_row_group(number).to_pylist()):
                        if row is not None and row.unit > last:
                            rows.append(row)
                            last = row.unit
                    yield rows
        except (pa.ArrowException, ValueError, OSError):
            return

    def set_aside(self, reason: str, *parts: str) -> None:
        """Move a damaged document where it does no harm, and note why."""
        self.still_mine()
        target = self.path(EVIDENCE, "set_aside", f"{parts[-1]}.{secrets.token_hex(4)}")
        self.noticed.append(f"{reason}; set aside")
        with contextlib.suppress(FileNotFoundError):
            self.move(self.path(*parts), target)

    # -- what is damaged ----------------------------------------------------------------------

    def _unknown(self, settings: Mapping[str, str], whole: bool) -> list[str]:
        """Where the run's own documents are gone, only units of these settings count on; and none
        where the secret is gone, for nobody could tell whose its records are."""
        text = json.dumps(dict(settings), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        entries = self.entries().items()
        return [unit for unit, e in entries if not whole or e.settings_digest != digest]

    def _refuse_to_forget(self, name: str, settings: Mapping[str, str], whole: bool) -> None:
        lost = [unit for unit in self._unknown(settings, whole) if not self.can_redo(unit)]
        if lost:
            raise LedgerError(
                f"evidence/ledger/{name} is missing or damaged, and {len(lost)} of its units "
                "are not in the input any more and cannot be made again: put it back from a copy"
            )

    def _retire_unless_of(self, settings: Mapping[str, str], whole: bool) -> None:
        for unit in self._unknown(settings, whole):
            self.noticed.append(f"unit {unit}: the settings of its run are gone; done again")
            self.retire(unit)

    def _restored(self, entries: Entries) -> Entries:
        """Damaged entries of what cannot be made again are put back as the last run that ended
        left them."""
        names = [name.removesuffix(".json") for name in self.names(*LEDGER, "units")]
        bad = [n for n in names if n not in entries and UNIT.fullmatch(n) and not self.can_redo(n)]
        if not bad:
            return entries
        kept = self._compacted()
        for unit in bad:
            if unit not in kept:
                raise LedgerError(
                    f"the ledger entry of unit {unit} is damaged, and its source is no longer in "
                    f"the input: put evidence/ledger/units/{unit}.json back from a copy, or remove "
                    "it"
                )
        self.still_mine()
        for unit in bad:
            text = kept[unit].model_dump_json(indent=1).encode()
            self.put(text, *LEDGER, "units", f"{unit}.json")
            self.noticed.append(f"unit {unit}: its entry was damaged; put back as it was")
        return self.entries()

    # -- units that are no more -------------------------------------------------------------

    def take_back(self, unit: str, why: str) -> bool:
        """Take a unit back with which something is wrong, if the run can do it again; else keep it
        and note why.

        Returns:
            Whether it was taken back.
        """
        if not self.can_redo(unit):
            self.kept[unit] = why
            return False
        self.retire(unit)
        return True

    def retire(self, unit: str) -> None:
        """Take back what was published of a unit; the entry goes first, so that a death in
        between leaves files that count for nothing and are swept up.

        Raises:
            LedgerError: another run has taken over the output.
        """
        self.still_mine()
        entry = self.entry(unit)
        self.remove(*LEDGER, "units", f"{unit}.json")
        for shard in entry.shards.values() if entry is not None else ():
            self.remove(shard.path)

    def add_tombstone(self, tombstone: Tombstone) -> None:
        """Note that a unit was deleted upstream."""
        self.still_mine()
        self.write(tombstone.model_dump(), *LEDGER, "tombstones", f"{tombstone.unit}.json")

    def tombstones(self) -> dict[str, Tombstone]:
        """By unit id; one that is damaged is as if it were not there."""
        found = {}
        for name in self.names(*LEDGER, "tombstones"):
            stone = self.model(Tombstone, *LEDGER, "tombstones", name)
            if stone is not None and name == f"{stone.unit}.json":
                found[stone.unit] = stone
        return found

    def restamp(self, entry: LedgerEntry, source: Source) -> None:
        """Note that a unit's source has another stamp and still the same content."""
        self.still_mine()
        renewed = entry.model_copy(update={"source": source})
        self.put(renewed.model_dump_json(indent=1).encode(), *LEDGER, "units", f"{entry.unit}.json")

    def drop(self, entry: LedgerEntry, kind: Kind) -> None:
        """Remove one of a unit's shards; the unit counts on without it."""
        self.still_mine()
        left = {name: shard for name, shard in entry.shards.items() if name != kind}
        text = entry.model_copy(update={"shards": left}).model_dump_json(indent=1)
        self.put(text.encode(), *LEDGER, "units", f"{entry.unit}.json")
        self.remove(entry.shards[kind].path)

    # -- attempts ---------------------------------------------------------------------------

    def attempt(self, unit: str, apart: bool = False) -> Attempts:
        """Note that work on a unit begins; returns how often it began before, in vain.

        Args:
            apart: whether the unit is being taken apart; these attempts are counted by themselves.
        """
        mark = self._mark(unit, apart)
        if self._is_first(unit, mark):
            return Attempts()
        first = (self._read_path(self.path(*_first(unit))) or b"")[:_LONGEST_MARK]
        marks = [first.decode(errors="replace"), *self.names(*ATTEMPTS)]
        self.put(b"", *ATTEMPTS, mark)
        _, run, how = _mark_of(mark)
        runs = [found[1] for found in map(_mark_of, marks) if found[0] == unit and found[2] == how]
        return Attempts(runs.count(run), len(runs) - runs.count(run))

    def _mark(self, unit: str, apart: bool = False) -> str:
        how = "apart" if apart else "whole"
        return f"{unit}.{self.fence or 0:08d}-{how}-{secrets.token_hex(4)}"

    def _is_first(self, unit: str, mark: str) -> bool:
        """Whether nobody began to work on a unit before this mark. One request where nobody did,
        and no listing; a creation that is tried again, for a lost answer, finds itself."""
        place = _first(unit)
        if self.create_bytes(mark.encode(), *place):
            self._alone.add(unit)
        elif self._read_path(self.path(*place)) != mark.encode():
            self._alone.discard(unit)
            return False
        return True

    def forget_attempts(self, unit: str) -> None:
        """The unit failed in an orderly way: its process lives. Marks of units that are done are
        swept up at the end of the run, all at once."""
        if unit in self._alone:  # its mark is the only one: nobody need be asked
            self._alone.discard(unit)
            self.remove(*_first(unit))
            return
        self.remove_all([path for path in self.paths(*ATTEMPTS) if unit_of(path) == unit])


def entry_of(unit: str, data: bytes | None) -> LedgerEntry | None:
    """None if it does not hold, or is another unit's."""
    try:
        entry = None if data is None else LedgerEntry.model_validate_json(data)
    except (ValidationError, RecursionError):
        return None
    return entry if entry is not None and entry.unit == unit else None


def _row(kept: dict[str, Any]) -> Row | None:
    """Of what ``compact`` kept; None if it does not hold."""
    if None in kept.values():
        return None
    entry = entry_of(kept["unit"], kept["entry"].encode())
    if entry is None:
        return None
    return Row(entry.unit, kept["stamp"], entry.model_dump_json().encode())


def _first(unit: str) -> tuple[str, ...]:
    """The mark of the first attempt; it holds the name that it would have as a later one."""
    return (*ATTEMPTS, f"{unit}.first")


def unit_of(mark: str) -> str:
    return os.path.basename(mark).rpartition(".")[0]


def _mark_of(path: str) -> tuple[str, str, str]:
    """Unit, run and kind of an attempt; the last two are empty if the name is not one of ours."""
    unit, _, rest = os.path.basename(path).rpartition(".")
    run, _, how = rest.rpartition("-")[0].partition("-")
    return unit, run, how
