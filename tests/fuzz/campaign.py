"""Mutated inputs in bulk, each in a process that may die of it: ``python campaign.py --help``.

Case N of a kind is a function of (seed, kind, N), so a failing case is named by three words. What
fails is put into ``corpus/``, which the tests try again for ever.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import resource
import secrets
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import checks
import folders
import mutations
import whole

from ppfr_ops.sandbox import sandbox
from ppfr_ops.sanitize.worker import tune_process

CORPUS = HERE / "corpus"
HANG_SECONDS = 300.0
"""Of the clock on the wall, which a busy machine stretches."""
SLOW_SECONDS = 5.0
"""Of processor time."""
GIGABYTE = 2**30
MEMORY = Path("/dev/shm")
"""Where nobody waits for a disk."""

KINDS: dict[str, tuple[Callable[[random.Random], bytes], Callable[[bytes], str]]] = (
    {
        kind: (partial(mutations.other, kind), partial(checks.check_file, kind))
        for kind in mutations.FILES
    }
    | {
        kind: (partial(folders.folder, kind), partial(checks.check_folder, kind))
        for kind in folders.FOLDERS
    }
    | {
        "picture": (mutations.picture, checks.check_picture),
        "parquet": (mutations.parquet, partial(checks.check_file, "parquet")),
        "tar": (mutations.tar, partial(checks.check_file, "tar")),
    }
)


def case(kind: str, seed: int, number: int) -> bytes:
    """The bytes of one case."""
    return KINDS[kind][0](random.Random(f"{seed}|{kind}|{number}"))


def _peak(pid: int | str) -> int:
    """Most memory that a process ever had, bytes."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(x.split()[1]) * 1024 for x in lines if x.startswith("VmHWM")), 0)


def _trial(
    kind: str, seed: int, number: int, runs: bool, folder: Path
) -> tuple[Callable[[], str], list[bytes]]:
    """What is to be checked, and what must be found nowhere after it."""
    if not runs:
        data = case(kind, seed, number)
        return partial(KINDS[kind][1], data), whole.needles(data)
    first = number * whole.BATCH[kind]
    cases = [case(kind, seed, n) for n in range(first, first + whole.BATCH[kind])]
    sought = {needle for data in cases for needle in whole.needles(data)}
    return partial(whole.check, kind, cases, folder / "run"), sorted(sought)


def _work(
    kind: str, seed: int, first: int, last: int, runs: bool, folder: Path, pipe: Connection
) -> None:
    """Check cases in this process; (number, outcome, failure, seconds, peak) each as it comes."""
    traces = whole.Traces(folder)
    for number in range(first, last):
        check, sought = _trial(kind, seed, number, runs, folder)
        began = time.process_time()
        failure = ""
        try:
            outcome = check()
            traces.check(sought)
        except Exception:
            outcome, failure = "failed", traceback.format_exc(limit=-4)
        seconds = time.process_time() - began
        child = sandbox._process.pid if sandbox._process is not None else 0
        pipe.send((number, outcome, failure, seconds, max(_peak("self"), _peak(child))))
        shutil.rmtree(folder / "run", ignore_errors=True)


def run(
    kind: str, seed: int, count: int, until: float, corpus: Path | None, runs: bool = False
) -> dict[str, object]:
    """Check ``count`` cases, or as many as fit until ``until`` (monotonic).

    Args:
        runs: each case is a whole run over a batch of inputs; case N of them is over the N-th.

    Returns:
        Figures; ``failures`` holds what every failing case needs to be seen again.
    """
    tune_process(1)  # a process that has computed with threads cannot be forked safely
    case(kind, seed, 0)  # sound inputs are made once, not in every fork
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    slowest = peak = 0.0
    number = 0
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=MEMORY if MEMORY.is_dir() else None))
    # What a run takes, its batch takes together.
    slow = SLOW_SECONDS * (whole.BATCH[kind] if runs else 1)
    while number < count and time.monotonic() < until:
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(
            target=_work, args=(kind, seed, number, count, runs, folder, theirs), daemon=False
        )
        process.start()
        theirs.close()
        while number < count and time.monotonic() < until:
            try:
                hung = not ours.poll(HANG_SECONDS)
                if hung:
                    raise EOFError
                number, outcome, failure, seconds, memory = ours.recv()
            except EOFError:
                process.kill()
                process.join()
                outcome, seconds, memory = "failed", 0.0, 0
                failure = f"the process {'hung' if hung else 'died'} ({process.exitcode})"
            if seconds > slow:
                failure = failure or f"{seconds:.1f} s"
            if memory > GIGABYTE:
                failure = failure or f"{memory} bytes"
            outcomes[outcome] += 1
            slowest, peak = max(slowest, seconds), max(peak, memory)
            if failure:
                what = "run" if runs else "case"
                failures.append(f"--seed {seed} --kind {kind} --{what} {number}: {failure}")
                print(failures[-1], file=sys.stderr, flush=True)
                if not runs or whole.BATCH[kind] == 1:
                    _keep(kind, case(kind, seed, number), corpus)
            number += 1
            if not process.is_alive() and outcome == "failed":
                break
        process.kill()
        process.join()
    shutil.rmtree(folder, ignore_errors=True)
    return {
        "kind": f"{kind}, whole runs of {whole.BATCH[kind]}" if runs else kind,
        "seed": seed,
        "cases": outcomes.total(),
        "outcomes": dict(outcomes.most_common()),
        "slowest_cpu_s": round(slowest, 2),
        "peak_mib": round(peak / 2**20),
        "minutes": round((time.monotonic() - began) / 60, 1),
        "failures": failures,
    }


def _keep(kind: str, data: bytes, corpus: Path | None) -> None:
    if corpus is not None:
        folder = corpus / kind
        folder.mkdir(parents=True, exist_ok=True)
        (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="default: a fresh one, printed")
    for kind in KINDS:
        parser.add_argument(f"--{kind}s", dest=f"of_{kind}", type=int, default=0, metavar="COUNT")
    parser.add_argument("--minutes", type=float, default=60.0, help="at most, for each kind")
    parser.add_argument("--only", choices=("cases", "runs"), help="default: both")
    parser.add_argument("--no-corpus", action="store_true", help="keep no input that fails")
    parser.add_argument("--kind", choices=KINDS, help="with --case or --run: this one again")
    parser.add_argument("--case", type=int)
    parser.add_argument("--run", type=int)
    options = parser.parse_args()
    seed = secrets.randbits(32) if options.seed is None else options.seed
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if options.kind is not None:
        runs = options.run is not None
        with tempfile.TemporaryDirectory() as name:
            number = options.run if runs else options.case
            print(_trial(options.kind, seed, number, runs, Path(name))[0]())
        return 0
    failed = False
    for kind in KINDS:
        count = getattr(options, f"of_{kind}")
        began = time.monotonic()
        # Cases by themselves have three quarters of the time, the same in whole runs the rest.
        for runs, share in ((False, 0.75), (True, 1.0)):
            todo = -(-count // whole.BATCH[kind]) if runs else count
            if todo and options.only in (None, "runs" if runs else "cases"):
                until = began + 60 * options.minutes * share
                corpus = None if options.no_corpus else CORPUS
                figures = run(kind, seed, todo, until, corpus, runs)
                failed |= bool(figures["failures"])
                print(json.dumps(figures, indent=1), flush=True)
    return int(failed)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
