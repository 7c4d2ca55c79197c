"""The same run on Ray and on Beam."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from click.testing import CliRunner
from test_sanitize import (
    ROOT,
    SCRIPT,
    assert_sound,
    environment,
    good,
    kill_tree,
    sanitize,
    short_tmp,
    write_faces,
)

from ppfr_ops.cli.sanitize_beam import main, on_beam
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.prepare import prepare
from ppfr_ops.sanitize.worker import Worker
from ppfr_ops.store.ledger import Attempts, Ledger

__all__ = ["short_tmp"]
BEAM = ROOT / "pipelines" / "sanitize_beam.py"
ON_RAY = [SCRIPT, "--engine", "ray"]
heavy = pytest.mark.skipif(
    not os.environ.get("PPFR_HEAVY"), reason="takes long and adds little: PPFR_HEAVY=1 runs it"
)


def source(folder: Path, files: int, rows: int) -> Path:
    pictures = good(rows)
    for number in range(files):
        write_faces(folder / f"{number:02d}.parquet", pictures)
    return folder


def assert_same(first: Path, second: Path) -> None:
    for kind in ("release/data", "evidence/metrics", "evidence/dead_letters"):
        names = sorted(path.name for path in (first / kind).iterdir())
        assert names == sorted(path.name for path in (second / kind).iterdir()) and names
        for name in names:
            assert (first / kind / name).read_bytes() == (second / kind / name).read_bytes(), name


@pytest.mark.slow
def test_ray_and_beam_write_the_same_bytes(tmp_path: Path, short_tmp: Path) -> None:
    folder = source(tmp_path / "in", 3, 16)
    write_faces(folder / "bad.parquet", [*good(4), b"no picture", None])
    options = ("--input", folder, "--method", "highpass", "--seed", "7", "--unit-rows", "8")
    options += ("--max-dead-letter-rate", "0.5")
    ray = sanitize(short_tmp, *options, "--engine", "ray", "--output", tmp_path / "ray")
    assert ray.returncode == 0, ray.stderr
    done = CliRunner().invoke(main, [*map(str, options), "--output", str(tmp_path / "beam")])
    assert done.exit_code == 0, done.output
    assert_same(tmp_path / "ray", tmp_path / "beam")
    manifests = [assert_sound(tmp_path / name) for name in ("ray", "beam")]
    assert manifests[0].metrics == manifests[1].metrics
    assert manifests[0].counts == manifests[1].counts
    assert [text.engine.split()[0] for text in manifests] == ["ray", "beam"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second"), [(ON_RAY, [BEAM]), pytest.param([BEAM], ON_RAY, marks=heavy)]
)
def test_begun_by_one_and_killed_finished_by_the_other(
    tmp_path: Path, short_tmp: Path, first: list[object], second: list[object]
) -> None:
    folder, output = source(tmp_path / "in", 12, 24), tmp_path / "out"
    options = ["--input", str(folder), "--output", str(output), "--method", "highpass"]
    options += ["--unit-rows", "24", "--seed", "3"]
    process = subprocess.Popen(
        [sys.executable, *map(str, first), *options],
        env=environment(short_tmp),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    units = output / "evidence" / "ledger" / "units"
    deadline = time.monotonic() + 120
    while len(list(units.glob("*.json"))) < 5 and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    kill_tree(process)
    finished = {path.name: path.read_bytes() for path in units.glob("*.json")}
    assert 5 <= len(finished) < 12
    done = subprocess.run(
        [sys.executable, *map(str, second), *options],
        env=environment(short_tmp),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    for name, data in finished.items():
        assert (units / name).read_bytes() == data
    assert assert_sound(output).counts.records == 12 * 24


def job_of(tmp_path: Path, **more: object) -> tuple[SanitizeOptions, list[int]]:
    folder = tmp_path / "in"
    if not folder.exists():
        write_faces(folder / "a.parquet", [*good(12), b"no picture"])
    options = SanitizeOptions(
        input=str(folder),
        output=str(tmp_path / "out"),
        method="pixelate",
        metrics="basic",
        unit_rows=5,
        **more,
    )
    job = prepare(options)
    Ledger(options.output).open(job.settings)
    return job, list(range(len(job.plan.units)))


def test_one_model_a_process_and_what_the_counters_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, todo = job_of(tmp_path)
    built, results = [], []
    made, ran = Worker.__init__, beam.Pipeline.run

    def build(self: Worker, *args: object) -> None:
        built.append(1)
        made(self, *args)

    def run(self: beam.Pipeline, *args: object) -> object:
        results.append(ran(self, *args))
        return results[-1]

    monkeypatch.setattr(Worker, "__init__", build)
    monkeypatch.setattr(beam.Pipeline, "run", run)
    statuses = list(on_beam(job, todo, PipelineOptions([])))
    assert len(statuses) == len(todo) == 3 and len(built) == 1
    found = results[0].metrics().query()
    counters = {item.key.metric.name: item.result for item in found["counters"]}
    assert counters["units committed"] == 3
    assert (counters["rows in"], counters["records"], counters["dead letters"]) == (13, 12, 1)
    spread = {item.key.metric.name: item.result for item in found["distributions"]}
    assert spread["ssim x 1e6"].count == 3 and spread["ssim x 1e6"].max <= 1_000_000


def test_dead_letters_are_a_tagged_output_without_bytes(tmp_path: Path) -> None:
    from apache_beam.testing.util import assert_that, equal_to

    from ppfr_ops.engines.beam import build

    job, todo = job_of(tmp_path)
    with beam.Pipeline() as pipeline:
        outputs = build(pipeline, job, todo)
        assert_that(outputs.dead_letters, equal_to([("u000002", "not_an_image", 1)]))


def test_a_unit_that_fails_ends_in_exit_code_1_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = source(tmp_path / "Jane_Doe", 2, 4)

    def fail(self: Ledger, unit: str, apart: bool = False) -> Attempts:
        raise OSError(28, "no space", str(folder))

    monkeypatch.setattr(Ledger, "attempt", fail)
    options = ["--input", str(folder), "--output", str(tmp_path / "out"), "--method", "pixelate"]
    done = CliRunner().invoke(main, options, standalone_mode=False)
    assert done.return_value == 1, done.output
    assert "units failed: 2 x OSError (No space left on device)" in done.stderr
    assert "Jane_Doe" not in done.output


def test_wrong_usage_is_one_line(tmp_path: Path) -> None:
    base = ["--input", str(tmp_path / "nope"), "--output", str(tmp_path / "out")]
    for options, message in ((base, "the input does not exist"), ([*base, "x"], "come after --")):
        done = CliRunner().invoke(main, options)
        assert done.exit_code == 2 and message in done.stderr, done.output
        assert len(done.stderr.strip().splitlines()) == 1


@heavy
@pytest.mark.slow
def test_two_worker_processes(tmp_path: Path, short_tmp: Path) -> None:
    folder, output = source(tmp_path / "in", 2, 16), tmp_path / "out"
    command = [sys.executable, str(BEAM), "--input", str(folder), "--output", str(output)]
    command += ["--method", "pixelate", "--unit-rows", "8", "--metrics", "basic", "--"]
    command += ["--runner=FnApiRunner", "--direct_running_mode=multi_processing"]
    done = subprocess.run(
        [*command, "--direct_num_workers=2"],
        env=environment(short_tmp),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert assert_sound(output).counts.records == 32


def workers_of(driver: int) -> list[int]:
    """Worker processes of Beam's local runner, which it starts by a shell."""
    found: list[tuple[int, int, str]] = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            found.append((int(place.name), parent, (place / "cmdline").read_text()))
    shells = {process for process, parent, _ in found if parent == driver}
    return [
        process
        for process, parent, line in found
        if "sdk_worker" in line and parent in shells | {driver}
    ]


