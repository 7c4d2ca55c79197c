"""The first look: what a method takes down of all faces of a release before it draws any.

A method that ``gathers`` draws a face by what the release's other faces are like. So every unit is
looked at once: the engine's workers are ``Looker`` s, and each leaves the features of a unit with
the evidence. Then the driver puts those of the plan together for the workers proper. Features are
biometric templates of originals: the owner's, 768 bytes a face, kept so that a run that goes on, a
dataset that grows and a probe get the same map, and so that drawing need not take them down again.
A unit that could not be looked at is drawn without what its own faces would have added.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ppfr_ops.errors import describe
from ppfr_ops.imaging.arrays import FACE_SIZE
from ppfr_ops.methods.base import Anonymizer
from ppfr_ops.options import digest
from ppfr_ops.sanitize.items import Results, decoded
from ppfr_ops.sanitize.job import Job, Status
from ppfr_ops.source.plan import Unit, read_unit
from ppfr_ops.store.ledger import LEDGER, Ledger

UNITS = (*LEDGER, "crowd", "units")
ALL = (*LEDGER, "crowd", "all")

MOST_ROWS = 1_000_000
"""Of a run with a first look: every face is compared with all, and all are in every worker's
memory, 256 bytes each."""

Features = NDArray[np.floating]


class Looker:
    """Takes down the features of units; what a worker is during the first look."""

    def __init__(self, job: Job) -> None:
        self.job, self.method = job, job.build_method()
        self.ledger = Ledger(job.options.output, job.fence)

    def process(self, ordinal: int) -> Status:
        """Look at a unit. Raises nothing."""
        unit = self.job.plan.units[ordinal]
        try:
            table = read_unit(self.job.plan, unit)
            items = list(decoded(table, Results(unit.id), (FACE_SIZE, FACE_SIZE)))
            shape = (len(items), FACE_SIZE, FACE_SIZE, 3)
            faces = np.array([item.pixels for item in items], np.uint8).reshape(shape)
            # A row for each of the unit's; zeros where there is no face.
            features = np.zeros((table.num_rows, self.method.feature_size), np.float32)
            features[[item.row for item in items]] = self.method.features(faces)
            self.method.forget()
            self.ledger.put(features.tobytes(), *UNITS, _name(self.job, unit))
        except Exception as error:
            return Status(unit.id, "failed", reason=describe(error))
        return Status(unit.id, "committed", unit.rows)

    def stream(self, ordinals: Iterable[int]) -> Iterator[Status]:
        """As ``process``, for one unit after the other."""
        return map(self.process, ordinals)


def to_look_at(job: Job, ledger: Ledger) -> list[int]:
    """Numbers of the units that were not looked at yet."""
    if not job.gathers:
        return []
    seen = set(ledger.names(*UNITS))
    return [n for n, unit in enumerate(job.plan.units) if _name(job, unit) not in seen]


def looking(job: Job) -> Job:
    """The job of the first look."""
    return replace(job, looking=True)


def assemble(job: Job, ledger: Ledger, looked: bool) -> None:
    """Put the features of the plan's units together; those of units that are gone, or were read
    when they held other rows, are removed.

    Args:
        looked: whether there may be new ones.
    """
    if not job.gathers:
        return
    wanted = {_name(job, unit) for unit in job.plan.units}
    names = ledger.names(*UNITS)
    gone = [name for name in names if name not in wanted]
    for name in gone:
        ledger.remove(*UNITS, name)
    if not (gone or looked):
        return
    kept = [ledger.path(*UNITS, name) for name in names if name in wanted]
    size = job.build_method().feature_size
    parts = (_of_faces(_rows(data, size, np.float32)) for data in ledger.read_many(kept))
    ledger.put(b"".join(part.astype(np.float16).tobytes() for part in parts), *ALL)


def remembered(job: Job, ledger: Ledger, unit: Unit, table: pa.Table) -> pa.Table:
    """A unit as it was read, with the column ``context.features`` of what the first look took down
    of its rows; without it where that is not there, or is of other rows."""
    if not job.gathers:
        return table
    size = job.build_method().feature_size
    rows = _rows(ledger.read_bytes(*UNITS, _name(job, unit)), size, np.float32)
    if len(rows) != table.num_rows:
        return table
    column = pa.FixedSizeListArray.from_arrays(rows.ravel(), size)
    return table.append_column("context.features", column)


def _name(job: Job, unit: Unit) -> str:
    """Of a unit's features; of other rows in it another, where a unit may change."""
    rows = "" if unit.source is None else f".{digest(unit.source.stamp)[:16]}"
    return f"{unit.id}{rows}.f4"


def crowded(job: Job) -> Anonymizer:
    """The method of a job, with the crowd if there was a first look."""
    method = job.build_method()
    return among(method, Ledger(job.options.output)) if method.gathers() else method


def among(method: Anonymizer, ledger: Ledger) -> Anonymizer:
    """A method, with the crowd of a release if it gathers and there is one."""
    if not method.gathers():
        return method
    features = _of_faces(_rows(ledger.read_bytes(*ALL), method.feature_size, np.float16))
    return method.with_crowd(features) if len(features) else method


def forget(ledger: Ledger) -> None:
    """Remove every feature of a release."""
    for name in ledger.names(*UNITS):
        ledger.remove(*UNITS, name)
    ledger.remove(*ALL)


def _rows(data: bytes | None, size: int, kind: type[np.floating]) -> Features:
    """Rows of a file; none where it is not there, or damaged."""
    data = data or b""
    if len(data) % (size * np.dtype(kind).itemsize):
        data = b""
    return np.frombuffer(data, kind).reshape(-1, size)


def _of_faces(features: Features) -> Features:
    """Those that can be a face's: of length 1."""
    lengths = np.linalg.norm(features.astype(np.float32), axis=1)
    return features[np.abs(lengths - 1) < 0.01]
