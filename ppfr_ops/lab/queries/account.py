"""The query account: what was asked of a recogniser, and that it stayed within the budget.

A query is counted, and the line is on the disk (``store.chain``), *before* its request is sent: no
crash, retry or second process spends unseen. Who is killed between counting and sending has counted
one query that nobody received, never the other way round. Against a log that is cut off at its end,
keep its head (the card of a surrogate has it).
"""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

from ppfr_ops.errors import UserError
from ppfr_ops.store.chain import ChainedLog


class BudgetSpent(UserError):
    """The account allows no further query."""

    exit_code = 1


class QueryAccount(ChainedLog):
    """The account in a file. Threads and processes may share it.

    Args:
        path: of the file; made where it is not there. It names contents by their digest: it is
            the owner's, and no part of a release.
        endpoint: what is asked, in a word; its digest is kept, and another one is refused.
        budget: queries that may be counted, ever. Another budget than before is noted.

    Raises:
        UserError: the chain is broken, or the account is of another endpoint.
    """

    def __init__(self, path: Path, endpoint: str, budget: int) -> None:
        self.spent, self.budget = 0, 0
        self.failures: Counter[str] = Counter()
        self._endpoint: str | None = None
        super().__init__(path)
        digest = hashlib.sha256(endpoint.encode()).hexdigest()
        with self.held():
            if self._endpoint not in (None, digest):
                raise UserError(f"{path.name} is the account of another endpoint")
            if self._endpoint is None:
                self.append(event="open", endpoint=digest)
            if self.budget != budget:
                self.append(event="budget", queries=budget)

    @property
    def left(self) -> int:
        """Queries that may still be asked, as far as this object has read."""
        return max(0, self.budget - self.spent)

    def spend(self, kind: str, content: str) -> int:
        """Count a query; it may be sent when this returns.

        Args:
            kind: ``template`` or ``score``.
            content: sha256 of what is asked, hex.

        Returns:
            Its number in the account, from 1.

        Raises:
            BudgetSpent: it would be one too many; nothing is counted.
        """
        with self.held():
            if self.spent >= self.budget:
                raise BudgetSpent(f"the budget of {self.budget:,} queries is spent")
            self.append(event="query", kind=kind, content=content)
            return self.spent

    def failed(self, number: int, reason: str) -> None:
        """Note that the query of this number brought no answer; it stays counted."""
        with self.held():
            self.append(event="failed", number=number, reason=reason)

    def refresh(self) -> None:
        """Read what others appended."""
        with self.held():
            pass

    def count(self, entry: dict[str, Any]) -> None:
        event = entry["event"]
        if event == "query":
            self.spent += 1
        elif event == "failed":
            self.failures[str(entry["reason"])] += 1
        elif event == "budget":
            self.budget = int(entry["queries"])
        elif event == "open":
            self._endpoint = str(entry["endpoint"])
