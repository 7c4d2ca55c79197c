"""Photographs: whose word counts, what is published of each, what becomes of the rest."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from driving import drive

from ppfr_ops import sample
from ppfr_ops.cli.sanitize import main
from ppfr_ops.cli.verify import main as verify
from ppfr_ops.contracts.detections import DOUBT_FIELDS, detections_schema
from ppfr_ops.contracts.metrics import metrics_schema
from ppfr_ops.contracts.policy import parse
from ppfr_ops.contracts.records import records_schema
from ppfr_ops.draws import seeded_draws
from ppfr_ops.errors import UserError
from ppfr_ops.imaging import detector as faces
from ppfr_ops.imaging import geometry
from ppfr_ops.imaging.arrays import Picture
from ppfr_ops.imaging.codec import Encoding, decode
from ppfr_ops.methods.registry import create
from ppfr_ops.review.queue import counts, doubts, faint_places, inert
from ppfr_ops.review.verdicts import Review, read_verdicts
from ppfr_ops.sanitize.job import Job, Status
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.photographs.crops import FaceCrops
from ppfr_ops.sanitize.photographs.finder import Finder
from ppfr_ops.sanitize.photographs.options import PhotographOptions
from ppfr_ops.sanitize.photographs.pictures import WholePictures
from ppfr_ops.sanitize.run_context import RunContext
from ppfr_ops.sanitize.sanitizer import Sanitizer
from ppfr_ops.sanitize.worker import Worker
from ppfr_ops.source.plan import READ_ERROR
from ppfr_ops.source.sums import marked, sum_of

PLACES = ((20, 30), (150, 60))
"""Left and top of where faces stand in the pictures below."""


class Marked:
    """A detector that knows where faces stand: the blue of a picture's first pixel is their
    number; 255 makes it fail. Scores fall: 0.9, 0.3."""

    def __call__(self, pictures: Any) -> list[faces.Detections]:
        return [self._one(int(picture[0, 0, 2])) for picture in pictures]

    def _one(self, count: int) -> faces.Detections:
        if count == 255:
            raise RuntimeError("a detector that fails")
        points = np.stack([geometry.TEMPLATE + place for place in PLACES])[:count]
        boxes = np.concatenate([points.min(1) - 20, points.max(1) + 20], 1)
        scores = np.array([0.9, 0.3], np.float32)[:count]
        return faces.Detections(
            boxes.astype(np.float32).reshape(-1, 4),
            points.astype(np.float32).reshape(-1, 5, 2),
            scores,
            np.zeros(len(scores), bool),
        )


def photograph(count: int, seed: int = 0) -> Picture:
    """Grey, with made faces at ``PLACES``."""
    picture = np.full((200, 300, 3), 128, np.uint8)
    for (x, y), face in zip(PLACES, sample.faces(2, seed=seed)[:count], strict=False):
        picture[y : y + 112, x : x + 112] = face
    picture[0, 0, 2] = count
    return picture


def unit(pictures: list[Picture], **given: list[str | None]) -> pa.Table:
    png = Encoding("png")
    return pa.table(
        {
            "record_id": [f"u-{row:06d}" for row in range(len(pictures))],
            "image": pa.array([png.encode(picture) for picture in pictures], pa.large_binary()),
            READ_ERROR: pa.nulls(len(pictures), pa.string()),
            **{f"given.{role}": pa.array(values, pa.string()) for role, values in given.items()},
        }
    )


KIT = ("policy", "recognizers", "look_every", "pseudonymize")


def build(
    output: str = "crops", verdicts: dict[str, Review] | None = None, **options: Any
) -> Sanitizer[Any]:
    more = {name: options.pop(name) for name in KIT if name in options}
    options = {"detector": "test_photographs:Marked", **options}
    chosen = PhotographOptions(output_faces=output, **options)
    method = create("signed-field", {})
    run = RunContext(method, Encoding("png"), draws=seeded_draws(1), batch_size=2, **more)
    finder = Finder(chosen, verdicts or {}, 1)
    return Sanitizer(FaceCrops(run, finder) if output == "crops" else WholePictures(run, finder))


def codes(tables: Any) -> dict[str, str]:
    letters = tables.dead_letters.to_pylist()
    return {letter["record_id"]: letter["code"] for letter in letters}


def test_a_record_a_face() -> None:
    tables = build()(unit([photograph(2), photograph(0), photograph(1)]), "u")
    assert tables.records.schema.equals(records_schema(faces=True), check_metadata=True)
    assert tables.detections.schema.equals(detections_schema(), check_metadata=True)
    records = tables.records.to_pylist()
    ids = [record["record_id"] for record in records]
    assert ids == ["u-000000-f000", "u-000000-f001", "u-000002-f000"]
    assert ids == tables.metrics["record_id"].to_pylist()
    assert ids == tables.detections["record_id"].to_pylist()
    treatments = [record["treatment"] for record in records]
    assert treatments == ["anonymized", "pixelated_unsure", "anonymized"]
    assert codes(tables) == {"u-000001": "no_face"}
    assert records[0]["source_id"] == "u-000000" and records[1]["face"] == 1
    assert np.allclose(records[0]["landmarks"], (geometry.TEMPLATE + PLACES[0]).ravel(), atol=1e-3)
    coarse = decode(records[1]["image"]["bytes"])
    assert len(np.unique(coarse.reshape(-1, 3), axis=0)) <= 16
    assert tables.detections["disclosure"].to_pylist() == tables.metrics["disclosure"].to_pylist()


def test_a_sample_is_looked_at_again() -> None:
    pictures = [photograph(2), photograph(1, seed=3), photograph(1, seed=4)]
    tables = build("in-place", look_every=2)(unit(pictures), "u")
    assert tables.metrics["residual_faces"].to_pylist() == [0, None, 0]
    assert tables.metrics["disclosure"].null_count == 0


def test_a_record_a_photograph() -> None:
    pictures = [photograph(2), photograph(1, seed=3), photograph(0)]
    tables = build("in-place", no_face="pass")(unit(pictures), "u")
    assert tables.metrics.schema.equals(metrics_schema(pictures=True), check_metadata=True)
    assert len(tables.records) == 3 and not codes(tables)
    for record, before in zip(tables.records.to_pylist(), pictures, strict=True):
        after = decode(record["image"]["bytes"])
        assert after.shape == before.shape
        assert np.array_equal(after[:, 296:], before[:, 296:])
    measured = tables.metrics.to_pylist()
    assert [row["faces"] for row in measured] == [2, 1, 0]
    assert [row["residual_faces"] for row in measured] == [0, 0, 0]
    assert measured[2]["disclosure"] is None and measured[2]["changed_share"] == 0
    assert np.array_equal(decode(tables.records["image"][2].as_py()["bytes"]), pictures[2])
    found = tables.detections.to_pylist()
    assert [row["treatment"] for row in found] == ["anonymized", "covered_unsure", "anonymized"]
    # of the first photograph only the first face went through the method
    assert measured[0]["disclosure"] == pytest.approx(found[0]["disclosure"])
    assert all(row["disclosure"] is not None for row in found)
    assert measured[1]["disclosure"] < 0.6


class Cosines:
    """An FR model: original and publication of the first face are alike, of the second not."""

    name = "x"

    def __init__(self) -> None:
        self.calls = 0

    def embed(self, batch: np.ndarray) -> np.ndarray:
        self.calls += 1
        published = self.calls % 2 == 0
        rows = [[1.0, 0.0] if not published or place == 0 else [0.0, 1.0] for place in range(2)]
        return np.array(rows[: len(batch)], np.float32)


@pytest.mark.parametrize(("bound", "published"), [("<= 0.3", 0), (">= 0.5", 0), ("<= 1", 1)])
def test_every_face_of_a_photograph_is_held_to_the_policy(bound: str, published: int) -> None:
    policy = parse(f"record: {{id_cosine_x: '{bound}'}}\nredraws: 0")
    sanitizer = build("in-place", face_sure=0.1, policy=policy, recognizers=[Cosines()])
    tables = sanitizer(unit([photograph(2)]), "u")
    assert len(tables.records) == published
    if not published:
        message = tables.dead_letters["message"][0].as_py()
        assert ("face 0" if bound == "<= 0.3" else "face 1") in message
    else:
        assert tables.detections["id_cosine_x"].to_pylist() == [1.0, 0.0]


_INSIDE_OUT = np.array([[240, 34, 220, 10, 0.5]], np.float32)

FAULTS: dict[str, Callable[[faces.Detections], list[faces.Detections]]] = {
    "no answer": lambda found: [],
    "a box of no number": lambda found: [replace(found, boxes=found.boxes * np.nan)],
    "a box without end": lambda found: [replace(found, boxes=found.boxes * np.inf)],
    "a box inside out": lambda found: [replace(found, boxes=found.boxes[:, ::-1])],
    "a score of no number": lambda found: [replace(found, scores=found.scores * np.nan)],
    "half a landmark": lambda found: [replace(found, landmarks=_half(found.landmarks))],
    "a faint place inside out": lambda found: [replace(found, faint=_INSIDE_OUT)],
    "too few boxes": lambda found: [replace(found, boxes=found.boxes[:1])],
}


def _half(landmarks: Any) -> Any:
    landmarks = landmarks.copy()
    landmarks[0, 0, 0] = np.nan
    return landmarks


class Faulty(Marked):
    """Its answer on photographs with two faces is none."""

    fault: ClassVar[str]

    def __call__(self, pictures: Any) -> list[faces.Detections]:
        return [
            answer
            for found in super().__call__(pictures)
            for answer in (FAULTS[self.fault](found) if len(found) == 2 else [found])
        ]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("output", ["crops", "in-place"])
def test_an_answer_of_a_detector_that_is_none_publishes_nothing(
    output: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head was covered nowhere, or taken for no head, in a photograph that went out."""
    monkeypatch.setattr(Faulty, "fault", fault, raising=False)
    monkeypatch.setitem(globals(), "Marked", Faulty)
    sanitizer = build(output, **({"no_face": "pass"} if output == "in-place" else {}))
    tables = sanitizer(unit([photograph(1), photograph(2)]), "u")
    assert codes(tables) == {"u-000001": "detector_failed"}
    assert len(tables.records) == 1


