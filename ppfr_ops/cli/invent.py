"""``ppfr invent``: people who do not exist, as a dataset without a source."""

from pathlib import Path

import click

from ppfr_ops.cli import Command
from ppfr_ops.cli.console import console

EXAMPLES = """
\b
Examples:
  ppfr invent --people 1000 --photos 20 --output invented/
  ppfr invent --people 1000 --photos 20 --mix children=0,dark=0.4 --output balanced/
  ppfr invent --people 24 --photos 4 --size 512 --output pictures/   # whole pictures
"""


@click.command(cls=Command, epilog=EXAMPLES)
@click.option("--people", type=click.IntRange(1), required=True, help="How many.")
@click.option("--photos", type=click.IntRange(1), required=True, help="Of each.")
@click.option(
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Empty folder.",
)
@click.option(
    "--size",
    type=click.Choice(["112", "128", "256", "512", "1024"]),
    default="112",
    help="112: aligned faces; else whole pictures of that side, px.",
)
@click.option(
    "--variation",
    type=click.FloatRange(0, 1.5),
    default=1.0,
    help="How much photos of a person differ; 1: about as photographs in the wild do.",
)
@click.option(
    "--mix",
    metavar="KIND=SHARE,…",
    help="Shares of women, children (under 16), dark skin: "
    "women=0.7,dark=0.4. Women are half where nothing else is said.",
)
def main(
    people: int, photos: int, output: Path, size: str, variation: float, mix: str | None
) -> int:
    """Write photographs of people who do not exist, as Parquet with the columns image and
    identity. Nothing can draw the same people again: the key is forgotten.

    What the pictures may be used for hangs on the generator's licences: see the model card.
    """
    from ppfr_ops.invent import invent

    files = list(invent(output, people, photos, int(size), variation, mix or ""))
    console.print(f"{people * photos} photos of {people} people in {len(files)} files")
    return 0
