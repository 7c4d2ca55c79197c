"""As ``kills.py``, of releases that depend on no face: killed while rows are looked at, dealt and
drawn, and while the key is thrown away. ``python mixing.py --help``."""

import argparse
import contextlib
import json
import os
import random
import secrets
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from kills import NAME, ROWS, TARGETS, UNITS, World, campaign

from ppfr_ops.release.verify import verify
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.release_plan import PLACE, epochs
from ppfr_ops.sanitize.worker import tune_process
from ppfr_ops.store.folder import EVIDENCE
from ppfr_ops.store.ledger import LEDGER, Ledger, read_table
from ppfr_ops.store.storage import open_store


class Mixed(World):
    """People by the folders of the input; every second output throws its key away."""

    bucket: ClassVar[str] = ""
    """Where outputs go; empty: to the disk."""
    cluster: ClassVar[Any] = None
    """Whose nodes are killed."""

    @property
    def output(self) -> str:
        return f"{self.bucket}/{self.root.name}" if self.bucket else super().output

    def strike(self, rng: random.Random, run: int, target: str) -> int:
        if target != "node":
            return super().strike(rng, run, target)
        nodes = self.cluster.workers
        self.cluster.remove_node(nodes.pop(rng.randrange(len(nodes))), allow_graceful=False)
        nodes.append(self.cluster.add_node(num_cpus=1))
        return 1

    def _search(self) -> None:
        super()._search()
        if self.bucket:
            fs, place = open_store(self.output)
            for path in fs.find(place):
                with contextlib.suppress(FileNotFoundError):
                    data = fs.cat_file(path)
                    assert NAME.encode() not in data and b"PLANTED" not in data, path

    @property
    def options(self) -> SanitizeOptions:
        return SanitizeOptions(
            input=str(self.root / "in"),
            output=self.output,
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


@contextlib.contextmanager
def s3() -> Iterator[str]:
    """A bucket on a server of its own (moto)."""
    import boto3

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    code = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    quiet = subprocess.DEVNULL
    server = subprocess.Popen([sys.executable, "-c", code], stdout=quiet, stderr=quiet)
    url = f"http://127.0.0.1:{port}"
    os.environ |= {"AWS_ACCESS_KEY_ID": "chaos", "AWS_SECRET_ACCESS_KEY": "chaos"}
    os.environ |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": url}
    try:
        for _ in range(120):
            with contextlib.suppress(Exception):
                boto3.client("s3").create_bucket(Bucket="chaos")
                break
            time.sleep(0.5)
        yield "s3://chaos"
    finally:
        server.terminate()
        server.wait()


@contextlib.contextmanager
def nodes() -> Iterator[Any]:
    """Ray: a head that only drives, and two nodes of one processor."""
    from ray.cluster_utils import Cluster

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "120"}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        made.workers = [made.add_node(num_cpus=1) for _ in range(2)]
        yield made
    finally:
        made.shutdown()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="default: a fresh one, printed")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=60.0, help="at most")
    parser.add_argument(
        "--engine",
        choices=("pool", "local", "ray", "nodes", "beam"),
        default="pool",
        help="nodes: Ray on a cluster, whose nodes are killed, too",
    )
    parser.add_argument("--s3", action="store_true", help="outputs on an S3 server")
    asked = parser.parse_args()
    seed = secrets.randbits(32) if asked.seed is None else asked.seed
    here = Path(__file__).resolve()
    paths = (str(here.parents[1]), str(here.parents[2]), os.environ.get("PYTHONPATH", ""))
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    tune_process(1)
    until = time.monotonic() + 60 * asked.minutes
    engine, targets = asked.engine, [t for t in TARGETS if t != "disk" or not asked.s3]
    with contextlib.ExitStack() as stack:
        if asked.s3:
            Mixed.bucket = stack.enter_context(s3())
        if engine == "nodes":
            Mixed.cluster = stack.enter_context(nodes())
            engine, targets = f"ray@{Mixed.cluster.address}", ["node", "node", "driver"]
        figures = campaign(seed, asked.kills, until, engine, Mixed, targets)
    print(json.dumps(figures | {"store": Mixed.bucket or "disk"}, indent=1))
    return int(bool(figures["failures"]))


if __name__ == "__main__":
    raise SystemExit(main())