@pytest.mark.parametrize("output", ["crops", "in-place"])
def test_no_face(output: str) -> None:
    table = unit([photograph(0)])
    assert codes(build(output)(table, "u")) == {"u-000000": "no_face"}
    assert codes(build(output, no_face="drop")(table, "u")) == {"u-000000": "no_face_dropped"}


@pytest.mark.parametrize("output", ["crops", "in-place"])
def test_a_detector_that_fails_costs_one_photograph(output: str) -> None:
    broken = photograph(1)
    broken[0, 0, 2] = 255
    tables = build(output)(unit([photograph(1), broken, photograph(1)]), "u")
    assert codes(tables) == {"u-000001": "detector_failed"}
    assert len(tables.records) == 2


def test_boxes_of_the_owner() -> None:
    box = [float(PLACES[0][0]), float(PLACES[0][1]), PLACES[0][0] + 112.0, PLACES[0][1] + 112.0]
    given = [
        json.dumps([box]),
        json.dumps([[400, 0, 420, 20]]),
        json.dumps([[0, 0, float("nan"), 5]]),
        json.dumps([[5, 5, 5, 9]]),
        json.dumps([[1, 2, 3]]),
        '"not boxes"',
        None,
        "[]",
    ]
    tables = build(boxes_column="boxes")(unit([photograph(1)] * len(given), boxes=given), "u")
    records = tables.records.to_pylist()
    assert [record["record_id"] for record in records] == ["u-000000-f000"]
    assert records[0]["box"] == box and records[0]["score"] == 1
    assert records[0]["treatment"] == "anonymized"  # by the landmarks that the detector found
    found = codes(tables)
    assert Counter(found.values()) == {"wrong_boxes": 6, "face_without_box": 1}
    assert "outside" in tables.dead_letters["message"][0].as_py()


