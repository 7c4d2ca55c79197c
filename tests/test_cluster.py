"""Ray on several nodes, and as a job. Takes minutes: PPFR_HEAVY=1 runs it."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_sanitize import ROOT, SCRIPT, assert_sound, environment, good, kill_tree, write_faces

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("PPFR_HEAVY"), reason="takes minutes: PPFR_HEAVY=1"),
]
UNITS, ROWS = 16, 24


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    pictures = good(ROWS)
    for number in range(UNITS):
        write_faces(tmp_path / "in" / f"{number:02d}.parquet", pictures)
    return tmp_path / "in"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """A head that only drives, and three nodes of one CPU."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    for name in ("RAY_raylet_start_wait_time_s", "RAY_agent_register_timeout_ms"):
        monkeypatch.setenv(name, "120" if name.endswith("_s") else "120000")  # a busy machine
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        made.workers = [made.add_node(num_cpus=1) for _ in range(3)]
        yield made
    finally:
        made.shutdown()


def start(cluster: object, faces: Path, output: Path, log: Path) -> subprocess.Popen[bytes]:
    options = ["--input", faces, "--output", output, "--method", "highpass", "--actors", "3"]
    options += ["--unit-rows", ROWS, "--ray-address", cluster.address]
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), *map(str, options)],
            env=environment(Path("/tmp")),
            stdout=file,
            stderr=file,
        )


def committed(output: Path, wanted: int, process: subprocess.Popen[bytes], log: Path) -> None:
    units = output / "evidence" / "ledger" / "units"
    deadline = time.monotonic() + 200
    while len(list(units.glob("*.json"))) < wanted:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.01)


def test_a_node_dies_and_then_the_driver(cluster: object, faces: Path, tmp_path: Path) -> None:
    output, log = tmp_path / "out", tmp_path / "log"
    process = start(cluster, faces, output, log)
    committed(output, 4, process, log)
    cluster.remove_node(cluster.workers.pop(), allow_graceful=False)
    assert process.wait(timeout=280) == 0, log.read_text()
    assert assert_sound(output).counts.records == UNITS * ROWS

    output = tmp_path / "again"
    process = start(cluster, faces, output, log)
    committed(output, 4, process, log)
    kill_tree(process)
    units = output / "evidence" / "ledger" / "units"
    kept = {path.name: path.read_bytes() for path in units.glob("*.json")}
    assert 4 <= len(kept) < UNITS
    process = start(cluster, faces, output, log)
    assert process.wait(timeout=280) == 0, log.read_text()
    for name, data in kept.items():
        assert (units / name).read_bytes() == data
    assert assert_sound(output).counts.records == UNITS * ROWS


def free_ports(count: int) -> list[int]:
    """Beyond those that Ray keeps for its workers (10002 to 19999)."""
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(8 * count)]
    found = [item.getsockname()[1] for item in taken]
    for item in taken:
        item.close()
    return [port for port in found if port > 20000][:count]


@pytest.mark.timeout(600)  # a head and two jobs, each of them starts Ray
def test_ray_job_submit(faces: Path, tmp_path: Path) -> None:
    ray = str(Path(sys.executable).parent / "ray")
    port, gcs, agent = free_ports(3)
    (tmp_path / "token").write_text(secrets.token_hex(32))
    paths = {**environment(Path("/tmp")), "RAY_USAGE_STATS_ENABLED": "0"}
    paths |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    folder = Path("/tmp") / f"rj{os.getpid()}"
    said_by_head = (tmp_path / "head").open("wb")
    head = subprocess.Popen(
        [
            *(ray, "start", "--head", "--block", "--num-cpus=2", f"--port={gcs}"),
            *(f"--dashboard-port={port}", "--include-dashboard=true", f"--temp-dir={folder}"),
            # the usual one may be another Ray's of the same suite: then no agent takes jobs
            f"--dashboard-agent-listen-port={agent}",
        ],
        env=paths,
        stdout=said_by_head,
        stderr=said_by_head,
    )
    address = f"http://127.0.0.1:{port}"

    def submit(name: str, *options: object) -> subprocess.CompletedProcess[str]:
        command = [ray, "job", "submit", "--address", address, "--submission-id", name]
        command += ["--working-dir", str(ROOT)]
        command += ["--runtime-env-json", json.dumps({"excludes": [".git", "tests", "/out"]})]
        command += ["--", sys.executable, "pipelines/sanitize.py", *map(str, options)]
        until = time.monotonic() + 90
        while True:
            done = subprocess.run(command, env=paths, capture_output=True, text=True, timeout=250)
            # The head answers before it has an agent that takes jobs.
            if "No available agent" not in done.stderr or time.monotonic() > until:
                return done
            time.sleep(2)

    def info(name: str) -> dict[str, object]:
        code = (
            "import sys, json; from ray.job_submission import JobSubmissionClient as C\n"
            "i = C(sys.argv[1]).get_job_info(sys.argv[2])\n"
            "print(json.dumps([i.status.value, i.driver_exit_code]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, address, name], env=paths, capture_output=True, text=True
        )
        return json.loads(done.stdout.strip().splitlines()[-1])

    try:
        listing = [ray, "job", "list", "--address", address]
        deadline = time.monotonic() + 150
        while subprocess.run(listing, env=paths, capture_output=True).returncode:
            assert time.monotonic() < deadline, "the head does not answer"
            assert head.poll() is None, (tmp_path / "head").read_text()[-2000:]
            time.sleep(1)
        base = ("--input", faces, "--output", tmp_path / "out", "--unit-rows", ROWS)
        done = submit("ppfr-good", *base, "--method", "highpass")
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        assert f"{UNITS}/{UNITS} units" in said and "published" in said
        assert info("ppfr-good") == ["SUCCEEDED", 0]
        assert assert_sound(tmp_path / "out").counts.records == UNITS * ROWS
        done = submit("ppfr-bad", "--input", tmp_path / "nope", "--output", tmp_path / "bad")
        assert done.returncode == 1
        assert "Error: the input does not exist" in done.stdout + done.stderr
        assert info("ppfr-bad") == ["FAILED", 2]
    finally:
        kill_tree(head)
        said_by_head.close()
        subprocess.run(["rm", "-rf", str(folder)])
