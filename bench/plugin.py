"""The Ray plug-in over the command: faces a second as a ratio, measured side by side in one run.

    python bench/plugin.py [--faces 10000] [--rounds 1] [--method signed-field] [--metrics full]

Both read the same Parquet files of drawn faces and write protected ones, with as many actors as
there are CPUs. The command is ``ppfr sanitize`` with units, ledger and manifest; the plug-in is
``read_parquet | map_batches(SanitizeFaces) | write_parquet``, as somebody's own pipeline has it,
once as it is by default, when nobody asks for measures, and once with the measures of every record
as columns. Times are of whole programs, from start to exit. The rounds are interleaved, and each
begins with the other one, so that a busy machine is busy for both.
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

import pyarrow.parquet as pq
from engines import ROOT, write

PIPELINE = """
import sys
import ray
from ppfr_ops.engines.ray_data import SanitizeFaces

source, output, method, metrics, actors, measured = sys.argv[1:]
# One more than there are: actors hold theirs, and listing and reading files would wait for ever.
ray.init(num_cpus=int(actors) + 1, include_dashboard=False, log_to_driver=False)
ray.data.DataContext.get_current().enable_progress_bars = False
# Ray reads small files into one block, and one actor would do it all.
ray.data.read_parquet(source).repartition(target_num_rows_per_block=250).map_batches(
    SanitizeFaces,
    fn_constructor_kwargs={"method": method, "metrics": metrics, "with_metrics": measured == "yes"},
    batch_format="pyarrow",
    batch_size=250,
    num_cpus=1,
    # By default an actor holds four blocks, and the last ones wait for one while another is idle.
    compute=ray.data.ActorPoolStrategy(size=int(actors), max_tasks_in_flight_per_actor=2),
).write_parquet(output)
"""


def published(folder: Path) -> int:
    """Records with a picture in all Parquet files that have pictures."""
    count = 0
    for path in folder.rglob("*.parquet"):
        file = pq.ParquetFile(path)
        if "image" in file.schema_arrow.names:
            count += file.read(["record_id"]).num_rows
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--faces", type=int, default=10_000)
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--method", default="signed-field")
    parser.add_argument("--metrics", default="full")
    arguments = parser.parse_args()
    cores = str(len(os.sched_getaffinity(0)))
    # As the command starts its own Ray; else Ray gives its workers the lowest priority but four.
    started = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    environment = {**os.environ, **started, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as name:
        source, output = Path(name) / "in", Path(name) / "out"
        source.mkdir()
        write(source, arguments.faces, arguments.files)
        commands = {
            "command": [
                *(sys.executable, str(ROOT / "pipelines" / "sanitize.py")),
                *("--input", str(source), "--output", str(output), "--actors", cores),
                *("--engine", "ray"),
                *("--method", arguments.method, "--metrics", arguments.metrics),
                *("--unit-rows", str(arguments.faces // arguments.files)),
            ],
        }
        step = [sys.executable, "-c", PIPELINE, str(source), str(output)]
        step += [arguments.method, arguments.metrics, cores]
        commands["plug-in"] = [*step, "no"]
        if arguments.metrics != "none":
            commands["plug-in with measures"] = [*step, "yes"]
        seconds: dict[str, list[float]] = {kind: [] for kind in commands}
        for number in range(arguments.rounds):
            for kind in list(commands) if number % 2 == 0 else reversed(commands):
                began = time.perf_counter()
                subprocess.run(commands[kind], check=True, env=environment, capture_output=True)
                seconds[kind].append(time.perf_counter() - began)
                found = published(output)
                assert found == arguments.faces, f"{kind}: {found} of {arguments.faces} published"
                shutil.rmtree(output)
    rates = {kind: arguments.faces / statistics.median(took) for kind, took in seconds.items()}
    print(
        f"{arguments.faces} faces, {arguments.method}, metrics {arguments.metrics}, {cores} CPUs, "
        f"median of {arguments.rounds}: command {rates['command']:.0f} faces/s"
    )
    for kind in list(commands)[1:]:
        ratio = rates[kind] / rates["command"]
        print(f"{kind}: {rates[kind]:.0f} faces/s, {ratio:.2f} of the command")


if __name__ == "__main__":
    main()
