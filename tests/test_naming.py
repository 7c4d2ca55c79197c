"""Without labels: people are found, or a file of groups names them."""

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from independent import METHOD, options, picture, records, released, run
from PIL import Image

from ppfr_ops import sanitize_batch
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.imaging.codec import decode
from ppfr_ops.release.verify import verify
from ppfr_ops.sanitize import naming
from ppfr_ops.sanitize.groups import write_groups
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.prepare import prepare

NONE: dict[str, Any] = {"identity_column": None, "keep_columns": ()}


def seen(faces: Faces) -> list[np.ndarray[Any, Any]]:
    """What two encoders see: faces of one colour are one person's."""
    people = [np.random.default_rng(int(face[100, 100, 0])).normal(size=128) for face in faces]
    rows = np.array(people, np.float32).reshape(-1, 128)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return [rows, rows]


def write(folder: Path, people: list[int], name: str = "a") -> Path:
    folder.mkdir(exist_ok=True)
    pictures = []
    for person in people:
        pixels = np.full((112, 112, 3), person, np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        pictures.append(buffer.getvalue())
    pq.write_table(pa.table({"image": pictures}), folder / f"{name}.parquet")
    return folder


@pytest.fixture(autouse=True)
def encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "features_of", seen)


def test_people_are_found_and_those_who_are_known_get_their_new_photos(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("k" * 40)
    key.chmod(0o600)
    more: dict[str, Any] = {**NONE, "identity_key_file": str(key), "incremental": True}
    source = write(tmp_path / "in", [1, 1, 1, 2, 2, 2, 3, 3, 3])
    output = tmp_path / "out"
    run(options(source, output, **more))
    first = {row["record_id"]: row["image"]["bytes"] for row in records(output)}
    assert len(first) == 9 and "identity" not in records(output)[0]
    assert people_in(output) == 3
    write(source, [3, 1, 2, 4, 4, 4], "b")
    run(options(source, output, **more))
    assert not list(verify(str(output)))
    after = {row["record_id"]: row["image"]["bytes"] for row in records(output)}
    assert first.items() <= after.items() and len(after) == 15
    assert people_in(output) == 4


def people_in(output: Path) -> int:
    """How many people the pictures show, by their stripes, whatever the draws."""
    shown = np.stack([decode(row["image"]["bytes"])[:, 50].mean(1) for row in records(output)])
    alike = np.corrcoef(shown) > 0.9
    return len({tuple(np.flatnonzero(row)) for row in alike})


def test_a_file_of_groups_says_who_is_whom(tmp_path: Path) -> None:
    source = write(tmp_path / "in", [1, 1, 1, 2, 2, 2])
    places = [("a.parquet", row) for row in range(6)]
    write_groups(str(tmp_path / "groups.csv"), places, ["x", "y", "x", "y", "x", "y"])
    output = tmp_path / "out"
    chosen = options(source, output, **NONE, groups=str(tmp_path / "groups.csv"), size_anonymity=1)
    run(chosen)
    assert sorted(Counter(row["identity"] for row in records(output)).values()) == [3, 3]
    run(chosen.model_copy(update={"mapping": str(tmp_path / "map.parquet")}))
    mapping = pq.read_table(tmp_path / "map.parquet").to_pylist()
    by_row = {row["row"]: row["identity"] for row in mapping}
    assert by_row[0] == by_row[2] == by_row[4] != by_row[1] == by_row[3]
    assert {row["identity"] for row in mapping} == {row["identity"] for row in records(output)}


def test_a_file_of_groups_that_was_corrected_is_not_passed_over(tmp_path: Path) -> None:
    """Neither when all is done, nor after a kill between the plan and the pictures; a run that may
    grow deals anew."""
    source = write(tmp_path / "in", [1, 1, 1, 2, 2, 2])
    places, groups = [("a.parquet", row) for row in range(6)], tmp_path / "groups.csv"
    key = tmp_path / "key"
    key.write_text("k" * 40)
    key.chmod(0o600)
    more: dict[str, Any] = {**NONE, "groups": str(groups), "size_anonymity": 1}
    more |= {"identity_key_file": str(key)}
    write_groups(str(groups), places, ["x", "y", "x", "y", "x", "y"])
    chosen = options(source, tmp_path / "out", **more)
    growing = chosen.model_copy(update={"incremental": True})
    run(chosen)
    assert people(tmp_path / "out") == [3, 3]
    write_groups(str(groups), places[::-1], ["y", "x", "y", "x", "y", "x"])
    run(chosen)  # the same in another order
    write_groups(str(groups), places, ["x", "y", "x", "y", "x", "x"])
    with pytest.raises(UserError, match=r"another --groups; give the same options.*--overwrite"):
        run(chosen)
    assert people(tmp_path / "out") == [3, 3]
    run(growing)
    assert people(tmp_path / "out") == [2, 4]
    assert not list(verify(str(tmp_path / "out")))
    before = {path: data for path, data in released(tmp_path / "out").items() if "data" in path}
    run(growing)
    after = released(tmp_path / "out")
    assert all(after[path] == data for path, data in before.items())
    run(chosen.model_copy(update={"overwrite": True}))
    assert people(tmp_path / "out") == [2, 4]


def people(output: Path) -> list[int]:
    """Records of each pseudonym, fewest first."""
    return sorted(Counter(row["identity"] for row in records(output)).values())


def test_what_was_noted_of_faces_stays_with_the_owner_until_it_is_thrown_away(
    tmp_path: Path,
) -> None:
    source = write(tmp_path / "in", [1, 1, 2, 2])
    run(options(source, tmp_path / "kept", **NONE))
    looks = list((tmp_path / "kept" / "evidence" / "look").iterdir())
    assert "features" in pq.read_schema(looks[0]).names
    row = seen(np.full((1, 112, 112, 3), 1, np.uint8))[0].astype(np.float16).tobytes()[:64]
    assert not any(row in data for data in released(tmp_path / "kept").values())
    run(options(source, tmp_path / "gone", **NONE, discard_key=True))
    assert not list((tmp_path / "gone" / "evidence" / "look").iterdir())


def test_one_pass_needs_labels_and_says_so(tmp_path: Path) -> None:
    rows = {"image": [picture(1), picture(2)]}
    with pytest.raises(UserError, match="identity_column"):
        sanitize_batch(rows)
    done = sanitize_batch({**rows, "who": ["a", None]}, method=METHOD, identity_column="who")
    assert done["dead_letter"] == [None, None] and done["identity"][1] is None


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"groups": "g", "identity_column": "who"}, "without labels"),
        ({"groups": "g", "method": "blur"}, "without labels"),
    ],
)
def test_what_is_refused(tmp_path: Path, more: dict[str, Any], words: str) -> None:
    source = write(tmp_path / "in", [1, 2])
    with pytest.raises(UserError, match=words):
        prepare(options(source, tmp_path / "out", **(NONE | more)))


def test_the_usual_method_draws_people_who_do_not_exist(tmp_path: Path) -> None:
    source = write(tmp_path / "in", [1, 2])
    usual = SanitizeOptions.model_fields["method"].default
    assert usual == "natural"
    job = prepare(options(source, tmp_path / "out", **NONE, method=usual))
    assert job.independent and job.finds_people
    job = prepare(options(source, tmp_path / "out", **NONE, method=usual, identity="original"))
    assert job.options.method == "stochastic-local" and not job.independent
