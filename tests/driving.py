"""A run as the commands do it, with an engine of the test's own."""

from collections.abc import Iterator

from ppfr_ops.cli.console import show
from ppfr_ops.sanitize.conductor import Engine, conduct
from ppfr_ops.sanitize.job import Job, Status
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.worker import Worker


def drive(
    options: SanitizeOptions,
    engine: Engine,
    carrier: str,
    *,
    dry_run: bool = False,
    as_json: bool = False,
) -> int:
    """The exit code."""
    return show(
        lambda tell: conduct(options, engine, carrier, tell, dry_run=dry_run), as_json=as_json
    )


def serial(job: Job, todo: list[int]) -> Iterator[Status]:
    """An engine: one unit after the other, here."""
    worker = Worker(job, 1)
    for number in todo:
        yield worker.process(number)
