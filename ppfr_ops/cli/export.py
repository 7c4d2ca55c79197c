"""``ppfr export``: the pictures of a release as a folder of files."""

from typing import Literal

import click

from ppfr_ops.cli import Command
from ppfr_ops.cli.console import console
from ppfr_ops.release.export import export

EXAMPLES = """
\b
Examples:
  # records of a Parquet release as picture files, named by their ids
  ppfr export shared/ pictures/
  # a folder for each person, as many training scripts want it
  ppfr export shared/ pictures/ --by-person

The same command goes on where it was. Exit codes: 0 finished; 2 refused.
"""


@click.command(cls=Command, epilog=EXAMPLES)
@click.argument("output")
@click.argument("folder")
@click.option(
    "--names",
    type=click.Choice(["keep", "number"]),
    default="keep",
    show_default=True,
    help="keep: as the release calls them; number: 000001, 000002 and so on.",
)
@click.option("--by-person", is_flag=True, help="A folder for each pseudonym.")
def main(output: str, folder: str, names: Literal["keep", "number"], by_person: bool) -> int:
    """Write the pictures of the release in OUTPUT (or of a release alone) as files into FOLDER."""
    count = export(output, folder, names, by_person)
    console.print(f"{count:,} picture{'' if count == 1 else 's'} in {folder}", markup=False)
    return 0
