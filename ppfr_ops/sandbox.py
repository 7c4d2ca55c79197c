"""Work on foreign bytes in a child process that can neither grow nor take long, and that may die.

Decoders are native code, and hostile bytes make them crash, allocate gigabytes or compute for
minutes. The child has limits on its address space and on the processor time of a call; it writes
no files and leaves no core dump, which would hold pixels.
"""

import ctypes
import importlib
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, TypeVar

from ppfr_ops.errors import describe

T = TypeVar("T")

_PR_SET_PDEATHSIG = 1

MEMORY_BYTES = 900 * 2**20
"""What a child may allocate beyond what it has when it starts."""
TRIES = 2
"""Children that a call must kill before it is blamed: one may die of something else."""

_ENVIRONMENT = {
    # One arena, one thread, no reserves: address space is what counts.
    "MALLOC_ARENA_MAX": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}


def child(
    module: str, handle: int, *arguments: str, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """A process that runs a module of ours, and sees nothing of the terminal.

    Args:
        handle: that it inherits; its number is the first argument, before others.
        environment: with the folders that this process imports from added.
    """
    return subprocess.Popen(
        [sys.executable, "-m", module, str(handle), *arguments],
        pass_fds=(handle,),
        env={
            **environment,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            # Or -m looks for modules in the working folder first, where an input may lie.
            "PYTHONSAFEPATH": "1",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C is for its parent
    )


def die_with_parent() -> None:
    """For a child, which nobody else ends when its parent is killed (Linux)."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def go_first() -> None:
    """Where memory runs out, this process is the one to go (Linux)."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


class LimitError(Exception):
    """The call took more memory or time than allowed, or killed its process; ``what`` says which:
    ``memory``, ``time`` or ``crash``."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class Sandbox:
    """A child process, started when it is first needed, and anew after each death.

    Args:
        memory: bytes that it may allocate beyond what it has when it starts.
    """

    def __init__(self, memory: int = MEMORY_BYTES) -> None:
        self._memory = memory
        self._lock = threading.Lock()
        self._owner = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None

    def call(self, function: Callable[..., T], *args: Any, seconds: float) -> T:
        """Call a function of a module in the child.

        Args:
            function: defined at the top level of a module.
            args: what can be pickled.
            seconds: of processor time.

        Raises:
            LimitError: see there.
            Exception: what the function raises.
        """
        name = f"{function.__module__}:{function.__qualname__}"
        request = pickle.dumps((name, args, seconds), protocol=5)
        with self._lock:
            for attempt in range(TRIES):
                try:
                    pipe = self._connected()
                    pipe.send_bytes(request)
                    answer = pipe.recv_bytes()
                except (EOFError, OSError):
                    ended = self._end()
                    if ended == -signal.SIGPROF:
                        raise LimitError("time") from None
                    if attempt == TRIES - 1:
                        raise LimitError("crash") from None
                    continue
                break
            value, error = pickle.loads(answer)
            if isinstance(error, MemoryError):
                self._end()
        if isinstance(error, MemoryError):
            raise LimitError("memory")
        if error is not None:
            raise error
        return value

    def _connected(self) -> Connection:
        if self._pipe is None or self._owner != os.getpid():
            self._pipe, theirs = Pipe()
            environment = {**os.environ, **_ENVIRONMENT}
            self._process = child(
                "ppfr_ops.sandbox", theirs.fileno(), str(self._memory), environment=environment
            )
            theirs.close()
            self._owner = os.getpid()
        return self._pipe

    def _end(self) -> int:
        """End the child; how it had ended by itself, else -9."""
        assert self._process is not None and self._pipe is not None
        self._pipe.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        self._process.kill()
        self._pipe = None
        return self._process.wait()


sandbox = Sandbox()
"""Of this process."""


def _limit(memory: int) -> None:
    """Bound this process for good."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    bound = pages * os.sysconf("SC_PAGE_SIZE") + memory
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    go_first()
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _serve(pipe: Connection, memory: int) -> None:
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process, whatever native code does
    limited = False
    while True:
        try:
            name, args, seconds = pickle.loads(pipe.recv_bytes())
        except (EOFError, ConnectionError):
            return
        module, _, function = name.partition(":")
        call = getattr(importlib.import_module(module), function)
        if not limited:
            with suppress(OSError):  # not Linux
                _limit(memory)
            limited = True
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            answer = pickle.dumps((call(*args), None), protocol=5)
        except BaseException as error:  # a panic of a library in Rust is no Exception
            answer = _raised(error)
        signal.setitimer(signal.ITIMER_PROF, 0)
        pipe.send_bytes(answer)


def _raised(error: BaseException) -> bytes:
    """An exception as an answer; without its text, which may quote bytes, if it is not ours."""
    ours = type(error).__module__.partition(".")[0] == "ppfr_ops"
    if not ours and not isinstance(error, OSError | MemoryError):
        error = RuntimeError(describe(error))
    if isinstance(error, OSError) and not ours:
        error = OSError(error.errno, os.strerror(error.errno)) if error.errno else OSError()
    if isinstance(error, MemoryError):
        error = MemoryError()
    return pickle.dumps((None, error), protocol=5)


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        _serve(Connection(int(sys.argv[1])), int(sys.argv[2]))
