"""What mixing costs: seconds of processor and requests to a store, beside the same run of a method
that reads faces, whose shards go unit by unit.

PYTHONPATH=tests:bench python bench/mixing.py --faces 20000

One process carries both. The method is the tests' cheap one, so all that mixing adds shows: a first
look that decodes every photo and draws nothing, a plan, and shards that are read from the plan.
"""

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from nobody import Stripes
from numpy.typing import NDArray
from pipeline_efficiency import drawn_faces
from slow_store import ROOT, SlowStore

from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.methods.base import Context
from ppfr_ops.sanitize.conductor import conduct
from ppfr_ops.sanitize.events import ignore
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.worker import worker_of


class Unmixed(Stripes):
    """The same, and it says that it reads faces."""

    @property
    def reads_faces(self) -> bool:
        return True

    def anonymize_with(self, faces: Faces, draws: NDArray[np.float32], context: Context) -> Faces:
        labels = [label or "" for label in context["identity"]]
        return super().anonymize_with(faces, draws, Context({"identity": labels}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=int, default=20_000)
    parser.add_argument("--unit-rows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    fsspec.register_implementation("slow", SlowStore, clobber=True)
    folder = Path(tempfile.mkdtemp(prefix="mixing-"))
    os.environ[ROOT] = str(folder)
    table = drawn_faces(asked.faces)
    people = pa.array([f"person {row // 10}" for row in range(asked.faces)])
    (folder / "in").mkdir()
    for start in range(0, asked.faces, asked.unit_rows):
        rows = slice(start, start + asked.unit_rows)
        part = table.slice(start, asked.unit_rows).append_column("identity", people[rows])
        pq.write_table(part, folder / "in" / f"{start:08d}.parquet")
    for number in range(asked.rounds):
        for method in ("mixing:Unmixed", "nobody:Stripes"):
            SlowStore.requests, before = 0, resource.getrusage(resource.RUSAGE_SELF)
            began = time.perf_counter()
            options = SanitizeOptions(
                input=str(folder / "in"),
                output=f"slow://out-{number}-{method.partition(':')[2]}",
                method=method,
                metrics="none",
                identity_column="identity",
                unit_rows=asked.unit_rows,
                photographs=None,
            )
            done = conduct(options, lambda job, todo: worker_of(job).stream(todo), "inline", ignore)
            assert done.exit_code == 0 and done.counts is not None, done
            after = resource.getrusage(resource.RUSAGE_SELF)
            used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            requests = SlowStore.requests / -(-asked.faces // asked.unit_rows)
            print(
                f"{method}: {done.counts.records:,} records, {used:.1f} s of processor, "
                f"{time.perf_counter() - began:.1f} s, {requests:.2f} requests a unit",
                flush=True,
            )


if __name__ == "__main__":
    main()
