"""What a bound needs is measured, whatever ``--metrics`` says: in commands and steps, of aligned
faces, crops and whole photographs."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import jpeg

from ppfr_ops import sample
from ppfr_ops.contracts.policy import Bound
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.methods.registry import create
from ppfr_ops.sanitize import measuring
from ppfr_ops.sanitize.acceptance import AcceptanceCriteria, Requirement
from ppfr_ops.sanitize.batch import BatchSanitizer
from ppfr_ops.sanitize.finish import finish
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.photographs.options import PhotographOptions
from ppfr_ops.sanitize.prepare import prepare
from ppfr_ops.sanitize.worker import Worker
from ppfr_ops.store.ledger import Ledger

LEVELS = ("full", "basic", "none")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("in")
    (folder / "faces").mkdir()
    cells = [{"bytes": jpeg(face), "path": "x"} for face in sample.faces(6)]
    pq.write_table(pa.table({"image": cells}), folder / "faces/a.parquet")
    (folder / "photographs").mkdir()
    for number in range(2):
        picture = np.full((200, 300, 3), 128, np.uint8)
        for place, face in enumerate(sample.faces(2, seed=number)):
            picture[40:152, 20 + 130 * place : 132 + 130 * place] = face
        (folder / f"photographs/{number}.jpg").write_bytes(Encoding("jpeg", 90).encode(picture))
    return folder


class Two:
    """A detector that knows where the two faces stand."""

    def __call__(self, pictures: Any) -> Any:
        from ppfr_ops.imaging import detector, geometry

        points = np.stack([geometry.TEMPLATE + place for place in ((20, 40), (150, 40))])
        boxes = np.concatenate([points.min(1) - 20, points.max(1) + 20], 1)
        found = detector.Detections(
            boxes.astype(np.float32),
            points.astype(np.float32),
            np.array([0.9, 0.9], np.float32),
            np.zeros(2, bool),
        )
        return [found for _ in pictures]


def published(source: Path, out: Path, way: str, level: str, **more: Any) -> tuple[int, dict]:
    """Records, and dead letters by code."""
    if way == "batch":
        rows = BatchSanitizer(method="blur", metrics=level, **more)(
            {"image": list(sample.faces(6))}
        )
        codes = [code for code in rows["dead_letter"] if code is not None]
        return 6 - len(codes), {code: codes.count(code) for code in codes}
    photographs = None
    if way != "aligned":
        more = {**more, "method_options": more.pop("method_options", {})}
        photographs = PhotographOptions(
            output_faces=way,
            detector="test_bounds:Two",
            **({"cover": "method"} if way == "in-place" else {}),
        )
    options = SanitizeOptions(
        input=str(source / ("faces" if way == "aligned" else "photographs")),
        output=str(out),
        method="blur",
        metrics=level,
        photographs=photographs,
        **more,
    )
    job = prepare(options)
    Ledger(options.output).open(job.settings)
    worker = Worker(job, 1)
    for number in range(len(job.plan.units)):
        assert worker.process(number).state == "committed"
    manifest, missing = finish(job, "test")
    assert not missing and manifest.options["max_disclosure"] == more.get("max_disclosure")
    return manifest.counts.records, manifest.counts.dead_letters_by_code


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("way", ["aligned", "batch", "crops", "in-place"])
def test_a_bound_holds_at_every_level(source: Path, tmp_path: Path, way: str, level: str) -> None:
    tight, dead = published(source, tmp_path / "a", way, level, max_disclosure=0.01)
    assert tight == 0 and set(dead) == {"too_disclosing"}
    wide, dead = published(source, tmp_path / "b", way, level, max_disclosure=1.0)
    assert wide > 0 and not dead


@pytest.mark.parametrize("level", LEVELS)
def test_a_methods_own_limit_holds_at_every_level(
    level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(create("blur")), "disclosure_limit", 0.01)
    rows = BatchSanitizer(method="blur", metrics=level)({"image": list(sample.faces(2))})
    assert rows["image"] == [None, None] and set(rows["dead_letter"]) == {"too_disclosing"}


@pytest.mark.parametrize("level", LEVELS)
def test_what_cannot_be_measured_meets_no_bound(
    level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any, **named: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(measuring, "measure", fails)
    rows = BatchSanitizer(method="blur", metrics=level, max_disclosure=1.0)(
        {"image": list(sample.faces(2))}
    )
    assert set(rows["dead_letter"]) == {"not_measured"}


def test_a_requirement_that_was_not_measured_is_no_pass() -> None:
    criteria = AcceptanceCriteria(
        (Requirement("disclosure", Bound(sign="<=", value=0.5), "too_disclosing"),), 0
    )
    with pytest.raises(KeyError, match="disclosure"):
        criteria.shortfall({"ssim": np.zeros(2, np.float32)})
    assert len(criteria.shortfall({})) == 0


def test_nan_of_one_metric_hides_no_shortfall_of_another() -> None:
    bounds = [
        Requirement("ssim", Bound(sign=">=", value=0.5), "below_policy"),
        Requirement("disclosure", Bound(sign="<=", value=0.5), "too_disclosing"),
    ]
    criteria = AcceptanceCriteria(tuple(bounds), 2)
    nan, low, high = np.float32("nan"), np.float32(0.1), np.float32(0.9)
    measured = {
        "ssim": np.array([nan, high, nan, high]),
        "disclosure": np.array([high, high, low, low]),
    }
    shortfalls = criteria.shortfall(measured)
    assert np.isfinite(shortfalls).all() and (shortfalls > 0).tolist() == [True, True, True, False]
    asked: list[list[int]] = []

    def again(over: list[int], draw: int) -> np.ndarray:
        asked.append(over)
        return np.zeros(len(over))

    criteria.redraw(shortfalls, again)
    assert asked == [[0, 1, 2]]


def test_what_could_not_be_measured_falls_short_of_all_by_most() -> None:
    bound = Requirement("ssim", Bound(sign="<=", value=0.5), "below_policy")
    criteria = AcceptanceCriteria((bound,))
    short = criteria.shortfall({"ssim": np.array([np.nan, 0.4, 1.0], np.float32)})
    assert short[1] == 0 < short[2] < short[0]
    with pytest.raises(KeyError):
        criteria.shortfall({"psnr": np.zeros(3, np.float32)})


def test_a_method_whose_pictures_depend_on_no_face_is_held_to_no_bound() -> None:
    """What became of a record would depend on its original."""
    assert not create("natural").selects
    assert AcceptanceCriteria.of(create("natural"), 0.5) == AcceptanceCriteria()
