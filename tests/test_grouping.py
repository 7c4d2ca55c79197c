"""Photos without labels are grouped by who seems to be in them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from ppfr_ops import sample
from ppfr_ops.cli.group import main
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.codec import Encoding, decode
from ppfr_ops.imaging.detector import Detections
from ppfr_ops.imaging.geometry import TEMPLATE
from ppfr_ops.sample import write_sample
from ppfr_ops.sanitize import grouping
from ppfr_ops.sanitize.grouping import Vectors, assign, features_of, fused, group
from ppfr_ops.sanitize.groups import people_of, places_of, read_groups, write_groups
from ppfr_ops.sanitize.photographs import finder
from ppfr_ops.source.plan import Columns, plan


def crowd(sizes: list[int], likeness: float = 0.6, seed: int = 0) -> tuple[list[Vectors], NDArray]:
    """Two encoders' features of people with so many photos each, and whose each is, mixed."""
    rng = np.random.default_rng(seed)
    who = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    found = []
    for _ in range(2):
        people = rng.standard_normal((len(sizes), 128))
        photos = rng.standard_normal((len(who), 128))
        for part in (people, photos):
            part /= np.linalg.norm(part, axis=1, keepdims=True)
        mixed = likeness**0.5 * people[who] + (1 - likeness) ** 0.5 * photos
        found.append((mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32))
    return found, who


def bcubed(groups: NDArray, who: NDArray) -> tuple[float, float]:
    """Precision and recall (Bagga and Baldwin 1998)."""
    same, right = groups[:, None] == groups, who[:, None] == who
    both = (same & right).sum(1)
    return float((both / same.sum(1)).mean()), float((both / right.sum(1)).mean())


SIZES = [1] * 60 + [2] * 40 + [3] * 20 + [10] * 8 + [80] * 2


def test_photos_of_a_person_are_one_group_and_strangers_are_not() -> None:
    features, who = crowd(SIZES)
    found = group(features)
    assert bcubed(found, who) == (1, 1)
    firsts = [int(np.flatnonzero(found == number)[0]) for number in range(found.max() + 1)]
    assert firsts == sorted(firsts)  # numbered by the first photo


def test_features_that_tell_nothing_make_no_groups() -> None:
    features, _ = crowd(SIZES, likeness=0.0)
    assert len(set(group(features).tolist())) > 0.98 * sum(SIZES)


def test_the_order_of_photos_does_not_decide() -> None:
    features, _ = crowd(SIZES, likeness=0.5)
    turned = np.random.default_rng(5).permutation(sum(SIZES))
    first, again = group(features), group([part[turned] for part in features])
    assert min(bcubed(again, first[turned])) > 0.99  # which photo stands for a group may differ


def test_many_photos_are_grouped_by_an_approximate_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "EXACT", 500)
    features, who = crowd(SIZES * 8)
    precision, recall = bcubed(group(features), who)
    assert precision == 1 and recall > 0.99


def test_two_encoders_see_what_one_does_not() -> None:
    features, who = crowd(SIZES, likeness=0.45)
    both = bcubed(group(features), who)
    alone = [bcubed(group([part]), who) for part in features]
    assert sum(both) > min(map(sum, alone))


def test_strangers_who_are_all_alike_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """As small children are to these encoders: among them it takes more to be one person's."""
    features, who = crowd([2] * 60 + [1] * 60, likeness=0.75)
    alike = np.eye(1, 128, dtype=np.float32)
    for part in features:
        part[who < 30] = part[who < 30] + 0.7 * alike
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    assert min(bcubed(group(features), who)) > 0.98
    old, children = np.arange(len(who)) % 3 > 0, who < 30
    whose = group([part[old] for part in features])
    added = assign([part[~old] for part in features], [part[old] for part in features], whose)
    together = np.concatenate([whose, added])
    assert min(bcubed(together, np.concatenate([who[old], who[~old]]))) > 0.98
    monkeypatch.setattr(grouping, "_LEAST", 10**6)  # nobody is held against strangers
    assert bcubed(group(features)[children], who[children])[0] < 0.7


def test_a_dataset_that_grows_keeps_its_groups() -> None:
    features, who = crowd(SIZES)
    old = np.arange(len(who)) < 200
    earlier = group([part[old] for part in features]) + 1000
    added = assign([part[~old] for part in features], [part[old] for part in features], earlier)
    assert bcubed(np.concatenate([earlier, added]), who) == (1, 1)
    assert set(added[~np.isin(added, earlier)].tolist()) == set(
        range(earlier.max() + 1, added.max() + 1)
    )
    nobody = [part[:0] for part in features]
    assert assign([part for part in features], nobody, np.zeros(0, int)).tolist() == (
        group(features).tolist()
    )
    assert assign(nobody, features, group(features)).tolist() == []


def test_groups_that_a_person_made_are_not_merged() -> None:
    features, who = crowd([40] + [1] * 200)
    halves = np.where(who == 0, np.arange(240) % 2, 1 + who)
    mine = [part[who == 0][:5] for part in features]
    assert set(assign(mine, features, halves).tolist()) <= {0, 1}


