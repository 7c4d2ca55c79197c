"""What a driver holds in memory of so many units, step by step, without laying down a file a unit:
plan, entries as they are packed, entries listed anew, paths swept, the list of shards, the copy of
all entries.

    python bench/million_memory.py 1000000
"""

import json
import os
import random
import resource
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from million_units import FILE_ROWS, entry_of

from ppfr_ops.release.listing import Shards, write_rows
from ppfr_ops.source.units import Unit, Units
from ppfr_ops.store.entries import Block, Entries, HashSet, Row, batched, line
from ppfr_ops.store.ids import Ids
from ppfr_ops.store.ledger import Ledger


def told(what: str) -> None:
    """Say what the process has come to."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[1]) * resource.getpagesize() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what}: {now:,.0f} MiB, {peak:,.0f} at most", flush=True)


def rows(units: Units) -> Iterator[Row]:
    """Entries as a run packs them, each with figures and digests of its own, which are written over
    those of one: making them by themselves takes longer than all that is looked at here."""
    first = entry_of("u000000", 1, Ids(bytes(32)))
    data, metrics = first.shards["data"], first.shards["metrics"]
    figures = [json.dumps(figure.mean) for figure in first.metrics.values()]
    released = data.path.rpartition("/")[2].removesuffix(".parquet")
    old = (first.unit, first.copy_id, released, data.sha256, metrics.sha256, *figures)
    sizes = (8, 16, 32, 32)
    for unit in units:
        text = first.model_dump_json()
        drawn = [os.urandom(size).hex() for size in sizes]
        new = (unit.id, *drawn, *(json.dumps(random.random()) for _ in figures))
        for one, other in zip(old, new, strict=True):
            text = text.replace(one, other)
        yield Row(unit.id, os.urandom(16), text.encode(), os.urandom(32))


def main() -> None:
    count = int(sys.argv[1])
    told("program")
    units = Units(
        Unit(f"u{number:06d}", "parquet", (f"/in/{number // FILE_ROWS}",), number, number + 1)
        for number in range(count)
    )
    told("and plan")

    entries = Entries(Block.of(some) for some in batched(rows(units)))
    told("and entries")
    files = sorted(line(unit, entries.stamp(unit) or b"") for unit in entries)
    again = entries.renewed(files, iter(()))
    told("and listed again")
    del files
    shards = Shards()

    def paths_in() -> Iterator[str]:
        for entry in again.values():
            shards.add(entry)
            yield from (shard.path for shard in entry.shards.values())

    wanted = HashSet(paths_in())
    paths = [f"evidence/metrics/{unit}.parquet" for unit in again]
    assert all(path in wanted for path in paths)
    told("and swept")
    del paths, wanted
    table = shards.table()
    assert len(table) == count
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(folder)
        size = write_rows(ledger, table, "files.pq")["bytes"]
        told(f"and shards listed, {size:,} bytes")
        ledger._known = again
        ledger.compact()
        size = (Path(folder) / "evidence/ledger/entries.parquet").stat().st_size
        told(f"and compacted, {size:,} bytes")


if __name__ == "__main__":
    main()