def test_landmarks_of_the_owner_are_enough_without_a_detector() -> None:
    picture = photograph(1)
    picture[0, 0, 2] = 255  # it would fail
    marks = json.dumps([(geometry.TEMPLATE + PLACES[0]).tolist()])
    table = unit([picture], boxes=["[[20, 30, 132, 142]]"], landmarks=[marks])
    tables = build(boxes_column="boxes", landmarks_column="marks", unboxed="leave")(table, "u")
    assert tables.records["treatment"].to_pylist() == ["anonymized"]


def test_regions_to_leave_alone() -> None:
    table = unit([photograph(2)], regions=[json.dumps([[10, 10, 140, 150]])])
    done = build("in-place", keep_regions_column="regions", background="black")(table, "u")
    assert done.detections["treatment"].to_pylist() == ["left_alone", "covered_unsure"]
    after = decode(done.records["image"][0].as_py()["bytes"])
    x0, y0, x1, y1 = (round(value) for value in done.detections["box"][0].as_py())
    assert np.array_equal(after[y0:y1, x0:x1], photograph(2)[y0:y1, x0:x1])
    assert (after[-5:, -5:] == 0).all()
    crops = build(keep_regions_column="regions")(table, "u")
    assert crops.records["face"].to_pylist() == [0] and len(crops.records) == 1


