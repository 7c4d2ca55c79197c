"""Processes of this machine: the engine of ``ppfr sanitize`` where there is no cluster.

Workers, units and ledger are those of every engine, and so is what happens when a worker dies: its
unit is tried again, and the ledger counts. Nothing but the work starts: a process imports what a
worker needs while the command reads its options, and workers are forked from it, so that the first
and the one that replaces a dead one are there at once.
"""

import contextlib
import importlib
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from multiprocessing.connection import Connection, Pipe, wait
from typing import TYPE_CHECKING

import pyarrow as pa

from ppfr_ops.errors import EngineError
from ppfr_ops.memory import ONE_HEAP
from ppfr_ops.methods import registry
from ppfr_ops.sandbox import child, die_with_parent

if TYPE_CHECKING:
    from ppfr_ops.sanitize.job import Job, Status

MAX_DEATHS = 20
"""Of workers over one unit, or before they are ready: more than a unit is allowed before it is
given up, so that something else is wrong, such as the memory of the machine."""


class _Nursery:
    """The process that workers are forked from; started once, and anew if it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._modules: tuple[str, ...] = ()

    def start(self, modules: tuple[str, ...] = ()) -> None:
        """Start it, with these modules imported besides, if it does not run; it gets ready by
        itself."""
        if self._process is not None and self._process.poll() is None:
            return
        self._modules = modules or self._modules
        self._line, theirs = socket.socketpair()
        # A process that forks must have one thread, and this library makes one a CPU.
        environment = {"OPENBLAS_NUM_THREADS": "1", **ONE_HEAP, **os.environ}
        self._process = child(__name__, theirs.fileno(), *self._modules, environment=environment)
        theirs.close()

    def fork(self) -> Connection:
        """A new process; what is sent to it is ``_work``'s arguments, and it answers."""
        ours, theirs = Pipe()
        for _ in range(2):
            self.start()
            assert self._line is not None
            with contextlib.suppress(OSError):
                socket.send_fds(self._line, [b"+"], [theirs.fileno()])
                theirs.close()
                return ours
        raise EngineError("worker processes do not start")


nursery = _Nursery()
"""Of this process."""


def needed(method: str, metrics: str | None) -> tuple[str, ...]:
    """The modules that workers need for a method and metrics, PyTorch only if it is."""
    measures = "" if metrics == "none" else "ppfr_ops.imaging.measures"
    return tuple(filter(None, (registry.module_of(method), measures)))


class _Hand:
    """A worker process as the driver sees it."""

    def __init__(self, job: "Job", key: bytes, threads: int) -> None:
        self.pipe = nursery.fork()
        self.units: deque[int] = deque()
        """What it was given and has not done."""
        self.ready = False
        self._process = -1
        with contextlib.suppress(OSError):  # dead already: anyone who listens finds out
            self.pipe.send((dict(os.environ), list(sys.path)))
            self.pipe.send((job, key, threads))

    def give(self, unit: int) -> None:
        self.units.append(unit)
        with contextlib.suppress(OSError):
            self.pipe.send(unit)

    def hear(self) -> "Status | None":
        """The next status; None: it lives, or it is ready; EOFError: it is dead."""
        try:
            said = self.pipe.recv()
        except OSError:
            raise EOFError from None
        if self._process < 0:
            self._process = said
            return None
        if not self.ready:
            self.ready = True
            return None
        self.units.popleft()
        return said

    def end(self) -> None:
        self.pipe.close()
        if self._process > 0 and self.units:
            with contextlib.suppress(OSError):
                os.kill(self._process, signal.SIGKILL)


