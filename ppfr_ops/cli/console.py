"""What the person at the terminal sees: progress while it runs, a summary and where to look."""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable

import pyarrow as pa
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ppfr_ops.cli.terminal import SafeConsole, echo
from ppfr_ops.contracts.manifest import Counts, Manifest, PhotographCounts
from ppfr_ops.contracts.policy import Policy
from ppfr_ops.release.figures import Figures
from ppfr_ops.release.forecast import forecast
from ppfr_ops.sanitize import events
from ppfr_ops.sanitize.events import Listener, RunResult
from ppfr_ops.sanitize.job import Job, Status
from ppfr_ops.sanitize.worker import MAX_ATTEMPTS
from ppfr_ops.store.ledger import Tables
from ppfr_ops.words import counted, rate

console = SafeConsole(stderr=True, highlight=False)


class _ToConsole(logging.Handler):
    """Lines of the engines, which know no console, to the console."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "Error: " if record.levelno >= logging.ERROR else ""
        console.print(prefix + record.getMessage(), markup=False)


_log = logging.getLogger("ppfr")
if not _log.handlers:
    _log.addHandler(_ToConsole())
    _log.setLevel(logging.INFO)
    _log.propagate = False

_EVERY_SECONDS = 10.0
"""Between two progress lines where there is no terminal."""


class RunProgress:
    """Units, faces a second, dead letters and time left; a live bar on a terminal, else lines."""

    def __init__(self, units: int) -> None:
        self.units = units
        self.done = self.faces = self.dead = 0
        self._began = self._printed = time.monotonic()
        self._bar = Progress(
            TextColumn("[bold]units"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[dead]} dead letters"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=units, rate="", dead=0)
        self._bar.start()

    def stop(self) -> None:
        self._bar.stop()

    @property
    def rate(self) -> float:
        """Faces a second since the start."""
        return self.faces / max(time.monotonic() - self._began, 1e-9)

    def add(self, status: Status) -> None:
        self.done += 1
        self.faces += status.rows_in
        self.dead += status.dead_letters
        if status.state == "failed":
            console.print(f"unit {status.unit} failed: {status.reason}", markup=False)
        elif status.attempts >= MAX_ATTEMPTS:
            console.print(
                f"unit {status.unit} killed its worker {status.attempts} times and was taken "
                f"apart: {status.dead_letters} dead letters"
            )
        self._bar.update(
            self._task, completed=self.done, rate=rate(self.rate, "rows"), dead=self.dead
        )
        now = time.monotonic()
        last = self.done == self.units
        if not console.is_terminal and (now - self._printed > _EVERY_SECONDS or last):
            self._printed = now
            left = (now - self._began) / self.done * (self.units - self.done)
            console.print(
                f"{self.done}/{self.units} units, {rate(self.rate, 'rows')}, "
                f"{self.dead} dead letters, {left:,.0f} s left"
            )


def _preview(job: Job, tables: Tables) -> None:
    """What a dry run found: means with 95 % confidence intervals."""
    count = tables.records.num_rows
    table = _table()
    table.add_row("tried", f"{count + tables.dead_letters.num_rows} rows; nothing was written")
    codes = Counter(tables.dead_letters["code"].to_pylist())
    table.add_row("dead letters", _by_code(dict(codes)) or "0")
    for name in tables.metrics.column_names[1:]:
        values = tables.metrics[name].drop_null().to_numpy()
        if len(values) > 1:
            margin = 1.96 * values.std(ddof=1) / len(values) ** 0.5
            table.add_row(name, f"mean {values.mean():.3f} +- {margin:.3f}")
    console.print(table)
    if job.policy is not None:
        photographs = job.options.photographs
        whole = photographs is not None and photographs.output_faces == "in-place"
        _show_forecast(job.policy, tables, tables.detections if whole else None)


def _show_forecast(policy: Policy, tables: Tables, faces: pa.Table | None) -> None:
    dead = Counter(tables.dead_letters["code"].to_pylist())
    records, lost = tables.records.num_rows, tables.dead_letters.num_rows
    counts = Counts(
        units=0,
        rows_in=records + lost,
        records=records,
        dead_letters=lost,
        dead_letters_by_code=dict(dead),
    )
    table = Table(box=None, pad_edge=False)
    for title in ("policy", "required", "sample", "95 % interval", "would be"):
        table.add_column(title)
    for item in forecast(policy, Figures(counts, tables.metrics, faces=faces)):
        found = "not measured" if item.found is None else f"{item.found:.3f}"
        table.add_row(item.name, item.bound, found, _range(item.low, item.high), item.holds)
    console.print(table)


def _range(low: float, high: float) -> str:
    """An interval in words; an end that the sample is too small for is left out."""
    if not low <= high or (low == -math.inf and high == math.inf):
        return "none: too few rows"
    if high == math.inf:
        return f"{low:.3f} or more"
    return f"{high:.3f} or less" if low == -math.inf else f"{low:.3f} to {high:.3f}"


def _finished(result: RunResult) -> None:
    """The summary of a run that left nothing undone, and what is wrong with what came out."""
    manifest = result.manifest
    assert manifest is not None
    _summary(result, manifest)
    if manifest.options.get("no_face") == "pass":
        console.print("[bold red]--no-face pass: where no face was found, nothing was covered")
    counts = manifest.counts
    if 2 * counts.dead_letters_by_code.get("wrong_size", 0) > counts.rows_in:
        console.print(
            "Most pictures are not aligned faces of 112x112; for photographs use --faces detect"
        )
    for problem in result.problems:
        console.print(f"Error: {problem}", markup=False)


def _table() -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    return table


def _by_code(codes: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {code}" for code, count in codes.items())


def _summary(result: RunResult, manifest: Manifest) -> None:
    counts = manifest.counts
    table = _table()
    units = counted(counts.units, "unit")
    table.add_row("rows in", f"{counts.rows_in:,} in {units}")
    extra = f", {counts.extra_faces:+,} by the faces in them" if counts.extra_faces else ""
    table.add_row("published", f"{counts.records:,}{extra}")
    codes = _by_code(counts.dead_letters_by_code)
    table.add_row("dead letters", f"{counts.dead_letters:,}" + (f": {codes}" if codes else ""))
    if manifest.photographs is not None:
        for title, text in _looked(manifest.photographs):
            table.add_row(title, text)
    for name, value in manifest.metrics.items():
        text = f"mean {value.mean:.3f}, {value.min:.3f} to {value.max:.3f}"
        table.add_row(name, text)
    if result.faces:
        speed = rate(result.faces / max(result.seconds, 1e-9), "rows")
        table.add_row("time", f"{result.seconds:,.1f} s, {speed}")
    console.print(table)
    echo(f"for others: {result.release}; for you alone: {result.evidence}", err=True)
    if manifest.options.get("output_faces") == "in-place" and counts.records:
        where = f"{result.release}/photographs" if result.as_files else result.release
        look = f"ppfr show {result.output} --input INPUT"
        echo(f"look at them: {where}, or {look} beside the originals", err=True)


def _looked(found: PhotographCounts) -> list[tuple[str, str]]:
    """What was found in photographs, in words."""
    faces = (
        f"{found.faces:,} in {counted(found.photographs, 'photograph')}, {found.covered:,} covered"
    )
    if found.left_alone:
        faces += f", {found.left_alone:,} left alone as you wished"
    review = f"{counted(found.waiting, 'photograph waits', 'photographs wait')} for a person"
    if found.looked_over:
        review += f", {found.looked_over:,} looked over"
    return [("faces", faces), ("unsure of", counted(found.unsure, "face")), ("review", review)]


class Terminal:
    """Shows a run to the person who started it; a listener of ``ppfr_ops.run``."""

    _progress: RunProgress

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.Notice():
                prefix = "Error: " if event.kind == "error" else ""
                console.print(prefix + event.text, markup=False, soft_wrap=True)
            case events.Planned():
                _planned(event)
            case events.Started():
                self._progress = RunProgress(event.units)
            case events.UnitDone():
                self._progress.add(event.status)
            case events.Stopped():
                self._progress.stop()
            case events.Previewed():
                _preview(event.job, event.tables)
            case events.Finished():
                _finished(event.result)


def show(run: Callable[[Listener], RunResult], as_json: bool) -> int:
    """Do a run in front of the terminal; returns its exit code.

    Args:
        as_json: print the manifest on stdout, too.
    """
    result = run(Terminal())
    if as_json and result.manifest is not None:
        echo(result.manifest.model_dump_json(exclude={"shards"}, indent=1))
    return result.exit_code


def _planned(event: events.Planned) -> None:
    console.print(
        f"{counted(event.rows, 'row')} in {counted(event.units, 'unit')}, {event.done_before:,} of "
        "them done before" + (f"; left out: {event.left_out}" if event.left_out else ""),
        markup=False,
        soft_wrap=True,
    )
    if event.seeded:
        console.print("[bold red]--seed is for tests: who knows it can undo what this run writes")
