"""What the ledger of an output says: entries, tombstones, attempts, the secret of the ids.

Nothing that is read here is believed: a document that is damaged, or says what it must not, counts
as not there.
"""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Collection
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from ppfr_ops.contracts.ledger import UNIT, LedgerEntry, Source, Tombstone
from ppfr_ops.store.folder import EVIDENCE, LARGEST_DOCUMENT, Folder, LedgerError
from ppfr_ops.store.ids import Ids
from ppfr_ops.store.shards import read_table

LEDGER = (EVIDENCE, "ledger")
COMPACTED = (*LEDGER, "entries.parquet")
ATTEMPTS = (*LEDGER, "attempts")

_LONGEST_MARK = 200


@dataclass(frozen=True)
class Attempts:
    """How often work on a unit began before, in vain: it ended with the death of its process."""

    here: int = 0
    """In this run, whose driver lives, so it was the worker alone that died."""
    earlier: int = 0
    """In runs that are over. Driver and workers may have died together, of whatever it was, which
    says nothing about the unit."""


class Documents(Folder):
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
        self._ids: Ids | None = None
        self._alone: set[str] = set()
        """Units on which nobody else began to work."""
        self._known: dict[str, tuple[str, LedgerEntry]] = {}
        """What ``entries`` read last, each with the stamp of its file."""
        self._read_here: dict[str, bytes] = {}
        """sha256 of those that were read from their own files."""

    def committed_ids(self) -> set[str]:
        """Ids of the units that have an entry; reads none of them."""
        names = self.names(*LEDGER, "units")
        return {name.removesuffix(".json") for name in names if name.endswith(".json")}

    def entries(self) -> dict[str, LedgerEntry]:
        """All valid entries by unit id."""
        files = self.files(*LEDGER, "units")
        known = self._compacted() if files else {}
        found, unread = {}, []
        for name in sorted(files):
            unit = name.removesuffix(".json")
            if name == unit or not UNIT.fullmatch(unit):
                continue
            stamp, entry = known.get(unit, ("", None))
            if entry is not None and stamp == files[name].stamp:
                found[unit] = entry
            elif files[name].size <= LARGEST_DOCUMENT:
                unread.append(unit)
        paths = [self.path(*LEDGER, "units", f"{unit}.json") for unit in unread]
        for unit, data in zip(unread, self.read_many(paths), strict=True):
            if entry := _entry(unit, data):
                found[unit] = entry
                self._read_here[unit] = hashlib.sha256(data or b"").digest()
        self._known = {unit: (files[f"{unit}.json"].stamp, entry) for unit, entry in found.items()}
        return dict(sorted(found.items()))

    def entry(self, unit: str) -> LedgerEntry | None:
        """None if there is none, or none that holds: it must be of this unit, and name no place
        but a shard's."""
        if not UNIT.fullmatch(unit):
            return None
        place = (*LEDGER, "units", f"{unit}.json")
        if self.local:
            return _entry(unit, self.read_bytes(*place))
        return _entry(unit, self._read_path(self.path(*place)))  # one request rather than two

    def digests(self, units: Collection[str]) -> dict[str, str]:
        """sha256, hex, of the files of entries, as ``entries`` read them or as they are now;
        nothing for a unit that has none."""
        place = (*LEDGER, "units")
        found = {unit: self._read_here[unit].hex() for unit in units if unit in self._read_here}
        files = self.files(*place) if len(found) < len(units) else {}
        unread = [
            unit
            for unit in units
            if unit not in found
            and (file := files.get(f"{unit}.json")) is not None
            and file.size <= LARGEST_DOCUMENT
        ]
        paths = [self.path(*place, f"{unit}.json") for unit in unread]
        for unit, data in zip(unread, self.read_many(paths), strict=True):
            if data is not None:
                found[unit] = hashlib.sha256(data).hexdigest()
        return found

    def compact(self) -> None:
        """Keep what ``entries`` read last in one file, which the next run reads instead of one a
        unit. It is no more than a copy: an entry in it counts while its own file is there and
        bears the stamp that it had."""
        if not self._known:
            return
        units, pairs = zip(*sorted(self._known.items()), strict=True)
        table = pa.table(
            {
                "unit": pa.array(units, pa.string()),
                "stamp": pa.array([stamp for stamp, _ in pairs], pa.string()),
                "entry": pa.array([entry.model_dump_json() for _, entry in pairs], pa.string()),
            }
        )
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        self.put(sink.getvalue().to_pybytes(), *COMPACTED)

    def _compacted(self) -> dict[str, tuple[str, LedgerEntry]]:
        """Stamp and entry by unit, as ``compact`` kept them; what is damaged is not there."""
        if self._known:
            return self._known
        data = self.read_bytes(*COMPACTED)
        if data is None:
            return {}
        try:
            table = read_table(data, ["unit", "stamp", "entry"])
            columns = [table[name].cast(pa.string()).to_pylist() for name in table.column_names]
        except (pa.ArrowException, KeyError, ValueError, OSError):
            return {}
        found = {}
        for unit, stamp, text in zip(*columns, strict=True):
            entry = None if text is None else _entry(str(unit), text.encode())
            if entry is not None and stamp:
                found[entry.unit] = (stamp, entry)
        return found

    def set_aside(self, reason: str, *parts: str) -> None:
        """Move a damaged document where it does no harm, and note why."""
        target = self.path(EVIDENCE, "set_aside", f"{parts[-1]}.{secrets.token_hex(4)}")
        self.noticed.append(f"{reason}; set aside")
        with contextlib.suppress(FileNotFoundError):
            self.move(self.path(*parts), target)

    @property
    def ids(self) -> Ids:
        """What this output calls its records outside.

        Raises:
            LedgerError: the secret is not there, or damaged.
        """
        if self._ids is None:
            secret = self.secret()
            if secret is None:
                raise LedgerError("the secret of the ids is gone: was the output removed?")
            self._ids = Ids(secret)
        return self._ids

    def secret(self) -> bytes | None:
        """Of the ids; None if it is not there, or damaged."""
        document = self.read(*LEDGER, "secret.json")
        try:
            secret = bytes.fromhex(str((document or {})["secret"]))
        except (KeyError, ValueError):
            return None
        return secret if len(secret) == 32 else None

    # -- units that are no more -------------------------------------------------------------

    def retire(self, unit: str) -> None:
        """Take back what was published of a unit; the entry goes first, so that a death in
        between leaves files that count for nothing and are swept up."""
        entry = self.entry(unit)
        self.remove(*LEDGER, "units", f"{unit}.json")
        for shard in entry.shards.values() if entry is not None else ():
            self.remove(shard.path)

    def bury(self, tombstone: Tombstone) -> None:
        """Note that a unit was deleted upstream."""
        self.write(tombstone.model_dump(), *LEDGER, "tombstones", f"{tombstone.unit}.json")

    def tombstones(self) -> dict[str, Tombstone]:
        """By unit id; one that is damaged is as if it were not there."""
        found = {}
        for name in self.names(*LEDGER, "tombstones"):
            try:
                stone = Tombstone.model_validate(self.read(*LEDGER, "tombstones", name))
            except ValidationError:
                continue
            if name == f"{stone.unit}.json":
                found[stone.unit] = stone
        return found

    def restamp(self, entry: LedgerEntry, source: Source) -> None:
        """Note that a unit's source has another stamp and still the same content."""
        renewed = entry.model_copy(update={"source": source})
        self.put(renewed.model_dump_json(indent=1).encode(), *LEDGER, "units", f"{entry.unit}.json")

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


def _entry(unit: str, data: bytes | None) -> LedgerEntry | None:
    """None if it does not hold, or is another unit's."""
    try:
        entry = None if data is None else LedgerEntry.model_validate_json(data)
    except (ValidationError, RecursionError):
        return None
    return entry if entry is not None and entry.unit == unit else None


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
