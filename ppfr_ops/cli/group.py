"""``ppfr group``: photos grouped by person, for somebody to check."""

from typing import Any

import click

from ppfr_ops.cli import Command
from ppfr_ops.cli.console import console
from ppfr_ops.cli.options import options_of, validated
from ppfr_ops.sanitize.groups import GroupOptions, group_input

EXAMPLES = """
\b
Examples:
  # group, look the file over and correct it, and make the release by it
  ppfr group --input faces/ --output owner/groups.csv
  ppfr sanitize --input faces/ --groups owner/groups.csv --output protected/
  # the dataset has grown: what was corrected stays
  ppfr group --input faces/ --known owner/groups.csv --output owner/groups-2.csv
  # the same virtual person wherever somebody is in photographs
  ppfr group --faces detect --input photos/ --output owner/groups.csv
  ppfr sanitize --faces detect --output-faces in-place --cover virtual \\
      --groups owner/groups.csv --input photos/ --output protected/

Exit codes: 0 grouped; 2 wrong usage or input.
"""


@click.command(cls=Command, epilog=EXAMPLES)
@options_of(GroupOptions)
def main(**values: Any) -> int:
    """Group faces by who seems to be in them, and write the groups to a file.

    The grouping that ppfr sanitize makes by itself where there are no labels. Nothing is published.
    """
    found = group_input(validated(GroupOptions, values))
    line = f"{found.rows:,} rows: {found.groups:,} people, {found.alone:,} of them with one photo"
    if found.unread:
        line += f"; {found.unread:,} rows without a readable face are in no group"
    console.print(line, markup=False)
    return 0
