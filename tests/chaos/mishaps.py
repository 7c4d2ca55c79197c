"""As ``kills.py``, of what is worse than death: ``python mishaps.py --help``.

A run is stopped in the middle of whatever it does, another machine takes its output over and ends
the work, and the first one wakes; a store does what it is asked and its answer is lost; half of the
input is away; the disk is full for one of the logs. It happens to runs that keep their originals in
a vault, with an owner's key and units that may be taken back, and to runs under a privacy budget;
and to servers that write down who asked them what.
"""

import argparse
import contextlib
import errno
import json
import os
import random
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import fsspec
import numpy as np
import payments
import pyarrow as pa
from kills import ROWS, UNITS, World, begin, ended

from ppfr_ops.match.accounts import Accounts, AuditLog, MatchPolicy
from ppfr_ops.match.errors import MatchError, Refused
from ppfr_ops.methods.registry import create
from ppfr_ops.sanitize import conductor
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.worker import tune_process
from ppfr_ops.store import folder as folders
from ppfr_ops.store import lease
from ppfr_ops.vault import FileKey, Vault, audit
from ppfr_ops.vault.erasing import check
from ppfr_ops.vault.recovery import Opened

LOGS = ("lease", "attempts", "units", "workers", "staging", "audit", "keys", "charges", "evidence")
"""A part of the path of what cannot be written."""
LOST = 12
"""One answer of so many gets lost."""
EXPIRY, BEAT = 1.0, 0.2


