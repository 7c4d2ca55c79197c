"""A run and its vault: is it for this output, and what in it is published no more?"""

from collections.abc import Mapping

from ppfr_ops.contracts.ledger import LedgerEntry
from ppfr_ops.errors import UserError
from ppfr_ops.sanitize.job import Job
from ppfr_ops.store.ledger import LEDGER, Ledger
from ppfr_ops.vault import Vault


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


def sweep_vault(job: Job, ledger: Ledger) -> int:
    """Remove from the vault what is not published, or no longer; returns how many units."""
    if job.vault is None:
        return 0
    return Vault(job.vault.url).sweep(_Published(ledger.entries()))


class _Published:
    """Unit and copy of every entry."""

    def __init__(self, entries: Mapping[str, LedgerEntry]) -> None:
        self._entries = entries

    def __contains__(self, found: object) -> bool:
        unit, copy = found if isinstance(found, tuple) else ("", "")
        entry = self._entries.get(unit)
        return entry is not None and entry.copy_id == copy
