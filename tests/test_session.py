"""Ray's folder and processes: private while they live, gone when their driver is."""

import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ppfr_ops.engines import session

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(session, "_root", lambda: tmp_path)
    return tmp_path


@pytest.fixture
def agent(root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that looks like one of Ray's, of a driver that is dead."""
    driver = subprocess.Popen(["true"])
    driver.wait()
    folder = root / f"{session.PREFIX}{driver.pid}-abc"
    folder.mkdir()
    (folder / "owner").write_text("1")
    process = subprocess.Popen(["sleep", "60"], env={**os.environ, session.MARK: str(folder)})
    yield process
    process.kill()
    process.wait()


def test_what_a_killed_driver_left_is_ended_and_removed(
    agent: subprocess.Popen[bytes], root: Path
) -> None:
    assert session.remove_stale_sessions() == 1
    assert agent.wait(10) == -9 and not list(root.iterdir())


def test_a_session_is_ours_alone_and_survives_other_runs(root: Path) -> None:
    with session.private_session() as folder:
        process = subprocess.Popen(["sleep", "60"], env=dict(os.environ))
        outer = Path(folder).parent
        assert stat.S_IMODE(outer.stat().st_mode) == 0o700
        assert session.remove_stale_sessions() == 0
        assert process.poll() is None and Path(folder).is_dir()
        process.kill()
        process.wait()
    assert not list(root.iterdir()) and session.MARK not in os.environ


def test_a_number_that_is_another_process_now_does_not_keep_a_session(root: Path) -> None:
    folder = root / f"{session.PREFIX}{os.getpid()}-abc"
    folder.mkdir()
    (folder / "owner").write_text("12")  # ticks: the driver of that number started then
    assert session.remove_stale_sessions() == 1 and not list(root.iterdir())


RAY = """
import os, sys, time
from ppfr_ops.engines.ray_data import _ray
with _ray(None):
    print(os.environ["PPFR_RAY_SESSION"], file=sys.stderr, flush=True)
    time.sleep(120)
"""


def listening(mark: bytes) -> set[str]:
    """Addresses on which the processes of a session listen, as /proc/net has them."""
    inodes = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                inodes |= {os.readlink(name) for name in (entry / "fd").iterdir()}
        except OSError:
            continue
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                found.add(fields[1].partition(":")[0])
    return found


@pytest.mark.slow
def test_ray_listens_on_loopback_only_and_is_ended_after_its_driver_was_killed() -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", RAY],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": "/tmp"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert driver.stderr is not None
    lines = (line.strip() for line in driver.stderr)
    folder = Path(next(line for line in lines if line.startswith("/tmp/")))
    mark = f"{session.MARK}={folder}".encode()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    loopback = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
    addresses = listening(mark)
    assert addresses and addresses <= loopback
    driver.kill()
    driver.wait()
    session._end_processes({mark})
    time.sleep(1)
    assert not listening(mark)
    shutil.rmtree(folder)
