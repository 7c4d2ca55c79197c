"""Which deaths are evidence against a record, and which are not."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pytest

from ppfr_ops.sample import write_sample
from ppfr_ops.sanitize import isolation
from ppfr_ops.sanitize.job import Job
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.prepare import prepare
from ppfr_ops.sanitize.worker import MAX_ATTEMPTS, Worker
from ppfr_ops.store.ledger import LEDGER, Ledger, Tables

FACES = 6


@pytest.fixture
def job(tmp_path: Path) -> Job:
    write_sample(tmp_path / "in", count=FACES, identities=2, files=1)
    places = {"input": str(tmp_path / "in"), "output": str(tmp_path / "out")}
    made = prepare(SanitizeOptions(**places, method="pixelate", metrics="none"))
    Ledger(str(tmp_path / "out")).open(made.settings)
    return made


class Child:
    """Stands for the child process: dies as often as ``deaths`` says of a row."""

    deaths: ClassVar[dict[int, int]] = {}
    asked: ClassVar[list[tuple[int, int]]] = []
    job: Job

    def __init__(self, job: Job, ordinal: int, threads: int) -> None:
        self.worker = Worker(job, threads)

    def sanitize(self, start: int, stop: int) -> Tables:
        self.asked.append((start, stop))
        for row in range(start, stop):
            if self.deaths.get(row, 0):
                self.deaths[row] -= 1
                raise isolation._Died
        unit = self.worker.job.plan.units[0]
        table = self.worker.read(unit)
        return self.worker.sanitizer(table.slice(start, stop - start), unit.id)

    def close(self) -> None:
        pass


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> type[Child]:
    monkeypatch.setattr(Child, "deaths", {})
    monkeypatch.setattr(Child, "asked", [])
    monkeypatch.setattr(isolation, "_Child", Child)
    return Child


def hold(job: Job, fence: int) -> Job:
    """The job of a run that holds the lease of this number."""
    Ledger(job.options.output).create({}, *LEDGER, "lease", f"{fence:08d}.json")
    return replace(job, fence=fence)


def test_runs_that_were_killed_are_no_evidence_against_a_record(
    job: Job, child: type[Child]
) -> None:
    for fence in range(1, 2 * MAX_ATTEMPTS + 1):
        Ledger(job.options.output, fence).attempt("u000000")
    status = Worker(hold(job, 7)).process(0)
    assert (status.state, status.records, status.dead_letters) == ("committed", FACES, 0)
    assert child.asked == [(0, FACES)]  # taken apart, which loses nothing


def test_only_deaths_while_taken_apart_in_one_run_bury_a_unit(job: Job, child: type[Child]) -> None:
    for fence in (1, 2, 3):
        for apart in (False, True):
            Ledger(job.options.output, fence).attempt("u000000", apart)
    ledger = Ledger(job.options.output, 4)
    for _ in range(MAX_ATTEMPTS):
        ledger.attempt("u000000", apart=True)
    status = Worker(hold(job, 4)).process(0)
    assert (status.records, status.dead_letters, child.asked) == (0, FACES, [])


@pytest.mark.parametrize(("deaths", "dead"), [(1, 0), (4, 0), (5, 1)])
def test_a_row_has_to_kill_twice_by_itself(
    job: Job, child: type[Child], deaths: int, dead: int
) -> None:
    # Three deaths (of rows 0 to 5, 0 to 2, 1 to 2) until row 2 is alone.
    child.deaths = {2: deaths}
    tables = isolation.sanitize_apart(job, 0, Worker(job).sanitizer, 1)
    assert tables.dead_letters.num_rows == dead
    ids = pa.concat_tables([tables.records.select([0]), tables.dead_letters.select([0])])[0]
    assert sorted(ids.to_pylist()) == [f"u000000-{row:06d}" for row in range(FACES)]
