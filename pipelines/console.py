"""What the person at the terminal sees: progress while it runs, a summary and where to look."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ppfr_ops.job import Job, Status
from schemas.manifest import Manifest

console = Console(stderr=True, highlight=False)

_EVERY_SECONDS = 10.0
"""Between two progress lines where there is no terminal."""


class RunProgress:
    """Units, faces a second, dead letters and time left; a live bar on a terminal, else lines.

    Args:
        units: units still to be done.
    """

    def __init__(self, units: int) -> None:
        self.units = units
        self.done = self.faces = self.dead = self.failed = 0
        self._began = self._printed = time.monotonic()
        self._bar = Progress(
            TextColumn("[bold]units"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:,.0f} faces/s"),
            TextColumn("{task.fields[dead]} dead letters"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=units, rate=0.0, dead=0)

    def __enter__(self) -> "RunProgress":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
            self.failed += 1
            console.print(f"unit {status.unit} failed: {status.reason}", markup=False)
        self._bar.update(self._task, completed=self.done, rate=self.rate, dead=self.dead)
        now = time.monotonic()
        last = self.done == self.units
        if not console.is_terminal and (now - self._printed > _EVERY_SECONDS or last):
            self._printed = now
            left = (now - self._began) / self.done * (self.units - self.done)
            console.print(
                f"{self.done}/{self.units} units, {self.rate:,.0f} faces/s, "
                f"{self.dead} dead letters, {left:,.0f} s left"
            )


def summary(job: Job, manifest: Manifest, seconds: float, fresh_faces: int) -> None:
    """The table at the end."""
    counts = manifest.counts
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    table.add_row("rows in", f"{counts.rows_in:,} in {counts.units:,} units")
    table.add_row("published", f"{counts.records:,}")
    by_code = ", ".join(f"{n:,} {code}" for code, n in counts.dead_letters_by_code.items())
    table.add_row("dead letters", f"{counts.dead_letters:,}" + (f" ({by_code})" if by_code else ""))
    for name, value in manifest.metrics.items():
        text = f"mean {value.mean:.3f}, {value.min:.3f} to {value.max:.3f}"
        table.add_row(name, text)
    if fresh_faces:
        table.add_row("time", f"{seconds:,.1f} s, {fresh_faces / max(seconds, 1e-9):,.0f} faces/s")
    console.print(table)
    output = job.options.output
    console.print(f"data in {output}/data, all else in {output}/manifest.json", markup=False)
