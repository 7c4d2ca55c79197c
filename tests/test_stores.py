"""Object storage over HTTP: moto's S3 server, and a proxy before it that fails."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from faulty import FAULTS, FaultyProxy
from moto.server import ThreadedMotoServer

from ppfr_ops.cli.sanitize_beam import main as on_beam
from ppfr_ops.contracts.ledger import LedgerEntry
from ppfr_ops.contracts.manifest import Manifest, ReleaseManifest
from ppfr_ops.release.signing import Seal
from ppfr_ops.sample import write_sample
from ppfr_ops.sandbox import sandbox
from ppfr_ops.store.lease import Lease
from ppfr_ops.store.ledger import Ledger
from ppfr_ops.store.storage import RetryingFileSystem, StoreError, open_store

KEY = "AKIAEXAMPLE"
ROWS, UNITS = 64, 8
CHEAP = ("--method", "signed-field")


@pytest.fixture(scope="module")
def moto() -> Iterator[int]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setitem(fsspec.config.conf, "s3", {})
    fsspec.config.conf["s3"]["config_kwargs"] = {
        "read_timeout": 1,
        "connect_timeout": 2,
        "retries": {"mode": "standard", "total_max_attempts": 1},
    }
    return monkeypatch


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    write_sample(folder, count=ROWS, identities=4, files=2)
    return folder


@pytest.fixture
def buckets(moto: int, environment: pytest.MonkeyPatch, sample: Path) -> Iterator[object]:
    """Buckets ``faces`` (filled) and ``shared`` (empty); a client that no fault touches."""
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{moto}")
    for name in ("faces", "shared"):
        client.create_bucket(Bucket=name)
    for path in sorted(sample.iterdir()):
        client.put_object(Bucket="faces", Key=f"set/{path.name}", Body=path.read_bytes())
    yield client
    for name in ("faces", "shared"):
        for item in client.list_objects_v2(Bucket=name).get("Contents", []):
            client.delete_object(Bucket=name, Key=item["Key"])
        client.delete_bucket(Bucket=name)


def at(environment: pytest.MonkeyPatch, url: str) -> None:
    environment.setenv("AWS_ENDPOINT_URL", url)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    if sandbox._pipe is not None:
        sandbox._end()  # a child keeps the environment that it was born with


def patient(environment: pytest.MonkeyPatch) -> None:
    """Where requests are counted: none is given up and made again because the machine is busy."""
    slow = {**fsspec.config.conf["s3"]["config_kwargs"], "read_timeout": 60}
    environment.setitem(fsspec.config.conf, "s3", {"config_kwargs": slow})


def sanitize(*options: str) -> Result:
    base = ["--method", "pixelate", "--metrics", "basic", "--unit-rows", str(ROWS // UNITS)]
    return CliRunner().invoke(on_beam, [*base, *options])


def assert_sound(client: object) -> Manifest:
    """Every row once, every object as the manifest says, nothing else, no upload left open."""
    found = {
        item["Key"]: client.get_object(Bucket="shared", Key=item["Key"])["Body"].read()
        for item in client.list_objects_v2(Bucket="shared").get("Contents", [])
    }
    manifest = Manifest.model_validate_json(found.pop("out/evidence/manifest.json"))
    ids: list[str] = []
    places = [name for name in found if name.startswith("out/evidence/ledger/units/")]
    assert len(places) == manifest.counts.units
    for place in places:
        unit = LedgerEntry.model_validate_json(found.pop(place))
        for kind, shard in unit.shards.items():
            data = found.pop(f"out/{shard.path}")
            assert hashlib.sha256(data).hexdigest() == shard.sha256
            if kind == "data":
                ids += pq.read_table(pa.BufferReader(data))["record_id"].to_pylist()
    assert len(ids) == len(set(ids)) == manifest.counts.records
    told = ReleaseManifest.model_validate_json(found.pop("out/release/manifest.json"))
    listed = pq.read_table(pa.BufferReader(found.pop("out/release/files.pq")))
    assert sum(listed["rows"].to_pylist()) == told.records == len(ids)
    sealed = Seal.model_validate_json(found.pop("out/evidence/seal.json")).listing
    assert sealed is not None and found.pop(f"out/evidence/{sealed.path}")
    assert found.pop("out/release/verify.py")
    ledger = "out/evidence/ledger"
    assert {name.rpartition("/")[0] for name in found} == {ledger, f"{ledger}/lease"}
    assert "Uploads" not in client.list_multipart_uploads(Bucket="shared")
    assert not any(b"secret-of-the-test" in data for data in found.values())
    return manifest


def test_a_store_that_fails_one_request_in_ten(
    moto: int, buckets: object, environment: pytest.MonkeyPatch
) -> None:
    with FaultyProxy(moto, every=10) as proxy:
        at(environment, proxy.url)
        done = sanitize(
            *CHEAP, "--input", "s3://faces/set", "--output", "s3://shared/out", "--json"
        )
        assert done.exit_code == 0, done.output
    assert "secret-of-the-test" not in done.output and KEY not in done.output
    assert json.loads(done.stdout)["counts"]["records"] == ROWS
    assert all(proxy.faults[fault] >= 2 for fault in FAULTS), proxy.faults
    manifest = assert_sound(buckets)
    assert manifest.counts.records == ROWS and manifest.counts.units == UNITS
    assert proxy.requests < 150 * UNITS


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("PPFR_HEAVY"), reason="takes long: PPFR_HEAVY=1 runs it")
def test_the_command_on_ray_through_a_store_that_fails(
    moto: int, buckets: object, environment: pytest.MonkeyPatch
) -> None:
    """As a user has it: workers are processes of their own, options come from the environment."""
    environment.setenv("FSSPEC_S3", json.dumps(fsspec.config.conf["s3"]))
    command = [
        sys.executable,
        "-m",
        "ppfr_ops.cli",
        "sanitize",
        "--engine",
        "ray",
        "--actors",
        "2",
        "--unit-rows",
        "8",
    ]
    command += ["--method", "highpass", "--input", "s3://faces/set"]
    with FaultyProxy(moto, every=10) as proxy:
        environment.setenv("AWS_ENDPOINT_URL", proxy.url)
        began = time.monotonic()
        done = subprocess.run(
            [*command, "--output", "s3://shared/out"], capture_output=True, text=True, timeout=280
        )
        assert done.returncode == 0, done.stderr
        print(f"{proxy.requests} requests, faults {dict(proxy.faults)}", end=", ")
        print(f"{time.monotonic() - began:.0f} s")
    assert all(proxy.faults[fault] >= 2 for fault in FAULTS), proxy.faults
    manifest = assert_sound(buckets)
    assert manifest.counts.records == ROWS and manifest.counts.units == UNITS
    assert "secret-of-the-test" not in done.stderr and KEY not in done.stderr
    environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{moto}")
    done = subprocess.run(
        [*command, "--output", "s3://nowhere/out"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip() == "Error: there is no such bucket"


def test_every_answer_lost_half_way_and_still_once(
    moto: int, buckets: object, environment: pytest.MonkeyPatch
) -> None:
    """A conditional put whose answer got lost finds its own entry when it is tried again."""
    with FaultyProxy(moto, every=4, only="reset") as proxy:
        at(environment, proxy.url)
        options = (
            "--input",
            "s3://faces/set",
            "--output",
            "s3://shared/out",
            "--limit",
            "24",
            *CHEAP,
        )
        done = sanitize(*options)
        assert done.exit_code == 0, done.output
    assert assert_sound(buckets).counts.records == 24


def test_conditional_put_lets_one_win(
    moto: int, buckets: object, environment: pytest.MonkeyPatch
) -> None:
    at(environment, f"http://127.0.0.1:{moto}")
    ledger = Ledger("s3://shared/out")
    assert ledger.create({"copy": 1}, "evidence", "ledger", "units", "u.json")
    assert not ledger.create({"copy": 2}, "evidence", "ledger", "units", "u.json")
    assert ledger.read("evidence", "ledger", "units", "u.json") == {"copy": 1}


@pytest.mark.parametrize(
    ("source", "output", "key", "message"),
    [
        ("s3://faces/set", "s3://shared/out", "AKIAWRONG", "the input: the store refuses access"),
        ("s3://nowhere/set", "s3://shared/out", KEY, "the input: there is no such bucket"),
        ("s3://faces/nothing", "s3://shared/out", KEY, "the input does not exist"),
        ("s3://faces/set", "s3://nowhere/out", KEY, "there is no such bucket"),
        ("nope://faces/set", "s3://shared/out", KEY, "store nope://"),
    ],
)
def test_what_cannot_work_is_one_line_at_once(
    moto: int,
    buckets: object,
    environment: pytest.MonkeyPatch,
    source: str,
    output: str,
    key: str,
    message: str,
) -> None:
    with FaultyProxy(moto, access_key=KEY) as proxy:
        environment.setenv("AWS_ACCESS_KEY_ID", key)
        at(environment, proxy.url)
        done = sanitize(*CHEAP, "--input", source, "--output", output)
        assert done.exit_code == 2, done.output
        assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert proxy.requests <= 20
    assert "Contents" not in buckets.list_objects_v2(Bucket="shared")
    assert {item["Name"] for item in buckets.list_buckets()["Buckets"]} == {"faces", "shared"}


def test_a_listing_of_more_than_a_page(
    moto: int, buckets: object, environment: pytest.MonkeyPatch
) -> None:
    patient(environment)
    with FaultyProxy(moto) as proxy:
        at(environment, proxy.url)
        for number in range(1005):
            buckets.put_object(Bucket="shared", Key=f"out/release/data/{number:04d}", Body=b"x")
        buckets.put_object(Bucket="shared", Key="out/release/data/00/0", Body=b"x")
        folder = Ledger("s3://shared/out")
        found = dict(folder.listing("release", "data"))
        assert proxy.requests == 2
        assert not found.pop("00").plain  # a folder
        assert sorted(found) == [f"{number:04d}" for number in range(1005)]
        assert found == folder.files("release", "data") and found["0007"].size == 1
        buckets.put_object(Bucket="shared", Key="out/release/data/0007", Body=b"y")
        again = dict(folder.listing("release", "data"))
        assert {name for name in found if found[name] != again[name]} == {"0007"}
        assert dict(folder.listing("release", "none")) == {}
    for name in sorted(found)[990:]:  # the fixture clears a page
        buckets.delete_object(Bucket="shared", Key=f"out/release/data/{name}")


def test_a_unit_costs_five_requests_and_its_shards_are_not_read_again(
    moto: int, buckets: object, environment: pytest.MonkeyPatch, sample: Path
) -> None:
    from driving import drive

    from ppfr_ops.sanitize.job import Job, Status
    from ppfr_ops.sanitize.options import SanitizeOptions
    from ppfr_ops.sanitize.worker import Worker

    given = {"input": str(sample), "output": "s3://shared/out", "unit_rows": ROWS // UNITS}
    given |= {"method": "pixelate", "metrics": "basic"}
    todo: list[list[int]] = []

    def run(**more: object) -> list[str]:
        """What was asked beside the work on units."""
        spent: list[str] = []

        def serial(job: Job, units: list[int]) -> Iterator[Status]:
            todo.append(units)
            worker = Worker(job, 1)
            assert worker.ledger.ids and worker._fingerprints  # once for all units
            before = len(proxy.asked)
            yield from map(worker.process, units)
            spent.extend(proxy.asked[before:])
            del proxy.asked[before:]

        proxy.asked.clear()
        options = SanitizeOptions.model_validate(given | more)
        assert drive(options, serial, "serial", dry_run=False, as_json=False) == 0
        units = sum(map(len, todo))
        fence = [line for line in spent if "ledger%2Flease" in line or "/lease/" in line]
        # Among them, a listing and a put whenever the heart of the lease beats.
        beats = sum(line.startswith("PUT") for line in fence)
        assert len(spent) - len(fence) == 4 * units, sorted(set(spent) - set(fence))
        assert len(fence) <= units + 2 * beats + 1
        return proxy.asked

    def reads(asked: list[str]) -> int:
        return sum(
            line.startswith(("GET /shared/out/release/data/", "GET /shared/out/evidence/metrics/"))
            for line in asked
        )

    patient(environment)
    with FaultyProxy(moto) as proxy:
        at(environment, proxy.url)
        assert not reads(run()) and todo == [[*range(UNITS)]]
        assert assert_sound(buckets).counts.records == ROWS
        shard = Ledger("s3://shared/out").entries()["u000002"].shards["metrics"]
        data = buckets.get_object(Bucket="shared", Key=f"out/{shard.path}")["Body"].read()
        buckets.put_object(Bucket="shared", Key=f"out/{shard.path}", Body=data[::-1])
        todo.clear()
        assert run() and todo == [[2]]
        assert assert_sound(buckets).counts.records == ROWS
        todo.clear()
        assert reads(run(check_shards="all")) >= 2 * UNITS and not todo


def test_retries_end(moto: int, buckets: object, environment: pytest.MonkeyPatch) -> None:
    environment.setattr("ppfr_ops.store.storage.ATTEMPTS", 2)
    with FaultyProxy(moto, every=1, only="503") as proxy:
        at(environment, proxy.url)
        fs, path = open_store("s3://faces/set")
        began = time.monotonic()
        with pytest.raises(StoreError, match="does not answer, or fails again and again"):
            fs.find(path)
        assert proxy.requests <= 5 * 2 and time.monotonic() - began < 20


def test_a_store_that_is_away_makes_no_dead_letters(
    moto: int, buckets: object, environment: pytest.MonkeyPatch
) -> None:
    """Not to be reached is not damaged: the unit fails, and the next run does it."""
    from ppfr_ops.sanitize.options import SanitizeOptions
    from ppfr_ops.sanitize.prepare import prepare
    from ppfr_ops.sanitize.worker import Worker

    at(environment, f"http://127.0.0.1:{moto}")
    options = SanitizeOptions(
        input="s3://faces/set", output="s3://shared/out", method="pixelate", metrics="basic"
    )
    job = prepare(options)
    Ledger(options.output).open(job.settings)
    worker = Worker(job)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    environment.setattr("ppfr_ops.store.storage.ATTEMPTS", 1)
    environment.setattr("s3fs.S3FileSystem.retries", 1)
    with FaultyProxy(moto, every=1, only="500") as proxy:
        environment.setenv("AWS_ENDPOINT_URL", proxy.url)
        worker.ledger = Ledger(options.output)  # one that does not know the way round the proxy
        status = worker.process(0)
    assert status.state == "failed" and "StoreError" in status.reason
    at(environment, f"http://127.0.0.1:{moto}")
    again = Worker(job).process(0)
    assert (again.state, again.dead_letters, again.attempts) == ("committed", 0, 0)


def test_uploads_that_died_are_aborted(
    moto: int, buckets: object, environment: pytest.MonkeyPatch
) -> None:
    at(environment, f"http://127.0.0.1:{moto}")
    for key in ("out/evidence/metrics/u.parquet", "elsewhere/theirs"):
        buckets.create_multipart_upload(Bucket="shared", Key=key)
    fs, path = open_store("s3://shared/out")
    assert isinstance(fs, RetryingFileSystem)
    fs.abort_uploads(path)
    left = buckets.list_multipart_uploads(Bucket="shared")["Uploads"]
    assert [upload["Key"] for upload in left] == ["elsewhere/theirs"]
    for upload in left:
        buckets.abort_multipart_upload(
            Bucket="shared", Key=upload["Key"], UploadId=upload["UploadId"]
        )


def test_a_large_object_goes_up_in_parts_and_is_aborted_if_one_fails(
    moto: int, buckets: object, environment: pytest.MonkeyPatch
) -> None:
    fsspec.config.conf["s3"]["config_kwargs"]["read_timeout"] = 60
    environment.setattr("ppfr_ops.store.storage.ATTEMPTS", 2)
    environment.setattr("s3fs.S3FileSystem.retries", 2)
    large = bytes(101 * 2**20)
    with FaultyProxy(moto, every=1, only="500", where="partNumber=3") as proxy:
        at(environment, proxy.url)
        fs, _ = open_store("s3://shared/out")
        with pytest.raises(StoreError):
            fs.pipe_file("shared/out/evidence/metrics/u.parquet", large)
        assert proxy.faults["500"] == 2 * 2
    assert "Uploads" not in buckets.list_multipart_uploads(Bucket="shared")
    assert "Contents" not in buckets.list_objects_v2(Bucket="shared")
    with FaultyProxy(moto, every=3, only="500", where="partNumber=") as proxy:
        at(environment, proxy.url)
        fs, _ = open_store("s3://shared/out")
        fs.pipe_file("shared/out/evidence/metrics/u.parquet", large)
        assert proxy.faults["500"] >= 1
    found = buckets.head_object(Bucket="shared", Key="out/evidence/metrics/u.parquet")
    assert found["ContentLength"] == len(large)
    assert "Uploads" not in buckets.list_multipart_uploads(Bucket="shared")


STOPPED = """
import os, signal, sys
from ppfr_ops.store import lease
from ppfr_ops.store.lease import Lease
from ppfr_ops.store.ledger import Ledger
lease._machine = lambda: "another machine"  # whose processes nobody here can see
moment = sys.argv.pop(1)
done = getattr(Ledger, moment)
def stop_once(self, *args, **named):
    setattr(Ledger, moment, done)
    os.kill(os.getpid(), signal.SIGSTOP)
    return done(self, *args, **named)
