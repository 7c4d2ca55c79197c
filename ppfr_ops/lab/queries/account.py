"""The query account: what was asked of a recogniser, and that it stayed within the budget.

JSON lines, appended and chained by sha256 as other logs here are. A query is counted, and the line
is on the disk, *before* its request is sent: no crash, retry or second process spends unseen. Who
is killed between counting and sending has counted one query that nobody received, never the other
way round. A changed, inserted or removed line breaks the chain; against a log that is cut off at
its end, keep its head (the card of a surrogate has it).
"""

import contextlib
import fcntl
import hashlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ppfr_ops.errors import UserError

_START = "0" * 64


class BudgetSpent(UserError):
    """The account allows no further query."""

    exit_code = 1


class QueryAccount:
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
        self.path = path
        self.head, self.lines, self.spent, self.budget = _START, 0, 0, 0
        self.failures: Counter[str] = Counter()
        self._endpoint: str | None = None
        self._read = 0
        self._lock = threading.Lock()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        digest = hashlib.sha256(endpoint.encode()).hexdigest()
        with self._alone():
            if self._endpoint not in (None, digest):
                raise UserError(f"{path.name} is the account of another endpoint")
            if self._endpoint is None:
                self._append(event="open", endpoint=digest)
            if self.budget != budget:
                self._append(event="budget", queries=budget)

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
        with self._alone():
            if self.spent >= self.budget:
                raise BudgetSpent(f"the budget of {self.budget:,} queries is spent")
            self._append(event="query", kind=kind, content=content)
            return self.spent

    def failed(self, number: int, reason: str) -> None:
        """Note that the query of this number brought no answer; it stays counted."""
        with self._alone():
            self._append(event="failed", number=number, reason=reason)

    def refresh(self) -> None:
        """Read what others appended."""
        with self._alone():
            pass

    def close(self) -> None:
        os.close(self._file)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """The only writer, among threads and processes, and up to date."""
        with self._lock:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                self._catch_up()
                yield
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _catch_up(self) -> None:
        size = os.fstat(self._file).st_size
        if size < self._read:
            raise UserError(f"{self.path.name}: lines were cut off while it was in use")
        while self._read < size:
            data = os.pread(self._file, size - self._read, self._read)
            whole = data.rfind(b"\n") + 1
            for line in data[:whole].splitlines():
                self._take(line)
            self._read += whole
            if whole < len(data):
                # Its writer died in the middle of the line, so before it sent anything.
                os.ftruncate(self._file, self._read)
                return

    def _take(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            digest = entry.pop("hash")
            linked = entry["previous"] == self.head and entry["line"] == self.lines
            if not linked or digest != _digest(entry):
                raise UserError(f"{self.path.name}: the chain breaks at line {self.lines + 1}")
            self._count(entry)
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{self.path.name}: line {self.lines + 1} is broken") from None
        self.head, self.lines = digest, self.lines + 1

    def _count(self, entry: dict[str, Any]) -> None:
        event = entry["event"]
        if event == "query":
            self.spent += 1
        elif event == "failed":
            self.failures[str(entry["reason"])] += 1
        elif event == "budget":
            self.budget = int(entry["queries"])
        elif event == "open":
            self._endpoint = str(entry["endpoint"])

    def _append(self, **fields: object) -> None:
        entry = {"line": self.lines, "time": round(time.time(), 3), **fields, "previous": self.head}
        entry["hash"] = digest = _digest(entry)
        data = (json.dumps(entry, sort_keys=True) + "\n").encode()
        if os.write(self._file, data) != len(data):
            raise UserError(f"{self.path.name} cannot be written: no space")
        os.fsync(self._file)
        self._read += len(data)
        self._count(entry)
        self.head, self.lines = digest, self.lines + 1


def _digest(entry: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()
