# ruff: noqa: E402
"""``ppfr sanitize-beam``: the same run on Apache Beam.

Unit numbers are reshuffled over the runner's workers; a worker process builds one ``Worker`` and
shares it among its threads. Pictures never enter Beam's own data plane.
"""

import os
import sys
from pathlib import Path

if not __package__:  # run as a file, from a checkout
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import logging
import threading
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import click

logging.disable(logging.WARNING)  # Beam warns of every optional library that it does not find
import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.utils.shared import Shared

logging.disable(logging.NOTSET)

from pipelines.cli import Refused, run
from pipelines.console import console
from pipelines.driver import drive
from pipelines.options import collect, sanitize_options
from ppfr_ops.job import Job, Status, Worker, describe
from ppfr_ops.ledger import Ledger

DEAD_LETTERS = "dead_letters"
"""Tag of the output that carries (unit, reason code, count)."""

_NAMESPACE = "ppfr"
_POLL_SECONDS = 1.0

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
Exit codes: 0 finished; 2 wrong usage or input; 3 more dead letters than allowed; 1 else.
"""


@click.command(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@sanitize_options
@click.option("--dry-run", is_flag=True, help="Plan, try a few records, write nothing.")
@click.option("--json", "as_json", is_flag=True, help="The manifest's figures on stdout, too.")
@click.argument("beam_options", nargs=-1, type=click.UNPROCESSED)
def main(dry_run: bool, as_json: bool, beam_options: tuple[str, ...], **values: Any) -> int:
    """Turn a dataset of faces or photographs into one that can be shared, on Apache Beam.

    Same options, units, shards, ledger and exit codes as ppfr sanitize.
    """
    options = _beam_options(beam_options)
    return drive(
        collect(values),
        lambda job, todo: on_beam(job, todo, options),
        f"beam {version('apache-beam')}",
        dry_run=dry_run,
        as_json=as_json,
    )


def _beam_options(arguments: tuple[str, ...]) -> PipelineOptions:
    """Beam's options. One that Beam does not know may be known to a portable runner, so it stays.

    Raises:
        Refused: not options at all, or of a wrong form.
    """
    stray = [text for text in arguments if not text.startswith("-")]
    if stray and arguments[0] == stray[0]:
        raise Refused(f"unexpected argument {stray[0]!r}; Beam's options come after --")
    options = PipelineOptions(list(arguments), save_main_session=False)
    try:
        options.get_all_options(drop_default=True, retain_unknown_options=True)
    except SystemExit:
        raise Refused("Beam does not accept its options (after --)") from None
    return options


class SanitizeUnit(beam.DoFn):
    """Unit number in, status out (as a dict); dead letters as a tagged output.

    Args:
        job: travels once, with the step. A worker is built once a process, models and all.
        threads: of the numeric libraries; 0: as they like.
    """

    def __init__(self, job: Job, shared: Shared, threads: int = 0) -> None:
        self._job = job
        self._shared = shared
        self._threads = threads
        self._distributions: dict[str, Any] = {}

    def setup(self) -> None:
        self._reason = ""
        try:
            self._worker = self._shared.acquire(lambda: _Holder(Worker(self._job, self._threads)))
        except Exception as error:
            self._reason = describe(error)

    def process(self, number: int) -> Iterator[Any]:
        if self._reason:
            status = Status(self._job.plan.units[number].id, "failed", reason=self._reason)
        else:
            worker = self._worker.worker
            with self._worker.lock:
                status = worker.process(number)
        _count(f"units {status.state}")
        _count("rows in", status.rows_in)
        _count("records", status.records)
        _count("dead letters", status.dead_letters)
        if status.state == "failed":
            # The reason is a type and a line of code, so it can be a counter's name; no runner
            # has another way back to the driver that all of them support.
            _count(f"failed|{status.reason}")
        else:
            yield from self._describe(status, self._worker.worker.ledger)
        yield vars(status)

    def _describe(self, status: Status, ledger: Ledger) -> Iterator[Any]:
        entry = ledger.entry(status.unit)
        if entry is None:
            return
        for name, value in entry.metrics.items():
            # Distributions hold integers: the unit's mean in millionths.
            Metrics.distribution(_NAMESPACE, f"{name} x 1e6").update(round(value.mean * 1e6))
        for code, count in entry.dead_letters.items():
            yield beam.pvalue.TaggedOutput(DEAD_LETTERS, (status.unit, code, count))


class _Holder:
    """What threads of a process share; a plain object that can be weakly referenced."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.lock = threading.Lock()


def _count(name: str, by: int = 1) -> None:
    Metrics.counter(_NAMESPACE, name).inc(by)


def build(pipeline: beam.Pipeline, job: Job, todo: list[int], threads: int = 0) -> Any:
    """The pipeline.

    Returns:
        ``.status`` (dicts of ``Status``) and ``.dead_letters`` ((unit, code, count)).
    """
    step = SanitizeUnit(job, Shared(), threads)
    return (
        pipeline
        | "units" >> beam.Create(todo, reshuffle=False)
        | "spread" >> beam.Reshuffle()
        | "sanitize" >> beam.ParDo(step).with_outputs(DEAD_LETTERS, main="status")
    )


def on_beam(job: Job, todo: list[int], options: PipelineOptions) -> Iterator[Status]:
    """Do units on Beam; statuses as the ledger shows them, whatever the runner."""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # of worker processes
    processes = int(options.get_all_options().get("direct_num_workers") or 1)
    threads = max(1, (os.cpu_count() or 1) // processes) if processes > 1 else 0
    pipeline = beam.Pipeline(options=options)
    build(pipeline, job, todo, threads)
    outcome: dict[str, Any] = {}

    def work() -> None:
        try:
            result = pipeline.run()
            result.wait_until_finish()
            outcome["result"] = result
        except Exception as error:
            outcome["error"] = describe(error)

    # In-process runners return from run() when all is done; the ledger tells how far they are.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    ledger = Ledger(job.options.output)
    wanted = {job.plan.units[number].id for number in todo}
    ended = False
    while wanted and not ended:
        thread.join(_POLL_SECONDS)
        ended = not thread.is_alive()
        for unit in sorted(wanted & ledger.committed_ids()):
            entry = ledger.entry(unit)
            if entry is not None:
                wanted.discard(unit)
                dead = sum(entry.dead_letters.values())
                yield Status(unit, "committed", entry.rows_in, entry.records, dead)
    thread.join()
    if "error" in outcome:
        console.print(f"Error: Beam gave up: {outcome['error']}", markup=False)
    for reason in _reasons(outcome.get("result")):
        console.print(f"units failed: {reason}", markup=False)


def _reasons(result: Any) -> list[str]:
    """Why units failed, each reason with its count."""
    if result is None:
        return []
    counters = result.metrics().query()["counters"]
    found = {item.key.metric.name: item.committed or item.attempted for item in counters}
    return [
        f"{count} x {name.partition('|')[2]}"
        for name, count in found.items()
        if name.startswith("failed|")
    ]


if __name__ == "__main__":
    # Pickled by reference, so that worker processes import it: as a module, not as __main__.
    from pipelines.sanitize_beam import main as command

    run(command)
