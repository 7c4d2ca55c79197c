"""Trouble that may pass costs a unit its turn and no record: only damage is damage."""

import errno
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import jpeg

from ppfr_ops.sample import faces
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.prepare import prepare
from ppfr_ops.sanitize.worker import Worker
from ppfr_ops.source import tree
from ppfr_ops.source.units import damage_ends_it, passes
from ppfr_ops.store.ledger import Ledger


def test_too_many_open_files_fail_the_unit_and_the_next_run_has_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for number, face in enumerate(faces(3)):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(jpeg(face))
    options = SanitizeOptions(
        input=str(tmp_path / "in"), output=str(tmp_path / "out"), method="blur", metrics="none"
    )
    job = prepare(options)
    Ledger(options.output).open(job.settings)
    real = tree.open_file

    def full(fs: object, path: str) -> object:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(tree, "open_file", full)
    status = Worker(job).process(0)
    assert status.state == "failed" and "OSError" in status.reason
    assert not Ledger(options.output).committed_ids()
    monkeypatch.setattr(tree, "open_file", real)
    status = Worker(job).process(0)
    assert (status.state, status.records, status.dead_letters) == ("committed", 3, 0)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_what_may_pass_is_not_taken_for_damage(code: int) -> None:
    with pytest.raises(OSError, match="some trouble"), damage_ends_it():
        raise OSError(code, "some trouble")


def test_damage_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [jpeg(face) for face in faces(2)]}), path)
    path.write_bytes(path.read_bytes()[:100])
    with damage_ends_it():
        pq.read_table(path)
    assert not passes(OSError(errno.ENOENT, "gone"))
