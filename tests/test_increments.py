"""A dataset that grows, changes and shrinks; runs that overlap; what status says of it."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from pictures import jpeg

from ppfr_ops.cli.sanitize_beam import main as on_beam
from ppfr_ops.cli.status import OutputStatus
from ppfr_ops.cli.status import main as status_command
from ppfr_ops.contracts.manifest import Manifest
from ppfr_ops.contracts.records import IMAGE_TYPE
from ppfr_ops.store import lease
from ppfr_ops.store.lease import Lease
from ppfr_ops.store.ledger import LEDGER, Ledger, LedgerError

KEY = b"0123456789abcdef0123456789abcdef"


def faces(count: int, seed: int) -> list[bytes]:
    rng = np.random.default_rng(seed)
    return [jpeg(rng.integers(0, 255, (112, 112, 3), np.uint8)) for _ in range(count)]


def write(path: Path, pictures: list[bytes]) -> None:
    rows = [{"image": {"bytes": data, "path": "x"}} for data in pictures]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, pa.schema([("image", IMAGE_TYPE)])), path)


def run(folder: Path, *options: str) -> Result:
    (folder / "key").write_bytes(KEY)
    base = ["--input", str(folder / "in"), "--output", str(folder / "out")]
    base += ["--identity-key-file", str(folder / "key"), "--method", "pixelate"]
    return CliRunner().invoke(on_beam, [*base, "--metrics", "none", *options])


def shards(folder: Path) -> dict[str, tuple[int, str]]:
    """Name to modification time and digest."""
    return {
        path.name: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in (folder / "out/release/data").iterdir()
    }


def look(folder: Path) -> OutputStatus:
    done = CliRunner().invoke(status_command, [str(folder / "out"), "--json"])
    return OutputStatus.model_validate_json(done.stdout)


def ids(folder: Path) -> list[str]:
    return pq.read_table(folder / "out/release/data")["record_id"].to_pylist()


def test_twenty_units_that_grow_shrink_and_change(tmp_path: Path) -> None:
    data = {f"p{number:02d}": faces(20, number) for number in range(20)}
    for name, pictures in data.items():
        write(tmp_path / "in" / f"{name}.parquet", pictures)
    done = run(tmp_path, "--incremental")
    assert done.exit_code == 0, done.output
    assert "20 new, 0 changed, 0 unchanged" in done.stderr
    before = shards(tmp_path)
    assert len(before) == 20

    done = run(tmp_path, "--incremental")
    assert done.exit_code == 0 and "0 new, 0 changed, 20 unchanged" in done.stderr
    assert shards(tmp_path) == before

    # Two more; ten records gone from one; five changed in another; one touched, same content.
    write(tmp_path / "in" / "p20.parquet", faces(20, 20))
    write(tmp_path / "in" / "p21.parquet", faces(20, 21))
    write(tmp_path / "in" / "p03.parquet", data["p03"][10:])
    write(tmp_path / "in" / "p07.parquet", [*faces(5, 77), *data["p07"][5:]])
    os.utime(tmp_path / "in" / "p09.parquet")
    done = run(tmp_path, "--incremental")
    assert done.exit_code == 0, done.output
    assert "3 new, 1 changed, 18 unchanged, 1 superseded, 0 deleted" in done.stderr
    after = shards(tmp_path)
    assert sum(after.get(name) == found for name, found in before.items()) == 18
    assert len(after) == 22
    assert len(ids(tmp_path)) == len(set(ids(tmp_path))) == 20 * 22 - 10
    assert look(tmp_path).units_pending == 0

    # A whole file is deleted upstream.
    (tmp_path / "in" / "p00.parquet").unlink()
    done = run(tmp_path, "--incremental")
    assert done.exit_code == 0 and "1 deleted, 0 removed" in done.stderr
    assert shards(tmp_path) == after
    assert (look(tmp_path).deleted_upstream, look(tmp_path).taken_back) == (1, 0)
    done = run(tmp_path, "--incremental", "--propagate-deletions")
    assert done.exit_code == 0 and "0 deleted, 1 removed" in done.stderr
    assert len(shards(tmp_path)) == 21 and shards(tmp_path).items() <= after.items()
    assert len(list((tmp_path / "out/evidence/metrics").iterdir())) == len(shards(tmp_path))
    assert not list((tmp_path / "out/evidence/dead_letters").iterdir())
    said = look(tmp_path)
    assert (said.deleted_upstream, said.taken_back, said.records) == (0, 1, 20 * 21 - 10)
    manifest = Manifest.model_validate_json((tmp_path / "out/evidence/manifest.json").read_text())
    assert manifest.counts.records == 20 * 21 - 10
    entries = Ledger(str(tmp_path / "out")).entries().values()
    assert {os.path.basename(entry.shards["data"].path) for entry in entries} == set(
        shards(tmp_path)
    )

    # It comes back: published again, and no tombstone.
    write(tmp_path / "in" / "p00.parquet", data["p00"])
    assert run(tmp_path, "--incremental").exit_code == 0
    assert look(tmp_path).taken_back == 0 and len(shards(tmp_path)) == 22


def test_a_tree_of_pictures_changes_around_the_change_only(tmp_path: Path) -> None:
    pictures = faces(60, 1)
    (tmp_path / "in").mkdir()
    for number, data in enumerate(pictures):
        (tmp_path / "in" / f"{number:03d}.jpg").write_bytes(data)
    assert run(tmp_path, "--incremental", "--unit-rows", "8").exit_code == 0
    before = shards(tmp_path)
    (tmp_path / "in" / "020.jpg").unlink()
    (tmp_path / "in" / "041b.jpg").write_bytes(faces(1, 2)[0])
    done = run(tmp_path, "--incremental", "--unit-rows", "8")
    assert done.exit_code == 0, done.output
    after = shards(tmp_path)
    kept = sum(after.get(name) == found for name, found in before.items())
    assert kept >= len(before) - 6, done.stderr
    assert len(ids(tmp_path)) == len(set(ids(tmp_path))) == 60


def test_the_ledger_tells_no_name_and_no_digest_of_an_original(tmp_path: Path) -> None:
    write(tmp_path / "in" / "Jane_Doe.parquet", faces(3, 1))
    assert run(tmp_path, "--incremental").exit_code == 0
    source = tmp_path / "in" / "Jane_Doe.parquet"
    plain = [b"Jane_Doe", str(tmp_path).encode(), str(source.stat().st_mtime).encode()]
    plain += [hashlib.sha256(source.read_bytes()).hexdigest().encode()]
    plain += [hashlib.sha256(data).hexdigest().encode() for data in faces(3, 1)]
    for path in (tmp_path / "out").rglob("*.json"):
        assert not any(text in path.read_bytes() for text in plain), path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--incremental", "--limit", "3"), "goes with neither"),
        (("--propagate-deletions",), "needs --incremental"),
    ],
)
def test_what_does_not_go_together(tmp_path: Path, options: tuple[str], message: str) -> None:
    write(tmp_path / "in" / "a.parquet", faces(3, 1))
    done = run(tmp_path, *options)
    assert done.exit_code == 2 and message in done.stderr


def test_two_schedulers_at_the_same_moment_do_the_work_once(tmp_path: Path) -> None:
    for number in range(6):
        write(tmp_path / "in" / f"{number}.parquet", faces(30, number))
    (tmp_path / "key").write_bytes(KEY)
    command = [sys.executable, "-m", "ppfr_ops.cli", "sanitize-beam", "--incremental"]
    command += ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    command += ["--identity-key-file", str(tmp_path / "key"), "--method", "pixelate"]
    runs = [
        subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[1] for process in runs]
    codes = [process.returncode for process in runs]
    # The second found the first at work; or came after it, and found nothing to do.
    assert 0 in codes and set(codes) <= {0, 1}, said
    if 1 in codes:
        assert "another run is at work" in said[codes.index(1)]
    else:
        assert any("6 of them done before" in text for text in said)
    assert len(ids(tmp_path)) == len(set(ids(tmp_path))) == 180


def test_a_lease_is_for_one_and_fences_the_other_off(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    ledger.open({})
    outcomes: list[object] = []

    def take() -> None:
        try:
            outcomes.append(Lease(Ledger(str(tmp_path)), beat=0.05))
        except LedgerError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = [item for item in outcomes if isinstance(item, Lease)]
    assert len(held) == 1 and len(outcomes) == 8
    with held[0] as first:
        assert first.fence == 1 and lease.holder(ledger) == "alive"
    assert lease.holder(ledger) == "none"
    with Lease(ledger, beat=0.05) as second:
        assert second.fence == 2
        assert Ledger(str(tmp_path), first.fence).fenced_off()
        assert not Ledger(str(tmp_path), second.fence).fenced_off()


def test_another_machines_lease_is_watched_and_taken_when_it_stands_still(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    ledger.open({})
    place = (*LEDGER, "lease", "00000003.json")
    foreign = {"released": False, "machine": "another", "pid": 1, "started": "1"}
    ledger.write({**foreign, "beat": "a"}, *place)
    assert lease.holder(ledger) == "unknown"
    said = []
    with Lease(ledger, lambda: said.append(1), beat=0.05, expiry=0.3) as taken:
        assert taken.fence == 4 and said == [1]
    ledger.write({**foreign, "beat": "a"}, *LEDGER, "lease", "00000005.json")
    threading.Timer(
        0.2, lambda: ledger.write({**foreign, "beat": "b"}, *LEDGER, "lease", "00000005.json")
    ).start()
    with pytest.raises(LedgerError, match="another run is at work"):
        Lease(ledger, beat=0.05, expiry=5)


def test_the_lease_of_a_killed_run_is_taken_at_once(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    ledger.open({})
    code = (
        "import os, sys; from ppfr_ops.store.lease import Lease\n"
        "from ppfr_ops.store.ledger import Ledger\n"
        "Lease(Ledger(sys.argv[1])); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=60)
    assert lease.holder(ledger) == "dead"
    with Lease(ledger, expiry=1000) as taken:
        assert taken.fence == 2


def test_status_of_an_output(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / "in" / f"{number}.parquet", [*faces(3, number), b"no picture"])
    run(tmp_path)
    out = tmp_path / "out"
    said = look(tmp_path)
    assert (said.units_published, said.units_pending, said.records) == (3, 0, 9)
    assert said.dead_letters_by_code == {"not_an_image": 3}
    assert said.last_exit_code == 3 and said.run == "none" and said.engine.startswith("beam")
    next((out / "evidence" / "ledger" / "units").iterdir()).unlink()
    done = CliRunner().invoke(status_command, [str(out)], standalone_mode=False)
    assert done.return_value == 3 and "1 units" in done.stdout
    done = CliRunner().invoke(status_command, [str(tmp_path / "nope")])
    assert done.exit_code == 2 and "no output of ppfr sanitize" in done.stderr
    assert json.loads((out / "evidence/ledger/last.json").read_text())["units"] == 3