def test_verdicts_are_heeded(tmp_path: Path) -> None:
    table = unit([photograph(1), photograph(1), photograph(0)])
    marks = [marked(sum_of(data.as_py())) for data in table["image"]]
    said = {
        "u-000000": Review("drop"),
        "u-000001": Review("cover", ((250.0, 150.0, 290.0, 190.0),), marks[1]),
        "u-000002": Review("ok", original=marks[2]),
    }
    tables = build("in-place", said)(table, "u")
    assert codes(tables) == {"u-000000": "rejected"}
    found = tables.detections.to_pylist()
    assert [row["treatment"] for row in found] == ["anonymized", "covered_by_verdict"]
    assert len(tables.records) == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("id,word\n1,ok\n", "expected columns source_id"),
        ("source_id,verdict,boxes\na,maybe,\n", "line 2: expected ok"),
        ("source_id,verdict,boxes\na,,\nb,cover,here\n", "line 3: cover needs boxes"),
    ],
)
def test_verdicts_that_cannot_be_read(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "v.csv").write_text(text)
    with pytest.raises(UserError, match=reason):
        read_verdicts(str(tmp_path / "v.csv"))
    with pytest.raises(UserError, match="no such file; ppfr review"):
        read_verdicts(str(tmp_path / "none.csv"))


def test_the_worst_doubt_comes_first() -> None:
    tables = build()(unit([photograph(2), photograph(0), photograph(1)]), "u")
    queue = doubts(tables.detections, tables.dead_letters, 0.35)
    assert [(doubt.source_id, doubt.reason) for doubt in queue] == [
        ("u-000001", "no face found"),
        ("u-000000", "the detector is not sure"),
    ]
    settled = doubts(tables.detections, tables.dead_letters, 0.35, {"u-000001"})
    assert [doubt.source_id for doubt in settled] == ["u-000000"]


