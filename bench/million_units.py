"""What a run costs a unit beside the work, as units grow in number: a simulation on tiny shards.

For every number of units the output of a run is laid down on local disk, three shards and a ledger
entry a unit; then: what committing another unit takes; opening the ledger without and with the
compacted entries (what a run that has nothing to do begins with); ``ppfr status``; memory. With
``--requests`` the same for a store that counts requests.

    python bench/million_units.py --units 1000 10000 100000
    python bench/million_units.py --requests 1000
    python bench/million_units.py --whole 20000
    python bench/million_units.py --again 1000 10000 100000
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from slow_store import ROOT, SlowStore

from ppfr_ops.cli.status import look
from ppfr_ops.contracts.dead_letters import DEAD_LETTERS_SCHEMA
from ppfr_ops.contracts.ledger import KINDS, LedgerEntry, Shard, Statistic, shard_path
from ppfr_ops.contracts.manifest import Counts, Manifest, Method
from ppfr_ops.contracts.metrics import metrics_schema
from ppfr_ops.contracts.records import IMAGE_TYPE, records_schema
from ppfr_ops.release.settled import settle, settled, shards_as_listed
from ppfr_ops.store.lease import Lease
from ppfr_ops.store.ledger import Attempts, Ledger, Tables

SETTINGS = {"method": "a", "input": "b"}
MORE = 50
"""Units that are committed on top."""


def tables() -> Tables:
    metrics = {name: pa.array([0.5], pa.float32()) for name in metrics_schema().names[1:]}
    image = [{"bytes": b"x", "path": "x.jpg"}]
    return Tables(
        pa.table({"record_id": ["u-0"], "image": image}, schema=records_schema()),
        pa.table({"record_id": ["u-0"], **metrics}, schema=metrics_schema()),
        DEAD_LETTERS_SCHEMA.empty_table(),
    )


def lay_down(ledger: Ledger, count: int) -> None:
    """The files of committed units, as a run leaves them."""
    root = Path(ledger.root)
    data = b"a shard"
    digest = hashlib.sha256(data).hexdigest()
    figures = {
        name: Statistic(count=1000, mean=0.31, min=0.1, max=0.6)
        for name in metrics_schema().names[1:]
    }
    for number in range(count):
        unit = f"u{number:06d}"
        shards = {}
        for kind in KINDS[:2]:  # no dead letters
            path = shard_path(kind, ledger.ids.unit(unit) if kind == "data" else unit)
            (root / path).write_bytes(data)
            own = hashlib.sha256(f"{unit}{kind}".encode()).hexdigest()
            shards[kind] = Shard(path=path, rows=1000, bytes=len(data), sha256=own or digest)
        entry = LedgerEntry(
            unit=unit,
            copy_id="0" * 16,
            rows_in=1000,
            records=1000,
            dead_letters={},
            shards=shards,
            method_digest=digest,
            settings_digest=digest,
            metrics=figures,
        )
        place = root / "evidence/ledger/units" / f"{unit}.json"
        place.write_text(entry.model_dump_json(indent=1))


def work(ledger: Ledger, first: int) -> None:
    """What a worker asks of the ledger, for ``MORE`` units."""
    for number in range(first, first + MORE):
        unit = f"u{number:06d}"
        assert ledger.begin(unit) == Attempts()
        ledger.commit(unit, tables(), 1, method_digest="m", settings_digest="s")


def timed(call: Any) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measure(count: int) -> dict[str, float]:
    """Seconds for this number of units on local disk. In a process of its own, for its memory."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(f"{folder}/out")
        ledger.open(SETTINGS)
        lay_down(ledger, count)
        result = {"units": count, "commit, ms a unit": 1000 * timed(lambda: work(ledger, count))}
        result["commit, ms a unit"] /= MORE
        result["opened, s"] = timed(lambda: Ledger(ledger.root).open(SETTINGS))
        whole = Ledger(ledger.root)
        whole.entries()
        result["compacting, s"] = timed(whole.compact)
        place = Path(ledger.root) / "evidence/ledger/entries.parquet"
        result["compacted, bytes a unit"] = place.stat().st_size / count
        result["opened again, s"] = timed(lambda: Ledger(ledger.root).open(SETTINGS))
        result["status, s"] = timed(lambda: look(ledger.root))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        result["peak memory, MiB"] = peak / 1024
    return {name: round(value, 3) for name, value in result.items()}


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
            result = {"units": count, "committing": asked(lambda: work(ledger, 0)) / MORE}
        local = Ledger(f"{folder}/out")
        local.open(SETTINGS)
        lay_down(local, count)
        result["opening"] = asked(lambda: Ledger("slow://out").open(SETTINGS)) / count
        whole = Ledger("slow://out")
        whole.entries()
        whole.compact()
        result["opening again"] = asked(lambda: Ledger("slow://out").open(SETTINGS)) / count
    return result


