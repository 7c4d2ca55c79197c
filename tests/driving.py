"""A run as the commands do it, with an engine of the test's own."""

from ppfr_ops.cli.console import show
from ppfr_ops.sanitize.conductor import Engine, conduct
from ppfr_ops.sanitize.options import SanitizeOptions


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