class Faintly(Marked):
    """It sees one head more in every picture, faintly: as likely as the picture's second pixel has
    it, in hundredths."""

    def __call__(self, pictures: Any) -> list[faces.Detections]:
        places = [np.array([[220, 10, 240, 34, p[0, 1, 0] / 100]], np.float32) for p in pictures]
        found = super().__call__(pictures)
        return [replace(one, faint=place) for one, place in zip(found, places, strict=True)]


def faintly(count: int, chance: int) -> Picture:
    picture = photograph(count)
    picture[0, 1, 0] = chance
    return picture


@pytest.mark.parametrize("output", ["crops", "in-place"])
def test_what_may_be_a_head_is_asked_about_or_covered(output: str) -> None:
    pictures = [faintly(2, 1), faintly(1, 3), faintly(1, 7), faintly(0, 7), faintly(1, 40)]
    tables = build(output, detector="test_photographs:Faintly")(unit(pictures), "u")
    waiting = doubts(tables.detections, tables.dead_letters, 0.35)
    queue = [(each.source_id, each.reason) for each in waiting]
    asked = [("u-000003", "no face found"), ("u-000002", "there may be a head more")]
    where = [220.0, 10.0, 240.0, 34.0]
    covered = float(output == "in-place")
    shown = {"u-000002": [[*where, 0.0]], "u-000004": [[*where, covered]]}
    assert faint_places(tables.detections) == shown
    older = faint_places(tables.detections.drop_columns("doubt_box"))  # tells what is covered
    assert older == ({"u-000004": shown["u-000004"]} if covered else {})
    assert not {item.name for item in DOUBT_FIELDS} & set(tables.records.column_names)
    if output == "crops":  # of which nothing but faces is published
        assert queue == [asked[0], ("u-000004", asked[1][1]), asked[1]]
        assert len(tables.detections) == 5
        return
    assert queue == asked, "neither what is unlikely, nor a faint face, nor what is covered"
    shares = [row["changed_share"] for row in tables.metrics.to_pylist()]
    assert shares[3] > shares[2] + 0.005 and shares[2] == shares[1]
    assert len(tables.detections) == 6, "what is covered stands in the evidence"
    assert [row["faces"] for row in tables.metrics.to_pylist()] == [2, 1, 1, 1]
    assert tables.detections["treatment"].to_pylist()[-1] == "covered_faint"
    sizes = tables.metrics["smallest_face"].to_pylist()
    assert sizes[3] == sizes[2] > 24, "and is no face"
    found = counts(tables.detections, waiting, (), 0.35)
    assert (found.photographs, found.faces, found.covered, found.unsure) == (4, 5, 5, 1)


