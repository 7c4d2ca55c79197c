"""``ppfr sanitize-beam``: the same run on Apache Beam."""

from importlib.metadata import version
from typing import Any

import click

from ppfr_ops.cli.console import show
from ppfr_ops.cli.options import Grouped, collect, sanitize_options
from ppfr_ops.engines.beam import PipelineOptions, on_beam
from ppfr_ops.errors import UserError
from ppfr_ops.sanitize.conductor import conduct

EXAMPLES = """
\b
Examples:
  # on this machine, in this process
  ppfr sanitize-beam --input faces/ --output shared/
  # two worker processes
  ppfr sanitize-beam --input faces/ --output shared/ -- \\
      --runner=FnApiRunner --direct_running_mode=multi_processing --direct_num_workers=2
  # Google Dataflow, Flink, Spark: docs/running.md has the whole commands
  ppfr sanitize-beam --input gs://faces/in --output gs://faces/out -- \\
      --runner=DataflowRunner --project=P --region=R --temp_location=gs://faces/tmp

What comes after -- goes to Beam as it is. What Ray began, Beam can finish, and the reverse.
Exit codes: 0 finished; 1 failed, go on with the same command; 2 wrong usage or input;
3 finished, but with more dead letters than allowed, or short of the policy.
"""


@click.command(cls=Grouped, epilog=EXAMPLES)
@sanitize_options
@click.argument("beam_options", nargs=-1, type=click.UNPROCESSED)
def main(dry_run: bool, as_json: bool, beam_options: tuple[str, ...], **values: Any) -> int:
    """Turn a dataset of faces or photographs into one that can be shared, on Apache Beam.

    Same options, units, shards, ledger and exit codes as ppfr sanitize.
    """
    options = _beam_options(beam_options)
    chosen = collect(values)
    carrier = f"beam {version('apache-beam')}"
    return show(
        lambda tell: conduct(
            chosen, lambda job, todo: on_beam(job, todo, options), carrier, tell, dry_run=dry_run
        ),
        as_json,
    )


def _beam_options(arguments: tuple[str, ...]) -> PipelineOptions:
    """Beam's options. One that it does not know may be known to a portable runner, so it stays."""
    stray = [text for text in arguments if not text.startswith("-")]
    if stray and arguments[0] == stray[0]:
        raise UserError(f"unexpected argument {stray[0]!r}; Beam's options come after --")
    options = PipelineOptions(list(arguments), save_main_session=False)
    try:
        options.get_all_options(drop_default=True, retain_unknown_options=True)
    except SystemExit:
        raise UserError("Beam does not accept its options (after --)") from None
    return options
