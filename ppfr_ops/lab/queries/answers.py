"""Answers that were paid for, by content: nothing is asked twice. SQLite, beside the account."""

import sqlite3
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed


class Answers:
    """float32 vectors by the digest of what was asked. Threads and processes may share the file.

    Templates of faces are biometric data, so the file is readable for its owner only.
    """

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600)
        self._lock = threading.Lock()
        self._base = sqlite3.connect(path, timeout=60, check_same_thread=False)
        # Several that begin at a time may find the file locked, whatever the timeout.
        busy = retry_if_exception_type(sqlite3.OperationalError)
        stop, wait = stop_after_delay(60), wait_fixed(0.05)
        Retrying(retry=busy, stop=stop, wait=wait, reraise=True)(self._prepare)

    def _prepare(self) -> None:
        # An answer outlives the process, however that dies; one that a loss of power takes is asked
        # for again, and counted.
        self._base.execute("PRAGMA journal_mode = WAL")
        self._base.execute("PRAGMA synchronous = NORMAL")
        self._base.execute(
            "CREATE TABLE IF NOT EXISTS answers (content TEXT PRIMARY KEY, value BLOB NOT NULL)"
        )

    def get(self, content: str) -> NDArray[np.float32] | None:
        """None if it was never answered."""
        with self._lock:
            row = self._base.execute(
                "SELECT value FROM answers WHERE content = ?", (content,)
            ).fetchone()
        return None if row is None else np.frombuffer(row[0], np.float32)

    def put(self, content: str, value: NDArray[np.float32]) -> None:
        """Keep an answer."""
        with self._lock, self._base:
            self._base.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?)",
                (content, value.astype(np.float32).tobytes()),
            )

    def count(self) -> int:
        with self._lock:
            return int(self._base.execute("SELECT count(*) FROM answers").fetchone()[0])

    def close(self) -> None:
        self._base.close()
