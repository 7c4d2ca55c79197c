"""``ppfr sample``: write the embedded sample, faces drawn by code."""

from pathlib import Path

import click

from ppfr_ops.cli import Command
from ppfr_ops.cli.console import console
from ppfr_ops.errors import UserError
from ppfr_ops.sample import write_sample

EXAMPLES = """
\b
Examples:
  ppfr sample faces/
  ppfr sample faces/ --count 10000 --identities 500 --files 10
"""


@click.command(
    cls=Command, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--count", type=click.IntRange(1), default=192, show_default=True, help="Faces.")
@click.option("--identities", type=click.IntRange(1), default=24, show_default=True)
@click.option("--files", type=click.IntRange(1), default=3, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed, other people.")
def main(folder: Path, count: int, identities: int, files: int, seed: int) -> int:
    """Write faces of nobody to FOLDER, as Parquet with the columns image and identity."""
    if files > count:
        raise UserError(f"--files {files}: there are {count} faces")
    paths = write_sample(folder, count, identities, files, seed)
    console.print(f"{count} faces of {identities} identities in {len(paths)} files")
    return 0
