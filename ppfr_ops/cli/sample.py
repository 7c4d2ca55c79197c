"""``ppfr sample``: write the embedded sample, faces drawn by code."""

from pathlib import Path

import click

from ppfr_ops.cli import Command
from ppfr_ops.cli.console import console
from ppfr_ops.errors import UserError
from ppfr_ops.sample import write_pairs, write_photographs, write_sample

EXAMPLES = """
\b
Examples:
  ppfr sample faces/
  ppfr sample faces/ --pairs pairs.parquet       # and pairs of them, for ppfr evaluate
  ppfr sample photos/ --photographs --count 24   # whole photographs, for --faces detect
  ppfr sample faces/ --count 10000 --identities 500 --files 10
"""


@click.command(cls=Command, epilog=EXAMPLES)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--count", type=click.IntRange(1), default=192, help="Faces.")
@click.option("--identities", type=click.IntRange(1), default=24)
@click.option("--files", type=click.IntRange(1), default=3)
@click.option("--seed", type=int, default=0, help="Another seed, other people.")
@click.option(
    "--pairs",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Also write pairs of these faces, for ppfr evaluate (Parquet).",
)
@click.option(
    "--photographs", is_flag=True, help="Write JPEG photographs with one or two faces instead."
)
def main(
    folder: Path,
    count: int,
    identities: int,
    files: int,
    seed: int,
    pairs: Path | None,
    photographs: bool,
) -> int:
    """Write drawn faces to FOLDER, as Parquet with the columns image and identity."""
    if photographs:
        if pairs is not None:
            raise UserError("--pairs goes with aligned faces, not with --photographs")
        write_photographs(folder, count, seed)
        console.print(f"{count} photographs")
        return 0
    if files > count:
        raise UserError(f"--files {files}: there are {count} faces")
    if pairs is not None:
        write_pairs(pairs, count, identities, seed)
    paths = write_sample(folder, count, identities, files, seed)
    console.print(f"{count} faces of {identities} identities in {len(paths)} files")
    return 0