@heavy
@pytest.mark.slow
def test_a_killed_worker_ends_the_run_and_the_same_command_resumes(
    tmp_path: Path, short_tmp: Path
) -> None:
    folder, output = source(tmp_path / "in", 30, 16), tmp_path / "out"
    command = [sys.executable, str(BEAM), "--input", str(folder), "--output", str(output)]
    command += ["--method", "pixelate", "--unit-rows", "16", "--", "--runner=FnApiRunner"]
    command += ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    run = subprocess.Popen(command, env=environment(short_tmp), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(output.glob("evidence/ledger/units/*.json")):
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(workers_of(run.pid)[-1], signal.SIGKILL)
    said = run.communicate(timeout=100)[1]
    assert run.returncode == 1 and "run the same command again" in said.replace("\n", " "), said
    done = subprocess.run(command, env=environment(short_tmp), timeout=240)
    assert done.returncode == 0
    assert assert_sound(output).counts.records == 30 * 16


@heavy
@pytest.mark.parametrize("where", ["LOOPBACK", "EXTERNAL"])
def test_killed_and_finished_through_the_job_api(
    tmp_path: Path, short_tmp: Path, where: str
) -> None:
    """Beam's own job server; workers in the command (LOOPBACK), or in a pool beside it."""
    folder, output = source(tmp_path / "in", 12, 24), tmp_path / "out"
    jobs, pool = free_port(), free_port()
    chosen = ["--runner=PortableRunner", f"--job_endpoint=localhost:{jobs}"]
    chosen += [f"--environment_type={where}"]
    chosen += [f"--environment_config=localhost:{pool}"] if where == "EXTERNAL" else []
    options = ["--input", str(folder), "--output", str(output), "--method", "highpass"]
    options += ["--unit-rows", "24", "--seed", "3", "--", *chosen]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    around = {**environment(short_tmp), "PATH": path}
    quiet = {"env": around, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    servers = [
        f"apache_beam.runners.portability.local_job_service_main --port={jobs}",
        f"apache_beam.runners.worker.worker_pool_main --service_port={pool}",
    ]
    started = [subprocess.Popen([sys.executable, "-m", *s.split()], **quiet) for s in servers]
    try:
        for port in (jobs, pool):
            wait_for(lambda port=port: answers(port))
        command = [sys.executable, str(BEAM), *options]
        process = subprocess.Popen(command, **quiet)
        units = output / "evidence" / "ledger" / "units"
        wait_for(lambda: len(list(units.glob("*.json"))) >= 3 or process.poll() is not None)
        kill_tree(process)
        finished = {path.name: path.read_bytes() for path in units.glob("*.json")}
        assert 3 <= len(finished) < 12
        done = subprocess.run(command, env=around, capture_output=True, text=True, timeout=240)
    finally:
        for server in started:
            kill_tree(server)
    assert done.returncode == 0, done.stderr
    assert all((units / name).read_bytes() == data for name, data in finished.items())
    assert assert_sound(output).counts.records == 12 * 24


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_prism(tmp_path: Path) -> None:
    """Beam's portable runner, where its binary is at hand."""
    prism = shutil.which("prism")
    if prism is None:
        pytest.skip("PrismRunner: no binary named prism on the path")
    job, todo = job_of(tmp_path)
    options = PipelineOptions(["--runner=PrismRunner", f"--prism_location={prism}"])
    assert {status.state for status in on_beam(job, todo, options)} == {"committed"}
