"""What a run tells while it works. The terminal listens, and so may anybody who calls ``run``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ppfr_ops.contracts.manifest import Counts, Manifest, Verdict
from ppfr_ops.sanitize.job import Job, Status
from ppfr_ops.store.ledger import Tables


@dataclass(frozen=True)
class Notice:
    """A line for a person."""

    text: str
    kind: Literal["notice", "error"] = "notice"


@dataclass(frozen=True)
class Planned:
    """What there is to do."""

    rows: int
    units: int
    done_before: int
    left_out: str
    """What of the input is not read, by kind and number."""
    seeded: bool


@dataclass(frozen=True)
class Started:
    """An engine begins with so many units."""

    units: int


@dataclass(frozen=True)
class UnitDone:
    """A unit is committed, or it failed."""

    status: Status


@dataclass(frozen=True)
class Stopped:
    """The engine is done with the units of the last ``Started``."""


@dataclass(frozen=True)
class Previewed:
    """A dry run: what became of a sample of rows. Nothing was written."""

    job: Job
    tables: Tables


@dataclass(frozen=True)
class RunResult:
    """What became of a run.

    ``exit_code`` is the command's: 0 finished; 1 failed, the same options go on; 3 finished, but
    with more dead letters than allowed, or short of the policy. ``manifest`` is the owner's; None
    after a dry run, or where units are left to do.
    """

    exit_code: int
    output: str
    manifest: Manifest | None = None
    problems: tuple[str, ...] = ()
    """Why the exit code is not 0."""
    seconds: float = 0.0
    faces: int = 0
    """Sanitized by this run, not by earlier ones."""

    @property
    def counts(self) -> Counts | None:
        """Rows, records and dead letters of the output."""
        return None if self.manifest is None else self.manifest.counts

    @property
    def verdict(self) -> Verdict | None:
        """Of the policy; None: there is no policy."""
        return None if self.manifest is None else self.manifest.verdict

    @property
    def as_files(self) -> bool:
        """Whether the release holds picture files."""
        found = self.manifest
        return found is not None and found.options.get("output_form") == "files"

    @property
    def release(self) -> str:
        """Folder or URL of what may leave."""
        return f"{self.output.rstrip('/')}/release"

    @property
    def evidence(self) -> str:
        """Folder or URL of what stays with the owner."""
        return f"{self.output.rstrip('/')}/evidence"


@dataclass(frozen=True)
class Finished:
    """All units are done, and the manifests are written."""

    result: RunResult


Event = Notice | Planned | Started | UnitDone | Stopped | Previewed | Finished
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """A listener that does nothing."""