def test_no_photos_one_photo_and_photos_twice() -> None:
    none = np.zeros((0, 128), np.float32)
    assert group([none]).tolist() == []
    one = np.eye(1, 128, dtype=np.float32)
    assert group([one]).tolist() == [0]
    assert group([np.repeat(np.eye(2, 128, dtype=np.float32), 3, 0)]).tolist() == [0, 0, 0, 1, 1, 1]
    with pytest.raises(ValueError):
        fused([one, none])


def test_a_file_of_groups_comes_back(tmp_path: Path) -> None:
    places = [("a/ä.jpg", 0), ('b "x", y.parquet', 3), ("c", 1)]
    for name in ("groups.csv", "groups.parquet"):
        path = str(tmp_path / name)
        write_groups(path, places, [7, "p, q", None])
        assert read_groups(path) == dict(zip(places, ["7", "p, q", None], strict=True))
        assert Path(path).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "text",
    ["source,row\na,1\n", "source,row,group\na,x,1\n", "source,row,group\na,1,1\na,1,2\n", ""],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "groups.csv"
    path.write_text(text)
    with pytest.raises(UserError, match="--groups"):
        read_groups(str(path))


def test_the_command_groups_an_input_and_keeps_what_was_corrected(tmp_path: Path) -> None:
    write_sample(tmp_path / "faces", 24, 4, 2, 0)
    out = tmp_path / "groups.csv"
    done = CliRunner().invoke(main, ["--input", str(tmp_path / "faces"), "--output", str(out)])
    assert done.exit_code == 0, done.output
    found = read_groups(str(out))
    planned = plan(str(tmp_path / "faces"), Columns(None))
    assert list(found) == [p for unit in planned.units for p in places_of(planned, unit)]
    assert {source for source, _ in found} == {path.name for path in (tmp_path / "faces").iterdir()}
    places = list(found)
    write_groups(str(out), places[:20], ["mine"] * 10 + ["7"] * 9 + [None])
    again = tmp_path / "again.parquet"
    options = ["--input", str(tmp_path / "faces"), "--output", str(again), "--known", str(out)]
    done = CliRunner().invoke(main, options)
    assert done.exit_code == 0, done.output
    grown = read_groups(str(again))
    assert [grown[place] for place in places[:19]] == ["mine"] * 10 + ["7"] * 9
    assert grown[places[19]] not in {"mine", "7"}
    assert None not in grown.values()


def test_grouping_loads_no_engine() -> None:
    code = (
        "import sys, ppfr_ops.sanitize.grouping;"
        "print([n for n in ('torch', 'ray', 'click', 'faiss') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_people_in_photographs(shared: Path) -> None:
    files = sorted((shared / "data" / "ids_aligned").glob("part-*.parquet"))
    table = pa.concat_tables([pq.read_table(file) for file in files[:2]])
    names = np.array(table["identity"].to_pylist())
    rows = np.concatenate([np.flatnonzero(names == name)[:8] for name in np.unique(names)[:10]])
    pictures = table["image"].take(pa.array(rows)).to_pylist()
    faces = np.stack([decode(picture["bytes"], size=(112, 112)) for picture in pictures])
    precision, recall = bcubed(group(features_of(faces)), names[rows])
    assert precision > 0.98 and recall > 0.85


def test_faces_of_photographs_are_grouped_one_line_a_face(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "in", tmp_path / "groups.csv"
    (source / "a b").mkdir(parents=True)
    one = np.concatenate([np.asarray(each) for each in sample.faces(2, 3, 2)], axis=1)
    marks = np.stack([TEMPLATE, TEMPLATE + np.float32([112, 0])])
    boxes = np.concatenate([marks.min(1) - 15, marks.max(1) + 15], axis=1)
    faces = Detections(boxes, marks, np.ones(2, np.float32), np.zeros(2, bool))
    monkeypatch.setattr(finder, "build_detector", lambda *_: lambda some: [faces for _ in some])
    for name, gain in (("a b/1.png", 1.0), ("2.png", 0.85)):
        darker = np.asarray(one * gain, np.uint8)
        (source / name).write_bytes(Encoding("png").encode(darker))
    options = ["--faces", "detect", "--input", str(source), "--output", str(out)]
    done = CliRunner().invoke(main, options)
    assert done.exit_code == 0, done.output
    found = read_groups(str(out))
    by_photograph = [
        {face: name for (path, _, face), name in found.items() if path == wanted}
        for wanted in ("a b/1.png", "2.png")
    ]
    assert len(by_photograph[0]) == 2 and by_photograph[0] == by_photograph[1]
    assert len(set(by_photograph[0].values())) == len(by_photograph[0])
    planned = plan(str(source), Columns(None))
    people = people_of(str(out), planned)
    assert len(people) == 2 and list(people.values()) == by_photograph
    known = CliRunner().invoke(main, [*options, "--known", str(out)])
    assert known.exit_code == 2 and "--known goes with aligned faces" in known.output
