"""Runs that are killed at random moments and resumed: ``python kills.py --help``.

A run is a fork of this process with everything loaded, so that what is tried hundreds of times is
the work and its commits, not the start of Python. Its engine is a bare pool of processes that does
what Ray does: a worker that dies is replaced, and its unit handed out again. With another
``--engine`` a run is ``ppfr sanitize`` itself.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import resource
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import pyarrow as pa
from driving import drive
from pictures import jpeg, with_metadata

from ppfr_ops.errors import UserError
from ppfr_ops.sample import faces
from ppfr_ops.sanitize import conductor
from ppfr_ops.sanitize.job import Job, Status
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.worker import Worker, tune_process
from ppfr_ops.store.folder import EVIDENCE
from ppfr_ops.store.ledger import LEDGER, Ledger, read_table

NAME = "Jane_Doe"
UNITS, ROWS = 8, 4
WORKERS = 2
TARGETS = ("driver", "worker", "group", "interrupt", "disk")
"""What is killed: the driver alone, a worker alone, all at once, all by Ctrl-C; or no file may
become larger than a random size, as on a disk that is full."""
RUN_SECONDS = 300.0
BEAMS_OWN = "beam-pipeline-temp"
"""What Beam's local runner leaves where it is killed; it is searched for names and originals."""

_context = multiprocessing.get_context("fork")


# -- a run ------------------------------------------------------------------------------------


def pool(job: Job, todo: list[int]) -> Iterator[Status]:
    """An engine: units over a few processes; who dies is replaced."""
    queue = list(todo)
    busy: dict[Connection, tuple[int, multiprocessing.process.BaseProcess]] = {}
    idle: list[tuple[Connection, multiprocessing.process.BaseProcess]] = []
    while queue or busy:
        while queue and len(busy) < WORKERS:
            pipe, process = idle.pop() if idle else _hire(job)
            with contextlib.suppress(OSError):
                pipe.send(queue[0])
                busy[pipe] = (queue.pop(0), process)
        for pipe in wait(list(busy), timeout=RUN_SECONDS):
            assert isinstance(pipe, Connection)
            number, process = busy.pop(pipe)
            try:
                status = pipe.recv()
            except (EOFError, OSError):
                process.join()
                queue.insert(0, number)
            else:
                idle.append((pipe, process))
                yield status


def _hire(job: Job) -> tuple[Connection, multiprocessing.process.BaseProcess]:
    ours, theirs = _context.Pipe()
    process = _context.Process(target=_work, args=(job, ours, theirs), daemon=False)
    process.start()
    theirs.close()
    return ours, process


def _work(job: Job, theirs: Connection, pipe: Connection) -> None:
    theirs.close()
    driver_number = os.getppid()
    worker = Worker(job, 1)
    with contextlib.suppress(EOFError, OSError):
        # Other workers hold copies of the driver's end, so its death is no end of the file.
        while os.getppid() == driver_number:
            if pipe.poll(0.1):
                pipe.send(worker.process(pipe.recv()))


def begin(
    options: SanitizeOptions,
    log: Path,
    most_bytes: int | None = None,
    change: Callable[[], None] = lambda: None,
) -> int:
    """Start a run in a group of its own; its process number.

    Args:
        change: done in it before anything else.
    """
    number = os.fork()
    if number:
        return number
    code = 70
    try:
        os.setsid()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        if most_bytes is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))
        change()
        conductor.preflight = lambda job: None  # it draws a face, and was tried before the fork
        code = drive(options, pool, "pool", dry_run=False, as_json=False)
    except KeyboardInterrupt:
        code = 130
    except UserError as error:
        print(f"Error: {error}", flush=True)
        code = error.exit_code
    except Exception as error:
        with contextlib.suppress(OSError):
            print(f"raised {type(error).__name__}", flush=True)
        code = 71
    finally:
        os._exit(code)


