"""The plug-ins over the command: faces a second as a ratio, measured side by side in one run.

    python bench/plugins.py [--faces 10000] [--rounds 1] [--method signed-field] [--metrics none]
                            [--only command,ray,beam,daft,datasets]

All read the same Parquet files of drawn faces and write protected ones, with as many workers as
there are CPUs. The command is ``ppfr sanitize`` with units, ledger and manifest; the others are
pipelines as somebody has them: read, one step of ours, write. Times are of whole programs, from
start to exit. The rounds are interleaved, and each begins at the other end, so that a busy machine
is busy for all.

All have one ``--seed``, and rows the ids that the command gives them, by which draws are made. So
each has to publish the very pictures that the command publishes, and every row says whether it did.
"""

import argparse
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
from engines import ROOT, write

SEED = 7

HEAD = f"""
import sys
source, output, method, metrics, workers = sys.argv[1:]
workers = int(workers)
options = {{"method": method, "metrics": metrics, "seed": {SEED}}}
"""
PIPELINES = {
    "ray": """
import ray
from ppfr_ops.engines.ray_data import SanitizeFaces
# One more than there are: actors hold theirs, and listing and reading files would wait for ever.
ray.init(num_cpus=workers + 1, include_dashboard=False, log_to_driver=False)
ray.data.DataContext.get_current().enable_progress_bars = False
# Ray reads small files into one block, and one actor would do it all.
ray.data.read_parquet(source).repartition(target_num_rows_per_block=250).map_batches(
    SanitizeFaces,
    fn_constructor_kwargs={**options, "id_column": "id"},
    batch_format="pyarrow",
    batch_size=250,
    num_cpus=1,
    # By default an actor holds four blocks, and the last ones wait for one while another is idle.
    compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
).write_parquet(output)
""",
    "beam": """
import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions
from ppfr_ops.contracts.records import records_schema
from ppfr_ops.engines.beam import SanitizeFaces
if __name__ == "__main__":
    more = ["--runner=FnApiRunner", "--direct_running_mode=multi_processing"]
    chosen = PipelineOptions([*more, f"--direct_num_workers={workers}"], save_main_session=False)
    with beam.Pipeline(options=chosen) as pipeline:
        rows = pipeline | beam.io.ReadFromParquet(f"{source}/*.parquet")
        done = rows | SanitizeFaces(id_column="id", **options)
        schema = pa.schema(list(records_schema()))
        writing = beam.io.WriteToParquet(f"{output}/faces", schema, file_name_suffix=".parquet")
        done.published | writing
""",
    "daft": """
import daft
from daft import col
from ppfr_ops.engines.daft_udf import sanitize_faces
frame = daft.read_parquet(f"{source}/*.parquet")
step = sanitize_faces(col("image"), record_id=col("id"), actors=workers, **options)
frame = frame.with_column("safe", step)
frame = frame.where(col("safe")["dead_letter"].is_null())
frame.select(col("safe")["record_id"], col("safe")["image"]).write_parquet(output)
""",
    "datasets": """
import datasets
from ppfr_ops import sanitize_batch
if __name__ == "__main__":
    faces = datasets.load_dataset(
        "parquet", data_files=f"{source}/*.parquet", split="train", cache_dir=output + ".cache"
    )
    faces.cast_column("image", datasets.Image(decode=False)).map(
        sanitize_batch,
        batched=True,
        batch_size=250,
        num_proc=workers,
        fn_kwargs={**options, "id_column": "id"},
        remove_columns=faces.column_names,
    ).to_parquet(f"{output}/faces.parquet")
""",
}


def with_ids(folder: Path) -> None:
    """Give rows the ids of the command: a unit a file, in order."""
    for number, path in enumerate(sorted(folder.iterdir())):
        table = pq.read_table(path)
        ids = [f"u{number:06d}-{row:06d}" for row in range(len(table))]
        pq.write_table(table.append_column("id", [ids]), path)


def published(folder: Path) -> Counter[str]:
    """Digests of the pictures in all Parquet files that have pictures."""
    found: Counter[str] = Counter()
    for path in folder.rglob("*.parquet"):
        file = pq.ParquetFile(path)
        if "image" in file.schema_arrow.names:
            cells = file.read(["image"])["image"].to_pylist()
            found.update(hashlib.sha256(cell["bytes"]).hexdigest() for cell in cells)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--faces", type=int, default=10_000)
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--method", default="signed-field")
    parser.add_argument("--metrics", default="none")
    parser.add_argument("--only", default=",".join(["command", *PIPELINES]))
    arguments = parser.parse_args()
    cores = str(len(os.sched_getaffinity(0)))
    # As the command starts its own Ray; else Ray gives its workers the lowest priority but four.
    started = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **started, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as name:
        source, output = Path(name) / "in", Path(name) / "out"
        source.mkdir()
        write(source, arguments.faces, arguments.files)
        with_ids(source)
        given = ["--method", arguments.method, "--metrics", arguments.metrics, "--seed", str(SEED)]
        given += ["--unit-rows", str(arguments.faces // arguments.files)]
        script = str(ROOT / "pipelines" / "sanitize.py")
        run = [script, "--input", str(source), "--output", str(output), "--actors", cores, *given]
        commands = {"command": [sys.executable, *run]}
        for kind, text in PIPELINES.items():
            program = Path(name) / f"of_{kind}.py"
            program.write_text(HEAD + text)
            told = [str(source), str(output), arguments.method, arguments.metrics, cores]
            commands[kind] = [sys.executable, str(program), *told]
        commands = {kind: commands[kind] for kind in arguments.only.split(",")}
        seconds: dict[str, list[float]] = {kind: [] for kind in commands}
        pictures: dict[str, Counter[str]] = {}
        for number in range(arguments.rounds):
            for kind in list(commands) if number % 2 == 0 else reversed(commands):
                began = time.perf_counter()
                done = subprocess.run(commands[kind], env=environment, capture_output=True)
                seconds[kind].append(time.perf_counter() - began)
                assert done.returncode == 0, f"{kind}: {done.stderr.decode()[-2000:]}"
                pictures[kind] = published(output)
                assert pictures[kind].total() == arguments.faces, kind
                shutil.rmtree(output)
                shutil.rmtree(f"{output}.cache", ignore_errors=True)
    rates = {kind: arguments.faces / statistics.median(took) for kind, took in seconds.items()}
    print(
        f"{arguments.faces} faces, {arguments.method}, metrics {arguments.metrics}, {cores} CPUs, "
        f"median of {arguments.rounds}"
    )
    first = next(iter(rates))
    for kind, rate in rates.items():
        same = "yes" if pictures[kind] == pictures[first] else "NO"
        told = f"{kind}: {rate:.0f} faces/s, {rate / rates[first]:.2f}; the same pictures: {same}, "
        print(f"{told}{len(pictures[kind])} different ones")


if __name__ == "__main__":
    main()
