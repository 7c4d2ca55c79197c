"""A folder and processes of a Ray of our own: nobody else's to look into, and gone afterwards.

Ray makes its session folders for everybody (0777) and listens on every interface. So its folder
lies in one that is ours alone, and it takes this machine for one without a network. Agents of Ray
live on for minutes when its driver is killed: all its processes carry the name of the folder in
their environment, by which the next run finds and ends them.
"""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ppfr_ops.store.lease import process_started

PREFIX = "ppfr-ray-"
MARK = "PPFR_RAY_SESSION"
"""Environment variable of all processes of a session: its folder."""

_OWNER = "owner"
_MAX_ROOT = 14
"""Ray puts sockets below, whose paths must not exceed 107 bytes."""


@contextmanager
def private_session() -> Iterator[str]:
    """A folder for ``ray.init(_temp_dir=...)``, in one of mode 0700; removed at the end.

    To be entered before Ray is imported. What earlier sessions left, whose driver is dead, is
    cleared away first.
    """
    remove_stale_sessions()
    # Ray's own switch, made for systems with a firewall that asks: loopback only.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=_root()))
    (folder / _OWNER).write_text(process_started(os.getpid()) or "")
    inner = folder / "r"
    inner.mkdir()
    os.environ[MARK] = str(folder)
    try:
        yield str(inner)
    finally:
        os.environ.pop(MARK, None)
        shutil.rmtree(folder, ignore_errors=True)


def remove_stale_sessions() -> int:
    """End the processes and remove the folders of sessions whose driver is dead; how many."""
    stale = [folder for folder in _root().glob(f"{PREFIX}*") if _is_stale(folder)]
    if stale:
        _end_processes({f"{MARK}={folder}".encode() for folder in stale})
    for folder in stale:
        shutil.rmtree(folder, ignore_errors=True)
    return len(stale)


def _root() -> Path:
    root = Path(tempfile.gettempdir())
    return root if len(str(root)) <= _MAX_ROOT else Path("/tmp")


def _is_stale(folder: Path) -> bool:
    """Whether the driver is dead. Another user's folder, or one not made yet, is not for us."""
    owner = folder.name.removeprefix(PREFIX).partition("-")[0]
    try:
        if not owner.isdigit() or folder.is_symlink() or folder.stat().st_uid != os.getuid():
            return False
        now = process_started(int(owner))
        if now is None:
            return True
        # The number may be another process's by now.
        then = (folder / _OWNER).read_text()
        return then != "" and then != now
    except OSError:
        return False


def _end_processes(marks: set[bytes]) -> None:
    """SIGKILL to every process of ours that has one of these in its environment."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):  # it ended, or is another user's
            if marks.intersection((entry / "environ").read_bytes().split(b"\0")):
                os.kill(int(entry.name), signal.SIGKILL)
