"""``ppfr export``: the pictures of a release as a folder of files, or its records as a table."""

from typing import Literal

import click

from ppfr_ops.cli import Command
from ppfr_ops.cli.console import console
from ppfr_ops.errors import UserError
from ppfr_ops.release.export import export
from ppfr_ops.release.tables import KINDS, Kind, export_table

EXAMPLES = """
\b
Examples:
  # records of a Parquet release as picture files, named by their ids
  ppfr export shared/ pictures/
  # a folder for each person, as many training scripts want it
  ppfr export shared/ pictures/ --by-person
  # a table for a lakehouse
  ppfr export shared/ faces/ --to delta

Of files the same command resumes where it was; a table begins anew in an empty folder.
Exit codes: 0 finished; 2 refused.
"""


@click.command(cls=Command, epilog=EXAMPLES)
@click.argument("output")
@click.argument("folder")
@click.option(
    "--names",
    type=click.Choice(["keep", "number"]),
    default="keep",
    help="keep: as the release calls them; number: 000001, 000002 and so on.",
)
@click.option("--by-person", is_flag=True, help="A folder for each pseudonym.")
@click.option(
    "--to",
    type=click.Choice(["files", *KINDS]),
    default="files",
    help="files: picture files; else a table of that kind, of all columns.",
)
def main(
    output: str,
    folder: str,
    names: Literal["keep", "number"],
    by_person: bool,
    to: Kind | Literal["files"],
) -> int:
    """Write the pictures of the release in OUTPUT (or of a release alone) as files into FOLDER, or
    its records as a table. What is signed is the release; either is a copy of it."""
    if to == "files":
        count, what = export(output, folder, names, by_person), "picture"
    elif by_person or names != "keep":
        raise UserError("--by-person and --names are of picture files; a table has neither")
    else:
        count, what = export_table(output, folder, to), "row"
    console.print(f"{count:,} {what}{'' if count == 1 else 's'} in {folder}", markup=False)
    return 0
