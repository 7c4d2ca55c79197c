"""Verification and linkage figures from scores whose answers are known."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ppfr_ops.lab.evaluate.data import evenly, read_faces, read_pairs
from ppfr_ops.lab.evaluate.linkage import (
    StudentAttack,
    d_sys,
    figures,
    linkage_sets,
    rank1,
)
from ppfr_ops.lab.evaluate.protocol import best_threshold, pair_scores, threshold_at_far, verify
from ppfr_ops.recognizers import Recognizer, RecognizerSpec

FOLDS = np.repeat(np.arange(10), 100)
SAME = np.tile([True, False], 500)


def test_perfect_and_useless_scores() -> None:
    rng = np.random.default_rng(0)
    perfect = verify(SAME + rng.uniform(0, 0.5, 1000), SAME, FOLDS)
    assert perfect.accuracy > 0.995 and perfect.auc == 1 and perfect.eer == 0
    assert perfect.tar == {"0.01": 1.0, "0.001": 1.0}
    useless = verify(rng.uniform(0, 1, 1000), SAME, FOLDS)
    assert abs(useless.accuracy - 0.5) < 0.06 and abs(useless.auc - 0.5) < 0.06
    assert abs(useless.eer - 0.5) < 0.06 and useless.tar["0.001"] < 0.05


def test_the_threshold_never_sees_its_own_fold() -> None:
    scores = np.where(SAME, 1.0, 0.0)
    upside_down = FOLDS == 3
    scores[upside_down] = 1 - scores[upside_down]
    assert verify(scores, SAME, FOLDS).accuracy == pytest.approx(0.9)


def test_threshold_at_far_accepts_no_more_than_allowed() -> None:
    impostor = np.linspace(0, 1, 1000)
    for far in (0.1, 1e-2, 1e-3):
        accepted = (impostor >= threshold_at_far(impostor, far)).mean()
        assert accepted <= far + 1e-12
        assert accepted > far - 2e-3


def test_best_threshold_splits() -> None:
    threshold = best_threshold(np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, True]))
    assert 0.2 < threshold <= 0.8


@pytest.mark.parametrize(
    ("scores", "same", "folds", "message"),
    [
        (np.full(1000, np.nan), SAME, FOLDS, "NaN"),
        (np.ones(1000), np.ones(1000, bool), FOLDS, "genuine and impostor"),
        (np.ones(1000), SAME, np.zeros(1000, int), "two folds"),
    ],
)
def test_wrong_input(scores: np.ndarray, same: np.ndarray, folds: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        verify(scores, same, folds)


def test_lfw_accuracy_on_originals(shared: Path) -> None:
    # the two larger models take minutes: bench/baselines.sh, docs/results.md
    gallery = read_faces(str(shared / "data" / "lfw_aligned"), "LFW")
    pairs = read_pairs(str(shared / "data" / "lfw_pairs.parquet"), gallery)
    model = Recognizer(RecognizerSpec("mobileface", str(shared / "models" / "mobileface.onnx")))
    some = np.isin(pairs.folds, np.unique(pairs.folds)[:2])
    faces, places = np.unique(np.concatenate([pairs.a[some], pairs.b[some]]), return_inverse=True)
    templates = model.embed(gallery.images[faces])
    scores = pair_scores(*(templates[half] for half in np.split(places, 2)))
    assert verify(scores, pairs.same[some], pairs.folds[some]).accuracy == pytest.approx(
        0.9425, abs=0.003
    )


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def people(count: int, photos: int, spread: float) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(count, 1, 64))
    templates = centres + spread * rng.normal(size=(count, photos, 64))
    names = [f"p{i}" for i in range(count) for _ in range(photos)]
    return unit(templates.reshape(-1, 64)), names


def run_linkage(published: np.ndarray, originals: np.ndarray, names: list[str]) -> SimpleNamespace:
    sets = linkage_sets(names)
    more = [published[list(rows)] for rows in sets.calibration]
    return SimpleNamespace(**figures(originals[sets.gallery], published[sets.probes], sets, more))


def test_linkable_and_unlinkable() -> None:
    originals, names = people(200, 4, 0.2)
    open_ = run_linkage(originals, originals, names)
    assert open_.rank1 > 0.99 and open_.d_sys > 0.97
    assert open_.linking["200"] == pytest.approx(open_.rank1)
    assert open_.singling_out > open_.singling_out_chance
    noise = unit(np.random.default_rng(2).normal(size=originals.shape))
    closed = run_linkage(noise, originals, names)
    assert closed.rank1 < 0.03 and closed.d_sys < 0.25
    assert closed.linking["2"] == pytest.approx(0.5, abs=0.08)
    # 1/e is the most that a predicate that knows nothing reaches
    assert closed.singling_out < closed.singling_out_chance + 0.03


def test_d_sys_of_equal_and_apart() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=20_000)
    assert d_sys(scores[:10_000], scores[10_000:]) < 0.05
    assert d_sys(scores[:10_000] + 20, scores[10_000:]) > 0.99


def test_ties_do_not_link() -> None:
    same = np.tile(unit(np.ones((1, 8))), (20, 1))
    assert run_linkage(same, same, [f"p{i // 2}" for i in range(20)]).rank1 == 0


def test_student_undoes_a_turn_of_the_embedding_space() -> None:
    originals, names = people(600, 2, 0.2)
    rng = np.random.default_rng(3)
    turn = np.linalg.qr(rng.normal(size=(64, 64)))[0]
    published = unit(originals @ turn)
    train, test = slice(0, 512), slice(512, 1200)
    student = StudentAttack([published[train]], published[train], originals[train], steps=120)
    sets = linkage_sets(names[test])
    photos, probes = originals[test][sets.gallery], published[test][sets.probes]
    plain = rank1(photos @ probes.T, sets.probe_rows)
    guess = student.guess(probes, [probes])
    taught = rank1(student.gallery(photos) @ guess.T, sets.probe_rows)
    assert plain < 0.05 < 0.3 < taught


def test_nobody_with_two_photos() -> None:
    with pytest.raises(ValueError, match="two photos"):
        linkage_sets(["a", "b", "c"])


def test_evenly() -> None:
    assert list(evenly(5, 9)) == [0, 1, 2, 3, 4]
    assert list(evenly(101, 3)) == [0, 50, 100]
