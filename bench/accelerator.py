"""Does anything wait that need not? A worker with a stand-in for an accelerator.

The stand-in is a method that takes some milliseconds a batch without using the processor, as a GPU
does. Two cases, each against the larger of its parts, alone:

- *processor*: decoding, measuring and encoding take as long as the device does;
- *store*: input and output lie in a store that takes 50 ms for every request; nothing is measured.

    python bench/accelerator.py                     # both, 24 units of 128 faces
    python bench/accelerator.py --case store --units 48
"""

import argparse
import json
import os
import tempfile
import time

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from slow_store import ROOT, SECONDS, SlowStore

from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.methods.base import Anonymizer
from ppfr_ops.sample import faces
from ppfr_ops.sanitize.job import Job
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.prepare import prepare
from ppfr_ops.sanitize.worker import Worker
from ppfr_ops.store.ledger import Ledger

BATCH = 32


class Device(Anonymizer):
    """Takes its time for a batch, and the processor has nothing to do with it."""

    milliseconds: float = 0.0

    def anonymize(self, faces: Faces, draws: NDArray[np.float32]) -> Faces:
        time.sleep(self.milliseconds / 1000)
        return 255 - faces


def fill(units: int, rows: int) -> None:
    encoding, drawn = Encoding(), faces(64)
    fs = SlowStore()
    for unit in range(units):
        pictures = [encoding.encode(drawn[(unit + row) % 64]) for row in range(rows)]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"image": pictures}), sink)
        fs.pipe_file(f"in/{unit:05d}.parquet", sink.getvalue().to_pybytes())


def timed(
    output: str, milliseconds: float, latency: float, metrics: str = "full"
) -> tuple[float, float]:
    """Seconds of a worker over all units, and requests a unit."""
    os.environ[SECONDS] = "0"
    options = SanitizeOptions(
        input="slow://in",
        output=f"slow://{output}",
        method="__main__:Device",
        method_options={"milliseconds": str(milliseconds)},
        batch_size=BATCH,
        metrics=metrics,
        single_writer=True,
    )
    job: Job = prepare(options)
    Ledger(job.options.output).open(job.settings)
    worker = Worker(job, 1)
    os.environ[SECONDS], SlowStore.requests = str(latency), 0
    began = time.perf_counter()
    states = {status.state for status in worker.stream(range(len(job.plan.units)))}
    seconds = time.perf_counter() - began
    assert states == {"committed"}, states
    return seconds, SlowStore.requests / len(job.plan.units)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--case", choices=["processor", "store", "both"], default="both")
    parser.add_argument("--units", type=int, default=24)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--latency", type=float, default=0.05)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[ROOT] = folder
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    fill(arguments.units, arguments.rows)
    batches = arguments.units * -(-arguments.rows // BATCH)
    results: dict[str, dict[str, float]] = {}
    alone, _ = timed("warm", 0, 0)
    alone, _ = timed("alone", 0, 0)
    if arguments.case in ("processor", "both"):
        device = 1000 * alone / batches
        both, _ = timed("processor", device, 0)
        after, _ = timed("after", 0, 0)
        larger = max(alone, after)
        results["processor"] = {
            "device alone, s": batches * device / 1000,
            "processor alone, s": round(alone, 2),
            "processor alone again, s": round(after, 2),
            "together, s": round(both, 2),
            "over the larger": round(both / larger, 3),
        }
    if arguments.case in ("store", "both"):
        store, requests = timed("store", 0, arguments.latency, "none")
        device = 1000 * store / batches
        both, _ = timed("together", device, arguments.latency, "none")
        results["store"] = {
            "requests a unit": round(requests, 1),
            "store and processor alone, s": round(store, 2),
            "device alone, s": round(batches * device / 1000, 2),
            "together, s": round(both, 2),
            "over the larger": round(both / max(store, batches * device / 1000), 3),
        }
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
