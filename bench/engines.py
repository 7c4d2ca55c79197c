"""Ray over Beam over a bare loop: faces a second as ratios, measured side by side in one run.

    python bench/engines.py [--faces 2000] [--rounds 2] [--method pixelate] [--metrics basic]

Every engine does the same units of the same drawn faces; the bare loop is a ``Worker`` in this
process. Times are of whole commands, start-up included, and of the work alone: from the first
ledger entry to the last one, over the units between them.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ppfr_ops.contracts.records import IMAGE_TYPE
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.sample import faces

ROOT = Path(__file__).resolve().parent.parent
LOOP = """
import sys
from ppfr_ops.sanitize.finish import finish
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.prepare import prepare
from ppfr_ops.sanitize.worker import Worker
from ppfr_ops.store.ledger import Ledger
source, output, method, metrics, rows = sys.argv[1:]
job = prepare(SanitizeOptions(input=source, output=output, method=method, metrics=metrics,
                              unit_rows=int(rows)))
Ledger(output).open(job.settings)
worker = Worker(job)
for number in range(len(job.plan.units)):
    assert worker.process(number).state == "committed"
finish(job, "loop")
"""


def write(folder: Path, count: int, files: int) -> None:
    encode = Encoding("jpeg", 95).encode
    drawn = [encode(face) for face in faces(64)]
    for number in range(files):
        rows = [
            {"image": {"bytes": drawn[row % len(drawn)], "path": None}}
            for row in range(count // files)
        ]
        table = pa.Table.from_pylist(rows, pa.schema([("image", IMAGE_TYPE)]))
        pq.write_table(table, folder / f"{number:03d}.parquet")


def measure(command: list[str], output: Path, unit_rows: int) -> tuple[float, float]:
    """(seconds of the command, faces a second between its first and last entry)."""
    began = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    subprocess.run(command, check=True, env=environment, capture_output=True)
    seconds = time.perf_counter() - began
    stamps = sorted(p.stat().st_mtime for p in (output / "evidence" / "ledger" / "units").iterdir())
    return seconds, (len(stamps) - 1) * unit_rows / (stamps[-1] - stamps[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--faces", type=int, default=2000)
    parser.add_argument("--units", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--method", default="pixelate")
    parser.add_argument("--metrics", default="basic")
    arguments = parser.parse_args()
    rows = arguments.faces // arguments.units
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        write(folder / "in", arguments.faces, arguments.units)
        shape = ["--method", arguments.method, "--metrics", arguments.metrics]
        shape += ["--unit-rows", str(rows), "--input", str(folder / "in")]
        python, pipelines = sys.executable, ROOT / "pipelines"
        two = ["--runner=FnApiRunner", "--direct_running_mode=multi_processing"]
        output = folder / "out"
        beam = [python, str(pipelines / "sanitize_beam.py"), *shape, "--output", str(output)]
        commands = {
            "bare loop": [
                *(python, "-c", LOOP, str(folder / "in"), str(output)),
                *(arguments.method, arguments.metrics, str(rows)),
            ],
            "ray": [
                *(python, str(pipelines / "sanitize.py"), *shape, "--output", str(output)),
                *("--engine", "ray"),
                *("--actors", str(cores)),
            ],
            "beam": beam,
            "beam, 2 processes": [*beam, "--", *two, "--direct_num_workers=2"],
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        # Interleaved, so that a busy machine is busy for all of them.
        for _ in range(arguments.rounds):
            for name, command in commands.items():
                found[name].append(measure(command, output, rows))
                shutil.rmtree(output)
    print(f"{arguments.faces} faces, {arguments.units} units, {cores} CPUs, ", end="")
    print(f"{arguments.method}, metrics {arguments.metrics}, median of {arguments.rounds} rounds")
    print("| engine | faces/s, whole command | over bare loop | at work | over bare loop |")
    print("| --- | --- | --- | --- | --- |")
    base = None
    for name, measured in found.items():
        whole = statistics.median(arguments.faces / seconds for seconds, _ in measured)
        work = statistics.median(rate for _, rate in measured)
        base = base or (whole, work)
        print(f"| {name} | {whole:.0f} | {whole / base[0]:.2f} | {work:.0f} | ", end="")
        print(f"{work / base[1]:.2f} |")


if __name__ == "__main__":
    main()
