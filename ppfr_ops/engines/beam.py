"""Units on Apache Beam: unit numbers are reshuffled over the runner's workers.

A worker process builds one ``Worker`` and shares it among its threads. Pictures never enter Beam's
own data plane.
"""

# ruff: noqa: E402

import logging
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

logging.disable(logging.WARNING)  # Beam warns of every optional library that it does not find
import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.utils.shared import Shared

logging.disable(logging.NOTSET)

from ppfr_ops.cli.console import console
from ppfr_ops.errors import describe
from ppfr_ops.sanitize.job import Job, Status, Worker
from ppfr_ops.store.ledger import Ledger

DEAD_LETTERS = "dead_letters"
"""Tag of the output that carries (unit, reason code, count)."""

_NAMESPACE = "ppfr"
_POLL_SECONDS = 1.0


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
