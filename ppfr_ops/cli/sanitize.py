"""``ppfr sanitize``: sanitize a face dataset on Ray Data."""

from importlib.metadata import version
from typing import Any

import click

from ppfr_ops.cli import Command
from ppfr_ops.cli.driver import drive
from ppfr_ops.cli.options import collect, sanitize_options
from ppfr_ops.engines.ray_data import on_ray

EXAMPLES = """
\b
Examples:
  # the embedded sample
  ppfr sample faces/ && ppfr sanitize --input faces/ --output shared/
  # a Hugging Face dataset, measured with two FR models, identities as pseudonyms
  (umask 077; openssl rand -hex 32 > key)
  ppfr sanitize --input 'data/*.parquet' --output shared/ \\
      --fr dlib=dlib.onnx --fr r50=r50.onnx,convention=arcface,channels=bgr \\
      --identity-column identity --identity-key-file key --keep-column age
  # a tree of aligned crops, one folder a person, stronger method
  ppfr sanitize --input crops/ --output shared/ --identity-column folder \\
      --identity-key-file key --method signed-field --method-option grid=14
  # photographs: every head covered in place, and a list of those that a person should look at
  ppfr sanitize --input photos/ --output shared/ --faces detect --output-faces in-place \\
      --background blur --review-out owner/queue.csv
  # a dataset in object storage that grows, every night; what was deleted there is taken back
  ppfr sanitize --input s3://faces/in --output s3://faces/out --identity-key-file key \\
      --incremental --propagate-deletions
  # what would happen, on a sample, without writing anything
  ppfr sanitize --input tars/ --output shared/ --dry-run

Interrupted or killed? The same command goes on where it was.
Exit codes: 0 finished; 2 wrong usage or input; 3 more dead letters than allowed; 1 else.
"""


@click.command(
    cls=Command, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]}
)
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
@click.option(
    "--cluster-wait",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="Ask a cluster that scales for --actors workers, and wait so long for them.",
)
@click.option("--dry-run", is_flag=True, help="Plan, try a few records, write nothing.")
@click.option("--json", "as_json", is_flag=True, help="The manifest's figures on stdout, too.")
def main(
    actors: int | None,
    gpus_per_actor: float,
    ray_address: str | None,
    cluster_wait: float,
    dry_run: bool,
    as_json: bool,
    **values: Any,
) -> int:
    """Turn a dataset of aligned faces, or of photographs, into one that can be shared.

    Writes data/, metrics/ and dead_letters/, one Parquet file a unit each, and manifest.json.
    """
    return drive(
        collect(values),
        lambda job, todo: on_ray(job, todo, actors, gpus_per_actor, ray_address, cluster_wait),
        f"ray {version('ray')}",
        dry_run=dry_run,
        as_json=as_json,
    )
