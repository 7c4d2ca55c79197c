"""Answers that were paid for, by content: nothing is asked twice. SQLite, beside the account."""

import sqlite3
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class Answers:
    """float32 vectors by the digest of what was asked. Threads and processes may share the file.

    Templates of faces are biometric data, so the file is readable for its owner only.
    """

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600)
        self._lock = threading.Lock()
        self._base = sqlite3.connect(path, timeout=60, check_same_thread=False)
        with self._lock, self._base:
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
        """Keep an answer; it is on the disk when this returns."""
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