def on_processes(job: "Job", todo: list[int], workers: int | None = None) -> Iterator["Status"]:
    """Do units in processes of this machine, one a CPU if nobody says how many; statuses as they
    come.

    Raises:
        EngineError: workers die before they can do anything.
    """
    nursery.start(needed(job.options.method, job.options.metrics))
    from ppfr_ops.sanitize.sealing import seal

    sealed, key = seal(job)
    cpus = len(os.sched_getaffinity(0))
    count = min(workers or cpus, len(todo))
    threads = max(1, cpus // max(count, 1))
    waiting = deque(todo)
    deaths: dict[int | None, int] = {}
    lost: set[int] = set()
    hands = [_Hand(sealed, key, threads) for _ in range(count)]
    try:
        _hand_out(waiting, hands)
        while waiting or any(hand.units for hand in hands):
            _hand_out(waiting, hands, lost)
            heard = wait([hand.pipe for hand in hands])
            for place, hand in enumerate(hands):
                if hand.pipe not in heard:
                    continue
                try:
                    status = hand.hear()
                except EOFError:
                    given_up = _given_up(hand, deaths)
                    lost.update(hand.units)
                    waiting.extendleft(reversed(hand.units))
                    hand.end()
                    if given_up:
                        yield _failed(job, waiting.popleft())
                    hands[place] = _Hand(sealed, key, threads)
                    continue
                if status is not None:
                    yield status
    finally:
        for hand in hands:
            hand.end()


class _NoPandas:
    """Finds no pandas."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


def do_without_pandas() -> None:
    """Nothing here needs it, but PyArrow imports it, where there is one, to make its first array,
    which takes 0.3 s; it does not ask again. For programs of ours: elsewhere somebody may."""
    if "pandas" not in sys.modules:
        sys.meta_path.insert(0, _NoPandas)
        pa.array([0])
        sys.meta_path.remove(_NoPandas)


def _hand_out(waiting: deque[int], hands: list[_Hand], lost: Collection[int] = ()) -> None:
    """Every worker gets a unit, and up to two more, which it reads and commits meanwhile, as long
    as there are enough left: nobody holds back what somebody else could do at the end.

    Args:
        lost: units whose worker died. Each is tried again alone, so that only the one to blame
            goes on killing.
    """
    for most in (1, 2, 3):
        for hand in hands:
            if len(hand.units) >= most or len(waiting) <= (most - 1) * len(hands):
                continue
            if hand.units and (waiting[0] in lost or hand.units[0] in lost):
                continue
            hand.give(waiting.popleft())


def _given_up(hand: _Hand, deaths: dict[int | None, int]) -> bool:
    """Count a death; whether there were too many of the unit that the worker was at."""
    unit = hand.units[0] if hand.ready and hand.units else None
    deaths[unit] = deaths.get(unit, 0) + 1
    if unit is None and deaths[unit] >= MAX_DEATHS:
        raise EngineError(f"worker processes died {MAX_DEATHS} times before they were ready")
    return deaths[unit] >= MAX_DEATHS


def _failed(job: "Job", unit: int) -> "Status":
    from ppfr_ops.sanitize.job import Status

    return Status(job.plan.units[unit].id, "failed", reason=f"killed {MAX_DEATHS} workers")


# -- what runs in the processes ---------------------------------------------------------------


def _work(pipe: Connection, environment: Mapping[str, str], path: list[str]) -> None:
    """A worker: says when it is ready, then does what it is told, until nobody is there."""
    os.environ.clear()
    os.environ.update(environment)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a GPU is asked for, and Ray shares it out
    sys.path[:] = path
    worker_module = importlib.import_module("ppfr_ops.sanitize.worker")
    job, key, threads = pipe.recv()
    worker = worker_module.worker_of(job, threads, key)
    pipe.send("ready")
    for status in worker.stream(iter(pipe.recv, None)):
        pipe.send(status)


def _forked(pipe: Connection) -> None:
    """The life of a worker process, which ends with its driver's or the nursery's."""
    die_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with contextlib.suppress(EOFError, OSError):
        pipe.send(os.getpid())
        environment, path = pipe.recv()
        _work(pipe, environment, path)


def _nurse(line: socket.socket, modules: list[str]) -> None:
    """Fork a worker for every pipe that comes down the line, until it is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    for module in ("ppfr_ops.sanitize.worker", *modules):
        importlib.import_module(module)
    do_without_pandas()
    while True:
        message, handles, _, _ = socket.recv_fds(line, 1, 1)
        if not message:
            return
        if os.fork() == 0:
            line.close()
            try:
                _forked(Connection(handles[0]))
            finally:
                os._exit(0)
        os.close(handles[0])


if __name__ == "__main__":
    _nurse(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
