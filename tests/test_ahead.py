"""Working ahead in threads: the same results in the same order, and errors where they belong."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import jpeg
from test_local import job_of

from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.methods.base import Anonymizer
from ppfr_ops.sanitize.prefetch import prefetch
from ppfr_ops.sanitize.worker import Worker


def test_in_order_and_never_further_ahead_than_allowed() -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number

    for number in prefetch(numbers(), 2):
        assert len(taken) <= number + 1 + 2 + 2  # out, waiting, and one in each hand
    assert taken == list(range(20))


def test_an_error_comes_after_what_was_before_it() -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise KeyError("two")

    items = prefetch(numbers(), 4)
    assert next(items) == 1
    with pytest.raises(KeyError, match="two"):
        next(items)


def test_a_thread_whose_consumer_has_gone_ends() -> None:
    before = set(threading.enumerate())
    items = prefetch(iter(int, 1), 1)  # zeros without end
    assert next(items) == 0
    (thread,) = set(threading.enumerate()) - before
    items.close()  # type: ignore[attr-defined]
    thread.join(60)
    assert not thread.is_alive()


class Fussy(Anonymizer):
    """Fails on every batch that holds a dark face."""

    def anonymize(self, faces: Faces, draws: NDArray[np.float32]) -> Faces:
        if (faces.mean((1, 2, 3)) < 5).any():
            raise ValueError("too dark")
        return 255 - faces


def test_a_stream_gives_what_one_unit_after_the_other_gives(tmp_path: Path) -> None:
    from test_sanitize import good, write_faces

    dark = jpeg(np.zeros((112, 112, 3), np.uint8))
    write_faces(tmp_path / "in" / "a.parquet", [*good(6), dark, b"no", None, *good(7, 1)])
    settings = {"method": "test_ahead:Fussy", "metrics": "basic", "batch_size": 3}
    one, other = job_of(tmp_path, **settings), job_of(tmp_path, "bare", **settings)
    statuses = list(Worker(one).stream(range(4)))
    worker = Worker(other)
    assert statuses == [worker.process(number) for number in range(4)]
    assert sum(status.dead_letters for status in statuses) == 3
    for kind, count in (("release/data", 4), ("evidence/metrics", 4), ("evidence/dead_letters", 2)):
        paths = sorted((tmp_path / "bare" / kind).iterdir())
        assert len(paths) == len(list((tmp_path / "out" / kind).iterdir())) == count
        for path in paths:
            assert path.read_bytes() == (tmp_path / "out" / kind / path.name).read_bytes()
    (tmp_path / "in" / "a.parquet").unlink()
    assert [status.state for status in Worker(one).stream(range(4))] == ["skipped"] * 4


def test_a_unit_that_cannot_be_read_fails_and_the_others_are_done(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    worker = Worker(job)
    commit = worker.ledger.commit

    def broken(unit: str, *rest: object, **more: object) -> object:
        if unit == job.plan.units[1].id:
            raise OSError(28, "no space")
        return commit(unit, *rest, **more)  # type: ignore[arg-type]

    worker.ledger.commit = broken  # type: ignore[assignment, method-assign]
    statuses = list(worker.stream(range(4)))
    assert [status.state for status in statuses] == ["committed", "failed", *["committed"] * 2]
    assert "OSError (No space left on device)" in statuses[1].reason
