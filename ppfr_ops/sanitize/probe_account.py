"""The account of probes: how often whose photos were published into a release's world.

Each probe tells anyone who holds it which virtual person somebody is. So probes are counted by
person in the owner's evidence, before any is made: whatever dies in between has counted and not
made, never the other way round. The log is a hash chain, as the vault's is, and names
pseudonyms only.

    OUTPUT/evidence/probes/audit/NUMBER.json
"""

from collections import Counter
from collections.abc import Mapping

from ppfr_ops.errors import UserError
from ppfr_ops.store.files import Files
from ppfr_ops.store.folder import EVIDENCE
from ppfr_ops.vault import audit

BUDGET = 20
"""Photos of a person, over all time, unless the owner says otherwise."""

_WHAT = "probe"


class ProbeAccount:
    """Of an output."""

    def __init__(self, output: str) -> None:
        self._files = Files(f"{output.rstrip('/')}/{EVIDENCE}/probes")

    def spent(self) -> Counter[str]:
        """Probes so far, by pseudonym.

        Raises:
            AuditError: the log was changed.
        """
        found: Counter[str] = Counter()
        for entry in audit.read(self._files):
            found[entry["which"]] += int(entry["outcome"])
        return found

    def charge(self, asked: Mapping[str, int], budget: int = BUDGET) -> None:
        """Count probes that are about to be made. Returns when they are written down.

        Args:
            asked: photos by pseudonym.

        Raises:
            UserError: a person would have more than the budget; then none is to be made.
            AuditError: the log was changed.
        """
        self._check({name: self.spent()[name] + count for name, count in asked.items()}, budget)
        for name, count in sorted(asked.items()):
            audit.append(self._files, audit.login(), _WHAT, name, str(count))
        # Somebody else may have counted at the same time.
        self._check({name: self.spent()[name] for name in asked}, budget)

    @staticmethod
    def _check(totals: Mapping[str, int], budget: int) -> None:
        over = [total for total in totals.values() if total > budget]
        if over:
            raise UserError(
                f"{len(over)} of {len(totals)} people would have more probes than the budget of "
                f"{budget} a person ({max(over)}); --budget allows more, and evidence/probes says "
                "what was made"
            )
