"""A local log that is an account: JSON lines, appended and chained by sha256.

A line is on the disk before what it counts is done. Threads and processes share a log by a file
lock, held from reading what the others wrote to the end of the line. Every line holds the hash of
the line before it, so a changed, inserted or removed line breaks the chain; that a log was cut off
at its end is noticed by anyone who kept a later head.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from ppfr_ops.errors import UserError

_START = "0" * 64


class ChainedLog:
    """A log; a subclass counts its entries.

    Args:
        path: of the file; made where it is not there, for its owner only.

    Raises:
        UserError: the chain is broken (of the kind ``error``, as all below).
    """

    error: ClassVar[type[UserError]] = UserError

    def __init__(self, path: Path) -> None:
        self.path, self.head, self.lines = path, _START, 0
        self._lock, self._depth, self._offset = threading.RLock(), 0, 0
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with self.held():
            pass

    def count(self, entry: dict[str, Any]) -> None:
        """Take account of an entry, as it is written or read."""
        raise NotImplementedError

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

    def append(self, **fields: object) -> None:
        """Write a line and wait until it is on the disk.

        Raises:
            UserError: it cannot be written; the log is as before.
        """
        with self.held():
            fields = {"time": round(time.time(), 3), **fields}
            entry = {"line": self.lines, **fields, "previous": self.head}
            entry["hash"] = digest = _digest(entry)
            line = (json.dumps(entry, sort_keys=True) + "\n").encode()
            try:
                if os.write(self._file, line) != len(line):
                    raise OSError("a short write")
                os.fsync(self._file)
            except OSError as error:
                with contextlib.suppress(OSError):  # what stays torn is cut off before the next
                    os.ftruncate(self._file, self._offset)
                why = f"{error.strerror or error}"
                raise self.error(
                    f"{self.path.name} cannot be written ({why}): free some space"
                ) from None
            self.count(entry)
            self.head, self.lines = digest, self.lines + 1
            self._offset += len(line)

    def close(self) -> None:
        os.close(self._file)

    def _catch_up(self) -> None:
        size = os.fstat(self._file).st_size
        if size < self._offset:
            raise self.error(f"{self.path.name} was cut off while it was in use")
        data = bytearray()
        while piece := os.pread(self._file, 1 << 24, self._offset + len(data)):
            data += piece
        whole, newline, torn = data.rpartition(b"\n")
        if torn:  # a death or a full disk; what it is about was not done
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
            raise self.error(f"{self.path.name}: line {self.lines + 1} is broken") from None
        if not linked or digest != _digest(entry):
            raise self.error(f"{self.path.name}: the chain breaks at line {self.lines + 1}")
        self.count(entry)
        self.head, self.lines = digest, self.lines + 1


def _digest(entry: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()