def begin_command(
    engine: str, options: SanitizeOptions, log: Path, most_bytes: int | None = None
) -> int:
    """Start the command in a group of its own; its process number."""
    carrier, _, address = engine.partition("@")
    command = "sanitize-beam" if carrier == "beam" else "sanitize"
    line = [sys.executable, "-m", "ppfr_ops.cli", command, "--input", options.input]
    line += ["--output", options.output, "--method", options.method, "--metrics", options.metrics]
    line += ["--unit-rows", str(options.unit_rows)]
    line += ["--identity-column", options.identity_column] if options.identity_column else []
    line += ["--discard-key"] if options.discard_key else []
    if carrier == "beam":
        line += ["--", "--runner=FnApiRunner", "--direct_running_mode=multi_processing"]
        line += [f"--direct_num_workers={WORKERS}"]
    else:
        line += ["--engine", carrier, "--actors", str(WORKERS)]
        line += ["--ray-address", address] if address else []
    limit = most_bytes if most_bytes is None else (most_bytes, resource.RLIM_INFINITY)
    with log.open("ab") as file:
        run = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            preexec_fn=lambda: limit and resource.setrlimit(resource.RLIMIT_FSIZE, limit),
        )
    run.returncode = 0  # it is ``ended`` that waits for it
    return run.pid