class LossyStore(fsspec.AbstractFileSystem):
    """An object store in a local folder that, in a run, loses answers to what it has done."""

    protocol = "lossy"
    cachable = False
    loses = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("lossy://").rstrip("/")

    def _done(self) -> None:
        if LossyStore.loses and not random.randrange(LOST):
            raise ConnectionResetError(errno.ECONNRESET, "the answer got lost")

    def info(self, path: str, **named: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        found = os.stat(path)
        kind = "directory" if os.path.isdir(path) else "file"
        if kind == "directory" and not os.listdir(path):
            raise FileNotFoundError(path)  # an object store has no folders
        tag = f"{found.st_mtime_ns}-{found.st_ino}"
        return {"name": path, "size": found.st_size, "type": kind, "ETag": tag}

    def ls(self, path: str, detail: bool = True, **named: Any) -> list[Any]:
        path = self._strip_protocol(path)
        if os.path.isfile(path):
            return [self.info(path)]
        found = []
        for name in os.listdir(path):
            with contextlib.suppress(FileNotFoundError):
                if ".lossy" not in name:
                    found.append(self.info(f"{path}/{name}"))
        return found if detail else [each["name"] for each in found]

    def cat_file(self, path: str, start: Any = None, end: Any = None, **named: Any) -> bytes:
        return Path(self._strip_protocol(path)).read_bytes()[start:end]

    def _open(self, path: str, mode: str = "rb", **named: Any) -> Any:
        return open(self._strip_protocol(path), mode)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **named: Any) -> None:
        path = self._strip_protocol(path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        draft = f"{path}.{secrets.token_hex(4)}.lossy"
        Path(draft).write_bytes(value)
        try:
            if mode == "create":
                os.link(draft, path)
            else:
                os.replace(draft, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft)
        self._done()

    def rm_file(self, path: str) -> None:
        os.unlink(self._strip_protocol(path))
        self._done()

    def cp_file(self, path1: str, path2: str, **named: Any) -> None:
        self.pipe_file(path2, self.cat_file(path1))


fsspec.register_implementation("lossy", LossyStore)


# -- what happens in a run ---------------------------------------------------------------------


def on_machine(name: str) -> None:
    """This process is on a machine of that name; leases are short."""
    lease._machine = lambda: name
    conductor.Lease = partial(lease.Lease, beat=BEAT, expiry=EXPIRY)  # type: ignore[misc, assignment]


def losing(seed: int) -> None:
    on_machine("first")
    random.seed(seed)
    LossyStore.loses = True


def no_room_for(part: str, seed: int) -> None:
    """Every second file that has this in its path cannot be written, once half of it is."""
    on_machine("first")
    rng, write = random.Random(seed), folders.in_one_step

    @contextlib.contextmanager
    def full(path: str, **named: Any) -> Iterator[Any]:
        with write(path, **named) as file:
            yield file
            if part in path and rng.random() < 0.5:
                file.flush()
                os.truncate(file.fileno(), os.fstat(file.fileno()).st_size // 2)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folders.in_one_step = full


# -- whom it happens to ------------------------------------------------------------------------


class Kept(World):
    """Originals in a vault; every second output and vault lies in a store that loses answers."""

    @property
    def remote(self) -> bool:
        return self.root.name.isdigit() and int(self.root.name) % 2 == 1

    @property
    def options(self) -> SanitizeOptions:
        where = "lossy://" if self.remote else ""
        return SanitizeOptions(
            input=str(self.root / "in"),
            output=f"{where}{self.root / 'out'}",
            vault=f"{where}{self.root / 'vault'}",
            vault_key=self._key("vault.key"),
            unit_rows=ROWS,
            method="pixelate",
            metrics="none",
            identity_column="folder",
            identity_key_file=self._key("owner.key"),
            incremental=True,
            propagate_deletions=True,
        )

    def _key(self, name: str) -> str:
        path = self.root / name
        if not path.exists():
            path.touch(0o600)
            path.write_text("5a" * 32)
        return str(path)

    def _check(self) -> None:
        options = self.options
        opened = Opened(options.output, Vault(str(options.vault)), FileKey(b"\x5a" * 32))
        count, _ = check(opened)
        assert (count.given, count.failures) == (UNITS * ROWS, 0), count
        ids: list[str] = []
        for unit in opened.units:
            table = opened.published(unit)
            assert table is not None, f"unit {unit} cannot be read"
            ids += table["record_id"].to_pylist()
        assert len(set(ids)) == len(ids) == UNITS * ROWS, f"{len(ids)} records"
        audit.read(Vault(str(options.vault)).files)  # its chain holds

    def check(self) -> None:
        self._see()

    def run(self, change: Callable[[], None]) -> int:
        return begin(self.options, self.log, change=change)

    def half_away(self, rng: random.Random) -> bool:
        files = sorted((self.root / "in").glob("*/*.jpg"))
        away = rng.sample(files, len(files) // 2)
        for path in away:
            path.rename(path.with_suffix(".away"))
        code = ended(self.run(partial(on_machine, "first")))
        for path in away:
            path.with_suffix(".away").rename(path)
        # whatever it did of the rest, it took nothing back
        assert code in (0, 1, 2), code
        return True


class Paid(payments.World):
    """Releases under a budget; every second account lies in a store that loses answers."""

    @property
    def remote(self) -> bool:
        return int(self.root.name) % 8 == 7

    def options(self, overwrite: bool) -> SanitizeOptions:
        asked = super().options(overwrite)
        if not self.remote:
            return asked
        return asked.model_copy(update={"privacy_account": f"lossy://{self.root / 'account'}"})

    def run(self, change: Callable[[], None]) -> int:
        return begin(self.options(False), self.log, change=change)

    def finished(self) -> None:
        code = self.gone_on_with(False)
        self.outputs += 1
        self.over = code == 2

    over = False


def happens(world: Any, what: str, rng: random.Random, longest: float) -> bool:
    """Whether it was in time."""
    if what == "half away":
        done: bool = world.half_away(rng)
        world.check()
        return done
    if what == "lost answers":
        ended(world.run(partial(losing, rng.randrange(1 << 30))))
        world.check()
        return True
    if what == "full disk":
        seed, part = rng.randrange(1 << 30), rng.choice(LOGS)
        ended(world.run(partial(no_room_for, part, seed)))
        world.check()
        return True
    first = world.run(partial(on_machine, "first"))
    time.sleep(rng.uniform(0, longest))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(first, signal.SIGSTOP)
    in_time = os.waitid(os.P_PID, first, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    second = ended(world.run(partial(on_machine, "second")))
    world.check()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(first, signal.SIGCONT)
    ended(first)
    world.check()
    assert second in (0, 1, 2, 3), second
    return in_time


def campaign(seed: int, mishaps: int, until: float, only: int | None = None) -> dict[str, object]:
    """So many mishaps, a few of each output, until the time (monotonic) is up; figures.

    Args:
        only: number of the one output (scenario) that they happen to; None: all.
    """
    folder = Path(tempfile.mkdtemp(prefix="mishaps-"))
    kept = os.environ.get("TMPDIR")
    counts: Counter[str] = Counter()
    failures: list[str] = []
    scenario, longest, began = only or 0, 2.0, time.monotonic()
    try:
        while sum(counts.values()) < mishaps and time.monotonic() < until:
            if only is not None and scenario > only:
                break
            rng = random.Random(f"{seed}|{scenario}")
            kind = Paid if scenario % 4 == 3 else Kept
            had: list[str] = []
            world: Any = None
            try:
                world = kind(folder / str(scenario))
                kinds = ["stopped", "lost answers" if world.remote else "full disk"]
                kinds += ["half away"] * (kind is Kept)
                for _ in range(rng.randrange(2, 7)):
                    what = rng.choice(kinds)
                    if getattr(world, "over", False):
                        break
                    had.append(what)
                    in_time = happens(world, what, rng, longest)
                    counts[f"{kind.__name__.lower()}: {what}"] += in_time
                    if kind is Paid:
                        world.finished()
                clock = time.monotonic()
                if kind is Kept:
                    world.finished()
                    longest = 0.7 * longest + 0.3 * (time.monotonic() - clock)
            except AssertionError as error:
                failures.append(f"--seed {seed}, scenario {scenario}, {had}: {error}")
            if scenario % 4 == 0:
                try:
                    counts["match log"] += match_log(rng, folder / "match")
                except AssertionError as error:
                    failures.append(f"--seed {seed}, match log {scenario}: {error}")
            print(f"scenario {scenario}: {', '.join(had)}", file=sys.stderr, flush=True)
            shutil.rmtree(folder / str(scenario), ignore_errors=True)
            if hasattr(world, "temporary"):
                shutil.rmtree(world.temporary, ignore_errors=True)
            scenario += 1
    finally:
        os.environ.pop("TMPDIR", None) if kept is None else os.environ.update(TMPDIR=kept)
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "seed": seed,
        "mishaps": sum(counts.values()),
        "by kind": dict(sorted(counts.items())),
        "outputs and accounts": scenario,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "failures": failures,
    }


# -- servers that write down who asked ---------------------------------------------------------

CLIENTS, BUDGET = 3, 40


def match_log(rng: random.Random, place: Path) -> int:
    """Servers of one gallery, of which one has no room and two are stopped, woken or killed.
    Nobody got more answers than the log tells, or than the budget allows. How many were struck."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    servers = [_serve(place, number, rng.randrange(2_000, 12_000)) for number in range(CLIENTS)]
    struck = 0
    for server in servers[1:]:
        time.sleep(rng.uniform(0.0, 0.15))
        with contextlib.suppress(ProcessLookupError):
            os.kill(server, signal.SIGSTOP)
            time.sleep(rng.uniform(0.0, 0.1))
            os.kill(server, rng.choice((signal.SIGCONT, signal.SIGKILL)))
            struck += 1
    for server in servers:
        os.waitpid(server, 0)
    log = AuditLog(place / "audit.jsonl")
    for number in range(CLIENTS):
        answers = place / f"answers.{number}"
        got = answers.stat().st_size if answers.exists() else 0
        noted = log.queries[f"client {number}"]
        assert got <= noted <= BUDGET, (got, noted)
        assert noted - got <= 1, "written down, and not answered, though nobody died"
    log.close()
    return struck + 1


def _serve(place: Path, number: int, most_bytes: int) -> int:
    server = os.fork()
    if server:
        return server
    code = 1
    try:
        import resource

        if number == 0:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))
        policy = MatchPolicy(threshold=0.5, budget=BUDGET, record_budget=10_000, per_minute=1000)
        accounts = Accounts(policy, AuditLog(place / "audit.jsonl"))
        with open(place / f"answers.{number}", "ab", buffering=0) as answers:
            for _ in range(2 * BUDGET):
                try:
                    accounts.spend(f"client {number}", "identify", "")
                except (Refused, MatchError):
                    continue
                answers.write(b".")
        code = 0
    finally:
        os._exit(code)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="default: a fresh one, printed")
    parser.add_argument("--mishaps", type=int, default=200)
    parser.add_argument("--scenario", type=int, default=None, help="only the output of this number")
    parser.add_argument("--minutes", type=float, default=60.0, help="at most")
    asked = parser.parse_args()
    seed = secrets.randbits(32) if asked.seed is None else asked.seed
    tune_process(1)
    pa.set_cpu_count(1)
    method = create("dp-eigenface", {"epsilon": "1", "noise": "laplace"})
    drawn = payments.drawn()
    method(drawn, np.zeros((len(drawn), 1), np.float32))  # loads everything, before any fork
    until = time.monotonic() + 60 * asked.minutes
    figures = campaign(seed, asked.mishaps, until, asked.scenario)
    print(json.dumps(figures, indent=1))
    return int(bool(figures["failures"]))


if __name__ == "__main__":
    raise SystemExit(main())
