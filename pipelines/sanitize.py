"""``ppfr sanitize``: sanitize a face dataset on Ray Data.

A dataset of unit numbers goes through a pool of actors; each reads, sanitizes and commits a whole
unit and sends back a status. No picture ever enters Ray's object store, which may spill to disk.
"""

import os
import sys
from pathlib import Path

if not __package__:  # run as a file, from a checkout
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import click

from pipelines.cli import Refused, run
from pipelines.console import RunProgress, console, summary
from pipelines.options import collect, sanitize_options
from ppfr_ops.job import (
    Job,
    Status,
    Worker,
    finish,
    prepare,
    too_many_dead,
    write_mapping,
)
from ppfr_ops.ledger import Ledger

EXAMPLES = """
\b
Examples:
  # the embedded sample
  ppfr sample faces/ && ppfr sanitize --input faces/ --output shared/
  # a Hugging Face dataset, measured with two FR models, identities as pseudonyms
  openssl rand -hex 32 > key
  ppfr sanitize --input 'data/*.parquet' --output shared/ \\
      --fr dlib=dlib.onnx --fr r50=r50.onnx,convention=arcface,channels=bgr \\
      --identity-column identity --identity-key-file key --keep-column age
  # a tree of aligned crops, one folder a person, stronger method
  ppfr sanitize --input crops/ --output shared/ --identity-column folder \\
      --identity-key-file key --method signed-field --method-option grid=14
  # what would happen, on a sample, without writing anything
  ppfr sanitize --input tars/ --output shared/ --dry-run

Interrupted or killed? The same command goes on where it was.
Exit codes: 0 finished; 2 wrong usage or input; 3 more dead letters than allowed; 1 else.
"""


@click.command(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@sanitize_options
@click.option("--actors", type=click.IntRange(min=1), help="Workers. Default: one a CPU or GPU.")
@click.option(
    "--gpus-per-actor",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="GPUs of a worker; a fraction shares one.",
)
@click.option(
    "--ray-address",
    envvar="RAY_ADDRESS",
    help="A running Ray cluster. Default: RAY_ADDRESS, else Ray is started on this machine.",
)
def main(actors: int | None, gpus_per_actor: float, ray_address: str | None, **values: Any) -> int:
    """Turn a dataset of aligned faces into one that can be shared.

    Writes data/, metrics/ and dead_letters/, one Parquet file a unit each, and manifest.json.
    """
    began = time.monotonic()
    try:
        job = prepare(collect(values))
        ledger = Ledger(job.options.output)
        ledger.open(job.settings, overwrite=job.options.overwrite)
    except ValueError as error:
        raise Refused(str(error)) from None
    if job.options.seed is not None:
        console.print("[bold red]--seed is for tests: do not share what this run writes")
    done = ledger.entries()
    todo = [n for n, unit in enumerate(job.plan.units) if unit.id not in done]
    console.print(
        f"{job.plan.rows:,} rows in {len(job.plan.units):,} units, "
        f"{len(job.plan.units) - len(todo):,} done before"
    )
    fresh = 0
    if todo:
        with RunProgress(len(todo)) as progress:
            for status in on_ray(job, todo, actors, gpus_per_actor, ray_address):
                progress.add(status)
            fresh = progress.faces
    import ray

    manifest, missing = finish(job, f"ray {ray.__version__}")
    if missing:
        console.print(f"Error: {len(missing)} units unfinished; the same command goes on")
        return 1
    if job.options.mapping:
        write_mapping(job)
    summary(job, manifest, time.monotonic() - began, fresh)
    problem = too_many_dead(job, manifest)
    if problem:
        console.print(f"Error: {problem}", markup=False)
        return 3
    return 0


class _Actor:
    """A Ray actor: a worker, built once."""

    def __init__(self, job_ref: Any, threads: int) -> None:
        import ray

        self._worker = Worker(ray.get(job_ref), threads)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        statuses = [asdict(self._worker.process(int(number))) for number in batch["item"]]
        return {name: [status[name] for status in statuses] for name in statuses[0]}


def on_ray(
    job: Job, todo: list[int], actors: int | None, gpus: float, address: str | None
) -> Iterator[Status]:
    """Do units on Ray; statuses as they come.

    Args:
        todo: numbers of the units.
        actors: workers; None: one a CPU, or as many as the GPUs carry.
        gpus: of a worker.
        address: of a cluster; None: start one here.
    """
    with _ray(address):
        import ray

        cluster = ray.cluster_resources()
        cpus = int(cluster.get("CPU", 1))
        if gpus and cluster.get("GPU", 0) < gpus:
            raise Refused(
                f"--gpus-per-actor {gpus:g}: the cluster has {cluster.get('GPU', 0):g} GPUs"
            )
        room = int(cluster["GPU"] / gpus) if gpus else cpus
        count = min(actors or room, len(todo))
        if gpus and count > room:
            raise Refused(f"--actors {count}: the cluster's GPUs carry {room} of {gpus:g} each")
        # More than there is would wait for ever, in silence: a share of the CPUs each, at most 1.
        share = min(1.0, cpus / count)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.target_max_block_size = None
        dataset = ray.data.from_items(todo, override_num_blocks=len(todo)).map_batches(
            _Actor,
            fn_constructor_args=(ray.put(job), max(1, cpus // count)),
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(size=count),
            num_cpus=share,
            num_gpus=gpus or None,
        )
        for row in dataset.iter_rows():
            yield Status(**row)


@contextmanager
def _ray(address: str | None) -> Iterator[None]:
    """A connection to a cluster, or a Ray of our own that leaves nothing behind."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if address:
        console.print("connecting to Ray")
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        try:
            yield
        finally:
            ray.shutdown()
        return
    console.print("starting Ray (3 to 5 s)")
    folder = tempfile.mkdtemp(prefix="ppfr-ray-")
    try:
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=folder,
        )
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    run(main)
