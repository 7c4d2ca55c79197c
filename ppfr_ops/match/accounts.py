"""Who may ask how often, and a log of it that cannot be changed unnoticed.

The log is the account: a line is appended, flushed and counted before a query is answered, and
every count comes from the log. Servers of one gallery share it: a file lock is held from reading
what the others wrote to the end of the line. Every line holds the hash of the line before it, so a
changed, inserted or removed line breaks the chain; a log cut off at its end is noticed by anyone
who kept a later head (``AuditLog.head``). A copy of the gallery's folder is another account.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
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
        20,
        ge=0,
        description="questions that may concern one person, ever, all clients together: "
        "verifications of the name, and every identification",
    )
    per_minute: int = Field(30, ge=1, description="queries a client may begin in a minute")
    reveal: str = Field("bit", pattern="^(bit|id)$", description="what an identification tells")
    modes: tuple[str, ...] = Field(("verify", "identify"), description="what may be asked")


class AuditLog:
    """JSON lines, appended and chained by sha256. For several threads and processes.

    Raises:
        MatchError: the file's chain is broken.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.head, self.lines = path, _START, 0
        self._lock, self._depth, self._offset = threading.RLock(), 0, 0
        self.queries: Counter[str] = Counter()
        self.verifications: Counter[str] = Counter()
        self.identifications = 0
        self.refusals: Counter[tuple[str, str]] = Counter()
        self.recent: dict[str, deque[float]] = {}
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with self.held():
            pass

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Alone with the log, and with all that others have written in it counted."""
        with self._lock:
            outermost, self._depth = self._depth == 0, self._depth + 1
            try:
                if outermost:
                    fcntl.flock(self._file, fcntl.LOCK_EX)
                    self._catch_up()
                yield
            finally:
                self._depth -= 1
                if outermost:
                    fcntl.flock(self._file, fcntl.LOCK_UN)

    def _catch_up(self) -> None:
        size = os.fstat(self._file).st_size
        if size < self._offset:
            raise MatchError(f"{self.path.name} was cut off while it was in use")
        data = bytearray()
        while piece := os.pread(self._file, 1 << 24, self._offset + len(data)):
            data += piece
        whole, newline, torn = data.rpartition(b"\n")
        if torn:  # a death or a full disk; the query that it is about got no answer
            os.ftruncate(self._file, self._offset + len(whole) + len(newline))
        for line in whole.decode("utf-8", "replace").splitlines():
            self._take(line)
        self._offset += len(whole) + len(newline)

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
        client = str(entry.get("client", ""))
        if entry["event"] == "refused":
            self.refusals[client, str(entry["reason"])] = int(str(entry.get("times", 1)))
        if entry["event"] != "query":
            return
        self.queries[client] += 1
        self.recent.setdefault(client, deque()).append(float(str(entry["time"])))
        if entry["mode"] == "verify":
            self.verifications[str(entry["name"])] += 1
        else:
            self.identifications += 1

    def append(self, **fields: object) -> None:
        """Write a line and wait until it is on the disk.

        Raises:
            MatchError: it cannot be written; the log is as before.
        """
        with self.held():
            self._append(fields)

    def _append(self, fields: dict[str, object]) -> None:
        fields = {"time": round(time.time(), 3), **fields}
        entry = {"line": self.lines, **fields, "previous": self.head}
        entry["hash"] = digest = _digest(entry)
        line = (json.dumps(entry, sort_keys=True) + "\n").encode()
        try:
            if os.write(self._file, line) != len(line):
                raise OSError("a short write")
            os.fsync(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):  # what stays torn is cut off before the next line
                os.ftruncate(self._file, self._offset)
            raise MatchError(
                f"{self.path.name} cannot be written ({error.strerror or error}): free some space"
            ) from None
        self._count(entry)
        self.head, self.lines = digest, self.lines + 1
        self._offset += len(line)

    def refuse(self, client: str, mode: str, reason: Reason) -> None:
        """Count a refusal; the first, second, fourth, eighth … of a kind is written down."""
        key = client, reason.name
        times = self.refusals[key] + 1
        if times & (times - 1) == 0:
            self.append(event="refused", client=client, mode=mode, reason=reason.name, times=times)
        self.refusals[key] = times

    def close(self) -> None:
        os.close(self._file)


def _digest(entry: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()


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
            self.log._append(
                {"event": "query", "client": client, "mode": mode, "name": name}
                | {"time": round(self._clock(), 3)}
            )

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
