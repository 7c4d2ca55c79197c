"""The engine of processes: whatever happens to them, every unit is done once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from driving import drive
from meeting import Meeting
from pictures import jpeg
from test_sanitize import ROOT, environment, good, short_tmp, write_faces

from ppfr_ops.engines import local
from ppfr_ops.engines.options import EngineOptions
from ppfr_ops.errors import EngineError
from ppfr_ops.sanitize.job import Job
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.prepare import prepare
from ppfr_ops.sanitize.worker import Worker
from ppfr_ops.store.ledger import Ledger

__all__ = ["short_tmp"]


def job_of(folder: Path, out: str = "out", **more: object) -> Job:
    if not (folder / "in").exists():
        write_faces(folder / "in" / "a.parquet", [*good(14), b"no picture", jpeg()])
    where = {"input": str(folder / "in"), "output": str(folder / out)}
    settings = {"method": "pixelate", "metrics": "none", "unit_rows": 4, "seed": 1} | more
    job = prepare(SanitizeOptions(**where, **settings))
    Ledger(job.options.output).open(job.settings, seed=1)
    return job


def test_the_same_shards_as_a_bare_loop(tmp_path: Path) -> None:
    job, bare = job_of(tmp_path), job_of(tmp_path, "bare")
    statuses = list(local.on_processes(job, [0, 1, 2, 3], 2))
    assert sorted(status.unit for status in statuses) == [unit.id for unit in job.plan.units]
    assert {status.state for status in statuses} == {"committed"}
    assert sum(status.dead_letters for status in statuses) == 1
    worker = Worker(bare)
    for number in range(4):
        worker.process(number)
    shards = sorted((tmp_path / "bare/release/data").iterdir())
    assert len(shards) == 4
    for path in shards:
        assert path.read_bytes() == (tmp_path / "out/release/data" / path.name).read_bytes()
    again = list(local.on_processes(job, [0, 1, 2, 3], 1))
    assert [status.state for status in again] == ["skipped"] * 4


def test_the_last_line_names_folders_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_faces(tmp_path / "in" / "a.parquet", good(2))
    options = SanitizeOptions(
        input=str(tmp_path / "in"), output=f"{tmp_path}/out/", method="pixelate", metrics="none"
    )
    drive(options, lambda job, _: local.on_processes(job, [0], 1), "", dry_run=False, as_json=False)
    said = "".join("".join(capsys.readouterr()).split())
    assert f"forothers:{tmp_path}/out/release;foryoualone:{tmp_path}/out/evidence" in said


def test_a_model_that_cannot_be_loaded_fails_every_unit_with_its_reason(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nothing")
    options = job.options.model_copy(update={"fr": (f"x={broken}",)})
    job = Job(options, job.plan, job.key, job.method_digest, job.settings)
    statuses = list(local.on_processes(job, [0, 1], 1))
    assert [status.state for status in statuses] == ["failed"] * 2
    assert statuses[0].reason.startswith("UserError at ppfr_ops.recognizers")


class Stillborn(Meeting):
    """Kills every process that would use it but the test's own."""

    driver: int

    def model_post_init(self, _: object) -> None:
        if os.getpid() != self.driver:
            os.kill(os.getpid(), signal.SIGKILL)


def test_workers_that_die_before_they_are_ready_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "MAX_DEATHS", 3)
    options = {"driver": str(os.getpid()), "folder": str(tmp_path)}
    job = job_of(tmp_path, method="test_local:Stillborn", method_options=options)
    with pytest.raises(EngineError, match="died 3 times before they were ready"):
        list(local.on_processes(job, [0, 1], 2))


