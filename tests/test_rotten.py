"""Shards that rot or vanish while a run is at work: found at its end, done again, never signed."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from driving import drive

from ppfr_ops.contracts.manifest import Manifest
from ppfr_ops.release.publish import rotten
from ppfr_ops.sample import write_sample
from ppfr_ops.sanitize.job import Job, Status
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.worker import Worker
from ppfr_ops.store.ledger import Ledger

FACES, UNITS = 12, 4


class Disk:
    """An engine on a disk that loses and rots what was written, ``times`` runs long."""

    def __init__(self, output: Path, times: int) -> None:
        self.output, self.times = output, times
        self.asked: list[list[int]] = []

    def __call__(self, job: Job, todo: list[int]) -> Iterator[Status]:
        self.asked.append(todo)
        worker = Worker(job, 1)
        for number in todo:
            yield worker.process(number)
        if len(self.asked) <= self.times:
            gone, rots, metric, _ = Ledger(str(self.output)).entries().values()
            (self.output / gone.shards["data"].path).unlink()
            for entry, kind in ((rots, "data"), (metric, "metrics")):
                path = self.output / entry.shards[kind].path  # type: ignore[index]
                data = bytearray(path.read_bytes())
                data[len(data) // 2] ^= 1
                path.write_bytes(data)


def run(folder: Path, disk: Disk) -> int:
    if not (folder / "in").exists():
        write_sample(folder / "in", count=FACES, identities=3, files=1)
    options = SanitizeOptions(
        input=str(folder / "in"),
        output=str(disk.output),
        unit_rows=FACES // UNITS,
        method="pixelate",
        metrics="basic",
    )
    return drive(options, disk, "serial", dry_run=False, as_json=False)


def test_what_rots_during_a_run_is_done_again_in_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    disk = Disk(tmp_path / "out", times=1)
    assert run(tmp_path, disk) == 0
    assert disk.asked == [[0, 1, 2, 3], [0, 1, 2]]
    said = " ".join(capfd.readouterr().err.split())
    assert said.count("a shard is not what was committed, or gone; to be done again") == 3
    ledger = Ledger(str(disk.output))
    assert rotten(ledger, ledger.entries().values()) == []
    manifest = Manifest.model_validate_json((disk.output / "evidence/manifest.json").read_text())
    assert manifest.counts.records == FACES and manifest.counts.units == UNITS


def test_a_disk_that_goes_on_rotting_ends_the_run_unsigned_and_the_next_one_mends(
    tmp_path: Path,
) -> None:
    disk = Disk(tmp_path / "out", times=2)
    assert run(tmp_path, disk) == 1
    assert not (disk.output / "release/manifest.json").exists()
    last = json.loads((disk.output / "evidence/ledger/last.json").read_text())
    assert last["exit_code"] == 1
    again = Disk(tmp_path / "out", times=0)
    assert run(tmp_path, again) == 0 and again.asked == [[0, 1, 2]]


def test_what_rotted_since_is_done_again_by_the_same_command(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "out", times=0)
    assert run(tmp_path, disk) == 0
    entry = Ledger(str(disk.output)).entries()["u000002"]
    path = disk.output / entry.shards["data"].path
    path.write_bytes(path.read_bytes()[::-1])  # of the same size
    assert run(tmp_path, disk) == 0 and disk.asked == [[0, 1, 2, 3], [2]]
