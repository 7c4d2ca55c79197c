"""What the publication of every person has cost so far: an account that only grows.

A unit's charge is written before the unit is committed, so whatever dies in between has spent and
not published, never the other way round. Nothing takes a charge back, not a new run, not
``--overwrite``, not a unit that is withdrawn: what was published once may have been copied.

    PLACE/charges/NUMBER.json    one unit, committed or not

Numbers have no gaps. Anyone who charges has read all charges so far, checks what it wants against
them, and creates the next number, which succeeds for one only; who comes second reads what the
first wrote and checks anew. So no two runs together spend what each alone may, however long one of
them slept, and there is no lease to lose. A charge that was written although the store's answer was
lost is known again by its name.

Charges are by pseudonym. A damaged charge stops the account: it could be anybody's.
"""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

from ppfr_ops.privacy import Loss
from ppfr_ops.store.folder import EVIDENCE, Folder, LedgerError

HERE = (EVIDENCE, "ledger", "account")
"""The account of an output that shares none with others."""
_CHARGES = "charges"
_THREADS = 8
_DIGITS = 12


class Charge(BaseModel):
    """Of one unit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pure: float = Field(ge=0, allow_inf_nan=False)
    square: float = Field(ge=0, allow_inf_nan=False)
    """``Loss`` of one record."""
    delta: float = Field(gt=0, lt=1)
    """At which epsilon is told."""
    records: dict[str, int]
    """Published ones, by pseudonym."""
    name: str | None = None
    """Of this copy of the work on a unit, unique; as ``release`` and ``unit`` null in charges of
    earlier versions, whose files have it as their name."""
    release: str | None = None
    unit: str | None = None


@dataclass
class Balance:
    """What everybody has spent."""

    losses: dict[str, Loss] = field(default_factory=dict)
    """By pseudonym."""
    records: Counter[str] = field(default_factory=Counter)
    delta: float = 1e-6
    """The smallest of all charges."""
    photos: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    """Records by release and unit, then by pseudonym, of the last copy of the work on it."""
    charges: int = 0

    def add(self, charge: Charge) -> None:
        """Count a charge."""
        self.delta = min(self.delta, charge.delta) if self.charges else charge.delta
        self.charges += 1
        one = Loss(charge.pure, charge.square)
        for pseudonym, count in charge.records.items():
            self.losses[pseudonym] = self.losses.get(pseudonym, Loss()) + one.times(count)
            self.records[pseudonym] += count
        if charge.release is not None and charge.unit is not None:
            self.photos[charge.release, charge.unit] = charge.records

    def photos_with(self, charge: Charge) -> Counter[str]:
        """Records in the charge's release if it is made, by those of its pseudonyms."""
        total = Counter(charge.records)
        for (release, unit), records in self.photos.items():
            if release == charge.release and unit != charge.unit:
                total.update({who: records.get(who, 0) for who in charge.records})
        return total

    def epsilon(self, pseudonym: str, more: Loss | None = None) -> float:
        """Spent, and ``more``."""
        loss = self.losses.get(pseudonym, Loss()) + (more or Loss())
        return loss.epsilon(self.delta)


class Account:
    """An account in a folder.

    Args:
        folder: of the output, or of the account that several outputs share.
        place: in it.
    """

    def __init__(self, folder: Folder, place: tuple[str, ...] = HERE) -> None:
        self.folder = folder
        self.place = (*place, _CHARGES)
        self._lock = threading.Lock()
        self._next: int | None = None
        self._known: Balance | None = None

    def charge(
        self, charge: Charge, allowed: Callable[[Balance, Charge], None] | None = None
    ) -> None:
        """Write a charge down. Returns when it is safe.

        Args:
            charge: with its name.
            allowed: raises if the charge must not be made, given everything that was charged before
                it.

        Raises:
            LedgerError: an earlier charge cannot be read.
        """
        if not charge.records:
            return
        with self._lock:
            if allowed is not None and self._known is None:
                self._known, self._next = self._read_all()
            if self._next is None:
                self._next = _after(self._names())
            while True:
                if allowed is not None and self._known is not None:
                    allowed(self._known, charge)
                path = (*self.place, _file(self._next))
                made = self.folder.create(charge.model_dump(), *path)
                other = charge if made else self._read(path[-1])
                self._next += 1
                if self._known is not None:
                    self._known.add(other)
                if other.name == charge.name:
                    return

    def balance(self) -> Balance:
        """Everything that was ever charged.

        Raises:
            LedgerError: a charge cannot be read.
        """
        return self._read_all()[0]

    def _names(self) -> list[str]:
        return sorted(name for name in self.folder.names(*self.place) if name.endswith(".json"))

    def _read_all(self) -> tuple[Balance, int]:
        """The balance, and the next number."""
        names = self._names()
        # A list that was begun before the last charges may have the later one of them only; a
        # charge that is truly gone cannot be read.
        names = sorted({*names, *(_file(number) for number in range(1, _after(names)))})
        with ThreadPoolExecutor(_THREADS) as pool:
            charges = list(pool.map(self._read, names))
        total = Balance()
        for charge in charges:
            total.add(charge)
        return total, _after(names)

    def _read(self, name: str) -> Charge:
        found = self.folder.model(Charge, *self.place, name)
        if found is None:
            raise LedgerError(
                f"the privacy account has a damaged charge, or lost it, {name!a}: nobody can say "
                "any more who has spent what"
            )
        return found


def _file(number: int) -> str:
    return f"{number:0{_DIGITS}}.json"


def _after(names: list[str]) -> int:
    """The number after the last."""
    numbers = [int(n[:_DIGITS]) for n in names if len(n) == _DIGITS + 5 and n[:_DIGITS].isdecimal()]
    return max(numbers, default=0) + 1
