"""The first look: what a method takes down of all faces of a release before it draws any.

A method that ``gathers`` draws a face by what the release's other faces are like. So every unit is
looked at once: the engine's workers are ``Looker`` s, and each leaves the features of a unit with
the evidence. Then the driver puts those of the plan together for the workers proper. Features are
biometric templates of originals: the owner's, 256 bytes a face, kept so that a run that goes on, a
dataset that grows and a probe get the same map. A unit that could not be looked at is drawn without
what its own faces would have added.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
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

Features = NDArray[np.float16]


class Looker:
    """Takes down the features of units; what a worker is during the first look."""

    def __init__(self, job: Job) -> None:
        self.job, self.method = job, job.build_method()
        self.ledger = Ledger(job.options.output, job.fence)

    def process(self, ordinal: int) -> Status:
        """Look at a unit. Raises nothing."""
        unit = self.job.plan.units[ordinal]
        try:
            items = decoded(
                read_unit(self.job.plan, unit), Results(unit.id), (FACE_SIZE, FACE_SIZE)
            )
            faces = [item.pixels for item in items]
            shape = (len(faces), FACE_SIZE, FACE_SIZE, 3)
            features = self.method.features(np.array(faces, np.uint8).reshape(shape))
            self.method.forget()
            self.ledger.put(features.astype(np.float16).tobytes(), *UNITS, _name(self.job, unit))
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
    parts = (_unpacked(data, size) for data in ledger.read_many(kept))
    ledger.put(b"".join(part.tobytes() for part in parts), *ALL)


def _name(job: Job, unit: Unit) -> str:
    """Of a unit's features; of other rows in it another, where a unit may change."""
    source = job.plan.fingerprints.get(unit.id)
    return unit.id if source is None else f"{unit.id}.{digest(source.stamp)[:16]}"


def crowded(job: Job) -> Anonymizer:
    """The method of a job, with the crowd if there was a first look."""
    method = job.build_method()
    return among(method, Ledger(job.options.output)) if method.gathers() else method


def among(method: Anonymizer, ledger: Ledger) -> Anonymizer:
    """A method, with the crowd of a release if it gathers and there is one."""
    if not method.gathers():
        return method
    features = _unpacked(ledger.read_bytes(*ALL), method.feature_size)
    return method.with_crowd(features) if len(features) else method


def forget(ledger: Ledger) -> None:
    """Remove every feature of a release."""
    for name in ledger.names(*UNITS):
        ledger.remove(*UNITS, name)
    ledger.remove(*ALL)


def _unpacked(data: bytes | None, size: int) -> Features:
    """Rows of a file; none where it is not there, or damaged."""
    data = data or b""
    if len(data) % (2 * size):
        data = b""
    features = np.frombuffer(data, np.float16).reshape(-1, size)
    lengths = np.linalg.norm(features.astype(np.float32), axis=1)
    return features[np.abs(lengths - 1) < 0.01]
