"""A run and its vault: is it for this output, and what in it is published no more?"""

from collections.abc import Container, Mapping

from ppfr_ops.contracts.ledger import LedgerEntry
from ppfr_ops.errors import UserError
from ppfr_ops.sanitize.job import Job
from ppfr_ops.source.plan import ids_of
from ppfr_ops.store.entries import HashSet
from ppfr_ops.store.ledger import LEDGER, Ledger
from ppfr_ops.vault import Vault

STRAY = "its originals are in the vault, and it is neither published nor in the input any more"
"""Why a unit is kept."""


def check_vault(job: Job, ledger: Ledger) -> None:
    """Find out whether the job's vault is for its output; changes nothing.

    Raises:
        UserError: it holds originals of something else.
    """
    if job.vault is None:
        return
    vault = Vault(job.vault.url)
    begun = ledger.read(*LEDGER, "run.json") is not None and not job.options.overwrite
    if not begun and vault.describe() is not None and vault.copies():
        raise UserError(
            "the vault holds originals of an earlier run; give another --vault, for this run "
            "would remove what is not published by it"
        )


def sweep_vault(
    job: Job,
    ledger: Ledger,
    entries: Mapping[str, LedgerEntry] | None = None,
    withdrawn: Container[str] = (),
) -> int:
    """At the end of a run, remove from the vault what is published as another copy now, or was
    withdrawn. What is neither published nor to be done is kept, and noted in ``ledger.kept``.

    Args:
        entries: all that are valid; None: as they are now.
        withdrawn: units that are taken back because the input has others in their place.

    Returns:
        How many copies were removed.
    """
    if job.vault is None:
        return 0
    wanted = _Wanted(job, ledger, ledger.entries() if entries is None else entries, withdrawn)
    gone = Vault(job.vault.url, job.vault.fence).sweep(wanted)
    for unit in wanted.strays:
        ledger.kept.setdefault(unit, STRAY)
    return gone


class _Wanted:
    """Unit and copy of what stays in the vault."""

    def __init__(
        self,
        job: Job,
        ledger: Ledger,
        entries: Mapping[str, LedgerEntry],
        withdrawn: Container[str],
    ) -> None:
        self._entries, self._withdrawn = entries, withdrawn
        self._planned = HashSet(ids_of(job.plan.units))
        self._stones = ledger.tombstones()
        self._all_goes = job.options.propagate_deletions
        self.strays: set[str] = set()

    def __contains__(self, found: object) -> bool:
        unit, copy = found if isinstance(found, tuple) else ("", "")
        entry = self._entries.get(unit)
        if unit in self._withdrawn:
            return False
        if entry is not None:
            return entry.copy_id == copy
        if unit in self._planned:
            return True  # until it is done
        if self._all_goes or (unit in self._stones and self._stones[unit].removed):
            return False
        self.strays.add(unit)
        return True
