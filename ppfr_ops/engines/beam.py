"""Apache Beam: a step for any collection of rows, and the engine of ``ppfr sanitize-beam``.

The engine reshuffles unit numbers over the runner's workers. A worker process builds one ``Worker``
and shares it among its threads. Pictures never enter Beam's own data plane.
"""

# ruff: noqa: E402

import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

_disabled = logging.root.manager.disable
logging.disable(logging.WARNING)  # Beam warns of every optional library that it does not find
import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.utils.shared import Shared

logging.disable(_disabled)

from ppfr_ops.errors import UserError, describe
from ppfr_ops.sanitize.batch import DEAD_LETTER, BatchSanitizer, needs_key
from ppfr_ops.sanitize.job import Job, Status
from ppfr_ops.sanitize.sealing import sealed_job
from ppfr_ops.sanitize.worker import worker_of
from ppfr_ops.store.ledger import Ledger

log = logging.getLogger("ppfr")

PUBLISHED = "published"
"""Tag of the main output of ``SanitizeFaces``."""
DEAD_LETTERS = "dead_letters"
"""Tag of the output of what could not be published: of ``SanitizeFaces``, dicts of ``record_id``
and reason code; of the engine, (unit, reason code, count)."""

_NAMESPACE = "ppfr"
_PROCESS = os.urandom(16)
"""Which process this is."""
_POLL_SECONDS = 1.0


class SanitizeFaces(beam.PTransform):
    """Sanitizes a collection of rows (dicts) with pictures of aligned faces.

    ```python
    done = rows | SanitizeFaces(identity_column="who", keep_columns=["age"])
    done.published     # dicts: record_id, image {bytes, path}, age
    done.dead_letters  # dicts: record_id, dead_letter (a reason code)
    ```

    Args:
        batch_rows: rows that are handed on together, at most.
        options: those of ``ppfr_ops.BatchSanitizer``, which see. A worker process loads the models
            once and shares them among its threads. No key travels with the pipeline: where workers
            are other processes, ``identity_key_file`` has to name a file that they can read.

    Raises:
        UserError: from the runner's worker, where options or rows cannot be used.
    """

    def __init__(self, *, batch_rows: int = 256, **options: Any) -> None:
        super().__init__()
        self._batch_rows = batch_rows
        key = options.pop("key", None)
        if key is None and needs_key(**options):
            key = os.urandom(32)
        self._key = None if key is None else _ProcessKey(key)
        self._options = options

    def expand(self, rows: beam.PCollection) -> Any:
        return (
            rows
            | "batch" >> beam.BatchElements(min_batch_size=1, max_batch_size=self._batch_rows)
            | "sanitize"
            >> beam.ParDo(_SanitizeRows(self._options, self._key, Shared())).with_outputs(
                DEAD_LETTERS, main=PUBLISHED
            )
        )


class _ProcessKey:
    """A key that stays in this process: what is pickled of it, into a pipeline that runners keep,
    is its number."""

    _held: ClassVar[list[bytes]] = []

    def __init__(self, key: bytes) -> None:
        self._held.append(key)
        self._place = (_PROCESS, len(self._held) - 1)

    def get(self) -> bytes:
        process, number = self._place
        if process != _PROCESS:
            raise UserError(
                "SanitizeFaces: its key does not travel with the pipeline; for workers that are "
                "other processes, identity_key_file names a file that they can read"
            )
        return self._held[number]


class _SanitizeRows(beam.DoFn):
    """Lists of rows in, published rows out; dead letters by tag."""

    def __init__(
        self, options: Mapping[str, Any], key: "_ProcessKey | None", shared: Shared
    ) -> None:
        self._options = options
        self._key = key
        self._shared = shared

    def setup(self) -> None:
        key = None if self._key is None else self._key.get()
        self._held = self._shared.acquire(lambda: _Holder(BatchSanitizer(key=key, **self._options)))

    def process(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
        sanitize = self._held.worker
        columns: dict[str, list[Any]] = {}
        for name in sanitize.needed():
            if any(name not in row for row in rows):
                raise UserError(f"a row has no field {name!r}")
            columns[name] = [row[name] for row in rows]
        with self._held.lock:
            done = sanitize(columns)
        for values in zip(*done.values(), strict=True):
            row = dict(zip(done, values, strict=True))
            code = row.pop(DEAD_LETTER)
            if code is None:
                _count("records")
                yield row
            else:
                _count("dead letters")
                letter = {"record_id": row["record_id"], DEAD_LETTER: code}
                yield beam.pvalue.TaggedOutput(DEAD_LETTERS, letter)


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

    def setup(self) -> None:
        self._held = self._shared.acquire(lambda: _Holder(worker_of(self._job, self._threads)))

    def process(self, number: int) -> Iterator[Any]:
        with self._held.lock:
            status = self._held.worker.process(number)
        _count(f"units {status.state}")
        _count("rows in", status.rows_in)
        _count("records", status.records)
        _count("dead letters", status.dead_letters)
        if status.state == "failed":
            # The reason is a type and a line of code, so it can be a counter's name; no runner
            # has another way back to the driver that all of them support.
            _count(f"failed|{status.reason}")
        else:
            yield from self._describe(status, self._held.worker.ledger)
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

    def __init__(self, worker: Any) -> None:
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
    with sealed_job(job) as sealed:
        yield from _on_beam(sealed, todo, options)


def _on_beam(job: Job, todo: list[int], options: PipelineOptions) -> Iterator[Status]:
    os.environ["PYTHONSAFEPATH"] = "1"  # no module of the working folder, where an input may lie
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
    ledger = Ledger(job.options.output)
    wanted = {job.plan.units[number].id for number in todo}
    ended = False
    with _worker_deaths() as died:
        thread.start()
        while wanted and not ended:
            thread.join(_POLL_SECONDS)
            ended = died.is_set() or not thread.is_alive()
            for unit in sorted(wanted & ledger.committed_ids()):
                entry = ledger.entry(unit)
                if entry is not None:
                    wanted.discard(unit)
                    dead = sum(entry.dead_letters.values())
                    yield Status(unit, "committed", entry.rows_in, entry.records, dead)
        if died.is_set():
            log.error("a worker process of Beam's local runner died, which it waits for in vain")
            return
        thread.join()
    if "error" in outcome:
        log.error("Beam gave up: %s", outcome["error"])
    for reason in _reasons(outcome.get("result")):
        log.warning("units failed: %s", reason)


@contextmanager
def _worker_deaths() -> Iterator[threading.Event]:
    """Set when a worker process of Beam's local runner has died: the runner's thread that watches
    it ends by an error, and nothing else notices."""
    died, before = threading.Event(), threading.excepthook

    def hook(told: threading.ExceptHookArgs) -> None:
        if "Worker subprocess exited" in str(told.exc_value):
            died.set()
        else:
            before(told)

    threading.excepthook = hook
    try:
        yield died
    finally:
        threading.excepthook = before


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
