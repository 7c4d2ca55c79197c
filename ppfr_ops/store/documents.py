"""What the ledger of an output says: entries, tombstones, attempts, the secret of the ids.

Nothing that is read here is believed: a document that is damaged, or says what it must not, counts
as not there.
"""

import contextlib
import os
import secrets
from dataclasses import dataclass

from pydantic import ValidationError

from ppfr_ops.contracts.ledger import UNIT, LedgerEntry, Source, Tombstone
from ppfr_ops.store.folder import EVIDENCE, Folder, LedgerError
from ppfr_ops.store.ids import Ids

LEDGER = (EVIDENCE, "ledger")


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

    def committed_ids(self) -> set[str]:
        """Ids of the units that have an entry; reads none of them."""
        names = self.names(*LEDGER, "units")
        return {name.removesuffix(".json") for name in names if name.endswith(".json")}

    def entries(self) -> dict[str, LedgerEntry]:
        """All valid entries by unit id."""
        found = {}
        for unit in sorted(self.committed_ids()):
            if entry := self.entry(unit):
                found[unit] = entry
        return found

    def entry(self, unit: str) -> LedgerEntry | None:
        """None if there is none, or none that holds: it must be of this unit, and name no place
        but a shard's."""
        if not UNIT.fullmatch(unit):
            return None
        raw = self.read(*LEDGER, "units", f"{unit}.json")
        try:
            entry = None if raw is None else LedgerEntry.model_validate(raw)
        except (ValidationError, RecursionError):
            return None
        return entry if entry is not None and entry.unit == unit else None

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
        run, how = f"{self.fence or 0:08d}", "apart" if apart else "whole"
        marks = [_mark_of(path) for path in self.paths(*LEDGER, "attempts")]
        runs = [mark[1] for mark in marks if mark[0] == unit and mark[2] == how]
        self.put(b"", *LEDGER, "attempts", f"{unit}.{run}-{how}-{secrets.token_hex(4)}")
        return Attempts(runs.count(run), len(runs) - runs.count(run))

    def forget_attempts(self, unit: str) -> None:
        """The unit is done, or failed in an orderly way: its process lives."""
        for path in self.paths(*LEDGER, "attempts"):
            if unit_of(path) == unit:
                self.remove_path(path)


def unit_of(mark: str) -> str:
    return os.path.basename(mark).rpartition(".")[0]


def _mark_of(path: str) -> tuple[str, str, str]:
    """Unit, run and kind of an attempt; the last two are empty if the name is not one of ours."""
    unit, _, rest = os.path.basename(path).rpartition(".")
    run, _, how = rest.rpartition("-")[0].partition("-")
    return unit, run, how
