"""``ppfr review``: look over doubtful photographs in a browser."""

from pathlib import Path
from typing import Any

import click

from ppfr_ops.cli import Command
from ppfr_ops.cli.options import options_of, validated
from ppfr_ops.cli.terminal import echo
from ppfr_ops.errors import UserError
from ppfr_ops.options import Options, option
from ppfr_ops.store.files import inside
from ppfr_ops.words import counted

EXAMPLES = """
\b
Examples:
  ppfr sanitize --input photos/ --output protected/ --faces detect --output-faces in-place
  ppfr review protected/ --input photos/
  # what was said is heeded by the same command
  ppfr sanitize --input photos/ --output protected/ --faces detect --output-faces in-place \\
      --verdicts verdicts.csv
"""


class ReviewOptions(Options):
    """Options of ``ppfr review``."""

    source: str | None = option(None, "The run's input.", metavar="URL", flag="--input")
    identity_key_file: str | None = option(
        None, "Of the run, if it had one; with --input.", metavar="FILE"
    )
    queue: str | None = option(
        None, "Instead of --input: the CSV that --review-out wrote.", metavar="FILE"
    )
    verdicts: str = option(
        "verdicts.csv",
        "The CSV that verdicts are appended to, for ppfr sanitize --verdicts. Several people may "
        "write to it.",
        metavar="FILE",
    )
    image_column: str = option("image", "Column of the pictures in Parquet files.")
    port: int = option(0, "Port on this machine; 0: any that is free.", ge=0, le=65535)
    reviewer: str = option("owner", "A role that verdicts bear, such as reviewer-2; no name.")


@click.command(cls=Command, epilog=EXAMPLES)
@click.argument("output")
@options_of(ReviewOptions)
def main(output: str, **values: Any) -> int:
    """Look over the photographs of which the detector was not sure, in a browser on this machine.

    Keys: o ok, c cover the boxes that you drew, d drop, u undo, x remove a box, arrows. Verdicts
    are saved as they are given. Ctrl-C ends it.
    """
    from ppfr_ops.cli.console import console
    from ppfr_ops.review.serving import Queue, serve
    from ppfr_ops.sanitize.reviewing import items_of

    options = validated(ReviewOptions, values)
    if inside(options.verdicts, output):
        raise UserError("--verdicts must not lie inside the output")
    items = items_of(output, options.source, options.identity_key_file, options.queue)
    queue = Queue(items, Path(options.verdicts), options.image_column)
    server, address = serve(queue, options.port, options.reviewer)
    if not queue.items:
        console.print("no photograph waits for a person", markup=False)
        return 0
    listed = counted(len(queue.items), "photograph")
    console.print(f"{listed} to look at: open this address, on this machine", markup=False)
    echo(address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
    left = sum(not item.verdict for item in queue.items.values())
    echo(
        f"{counted(left, 'photograph')} still to be looked at; the same ppfr sanitize with "
        f"--verdicts {options.verdicts} does what was said",
        err=True,
    )
    return 0