def test_the_queue_of_an_output_of_before_there_were_doubts() -> None:
    tables = build("in-place")(unit([photograph(2), photograph(1)]), "u")
    before = tables.detections.drop_columns(["doubt", "doubt_box"])
    assert faint_places(before) == {}
    (doubt,) = doubts(before, tables.dead_letters, 0.35)
    assert (doubt.source_id, doubt.reason) == ("u-000000", "the detector is not sure")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--output-faces", "in-place"], "--output-faces goes with --faces detect"),
        (["--verdicts", "x.csv"], "--verdicts goes with --faces detect"),
        (["--faces", "detect", "--no-face", "pass"], "goes with --output-faces in-place"),
        (["--faces", "detect", "--background", "blur"], "goes with --output-faces in-place"),
        (["--faces", "detect", "--landmarks-column", "x"], "goes with --boxes-column"),
        (["--faces", "detect", "--detector", "nowhere:Such"], "'nowhere:Such'"),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, options: list[str], reason: str) -> None:
    pq.write_table(unit([photograph(1)]).select(["image"]), tmp_path / "in.parquet")
    base = ["--input", str(tmp_path / "in.parquet"), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(main, [*base, "--method", "blur", *options])
    assert result.exit_code == 2 and reason in result.output


def test_review_and_resume(tmp_path: Path, shared: Path) -> None:
    """A run over photographs of which one holds no face, verdicts, and the run again."""
    part = sorted((shared / "data" / "lfw_raw").glob("*.parquet"))[0]
    rows = pq.read_table(part)["image"].slice(0, 5).to_pylist()
    cells = [row["bytes"] for row in rows] + [Encoding().encode(np.zeros((90, 90, 3), np.uint8))]
    pq.write_table(pa.table({"image": cells}), tmp_path / "in.parquet")
    out, queue, said = (tmp_path / name for name in ("out", "queue.csv", "said.csv"))
    options = SanitizeOptions(
        input=str(tmp_path / "in.parquet"),
        output=str(out),
        unit_rows=3,
        photographs=PhotographOptions(output_faces="in-place"),
        max_dead_letter_rate=0.5,
        review_out=str(queue),
        detections_out=str(tmp_path / "found"),
    )

    def go(**more: Any) -> list[str]:
        done = []

        def here(job: Job, todo: list[int]) -> Iterator[Status]:
            worker = Worker(job, 1)
            for number in todo:
                status = worker.process(number)
                done.append(status.unit)
                yield status

        changed = options.model_copy(update=more)
        assert drive(changed, here, "test", dry_run=False, as_json=False) == 0
        return done

    assert go() == ["u000000", "u000001"]
    with open(queue, newline="") as file:
        listed = list(csv.DictReader(file))
    assert listed[0]["source_id"] == "u000001-000002"
    assert listed[0]["reason"] == "no face found" and listed[0]["row"] == "5"
    assert queue.stat().st_mode & 0o777 == 0o600
    found = pq.read_table(tmp_path / "found.parquet")
    lines = (tmp_path / "found.jsonl").read_text().splitlines()
    assert len(lines) == len(found) >= 5
    said.write_text("source_id,verdict,boxes\nu000001-000002,drop,\nu000001-000000,ok,\n")
    assert go(verdicts=str(said)) == ["u000001"]
    letters = pq.read_table(out / "evidence/dead_letters" / "u000001.parquet").to_pylist()
    assert [letter["code"] for letter in letters] == ["rejected"]
    assert go(verdicts=str(said)) == go() == []
    against = [str(out), "--against", str(tmp_path / "in.parquet"), "--sample", "4"]
    verified = CliRunner().invoke(verify, against, standalone_mode=False)
    assert verified.return_value == 0 and "4 records measured again" in verified.output
    shard = out / "evidence/detections" / "u000000.parquet"
    table = pq.read_table(shard)
    wrong = pa.array([0.01] * len(table), pa.float32())
    place = table.column_names.index("disclosure")
    pq.write_table(table.set_column(place, table.schema.field(place), wrong), shard)
    verified = CliRunner().invoke(verify, [str(out)], standalone_mode=False)
    assert verified.return_value == 1 and "detections/u000000.parquet" in verified.output


SHEET = (
    (200, 200, 1, 0),
    (600, 220, 1, 15),
    (1100, 250, 1, 30),
    (1600, 250, 1, -15),
    (250, 800, 1.3, -30),
    (800, 800, 0.5, 0),
    (1200, 800, 0.35, 15),
    (1990, 900, 1, 0),
    (600, 1300, 0.21, 0),
)
"""Centre, scale and angle of nine photographs; one half off the edge, one face of 24 px."""


def sheet(photographs: list[Picture]) -> Picture:
    picture = np.full((1500, 2000, 3), 170, np.uint8)
    for photo, (x, y, scale, angle) in zip(photographs, SHEET, strict=True):
        turn = cv2.getRotationMatrix2D((124.5, 124.5), angle, scale)
        turn[:, 2] += np.array([x, y]) - 124.5
        flag = cv2.INTER_AREA if scale < 0.6 else cv2.INTER_LINEAR
        pasted = cv2.warpAffine(photo, turn, (2000, 1500), flags=flag)
        there = cv2.warpAffine(np.full((250, 250), 255, np.uint8), turn, (2000, 1500)) > 200
        picture[there] = pasted[there]
    return picture


@pytest.fixture(scope="module")
def lfw(shared: Path) -> list[Picture]:
    part = sorted((shared / "data" / "lfw_raw").glob("*.parquet"))[0]
    return [decode(row["bytes"]) for row in pq.read_table(part)["image"].slice(0, 9).to_pylist()]


def real(output: str, encoding: Encoding, method: str) -> Sanitizer[Any]:
    run = RunContext(create(method, {}), encoding, draws=seeded_draws(1))
    finder = Finder(PhotographOptions(output_faces=output), {}, 1)
    return Sanitizer(FaceCrops(run, finder) if output == "crops" else WholePictures(run, finder))


def test_a_sheet_of_nine_photographs(lfw: list[Picture]) -> None:
    """All whole faces of 32 px and more are found and anonymized, whatever their angle; what is
    not head or margin changes by no more than the codec changes it."""
    picture = sheet(lfw)
    tables = real("in-place", Encoding("png"), "signed-field")(unit([picture]), "u")
    found = tables.detections.to_pylist()
    boxes = np.array([row["box"] for row in found])
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    for place, (x, y, scale, _) in enumerate(SHEET):
        near = np.hypot(*(middle - (x, y)).T)
        face = found[int(near.argmin())]
        assert near.min() < 25, place
        if place < 7:
            assert face["treatment"] == "anonymized", (place, face)
        assert 50 * scale < max(np.subtract(face["box"][2:], face["box"][:2])), place
    small = found[int(np.hypot(*(middle - SHEET[8][:2]).T).argmin())]
    assert small["treatment"] == "covered_small"
    after = decode(tables.records["image"][0].as_py()["bytes"])
    place = faces.Detections(
        boxes.astype(np.float32),
        np.array([row["landmarks"] or [np.nan] * 10 for row in found], np.float32).reshape(
            -1, 5, 2
        ),
        np.ones(len(found), np.float32),
        np.zeros(len(found), bool),
    )
    treatments = [row["treatment"] for row in found]
    changed = geometry.cover(picture, place, treatments, {})[1]
    assert np.array_equal(after[~changed], picture[~changed])
    assert tables.metrics["changed_share"][0].as_py() == pytest.approx(changed.mean())
    jpeg = Encoding()
    far = cv2.dilate(changed.astype(np.uint8), np.ones((17, 17))) == 0  # whole JPEG blocks away
    coded, plain = (jpeg.decode(jpeg.encode(each)).astype(int) for each in (after, picture))
    assert np.array_equal(coded[far], plain[far])


def test_pictures_out_of_the_ordinary(lfw: list[Picture]) -> None:
    """A panorama of 20,000 x 500, two hundred faces, all black: a clear outcome for each."""
    panorama = np.full((500, 20_000, 3), 90, np.uint8)
    panorama[120:370, 19_000:19_250] = lfw[0]
    cell = cv2.resize(lfw[0][60:190, 60:190], (80, 80), interpolation=cv2.INTER_AREA)
    crowd = np.tile(cell, (10, 20, 1))
    black = np.zeros((250, 250, 3), np.uint8)
    tables = real("in-place", Encoding(), "blur")(unit([panorama, crowd, black]), "u")
    assert codes(tables) == {"u-000002": "no_face"}
    measured = tables.metrics.to_pylist()
    assert measured[0]["faces"] == 1 and measured[1]["faces"] >= 195
    crops = real("crops", Encoding(), "blur")(unit([crowd]), "u")
    assert len(crops.records) == measured[1]["faces"]


@pytest.mark.parametrize(
    "name", ["=cmd|' /C calc'!A0", "+1", "-1+2", "@SUM(1)", "\t=1", " =1", "＝1"]
)
def test_no_cell_of_the_queue_is_a_formula(name: str) -> None:
    assert inert(name) == f"'{name}"
    assert inert(f"folder/{name}") == f"folder/{name}"
