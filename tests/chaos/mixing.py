"""As ``kills.py``, of releases that depend on no face: killed while rows are looked at, dealt and
drawn, and while the key is thrown away. ``python mixing.py --help``."""

import argparse
import json
import secrets
import time
from collections import Counter

from kills import NAME, ROWS, UNITS, World, campaign

from ppfr_ops.release.verify import verify
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.release_plan import PLACE, epochs
from ppfr_ops.sanitize.worker import tune_process
from ppfr_ops.store.folder import EVIDENCE
from ppfr_ops.store.ledger import LEDGER, Ledger, read_table


class Mixed(World):
    """People by the folders of the input; every second output throws its key away."""

    @property
    def options(self) -> SanitizeOptions:
        return SanitizeOptions(
            input=str(self.root / "in"),
            output=str(self.root / "out"),
            unit_rows=ROWS,
            method="nobody:Stripes",
            metrics="none",
            identity_column="folder",
            discard_key=self._forgets,
        )

    @property
    def _forgets(self) -> bool:
        return self.root.name.isdigit() and int(self.root.name) % 2 == 1

    def _check(self) -> None:
        ledger = Ledger(self.options.output)
        entries = ledger.entries()
        looked = [entry for entry in entries.values() if entry.stage == "look"]
        drawn = [entry for entry in entries.values() if entry.stage == "draw"]
        (epoch,) = epochs(ledger)
        assert len(looked) == UNITS and len(drawn) == epoch.shards
        ids: list[str] = []
        people: Counter[str] = Counter()
        for entry in drawn:
            shard = ledger.fs.cat_file(ledger.path(entry.shards["data"].path))
            table = read_table(shard, ["record_id", "identity"])
            ids += table["record_id"].to_pylist()
            people.update(table["identity"].to_pylist())
        assert len(set(ids)) == len(ids) == epoch.records == UNITS * ROWS + epoch.added
        assert len(people) == 3 and len(set(people.values())) == 1
        assert not list(verify(self.options.output))
        if self._forgets:
            assert ledger.thrown_away() and not ledger.exists(*LEDGER, "release_key.json")
            assert all(name.endswith(".json") for name in ledger.names(*PLACE))
            assert not ledger.names(EVIDENCE, "look")
        assert NAME not in str(people)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="default: a fresh one, printed")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=60.0, help="at most")
    parser.add_argument("--engine", choices=("pool", "local", "ray"), default="pool")
    asked = parser.parse_args()
    seed = secrets.randbits(32) if asked.seed is None else asked.seed
    tune_process(1)
    until = time.monotonic() + 60 * asked.minutes
    figures = campaign(seed, asked.kills, until, asked.engine, Mixed)
    print(json.dumps(figures, indent=1))
    return int(bool(figures["failures"]))


if __name__ == "__main__":
    raise SystemExit(main())
