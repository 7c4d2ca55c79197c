"""What a run costs a unit beside the work, as units grow in number: a simulation on tiny shards.

For every number of units an input of so many rows and the output of a run are laid down on local
disk: two shards, a ledger entry and the mark of an attempt a unit. Then, each in a process of its
own, for its memory: committing some units more; the whole command, which finds nothing to do but
everything to look at, as a first run does when its last unit is committed (its planning, opening
and finishing by themselves); opening the ledger again, from the copy of all entries; the command
once more, which has nothing to do; ``ppfr status``; ``ppfr verify``, without the reading of
shards. Times are seconds, and in brackets seconds of the processor, which others on the machine
change less. With ``--requests`` and ``--whole`` a store counts requests.

    python bench/million_units.py --units 1000 10000 100000 1000000
    python bench/million_units.py --requests 1000
    python bench/million_units.py --whole 20000
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from slow_store import ROOT, SlowStore

from ppfr_ops.contracts.dead_letters import DEAD_LETTERS_SCHEMA
from ppfr_ops.contracts.ledger import KINDS, LedgerEntry, Shard, Statistic, shard_path
from ppfr_ops.contracts.manifest import Counts, Manifest, Method
from ppfr_ops.contracts.metrics import metrics_schema
from ppfr_ops.contracts.records import IMAGE_TYPE, records_schema
from ppfr_ops.release.up_to_date import mark_up_to_date, shards_as_listed, up_to_date
from ppfr_ops.store.ids import Ids
from ppfr_ops.store.lease import Lease
from ppfr_ops.store.ledger import Attempts, Ledger, Tables

SETTINGS = {"method": "a", "input": "b"}
MORE = 50
"""Units that are committed as a worker does it."""
FILE_ROWS = 100_000


def tables() -> Tables:
    metrics = {name: pa.array([0.5], pa.float32()) for name in metrics_schema().names[1:]}
    image = [{"bytes": b"x", "path": "x.jpg"}]
    return Tables(
        pa.table({"record_id": ["u-0"], "image": image}, schema=records_schema()),
        pa.table({"record_id": ["u-0"], **metrics}, schema=metrics_schema()),
        DEAD_LETTERS_SCHEMA.empty_table(),
    )


def entry_of(unit: str, number: int, ids: Ids) -> LedgerEntry:
    """Figures and digests are as hard to compress as real ones. No dead letters."""
    names = metrics_schema().names[1:]
    shards = {}
    for kind in KINDS[:2]:
        data = content(unit, kind)
        path = shard_path(kind, ids.unit(unit) if kind == "data" else unit)
        own = hashlib.sha256(data).hexdigest()
        shards[kind] = Shard(path=path, rows=1, bytes=len(data), sha256=own)
    chance = hashlib.sha256(unit.encode()).digest()
    values = {name: chance[place] / 256 + number / 1e9 for place, name in enumerate(names)}
    return LedgerEntry(
        unit=unit,
        copy_id=chance[:8].hex(),
        rows_in=1,
        records=1,
        dead_letters={},
        shards=shards,
        method_digest="0" * 64,
        settings_digest="0" * 64,
        metrics={
            name: Statistic(count=1, mean=value, min=value, max=value)
            for name, value in values.items()
        },
    )


def content(unit: str, kind: str) -> bytes:
    """Of a shard, which nobody reads as one."""
    return f"{unit}{kind}".encode()


def lay_down(ledger: Ledger, numbers: range) -> None:
    """The files of committed units, as a run leaves them."""
    root = Path(ledger.root)
    folder = root / "evidence/ledger"
    for number in numbers:
        unit = f"u{number:06d}"
        entry = entry_of(unit, number, ledger.ids)
        for kind, shard in entry.shards.items():
            (root / shard.path).write_bytes(content(unit, kind))
        (folder / "units" / f"{unit}.json").write_text(entry.model_dump_json(indent=1))
        (folder / "attempts" / f"{unit}.first").write_bytes(b"u")


def work(ledger: Ledger, numbers: range) -> None:
    """What a worker asks of the ledger."""
    for number in numbers:
        unit = f"u{number:06d}"
        assert ledger.begin(unit) == Attempts()
        ledger.commit(unit, tables(), 1, method_digest="m", settings_digest="s")


def timed(call: Any) -> list[float]:
    """Seconds, and seconds of the processor."""
    began, worked = time.perf_counter(), time.process_time()
    call()
    return [time.perf_counter() - began, time.process_time() - worked]


Took = dict[str, list[float]]
"""By step, as ``timed`` gives it."""


# -- on local disk, a step a process ----------------------------------------------------------


def options(folder: str, output: str | None = None) -> Any:
    from ppfr_ops.sanitize.options import SanitizeOptions

    return SanitizeOptions(
        input=f"{folder}/in",
        output=output or f"{folder}/out",
        unit_rows=1,
        method="pixelate",
        metrics="basic",
    )


def write_input(folder: str, count: int) -> None:
    """A row a unit."""
    import cv2
    import numpy as np

    os.makedirs(f"{folder}/in")
    picture = cv2.imencode(".jpg", np.full((112, 112, 3), 90, np.uint8))[1].tobytes()
    for first in range(0, count, FILE_ROWS):
        cells = [{"bytes": picture, "path": "x.jpg"}] * min(FILE_ROWS, count - first)
        faces = pa.table({"image": pa.array(cells, IMAGE_TYPE)})
        pq.write_table(faces, f"{folder}/in/{first:08d}.parquet", row_group_size=1000)


def prepared(folder: str, count: int) -> Took:
    """Not measured: input and output."""
    from ppfr_ops.sanitize.prepare import prepare

    write_input(folder, count)
    ledger = Ledger(f"{folder}/out")
    ledger.open(prepare(options(folder)).settings)
    lay_down(ledger, range(count - MORE))
    return {}


def committing(folder: str, count: int) -> Took:
    ledger = Ledger(f"{folder}/out")
    took = timed(lambda: work(ledger, range(count - MORE, count)))
    return {"commit, ms a unit": [seconds / MORE * 1000 for seconds in took]}


def command(folder: str, count: int) -> Took:
    """The whole command, and what its parts took."""
    from ppfr_ops.sanitize import conductor
    from ppfr_ops.sanitize.events import ignore
    from ppfr_ops.sanitize.job import Job, Status

    took: Took = {}

    def noted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **named: Any) -> Any:
            results: list[Any] = []
            took[name] = timed(lambda: results.append(call(*args, **named)))
            return results[0]

        return wrapped

    def idle(job: Job, todo: list[int]) -> Iterator[Status]:
        raise AssertionError(f"{len(todo)} units are not done")

    conductor.prepare = noted("plan", conductor.prepare)
    conductor.finish = noted("finish", conductor.finish)
    Ledger.open = noted("open", Ledger.open)  # type: ignore[method-assign]
    whole = timed(lambda: conductor.conduct(options(folder), idle, "bench", ignore))
    return {**took, "command": whole}


def opening(folder: str, count: int) -> Took:
    settings = Ledger(f"{folder}/out").read("evidence", "ledger", "run.json") or {}
    return {"open again": timed(lambda: Ledger(f"{folder}/out").open(settings))}


def idling(folder: str, count: int) -> Took:
    return {"no-op": command(folder, count)["command"]}


def looking(folder: str, count: int) -> Took:
    from ppfr_ops.cli.status import look

    result = {"status": timed(lambda: look(f"{folder}/out"))}
    assert look(f"{folder}/out").units_published == count
    return result


def verifying(folder: str, count: int) -> Took:
    """All of it but what is in the shards, which are none here."""
    from ppfr_ops.release import evidence, verify

    verify._read = lambda seen, file: (None, None)
    evidence._check_shard = lambda *args: (None, [])
    found: list[Any] = []
    result = {"verify": timed(lambda: found.extend(verify.verify(f"{folder}/out")))}
    assert not found, found[:3]
    return result


STEPS = (prepared, committing, command, opening, idling, looking, verifying)
COLUMNS = {
    "plan": "plan, s",
    "commit, ms a unit": "commit, ms a unit",
    "open": "open, s",
    "finish": "finish, s",
    "open again": "open again, s",
    "no-op": "no-op, s",
    "status": "status, s",
    "verify": "verify's bookkeeping, s",
    "peak": "peak, MiB (command, no-op, status, verify)",
}


def measure(count: int) -> str:
    """A row of the table."""
    found: Took = {}
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        for step in STEPS:
            line = [sys.executable, __file__, "--step", step.__name__, folder, str(count)]
            done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True)
            said = json.loads(done.stdout.splitlines()[-1])
            peaks[step.__name__] = said.pop("peak")
            print(count, step.__name__, said, f"{peaks[step.__name__]:.0f} MiB", file=sys.stderr)
            found = said | found
        # Removing files one by one is not what is measured.
        subprocess.run(["rm", "-rf", *(str(path) for path in Path(folder).iterdir())], check=True)
    shown = [f"{found[name][0]:,.1f} ({found[name][1]:,.1f})" for name in list(COLUMNS)[:-1]]
    told = ", ".join(
        f"{peaks[name]:,.0f}" for name in ("command", "idling", "looking", "verifying")
    )
    return f"| {count:,} | {' | '.join(shown)} | {told} |"


def one_step(name: str, folder: str, count: int) -> None:
    step = next(step for step in STEPS if step.__name__ == name)
    result = step(folder, count)
    result["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(result))


# -- requests of a store -----------------------------------------------------------------------


def requests(count: int) -> dict[str, float]:
    """Requests a unit of a store without folders and renames."""

    def asked(call: Any) -> int:
        SlowStore.requests = 0
        call()
        return SlowStore.requests

    with tempfile.TemporaryDirectory() as folder:
        os.environ[ROOT] = folder
        with Lease(Ledger("slow://out")) as lease:  # a worker looks whether it still holds
            ledger = Ledger("slow://out", lease.fence)
            ledger.open(SETTINGS)
            committing = asked(lambda: work(ledger, range(MORE)))
            result = {"units": count, "committing": committing / MORE}
        local = Ledger(f"{folder}/out")
        local.open(SETTINGS)
        lay_down(local, range(count))
        result["opening"] = asked(lambda: Ledger("slow://out").open(SETTINGS)) / count
        whole = Ledger("slow://out")
        whole.entries()
        whole.compact()
        result["opening again"] = asked(lambda: Ledger("slow://out").open(SETTINGS)) / count
        store = Ledger("slow://out")
        mark_up_to_date(store, "command", _manifest(count), shards_as_listed(store), None)
        result["nothing to do, all"] = asked(lambda: up_to_date(store, "command", None))
        assert up_to_date(store, "command", None) is not None
    return result


def _manifest(count: int) -> Manifest:
    return Manifest(
        versions={},
        engine="bench",
        finished_at="",
        method=Method(name="a", options={}, digest=""),
        recognizers=[],
        options={},
        settings_digest="",
        plan_digest="",
        counts=Counts(
            units=count, rows_in=count, records=count, dead_letters=0, dead_letters_by_code={}
        ),
        metrics={},
    )


def whole(count: int) -> dict[str, float]:
    """Requests of a whole first run on a store without folders and renames, and of a second one
    that has nothing to do: the driver, a worker in its process, units of one tiny picture each,
    whose input lies on local disk."""
    from ppfr_ops.sanitize.conductor import conduct
    from ppfr_ops.sanitize.events import ignore
    from ppfr_ops.sanitize.job import Job, Status
    from ppfr_ops.sanitize.worker import Worker

    with tempfile.TemporaryDirectory() as folder:
        os.environ[ROOT] = f"{folder}/store"
        write_input(folder, count)
        committing: list[int] = []

        def serial(job: Job, todo: list[int]) -> Iterator[Status]:
            before = SlowStore.requests
            worker = Worker(job, 1)
            yield from map(worker.process, todo)
            committing.append(SlowStore.requests - before)

        result: dict[str, float] = {"units": count}
        for name in ("first run", "nothing to do"):
            SlowStore.requests, began = 0, time.perf_counter()
            given = options(folder, "slow://out")
            assert conduct(given, serial, "bench", ignore).exit_code == 0
            result[f"{name}, s"] = time.perf_counter() - began
            result[f"{name}, requests a unit"] = SlowStore.requests / count
            result[f"{name}, peak memory, MiB"] = (
                resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            )
        result["units begun and committed, requests a unit"] = sum(committing) / count
    return {name: round(value, 4) for name, value in result.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--units", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument("--requests", type=int, help="count requests with this many units")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--whole", type=int, help="count requests of whole runs")
    arguments = parser.parse_args()
    if arguments.step:
        name, folder, count = arguments.step
        one_step(name, folder, int(count))
    elif arguments.whole:
        print(json.dumps(whole(arguments.whole), indent=1))
    elif arguments.requests:
        print(json.dumps(requests(arguments.requests), indent=1))
    else:
        print(f"| units | {' | '.join(COLUMNS.values())} |")
        print(f"|{' --- |' * (len(COLUMNS) + 1)}")
        for count in arguments.units:
            print(measure(count), flush=True)


if __name__ == "__main__":
    main()