def again(count: int) -> dict[str, float]:
    """What a run that has nothing to do asks of the output beside lease and plan: seconds on local
    disk, requests of a store, and memory. In a process of its own."""
    manifest = Manifest(
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
        shards=[],
    )
    with tempfile.TemporaryDirectory() as folder:
        os.environ[ROOT] = folder
        ledger = Ledger(f"{folder}/out")
        ledger.open(SETTINGS)
        lay_down(ledger, count)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        settle(ledger, "command", manifest, shards_as_listed(ledger), None)
        result = {
            "units": count,
            "nothing to do, s": timed(lambda: settled(ledger, "command", None)),
            "peak memory, MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "before it, MiB": before / 1024,
        }
        assert settled(ledger, "command", None) is not None
        store = Ledger("slow://out")
        settle(store, "command", manifest, shards_as_listed(store), None)
        SlowStore.requests = 0
        assert settled(store, "command", None) is not None
        result["requests"] = SlowStore.requests
    return {name: round(value, 3) for name, value in result.items()}


def whole(count: int) -> dict[str, float]:
    """Requests of a whole first run on a store without folders and renames, and of a second one
    that has nothing to do: the driver, a worker in its process, units of one tiny picture each,
    whose input lies on local disk."""
    # What they load is no part of the memory that the others measure.
    import cv2
    import numpy as np

    from ppfr_ops.cli.driver import drive
    from ppfr_ops.sanitize.job import Job, Status
    from ppfr_ops.sanitize.options import SanitizeOptions
    from ppfr_ops.sanitize.worker import Worker

    with tempfile.TemporaryDirectory() as folder:
        os.environ[ROOT] = f"{folder}/store"
        os.makedirs(f"{folder}/in")
        picture = cv2.imencode(".jpg", np.full((112, 112, 3), 90, np.uint8))[1].tobytes()
        cells = [{"bytes": picture, "path": "x.jpg"}] * count
        faces = pa.table({"image": pa.array(cells, IMAGE_TYPE)})
        pq.write_table(faces, f"{folder}/in/faces.parquet", row_group_size=1000)
        options = SanitizeOptions(
            input=f"{folder}/in",
            output="slow://out",
            unit_rows=1,
            method="pixelate",
            metrics="basic",
        )
        committing: list[int] = []

        def serial(job: Job, todo: list[int]) -> Iterator[Status]:
            before = SlowStore.requests
            worker = Worker(job, 1)
            yield from map(worker.process, todo)
            committing.append(SlowStore.requests - before)

        result: dict[str, float] = {"units": count}
        for name in ("first run", "nothing to do"):
            SlowStore.requests, began = 0, time.perf_counter()
            assert drive(options, serial, "bench", dry_run=False, as_json=False) == 0
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
    parser.add_argument("--again", type=int, nargs="*", help="of a run with nothing to do")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--whole", type=int, help="count requests of whole runs")
    arguments = parser.parse_args()
    if arguments.whole:
        print(json.dumps(whole(arguments.whole), indent=1))
    elif arguments.again:
        for count in arguments.again:
            if os.fork() == 0:  # for its memory
                print(json.dumps(again(count)), flush=True)
                os._exit(0)
            os.wait()
    elif arguments.one:
        print(json.dumps(measure(arguments.one)))
    elif arguments.requests:
        print(json.dumps(requests(arguments.requests), indent=1))
    else:
        for count in arguments.units:
            command = [sys.executable, __file__, "--one", str(count)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            print(done.stdout.strip(), flush=True)


if __name__ == "__main__":
    main()
