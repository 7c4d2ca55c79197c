"""``ppfr show``: a contact sheet of what was published."""

import os

import click

from ppfr_ops.cli import Command
from ppfr_ops.cli.console import console
from ppfr_ops.cli.terminal import log
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.imaging.decoding import ImageError, decode
from ppfr_ops.release.export import Release, contact_sheet
from ppfr_ops.sanitize.originals import originals
from ppfr_ops.store.files import inside

EXAMPLES = """
\b
Examples:
  ppfr show shared/                      # what was published
  ppfr show shared/ --input photos/      # before and after, for the owner alone

Exit codes: 0 finished; 2 refused.
"""


@click.command(cls=Command, epilog=EXAMPLES)
@click.argument("output")
@click.option("--input", "source", metavar="URL", help="The run's input: originals stand above.")
@click.option(
    "--identity-key-file", "key", metavar="FILE", help="Of the run, if it had one; with --input."
)
@click.option("--count", default=24, type=click.IntRange(1, 1000))
@click.option("--out", "target", default="contact-sheet.png", metavar="FILE", help="PNG.")
def main(output: str, source: str | None, key: str | None, count: int, target: str) -> int:
    """Draw pictures of the release in OUTPUT, taken at random, as one picture to look at."""
    if inside(target, output):
        raise UserError("--out must not lie inside the output")
    shown = list(_spread(output, count))
    if not shown:
        raise UserError("nothing is published there")
    columns = [[Encoding.decode(data)] for _, data in shown]
    if source is not None:
        before = originals(output, source, [name for name, _ in shown], key, log)
        for (name, _), column in zip(shown, columns, strict=True):
            try:
                column.insert(0, decode(before[name]))
            except (ImageError, KeyError):
                column.insert(0, column[0] * 0)
    data = Encoding("png").encode(contact_sheet(columns))
    mode = 0o600 if source is not None else 0o644
    with open(target, "wb", opener=lambda path, flags: os.open(path, flags, mode)) as file:
        file.write(data)
    note = "; it shows originals: keep it to yourself" if source is not None else ""
    console.print(f"{len(shown)} of them in {target}{note}", markup=False)
    return 0


def _spread(output: str, count: int) -> list[tuple[str, bytes]]:
    """So many pictures from all over the release; names are random, so their order is, too."""
    release = Release(output)
    step = max(1, release.manifest.records // count)
    found = [
        (name, data)
        for number, (name, _, data) in enumerate(release.pictures())
        if number % step == 0
    ]
    return found[:count]
