"""The embedded sample: pairs that the evaluation takes, photographs that the detector reads."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ppfr_ops.errors import UserError
from ppfr_ops.imaging.codec import decode
from ppfr_ops.imaging.detector import CenterFace
from ppfr_ops.lab.evaluate.data import read_faces, read_pairs
from ppfr_ops.sample import write_pairs, write_photographs, write_sample


@pytest.mark.parametrize(("count", "identities"), [(6, 4), (9, 4), (12, 5), (26, 24), (8, 6)])
def test_few_faces_make_pairs_that_an_evaluation_takes(
    tmp_path: Path, count: int, identities: int
) -> None:
    write_sample(tmp_path / "faces", count, identities, 1)
    assert write_pairs(tmp_path / "pairs.parquet", count, identities)
    gallery = read_faces(str(tmp_path / "faces"), "gallery")
    assert len(read_pairs(str(tmp_path / "pairs.parquet"), gallery).a)


@pytest.mark.parametrize(("count", "identities"), [(40, 3), (5, 4), (4, 8), (1, 1)])
def test_too_few_faces_for_pairs_are_refused(tmp_path: Path, count: int, identities: int) -> None:
    with pytest.raises(UserError, match="needed are 4 identities"):
        write_pairs(tmp_path / "pairs.parquet", count, identities)
    assert not list(tmp_path.iterdir())


def test_pairs_name_faces_and_keep_people_to_one_fold(tmp_path: Path) -> None:
    write_sample(tmp_path / "in", count=24, identities=6, files=1)
    count = write_pairs(tmp_path / "pairs.parquet", count=24, identities=6, folds=3)
    pairs = pq.read_table(tmp_path / "pairs.parquet").to_pylist()
    rows = pq.read_table(tmp_path / "in").to_pylist()
    people = {row["image"]["path"]: row["identity"] for row in rows}
    assert len(pairs) == count == 36
    for pair in pairs:
        assert (people[pair["a"]] == people[pair["b"]]) == pair["same"]
    folds: dict[str, set[int]] = {}
    for pair in pairs:
        for side in ("a", "b"):
            folds.setdefault(people[pair[side]], set()).add(pair["fold"])
    assert all(len(found) == 1 for found in folds.values())


def test_the_detector_finds_the_faces_of_drawn_photographs(tmp_path: Path) -> None:
    write_photographs(tmp_path, 6)
    pictures = [decode(path.read_bytes()) for path in sorted(tmp_path.glob("IMG_*.jpg"))]
    found = CenterFace(0.2, threads=1)(pictures)
    assert [len(item.scores) for item in found] == [1, 2, 1, 2, 1, 2]
