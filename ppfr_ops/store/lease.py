"""One run at a time on an output: a lease with a heartbeat, and a fence that only rises.

A run takes the lease by creating ``evidence/ledger/lease/N.json``, which succeeds for one only, and
writes it anew every few seconds. Another run waits and watches: whose file changes lives; whose
does not is dead, and its successor creates N + 1. Nobody compares clocks. N fences: a worker
commits nothing once a higher N exists, so a run that only seemed dead does no harm when it wakes
up.
"""

import contextlib
import hashlib
import os
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel

from ppfr_ops.store.folder import Folder, LedgerError
from ppfr_ops.store.secret import LEDGER

BEAT_SECONDS = 5.0
EXPIRY_SECONDS = 30.0


class _Document(BaseModel):
    """What a lease's file says."""

    released: bool
    beat: str
    machine: str
    pid: int
    started: str | None


class Lease:
    """The lease on an output; a context manager that releases it.

    Args:
        ledger: of the output (or the folder of a vault).
        waiting: called once if another run's lease has to be watched.

    Raises:
        LedgerError: another run is at work.
    """

    def __init__(
        self,
        ledger: Folder,
        waiting: Callable[[], None] = lambda: None,
        *,
        beat: float = BEAT_SECONDS,
        expiry: float = EXPIRY_SECONDS,
    ) -> None:
        self._ledger = ledger
        self._beat = beat
        self._stop = threading.Event()
        self.fence = self._acquire(waiting, expiry)
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        if newest(self._ledger) == self.fence:
            _write(self._ledger, self.fence, released=True)

    def _acquire(self, waiting: Callable[[], None], expiry: float) -> int:
        last = newest(self._ledger)
        if last and not _is_free(self._ledger, last, waiting, self._beat, expiry):
            raise LedgerError("another run is at work on this output")
        fence = last + 1
        document = _document(released=False)
        if not self._ledger.create(document.model_dump(), *_place(fence)):
            there = _read(self._ledger, fence)
            # A creation that is tried again, because its answer got lost, finds itself.
            if there is None or there.beat != document.beat:
                raise LedgerError("another run is at work on this output")
        for name in self._ledger.names(*LEDGER, "lease"):
            number = name.removesuffix(".json")
            if number.isdecimal() and int(number) < fence:
                self._ledger.remove(*LEDGER, "lease", name)
        return fence

    def _renew(self) -> None:
        while not self._stop.wait(self._beat):
            # A store that is away for a moment costs a beat, and at worst the lease: fenced.
            with contextlib.suppress(Exception):
                if newest(self._ledger) == self.fence:
                    _write(self._ledger, self.fence, released=False)


def newest(ledger: Folder) -> int:
    """The highest fence there is; 0 if there never was a lease."""
    names = (name.removesuffix(".json") for name in ledger.names(*LEDGER, "lease"))
    return max((int(name) for name in names if name.isdecimal()), default=0)


def holder(ledger: Folder) -> str:
    """``none``, ``alive``, ``dead``, or ``unknown``: held, but not by a process on this machine.
    A lease that cannot be read holds nobody: its owner, if there is one, is fenced off."""
    document = _read(ledger, newest(ledger))
    if document is None or document.released:
        return "none"
    if document.machine != _machine():
        return "unknown"
    alive = document.started is not None and process_started(document.pid) == document.started
    return "alive" if alive else "dead"


def _is_free(
    ledger: Folder, fence: int, waiting: Callable[[], None], beat: float, expiry: float
) -> bool:
    state = holder(ledger)
    if state in ("none", "dead"):
        return True
    if state == "alive":
        return False
    waiting()
    first = _read(ledger, fence)
    deadline = time.monotonic() + expiry
    while time.monotonic() < deadline:
        time.sleep(min(beat, 1.0))
        if _read(ledger, fence) != first or newest(ledger) != fence:
            return holder(ledger) == "none"
    return True


def _place(fence: int) -> tuple[str, ...]:
    return (*LEDGER, "lease", f"{fence:08d}.json")


def _read(ledger: Folder, fence: int) -> _Document | None:
    return ledger.model(_Document, *_place(fence))


def _write(ledger: Folder, fence: int, released: bool) -> None:
    ledger.write(_document(released).model_dump(), *_place(fence))


def _document(released: bool) -> _Document:
    pid = os.getpid()
    return _Document(
        released=released,
        beat=secrets.token_hex(8),
        machine=_machine(),
        pid=pid,
        started=process_started(pid),
    )


def _machine() -> str:
    """This boot and process namespace, hashed: an output names no host."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return hashlib.sha256(f"{boot}|{os.readlink('/proc/self/ns/pid')}".encode()).hexdigest()
    except OSError:
        return secrets.token_hex(32)


def process_started(pid: int) -> str | None:
    """When a process started, in ticks; None if there is none (or a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]
