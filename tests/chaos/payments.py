"""Runs under a privacy budget, killed between spending and publishing: ``payments.py --help``.

People are published again and again, into one output after the other, under one account and a
budget, until a run is refused; most runs are killed with ``SIGKILL``, the whole process group at
once, and resumed. Half the kills come at a random moment, the other half as soon as a charge
has been written, which is where spending and publishing lie apart. After every kill and every run
all pictures that were ever in a release are counted by pseudonym and held against the account.
"""

import argparse
import contextlib
import hashlib
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
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from kills import begin, ended
from private import key, options, write

from ppfr_ops import sample
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.methods.registry import create
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.worker import tune_process
from ppfr_ops.store.account import Account
from ppfr_ops.store.folder import Folder
from ppfr_ops.store.ledger import Ledger

PEOPLE = ("ann", "ann", "bob", "ann", "cat", "bob", "ann", "dan")
"""Of the rows of the input; a unit holds two."""
BUDGET = 20.0
"""Epsilon of a picture is 1, and Ann has four: five releases, if nothing is wasted."""


@lru_cache(maxsize=1)
def drawn() -> Faces:
    """A face of nobody for every row."""
    return sample.faces(len(PEOPLE), seed=4)


@dataclass
class World:
    """An input, an account, and every output that was made of them."""

    root: Path
    published: Counter[str] = field(default_factory=Counter)
    """Pictures that were ever seen in a release, by pseudonym."""
    seen: set[bytes] = field(default_factory=set)
    outputs: int = 0
    wasted: int = 0
    """Pictures that were spent for and not published."""

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True)
        write(self.root / "in", list(drawn()), list(PEOPLE))

    @property
    def log(self) -> Path:
        return self.root / "log"

    def options(self, overwrite: bool) -> SanitizeOptions:
        return options(
            self.root / "in",
            self.root / f"out{self.outputs}",
            metrics="none",
            unit_rows=2,
            identity_column="identity",
            identity_key_file=key(self.root),
            privacy_account=str(self.root / "account"),
            privacy_budget=BUDGET,
            overwrite=overwrite,
        )

    def charges(self) -> int:
        """How many there are."""
        try:
            return len(os.listdir(self.root / "account" / "charges"))
        except FileNotFoundError:
            return 0

    def killed(self, rng: random.Random, longest: float, overwrite: bool) -> bool:
        """A run that is killed; whether it was in time."""
        before, wanted = self.charges(), rng.randrange(1, 5)
        watching = rng.random() < 0.5
        run = begin(self.options(overwrite), self.log)
        until = time.monotonic() + (longest if watching else rng.uniform(0, longest))
        while time.monotonic() < until and _lives(run):
            if watching and self.charges() >= before + wanted:
                time.sleep(rng.choice((0.0, 0.001, 0.004)))
                break
            time.sleep(0.0005)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run, signal.SIGKILL)
        code = ended(run)
        self.check()
        return code == -signal.SIGKILL

    def gone_on_with(self, overwrite: bool) -> int:
        """Its exit code: 0, or 2 where somebody would overdraw."""
        start = self.log.stat().st_size if self.log.exists() else 0
        code = ended(begin(self.options(overwrite), self.log))
        self.check()
        said = self.log.read_text()[start:]
        assert code in (0, 2), f"exit code {code}: {said[-500:]}"
        if code == 2:
            self._refused(said)
        return code

    def check(self) -> None:
        """Nobody's pictures are more than what was spent for them, and nobody overdrew."""
        for path in self.root.glob("out*/release/data/*.parquet"):
            for row in pq.read_table(path, columns=["image", "identity"]).to_pylist():
                picture = hashlib.sha256(row["image"]["bytes"]).digest()
                if picture not in self.seen:
                    self.seen.add(picture)
                    self.published[row["identity"]] += 1
        balance = Account(Folder(str(self.root / "account")), ()).balance()
        for person, count in self.published.items():
            spent = balance.records[person]
            assert spent >= count, f"{count} pictures published, {spent} paid for"
        for person in balance.records:
            assert balance.epsilon(person) <= BUDGET * (1 + 1e-9)
        self.wasted = max(self.wasted, balance.records.total() - self.published.total())
        charges = (self.root / "account" / "charges").glob("*.json")
        paid = {json.loads(path.read_text())["name"] for path in charges}
        for output in self.root.glob("out*"):
            ledger = Ledger(str(output))
            for entry in ledger.entries().values():
                assert f"{ledger.ids.release()}-{entry.copy_id}" in paid, "unpaid"

    def _refused(self, said: str) -> None:
        balance = Account(Folder(str(self.root / "account")), ()).balance()
        who = [person for person in balance.records if f"person {person[:16]}…" in said]
        assert len(who) == 1 and "would overdraw" in said, said[-500:]
        assert f"has spent {balance.epsilon(who[0]):.4g} and would come to" in said


def _lives(number: int) -> bool:
    return os.waitid(os.P_PID, number, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def campaign(seed: int, kills: int, until: float) -> dict[str, object]:
    """So many kills, over as many accounts as it takes, until the time (monotonic) is up."""
    folder = Path(tempfile.mkdtemp(prefix="payments-"))
    began = time.monotonic()
    struck = scenario = runs = refused = published = wasted = between = 0
    failures: list[str] = []
    method = create("dp-eigenface", {"epsilon": "1", "noise": "laplace"})
    method(drawn(), np.zeros((len(PEOPLE), 1), np.float32))  # loads everything, before any fork
    try:
        first = World(folder / "first")
        clock = time.monotonic()
        assert first.gone_on_with(False) == 0
        longest = time.monotonic() - clock
        while struck < kills and time.monotonic() < until:
            rng = random.Random(f"{seed}|{scenario}")
            world = World(folder / str(scenario))
            try:
                code = 0
                while code == 0:
                    overwrite = world.outputs > 0 and rng.random() < 0.2
                    world.outputs -= overwrite  # in place of the last one
                    for _ in range(rng.randrange(0, 3) if struck < kills else 0):
                        before = world.wasted
                        if world.killed(rng, longest, overwrite):
                            struck += 1
                            between += world.wasted > before
                        overwrite = False  # what was begun is resumed
                    clock = time.monotonic()
                    code = world.gone_on_with(overwrite)
                    longest = 0.7 * longest + 0.3 * (time.monotonic() - clock)
                    runs += 1
                    world.outputs += 1
                refused += code == 2
            except AssertionError as error:
                failures.append(f"--seed {seed}, scenario {scenario}: {error}")
            published += world.published.total()
            wasted += world.wasted
            shutil.rmtree(world.root, ignore_errors=True)
            scenario += 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "seed": seed,
        "kills": struck,
        "of them between spending and publishing": between,
        "accounts": scenario,
        "runs to their end": runs,
        "refused": refused,
        "pictures published": published,
        "spent for and not published": wasted,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "failures": failures,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="default: a fresh one, printed")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=60.0, help="at most")
    chosen = parser.parse_args()
    seed = secrets.randbits(32) if chosen.seed is None else chosen.seed
    tune_process(1)  # before anything starts threads, which no fork survives
    pa.set_cpu_count(1)
    figures = campaign(seed, chosen.kills, time.monotonic() + 60 * chosen.minutes)
    print(json.dumps(figures, indent=1))
    return int(bool(figures["failures"]))


if __name__ == "__main__":
    sys.exit(main())
