"""Who may ask how often, and a log of it that cannot be changed unnoticed.

The log is the account: a line is appended, flushed and counted before a query is answered, and the
counts of a server that starts come from the log. Every line holds the hash of the line before it,
so a changed, inserted or removed line breaks the chain; a log cut off at its end is noticed by
whoever kept a later head (``AuditLog.head``).
"""

import hashlib
import json
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from .errors import MatchError, Reason, Refused

_START = "0" * 64


class MatchPolicy(BaseModel):
    """What the owner of a gallery allows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float = Field(ge=-1, le=1, description="cosine from which on two templates match")
    budget: int = Field(100, ge=0, description="queries a client may ask, ever")
    record_budget: int = Field(
        20, ge=0, description="verifications of one name, ever, all clients together"
    )
    per_minute: int = Field(30, ge=1, description="queries a client may begin in a minute")
    reveal: str = Field("bit", pattern="^(bit|id)$", description="what an identification tells")
    modes: tuple[str, ...] = Field(("verify", "identify"), description="what may be asked")


class AuditLog:
    """JSON lines, appended and chained by sha256.

    Raises:
        MatchError: the file's chain is broken.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.head, self.lines = path, _START, 0
        self._lock = threading.Lock()
        self.queries: Counter[str] = Counter()
        self.verifications: Counter[str] = Counter()
        if path.exists():
            whole, _, torn = path.read_bytes().rpartition(b"\n")
            if torn:  # a death or a full disk; the query that it is about got no answer
                os.truncate(path, len(whole) + bool(whole))
            for line in whole.decode("utf-8", "replace").splitlines():
                self._take(line)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def _take(self, line: str) -> None:
        try:
            entry = json.loads(line)
            digest = entry.pop("hash")
            linked = entry["previous"] == self.head and entry["line"] == self.lines
        except (ValueError, KeyError, AttributeError, TypeError):
            raise MatchError(f"{self.path.name}: line {self.lines + 1} is broken") from None
        if not linked or digest != _digest(entry):
            raise MatchError(f"{self.path.name}: the chain breaks at line {self.lines + 1}")
        self._count(entry)
        self.head, self.lines = digest, self.lines + 1

    def _count(self, entry: dict[str, object]) -> None:
        if entry["event"] == "query":
            self.queries[str(entry["client"])] += 1
            if entry["mode"] == "verify":
                self.verifications[str(entry["name"])] += 1

    def append(self, **fields: object) -> None:
        """Write a line and wait until it is on the disk."""
        entry = {"line": self.lines, "time": round(time.time(), 3), **fields, "previous": self.head}
        entry["hash"] = digest = _digest(entry)
        os.write(self._file, (json.dumps(entry, sort_keys=True) + "\n").encode())
        os.fsync(self._file)
        self._count(entry)
        self.head, self.lines = digest, self.lines + 1

    def close(self) -> None:
        os.close(self._file)


def _digest(entry: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()


class Accounts:
    """Budgets and rates of a policy over an audit log. Safe to use from several threads."""

    def __init__(
        self, policy: MatchPolicy, log: AuditLog, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.policy, self.log, self._clock = policy, log, clock
        self._recent: dict[str, deque[float]] = {}
        self._lock = threading.Lock()

    def spend(self, client: str, mode: str, name: str) -> None:
        """Count a query, before anything is computed for it.

        Args:
            name: sha256 of the name asked for, hex; empty for an identification.

        Raises:
            Refused: over a budget or the rate, or a mode that is not allowed. That is logged too.
        """
        with self._lock:
            reason = self._refusal(client, mode, name)
            if reason is not None:
                self.log.append(event="refused", client=client, mode=mode, reason=reason.name)
                raise Refused(reason)
            self._recent[client].append(self._clock())
            self.log.append(event="query", client=client, mode=mode, name=name)

    def _refusal(self, client: str, mode: str, name: str) -> Reason | None:
        recent, now = self._recent.setdefault(client, deque()), self._clock()
        while recent and now - recent[0] >= 60:
            recent.popleft()
        if mode not in self.policy.modes:
            return Reason.MODE
        if self.log.queries[client] >= self.policy.budget:
            return Reason.BUDGET
        if mode == "verify" and self.log.verifications[name] >= self.policy.record_budget:
            return Reason.RECORD_BUDGET
        if len(recent) >= self.policy.per_minute:
            return Reason.RATE
        return None