def test_workers_end_with_their_driver(tmp_path: Path, short_tmp: Path) -> None:
    job_of(tmp_path)
    met = tmp_path / "met"
    met.mkdir()
    command = [sys.executable, str(ROOT / "pipelines" / "sanitize.py"), "--actors", "1"]
    command += ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "killed")]
    command += ["--method", "meeting:Meeting", "--method-option", f"folder={met}"]
    with subprocess.Popen(
        command,
        env=environment(short_tmp),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as driver:
        deadline = time.monotonic() + 120
        while not list(met.iterdir()) and time.monotonic() < deadline:
            assert driver.poll() is None
            time.sleep(0.02)
        driver.kill()
    (worker,) = (int(path.name) for path in met.iterdir())
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{worker}").exists() and not list(short_tmp.iterdir())


class Hand(local._Hand):
    """A worker that does nothing."""

    def __init__(self) -> None:
        self.units = local.deque()

    def give(self, unit: int) -> None:
        self.units.append(unit)


def test_what_is_read_ahead_is_never_held_back_at_the_end() -> None:
    waiting = local.deque(range(9))
    hands: list[local._Hand] = [Hand(), Hand()]
    local._hand_out(waiting, hands)
    assert [list(hand.units) for hand in hands] == [[0, 2, 4], [1, 3]]
    assert list(waiting) == [5, 6, 7, 8]
    hands[0].units.clear()
    hands[1].units.clear()
    local._hand_out(waiting, hands)
    assert [list(hand.units) for hand in hands] == [[5], [6]] and list(waiting) == [7, 8]


def test_a_unit_whose_worker_died_is_tried_again_alone() -> None:
    waiting = local.deque(range(9))
    hands: list[local._Hand] = [Hand(), Hand()]
    local._hand_out(waiting, hands, lost={0, 1})
    assert [list(hand.units) for hand in hands] == [[0], [1]]
    hands[0].units.clear()
    local._hand_out(waiting, hands, lost={0, 1})
    assert [list(hand.units) for hand in hands] == [[2, 3, 4], [1]]


def test_ray_is_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert EngineOptions().chosen == "local"
    assert EngineOptions(ray_address="auto").chosen == "ray"
    assert EngineOptions(gpus_per_actor=0.5).chosen == "ray"
    assert EngineOptions(engine="local", ray_address="auto").chosen == "local"
    assert EngineOptions(engine="ray").chosen == "ray"


def test_threads_of_a_worker_share_one_heap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    nursery = local._Nursery()
    nursery.start()
    assert nursery._process is not None
    try:
        place, environment = Path(f"/proc/{nursery._process.pid}/environ"), b""
        while not environment and nursery._process.poll() is None:  # empty until it has begun
            environment = place.read_bytes()
    finally:
        nursery._process.kill()
        nursery._process.wait()
    assert b"MALLOC_ARENA_MAX=1" in environment.split(b"\0")


@pytest.mark.parametrize(("metrics", "torch"), [("none", False), ("basic", True)])
def test_pytorch_is_imported_where_it_is_needed(short_tmp: Path, metrics: str, torch: bool) -> None:
    """It takes seconds: not for a method without a network, and nothing measured."""
    modules = (
        "ppfr_ops.sanitize.conductor",
        "ppfr_ops.sanitize.worker",
        *local.needed("blur", metrics),
    )
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(short_tmp), check=False)
    assert done.returncode == torch
    assert local.needed("somebody.elses:Method", "none") == ()


def test_threads_reach_a_pytorch_that_is_imported_later(short_tmp: Path) -> None:
    code = """
import sys
from ppfr_ops.sanitize.worker import tune_process
assert "torch" not in sys.modules
tune_process(1)
import torch
sys.exit(torch.get_num_threads())
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(short_tmp), check=False)
    assert done.returncode == 1


def test_nothing_of_ours_imports_pandas() -> None:
    code = (
        "import sys; from ppfr_ops.engines.local import do_without_pandas; do_without_pandas(); "
        "import pyarrow as pa; pa.table({'a': [1]}).to_pylist(); print('pandas' in sys.modules); "
        "import pandas; print(pa.table({'a': [1]}).to_pandas()['a'].tolist())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False", "[1]"], "and whoever asks for it gets it"
