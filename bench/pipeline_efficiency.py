"""What the engine costs: faces/s of ``ppfr sanitize`` over those of a bare loop, and its memory.

Everything runs in processes of its own, is timed from start to exit (imports, loading, the engine's
start and stop included), on the same faces, with the same options, on the same cores, in
turns. The bare loop reads units, sanitizes them and writes the three tables with pyarrow, in one
process a core: no ledger, no hashes, no fsync, no engine. Beside it the model alone: one process a
core that decodes one unit and hands its faces to the method again and again, and throws away what
comes out. A tenth of the faces goes first: what the other nine tenths take beyond it is the rate
once everything runs, start and stop left out.

    python bench/pipeline_efficiency.py                      # 20,000 faces, the default method
    python bench/pipeline_efficiency.py --input DATA/lfw_aligned --identity-column identity
    python bench/pipeline_efficiency.py --method signed-field    # a quick one, a harder test
    python bench/pipeline_efficiency.py --memory             # peak on 40,000 over 10,000 faces
    python bench/pipeline_efficiency.py --faces 2000 --rounds 1
    python bench/pipeline_efficiency.py --engine local ray           # Ray's share
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

PIPELINE, BARE, MODEL = "pipeline", "bare loop", "the model alone"
SCRIPT = str(ROOT / "pipelines" / "sanitize.py")


def write_input(folder: Path, arguments: argparse.Namespace, count: int, unit_rows: int) -> None:
    """Faces in files of one unit each: those of ``--input``, over and over, or drawn ones."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if arguments.input is not None:
        names = ["image", *filter(None, [arguments.identity_column])]
        table = pq.read_table(arguments.input, columns=names)
    else:
        table = drawn_faces(count)
    table = pa.concat_tables([table] * -(-count // len(table))).slice(0, count)
    folder.mkdir()
    for start in range(0, count, unit_rows):
        pq.write_table(table.slice(start, unit_rows), folder / f"{start:08d}.parquet")


def drawn_faces(count: int) -> "pa.Table":
    """Drawn faces, no two alike: 500, moved sideways."""
    import numpy as np
    import pyarrow as pa

    from ppfr_ops.imaging.codec import Encoding
    from ppfr_ops.sample import faces

    encoding, drawn = Encoding(), faces(min(count, 500))
    moved = (np.roll(drawn[row % 500], row // 500, axis=1) for row in range(count))
    images = [
        {"bytes": encoding.encode(face), "path": f"{row}.jpg"} for row, face in enumerate(moved)
    ]
    return pa.table({"image": images})


def bare_loop(arguments: argparse.Namespace) -> None:
    """The same operations without the pipeline."""
    import numpy as np
    import pyarrow.parquet as pq

    from ppfr_ops.sanitize.items import Results
    from ppfr_ops.sanitize.options import SanitizeOptions
    from ppfr_ops.sanitize.prepare import prepare
    from ppfr_ops.sanitize.worker import build_sanitizer, tune_process
    from ppfr_ops.source.plan import read_unit

    source, output = arguments.bare
    tune_process(1)
    options = SanitizeOptions(
        input=source,
        output=output,
        metrics=arguments.metrics,
        method=arguments.method,
        identity_column=arguments.identity_column,
    )
    job = prepare(options)
    sanitizer = build_sanitizer(job, 1)
    if arguments.alone:
        first = job.plan.units[0]
        batches = list(sanitizer.batches(read_unit(job.plan, first), Results(first.id)))
        faces = [np.stack([item.pixels for item in batch]) for batch in batches]
        left, turn = arguments.alone // arguments.parts, 0
        while left > 0:
            items, pixels = batches[turn % len(batches)], faces[turn % len(batches)]
            ids = [item.record_id for item in items[:left]]
            sanitizer.run.publish(pixels[:left], ids, items[:left], 0)
            sanitizer.run.forget()  # what it knows of a face is not for the next time round
            left, turn = left - len(ids), turn + 1
        return
    for unit in job.plan.units[arguments.part :: arguments.parts]:
        tables = sanitizer(read_unit(job.plan, unit), unit.id)
        for kind, table in tables.items().items():
            target = Path(output) / kind / f"{unit.id}.parquet"
            target.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, target, compression="zstd", use_dictionary=False)


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, queue = [], [pid]
    while queue:
        found.append(queue.pop())
        queue += children.get(found[-1], [])
    return found


def proportional_kib(pids: list[int]) -> int:
    """Memory of processes, what they share counted once."""
    total = 0
    for pid in pids:
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        except OSError:
            continue
    return total


def run(commands: list[list[str]], memory: bool = False) -> tuple[float, float]:
    """Run commands at the same time; wall seconds and, on demand, peak MiB of all their processes:
    to add up a dozen processes' pages twice a second takes time from those that are measured."""
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    began = time.perf_counter()
    running = [
        subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        for command in commands
    ]
    peak = 0
    while memory and any(process.poll() is None for process in running):
        peak = max(peak, sum(proportional_kib(tree(process.pid)) for process in running))
        time.sleep(0.5)
    for process in running:
        process.wait()
    seconds = time.perf_counter() - began
    if any(process.returncode for process in running):
        raise SystemExit(f"failed: {commands}")
    return seconds, peak / 1024


def shared(arguments: argparse.Namespace) -> list[str]:
    """Options of the command that the bare loop takes too."""
    column = arguments.identity_column
    options = ["--metrics", arguments.metrics, "--method", arguments.method]
    return [*options, *(["--identity-column", column] if column else [])]


def pipeline(
    source: Path, output: Path, arguments: argparse.Namespace, engine: str
) -> list[list[str]]:
    options = ["--input", str(source), "--output", str(output), "--engine", engine]
    options += ["--actors", str(arguments.cores)]
    return [[sys.executable, SCRIPT, *options, *shared(arguments)]]


def bare(source: Path, output: Path, arguments: argparse.Namespace) -> list[list[str]]:
    base = [sys.executable, __file__, "--bare", str(source), str(output), *shared(arguments)]
    base += ["--parts", str(arguments.cores)]
    return [[*base, "--part", str(part)] for part in range(arguments.cores)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--faces", type=int, default=20_000)
    parser.add_argument("--input", type=Path, help="a folder of Parquet; default: drawn faces")
    parser.add_argument("--identity-column", help="of the input")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--unit-rows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--metrics", choices=["full", "basic", "none"], default="full")
    parser.add_argument("--method", default="stochastic-local", help="default: the command's own")
    parser.add_argument("--engine", nargs="+", choices=["local", "ray"], default=["local"])
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--bare", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--alone", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--part", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--parts", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        return bare_loop(arguments)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    result: dict[str, object] = {"cores": arguments.cores, "metrics": arguments.metrics}
    result |= {"method": arguments.method, "engine": arguments.engine}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if arguments.memory:
            peaks = {}
            for count in (10_000, 40_000):
                write_input(work / f"in{count}", arguments, count, arguments.unit_rows)
                where = work / f"in{count}", work / f"out{count}"
                _, peaks[count] = run(pipeline(*where, arguments, arguments.engine[0]), memory=True)
            result |= {f"peak MiB, {count} faces": round(peak) for count, peak in peaks.items()}
            result["ratio of peaks"] = round(peaks[40_000] / peaks[10_000], 3)
        else:
            few, all_faces = arguments.faces // 10, arguments.faces
            best: dict[tuple[str, int], float] = {}
            for count in (few, all_faces):
                source = work / f"in{count}"
                write_input(source, arguments, count, min(arguments.unit_rows, few // 2))
                for turn in range(arguments.rounds):
                    place = work / f"{count}-{turn}"
                    candidates = {
                        f"{PIPELINE}, {engine}": pipeline(
                            source, place / f"pipeline-{engine}", arguments, engine
                        )
                        for engine in arguments.engine
                    }
                    candidates[BARE] = bare(source, place / "bare", arguments)
                    candidates[MODEL] = [
                        [*command, "--alone", str(count)]
                        for command in bare(source, place / "model", arguments)
                    ]
                    for name, commands in candidates.items():
                        seconds, _ = run(commands)
                        best[name, count] = min(best.get((name, count), seconds), seconds)
                        print(f"{name}: {count / seconds:.0f} faces/s of {count}", file=sys.stderr)
            kinds = list(dict.fromkeys(name for name, _ in best))
            whole = {name: all_faces / best[name, all_faces] for name in kinds}
            further = {
                name: (all_faces - few) / (best[name, all_faces] - best[name, few])
                for name in kinds
            }
            for kind, rates in (("", whole), (", start and stop left out", further)):
                result |= {f"{name}, faces/s{kind}": round(rate) for name, rate in rates.items()}
                for engine in arguments.engine:
                    rate = rates[f"{PIPELINE}, {engine}"]
                    result[f"{engine} over the bare loop{kind}"] = round(rate / rates[BARE], 3)
                    result[f"{engine} over the model{kind}"] = round(rate / rates[MODEL], 3)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
