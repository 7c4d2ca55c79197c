"""Who may ask how often, and a log of it that cannot be changed unnoticed.

The log is the account (``store.chain``): a line is appended, flushed and counted before a query is
answered, and every count comes from the log. Servers of one gallery share it. A copy of the
gallery's folder is another account.
"""

import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ..options import option
from ..store.chain import ChainedLog
from .errors import MatchError, Reason, Refused


class MatchPolicy(BaseModel):
    """What the owner of a gallery allows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float = option(
        ..., "Cosine from which on two templates match; every FR model has its own.", ge=-1, le=1
    )
    budget: int = option(100, "Queries a client may ask, ever.", ge=0)
    record_budget: int = option(
        20,
        "Questions that may concern one person, ever, all clients together: verifications of the "
        "name, and every identification.",
        ge=0,
    )
    per_minute: int = option(30, "Queries a client may begin in a minute.", ge=1)
    reveal: Literal["bit", "id"] = option(
        "bit", "What an identification tells: whether, or which records."
    )
    modes: tuple[Literal["verify", "identify"], ...] = option(
        ("verify", "identify"), "What may be asked. Repeatable.", flag="--mode"
    )


class AuditLog(ChainedLog):
    """The log of a gallery.

    Raises:
        MatchError: the file's chain is broken.
    """

    error = MatchError

    def __init__(self, path: Path) -> None:
        self.queries: Counter[str] = Counter()
        self.verifications: Counter[str] = Counter()
        self.identifications = 0
        self.refusals: Counter[tuple[str, str]] = Counter()
        self.recent: dict[str, deque[float]] = {}
        super().__init__(path)

    def count(self, entry: dict[str, Any]) -> None:
        client = str(entry.get("client", ""))
        if entry["event"] == "refused":
            self.refusals[client, str(entry["reason"])] = int(entry.get("times", 1))
        if entry["event"] != "query":
            return
        self.queries[client] += 1
        self.recent.setdefault(client, deque()).append(float(entry["time"]))
        if entry["mode"] == "verify":
            self.verifications[str(entry["name"])] += 1
        else:
            self.identifications += 1

    def refuse(self, client: str, mode: str, reason: Reason) -> None:
        """Count a refusal; the first, second, fourth, eighth … of a kind is written down."""
        key = client, reason.name
        times = self.refusals[key] + 1
        if times & (times - 1) == 0:
            self.append(event="refused", client=client, mode=mode, reason=reason.name, times=times)
        self.refusals[key] = times


class Accounts:
    """Budgets and rates of a policy over an audit log. For several threads and processes."""

    def __init__(
        self, policy: MatchPolicy, log: AuditLog, clock: Callable[[], float] = time.time
    ) -> None:
        self.policy, self.log, self._clock = policy, log, clock

    def spend(self, client: str, mode: str, name: str) -> None:
        """Count a query, before anything is computed for it.

        Args:
            name: sha256 of the name asked for, hex; empty for an identification.

        Raises:
            Refused: over a budget or the rate, or a mode that is not allowed.
            MatchError: the log is broken or cannot be written.
        """
        with self.log.held():
            reason = self._refusal(client, mode, name)
            if reason is not None:
                self.log.refuse(client, mode, reason)
                raise Refused(reason)
            now = round(self._clock(), 3)
            self.log.append(event="query", client=client, mode=mode, name=name, time=now)

    def _refusal(self, client: str, mode: str, name: str) -> Reason | None:
        log, now = self.log, self._clock()
        recent = log.recent.get(client, deque())
        while recent and now - recent[0] >= 60:
            recent.popleft()
        if mode not in self.policy.modes:
            return Reason.MODE
        if log.queries.get(client, 0) >= self.policy.budget:
            return Reason.BUDGET
        # an identification may tell something of anybody: it counts for every name
        most = max(log.verifications.values(), default=0)
        told = log.verifications.get(name, 0) if mode == "verify" else most
        if told + log.identifications >= self.policy.record_budget:
            return Reason.RECORD_BUDGET
        if len(recent) >= self.policy.per_minute:
            return Reason.RATE
        return None
