"""``ppfr review``: look over doubtful photographs in a browser."""

from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel, ConfigDict

from ppfr_ops.cli import Command
from ppfr_ops.cli.options import options_of, validated
from ppfr_ops.cli.terminal import echo
from ppfr_ops.options import option

EXAMPLES = """
\b
Examples:
  ppfr sanitize --input photos/ --output protected/ --faces detect --output-faces in-place \\
      --review-out owner/queue.csv
  ppfr review protected/ --queue owner/queue.csv --verdicts owner/verdicts.csv
  # what was said is heeded by the same command
  ppfr sanitize --input photos/ --output protected/ --faces detect --output-faces in-place \\
      --review-out owner/queue.csv --verdicts owner/verdicts.csv
"""


class ReviewOptions(BaseModel):
    """Options of ``ppfr review``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    queue: str = option(..., "The CSV that --review-out wrote.", metavar="FILE")
    verdicts: str = option(
        ...,
        "The CSV that verdicts are appended to, for --verdicts. Several people may write to it.",
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
    from ppfr_ops.release.figures import read_all
    from ppfr_ops.review.serving import Queue, serve
    from ppfr_ops.store.ledger import Ledger

    options = validated(ReviewOptions, values)
    ledger = Ledger(output)
    found = read_all(ledger, ledger.entries().values(), "detections")
    boxes: dict[str, list[list[float]]] = {}
    for name, box in zip(found["source_id"].to_pylist(), found["box"].to_pylist(), strict=True):
        boxes.setdefault(name, []).append(box)
    queue = Queue(Path(options.queue), Path(options.verdicts), boxes, options.image_column)
    server, address = serve(queue, options.port, options.reviewer)
    console.print(f"{len(queue.items):,} photographs to look at: open", markup=False)
    echo(address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
    left = sum(not item.verdict for item in queue.items.values())
    console.print(f"{left:,} photographs are still to be looked at", markup=False)
    return 0