setattr(Ledger, moment, stop_once)
from ppfr_ops.cli.sanitize_beam import main
sys.exit(main(standalone_mode=False))
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["commit", "_create_entry"])
def test_a_run_that_is_stopped_and_commits_late(
    moto: int, buckets: object, environment: pytest.MonkeyPatch, moment: str
) -> None:
    """SIGSTOP before a unit is committed, or in the very moment before its entry is put; another
    run takes over and finishes; the first wakes up, and nothing is there twice or lost."""
    at(environment, f"http://127.0.0.1:{moto}")
    environment.setenv("FSSPEC_S3", json.dumps(fsspec.config.conf["s3"]))
    environment.setitem(Lease.__init__.__kwdefaults__, "expiry", 2.0)
    options = ["--input", "s3://faces/set", "--output", "s3://shared/out", "--method", "pixelate"]
    options += ["--metrics", "basic", "--unit-rows", str(ROWS // UNITS)]
    first = subprocess.Popen(
        [sys.executable, "-c", STOPPED, moment, *options], stderr=subprocess.PIPE, text=True
    )
    try:
        state = Path(f"/proc/{first.pid}/stat")
        deadline = time.monotonic() + 240
        while state.read_text().rpartition(")")[2].split()[0] != "T":
            assert first.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        done = sanitize(*options)
        assert done.exit_code == 0, done.output
        manifest = assert_sound(buckets)
    finally:
        os.kill(first.pid, signal.SIGCONT)
        said = first.communicate(timeout=240)[1]
    assert first.returncode == 1 and "another run has taken over this output" in said, said
    assert assert_sound(buckets) == manifest
    assert manifest.counts.records == ROWS and manifest.counts.units == UNITS
    again = sanitize(*options)
    assert again.exit_code == 0 and f"{UNITS} of them done before" in again.stderr.replace(
        "\n", " "
    )


def test_a_store_that_ignores_conditions_is_refused(
    moto: int, buckets: object, environment: pytest.MonkeyPatch
) -> None:
    with FaultyProxy(moto, drop="If-None-Match") as proxy:
        at(environment, proxy.url)
        options = (
            "--input",
            "s3://faces/set",
            "--output",
            "s3://shared/out",
            "--limit",
            "8",
            *CHEAP,
        )
        done = sanitize(*options)
        assert done.exit_code == 2 and "no conditional puts" in done.stderr, done.output
        assert "Contents" not in buckets.list_objects_v2(Bucket="shared")
        done = sanitize(*options, "--single-writer")
        assert done.exit_code == 0, done.output
    assert assert_sound(buckets).counts.records == 8
