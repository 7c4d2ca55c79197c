"""What the publication of every person has cost so far: an account that only grows.

A unit's charge is a file of its own, written before the unit is committed, so whatever dies in
between has spent and not published, never the other way round. Nothing takes a charge back, not a
new run, not ``--overwrite``, not a unit that is withdrawn: what was published once may have been
copied.

    PLACE/charges/RELEASE-COPY.json    one unit, committed or not

Charges are by pseudonym. A damaged charge stops the account: it could be anybody's.
"""

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ppfr_ops.privacy import Loss
from ppfr_ops.store.folder import EVIDENCE, Folder, LedgerError

HERE = (EVIDENCE, "ledger", "account")
"""The account of an output that shares none with others."""
_CHARGES = "charges"
_THREADS = 8


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


@dataclass
class Balance:
    """What everybody has spent."""

    losses: dict[str, Loss] = field(default_factory=dict)
    """By pseudonym."""
    records: Counter[str] = field(default_factory=Counter)
    delta: float = 1e-6
    """The smallest of all charges."""

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

    def charge(self, name: str, loss: Loss, delta: float, records: Mapping[str, int]) -> None:
        """Write a charge down. Returns when it is safe.

        Args:
            name: of this copy of a unit, unique.

        Raises:
            LedgerError: there is one of that name.
        """
        if not records:
            return
        made = Charge(pure=loss.pure, square=loss.square, delta=delta, records=dict(records))
        if not self.folder.create(made.model_dump(), *self.place, f"{name}.json"):
            raise LedgerError("the same work was charged twice")

    def balance(self) -> Balance:
        """Everything that was ever charged.

        Raises:
            LedgerError: a charge cannot be read.
        """
        names = [name for name in self.folder.names(*self.place) if name.endswith(".json")]
        with ThreadPoolExecutor(_THREADS) as pool:
            charges = list(pool.map(self._read, sorted(names)))
        total = Balance()
        if charges:
            total.delta = min(charge.delta for charge in charges)
        for charge in charges:
            one = Loss(charge.pure, charge.square)
            for pseudonym, count in charge.records.items():
                before = total.losses.get(pseudonym, Loss())
                total.losses[pseudonym] = before + one.times(count)
                total.records[pseudonym] += count
        return total

    def _read(self, name: str) -> Charge:
        try:
            return Charge.model_validate(self.folder.read(*self.place, name))
        except ValidationError:
            raise LedgerError(
                f"the privacy account has a damaged charge, {name!a}: nobody can say any more who "
                "has spent what"
            ) from None
