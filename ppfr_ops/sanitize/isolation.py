"""Take a unit apart that kills its process, until the culprit record is known.

A child process reads the unit and sanitizes ranges of its rows; a range that kills it is halved.
Job and results travel over a pipe, so that no picture touches a disk.
"""

import os
import pickle
from collections import Counter
from multiprocessing.connection import Pipe
from typing import TYPE_CHECKING, Any, cast

from ppfr_ops.sandbox import child
from ppfr_ops.sanitize.sanitizer import Sanitizer
from ppfr_ops.sanitize.sealing import seal
from ppfr_ops.source.plan import record_id
from ppfr_ops.store.ledger import Tables, concatenate

if TYPE_CHECKING:
    from ppfr_ops.sanitize.job import Job

MAX_DEATHS = 64
"""Children that one unit may cost; what is unproven by then is given up."""
MIN_DEATHS = 2
"""Children that a row must kill, by itself, before it is given up: one may die of something else,
such as a machine that ran out of memory."""

_START_SECONDS = 300.0
_RANGE_SECONDS = 120.0
_ROW_SECONDS = 5.0


class _Died(Exception):
    """The child is dead, or had to be killed because it hung."""


class _Child:
    def __init__(self, job: "Job", ordinal: int, threads: int) -> None:
        self._pipe, theirs = Pipe()
        # A Ctrl-C does not reach it: a child that dies of that would be evidence against its rows.
        self._process = child("ppfr_ops.sanitize.isolated", theirs.fileno(), environment=os.environ)
        theirs.close()
        self._ask((*seal(job), ordinal, threads), _START_SECONDS)

    def sanitize(self, start: int, stop: int) -> Tables:
        wait = _RANGE_SECONDS + _ROW_SECONDS * (stop - start)
        return cast(Tables, self._ask((start, stop), wait))

    def _ask(self, question: object, seconds: float) -> object:
        try:
            self._pipe.send_bytes(pickle.dumps(question))
            if not self._pipe.poll(seconds):
                raise EOFError
            answer = pickle.loads(self._pipe.recv_bytes())
        except (EOFError, OSError):
            self.close()
            raise _Died from None
        if isinstance(answer, str):
            self.close()
            raise RuntimeError(answer)
        return answer

    def close(self) -> None:
        self._pipe.close()
        self._process.kill()
        self._process.wait()


def sanitize_apart(job: "Job", ordinal: int, sanitizer: Sanitizer[Any], threads: int) -> Tables:
    """Sanitize a unit in child processes.

    Args:
        ordinal: number of the unit in the plan.
        sanitizer: only asked for its schemas; it is the child's that works.
        threads: of the child.

    Returns:
        As ``Sanitizer.__call__``; the records that kill are dead letters ``killed_worker``.

    Raises:
        RuntimeError: the child failed in an orderly way; the text is ``job.describe``'s.
    """
    unit = job.plan.units[ordinal]
    parts: dict[int, Tables] = {}
    ranges = [(0, unit.rows)]
    deaths = unread = 0
    """All of them; and those in a row of children that did not get as far as the rows."""
    alone: Counter[int] = Counter()
    """Deaths of children that worked on this row and no other."""
    child: _Child | None = None
    try:
        while ranges:
            start, stop = ranges.pop()
            reading = child is None
            try:
                child = child or _Child(job, ordinal, threads)
                reading, unread = False, 0
                parts[start] = child.sanitize(start, stop)
            except _Died:
                child = None
                deaths += 1
                middle = (start + stop) // 2
                single = not reading and stop - start == 1
                alone[start] += single
                if deaths >= MAX_DEATHS or alone[start] >= MIN_DEATHS:
                    ids = [record_id(unit.id, row) for row in range(start, stop)]
                    parts[start] = sanitizer.add_dead_letters(ids, unit.id, "killed_worker")
                elif single:
                    ranges.append((start, stop))
                elif reading:
                    # Not this range's fault. Three in a row, and reading itself is what kills.
                    ranges.append((start, stop))
                    unread += 1
                    if unread == 3:
                        deaths = MAX_DEATHS
                else:
                    ranges += [(middle, stop), (start, middle)]
    finally:
        if child is not None:
            child.close()
    return concatenate([parts[start] for start in sorted(parts)])