def ended(number: int) -> int:
    """Wait for a run and all of its group; its exit code, negative for a signal."""
    deadline = time.monotonic() + RUN_SECONDS
    while time.monotonic() < deadline:
        done, status = os.waitpid(number, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            while any(_group(pid) == number for pid in _processes()):
                assert time.monotonic() < deadline, "workers outlive their driver"
                time.sleep(0.05)
            return code
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(number, signal.SIGKILL)
    raise AssertionError("the run hangs")


def _members(run: int) -> list[int]:
    """Living processes of a run: of its group, and those that bear its temporary folder, wherever
    they went."""
    mark = f"TMPDIR={os.environ.get('TMPDIR')}".encode()
    found = []
    for pid in _processes():
        group = _group(pid)
        if group is not None and pid != os.getpid():
            with contextlib.suppress(OSError):
                said = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                if group == run or mark in said:
                    found.append(pid)
    return found


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _group(pid: int) -> int | None:
    """The group of a process; None if it is dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[2])


# -- a scenario -------------------------------------------------------------------------------


@dataclass
class World:
    """An input, its output, and all that a run could leave anywhere."""

    root: Path
    begin: Callable[[SanitizeOptions, Path, int | None], int] = begin
    log: Path = field(init=False)
    temporary: Path = field(init=False)
    committed: dict[str, str] = field(default_factory=dict)
    """Units that are done, and the copy that counts."""

    def __post_init__(self) -> None:
        self.log = self.root / "log"
        self.root.mkdir(parents=True)
        # Ray's sockets leave no room for a longer name.
        self.temporary = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
        os.environ["TMPDIR"] = str(self.temporary)
        face = faces(1, seed=3)[0]
        for number in range(UNITS * ROWS):
            folder = self.root / "in" / f"{NAME}_{number % 3}"
            folder.mkdir(parents=True, exist_ok=True)
            picture = with_metadata() if number == 0 else jpeg(face)
            (folder / f"{NAME}_{number:04d}.jpg").write_bytes(picture)

    @property
    def output(self) -> str:
        return str(self.root / "out")

    @property
    def options(self) -> SanitizeOptions:
        return SanitizeOptions(
            input=str(self.root / "in"),
            output=self.output,
            unit_rows=ROWS,
            method="pixelate",
            metrics="none",
        )

    def disturbed(self, rng: random.Random, target: str, longest: float) -> tuple[int, bool]:
        """A run to which something happens at a random moment; its exit code, and whether it was
        in time: who comes too late strikes nobody."""
        most = rng.randrange(200, 20_000) if target == "disk" else None
        run = self.begin(self.options, self.log, most)
        struck = 0
        if target != "disk":
            time.sleep(rng.uniform(0, longest))
            struck = self.strike(rng, run, target)
        self._search()
        code = ended(run)
        self._search()
        self._see()
        return code, bool(struck) or (target == "disk" and code != 0)

    def strike(self, rng: random.Random, run: int, target: str) -> int:
        """Kill; how many were alive."""
        return _strike(rng, run, target)

    def finished(self) -> None:
        """Go on until the end, and check everything."""
        code = ended(self.begin(self.options, self.log, None))
        assert code == 0, f"exit code {code}: {self.log.read_text()[-500:]}"
        self._see()
        self._check()
        ledger = Ledger(self.options.output)
        for folder in ((EVIDENCE, "staging"), (*LEDGER, "attempts")):
            assert not ledger.names(*folder), folder
        left = [p for p in self.temporary.iterdir() if not p.name.startswith(BEAMS_OWN)]
        assert not left, left
        self._search()

    def _check(self) -> None:
        """What the output holds."""
        ledger = Ledger(self.options.output)
        entries = ledger.entries()
        assert len(entries) == UNITS
        ids: list[str] = []
        for entry in entries.values():
            assert entry.rows_in == ROWS == entry.records, entry.dead_letters
            shard = ledger.fs.cat_file(ledger.path(entry.shards["data"].path))
            ids += read_table(shard, ["record_id"])["record_id"].to_pylist()
        assert len(set(ids)) == len(ids) == UNITS * ROWS

    def _see(self) -> None:
        """What was committed once stays as it was."""
        for unit, entry in Ledger(self.options.output).entries().items():
            assert self.committed.setdefault(unit, entry.copy_id) == entry.copy_id

    def _search(self) -> None:
        """No name, path or stretch of an original's bytes anywhere."""
        source = next((self.root / "in").glob("*/*_0005.jpg")).read_bytes()
        needles = [NAME.encode(), b"PLANTED", source[len(source) // 2 :][:32]]
        for place in (self.root, self.temporary):
            for path in place.rglob("*"):
                if self.root / "in" not in path.parents:
                    with contextlib.suppress(OSError):  # a socket; or gone, as drafts are
                        data = path.read_bytes() if path.is_file() else b""
                        found = [needle for needle in needles if needle in data]
                        assert not found, f"{found} in {path}"


def _strike(rng: random.Random, run: int, target: str) -> int:
    """Kill; how many were alive."""
    members = _members(run)
    chosen = {
        "group": members,
        "driver": [run] if run in members else [],
        "worker": (others := [pid for pid in members if pid != run]) and [rng.choice(others)],
        "interrupt": [pid for pid in members if _group(pid) == run],
    }[target]
    struck = 0
    for pid in chosen:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT if target == "interrupt" else signal.SIGKILL)
            struck += 1
    return struck


def campaign(
    seed: int,
    kills: int,
    until: float,
    engine: str = "pool",
    kind: type[World] = World,
    targets: Sequence[str] = TARGETS,
) -> dict[str, object]:
    """Disturb so many runs, a few of each output, until the time (monotonic) is up; figures."""
    start = begin if engine == "pool" else partial(begin_command, engine)
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    kept = {name: os.environ.get(name) for name in ("TMPDIR",)}
    counts: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    failures: list[str] = []
    scenario = done = 0
    pa.set_cpu_count(1)
    began = time.monotonic()
    try:
        longest = _undisturbed(kind(folder / "first", start))
        while done < kills and time.monotonic() < until:
            rng = random.Random(f"{seed}|{scenario}")
            struck: list[str] = []
            try:
                world = kind(folder / str(scenario), start)
                for _ in range(min(rng.randrange(1, 9), kills - done)):
                    struck.append(rng.choice(targets))
                    code, in_time = world.disturbed(rng, struck[-1], longest)
                    if in_time:
                        done += 1
                        codes[f"{struck[-1]}: {code}"] += 1
                calm = time.monotonic()
                world.finished()
                # What is left to do after a few kills is less than a whole run.
                longest = 0.7 * longest + 0.3 * (time.monotonic() - calm)
            except AssertionError as error:
                failures.append(f"--seed {seed}, scenario {scenario}, {struck}: {error}")
            counts.update(struck)
            print(f"scenario {scenario}: {' '.join(struck)}", file=sys.stderr, flush=True)
            shutil.rmtree(folder / str(scenario), ignore_errors=True)
            shutil.rmtree(world.temporary, ignore_errors=True)
            scenario += 1
    finally:
        for name, value in kept.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "seed": seed,
        "engine": engine,
        "disturbed runs": done,
        "outputs": scenario,
        "by target": dict(counts),
        "exit codes": dict(codes),
        "run_s": round(longest, 2),
        "minutes": round((time.monotonic() - began) / 60, 1),
        "failures": failures,
    }


def _undisturbed(world: World) -> float:
    """How long a run takes, s."""
    began = time.monotonic()
    world.finished()
    shutil.rmtree(world.temporary)
    return time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="default: a fresh one, printed")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=60.0, help="at most")
    parser.add_argument("--engine", choices=("pool", "local", "ray"), default="pool")
    options = parser.parse_args()
    seed = secrets.randbits(32) if options.seed is None else options.seed
    tune_process(1)  # before anything starts threads, which no fork survives
    figures = campaign(seed, options.kills, time.monotonic() + 60 * options.minutes, options.engine)
    print(json.dumps(figures, indent=1))
    return int(bool(figures["failures"]))


if __name__ == "__main__":
    sys.exit(main())
