"""What it costs that ``finish`` reads and hashes every shard before it signs: seconds of that
beside seconds of making them, in one process, on drawn faces.

    python bench/finish_check.py --faces 2000 --method pixelate
"""

import argparse
import tempfile
import time
from pathlib import Path

from ppfr_ops.release.publish import rotten
from ppfr_ops.sample import write_sample
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.prepare import prepare
from ppfr_ops.sanitize.worker import Worker
from ppfr_ops.store.ledger import Ledger


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=int, default=2000)
    parser.add_argument("--method", default="pixelate")
    parser.add_argument("--metrics", default="basic")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        faces = Path(folder) / "faces"
        write_sample(faces, count=arguments.faces, identities=50, files=4)
        options = SanitizeOptions(
            input=str(faces),
            output=str(Path(folder) / "out"),
            method=arguments.method,
            metrics=arguments.metrics,
            unit_rows=250,
        )
        job = prepare(options)
        ledger = Ledger(options.output)
        ledger.open(job.settings)
        worker = Worker(job, 1)
        began = time.perf_counter()
        for number in range(len(job.plan.units)):
            assert worker.process(number).state == "committed"
        made = time.perf_counter() - began
        entries = ledger.entries()
        size = sum(shard.bytes for entry in entries.values() for shard in entry.shards.values())
        began = time.perf_counter()
        assert rotten(ledger, entries.values()) == []
        looked = time.perf_counter() - began
    print(f"{len(entries)} units, {size / 2**20:.1f} MiB: made {made:.2f} s, ", end="")
    print(
        f"looked at {looked:.3f} s ({size / 2**20 / looked:.0f} MiB/s); ratio {looked / made:.4f}"
    )


if __name__ == "__main__":
    main()
