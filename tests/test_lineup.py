"""The line-up: who is drawn, what the page holds, how answers are scored."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image
from scipy.stats import binom

from ppfr_ops import sample
from ppfr_ops.cli import program
from ppfr_ops.contracts.lineup import Answers
from ppfr_ops.contracts.records import IMAGE_TYPE
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.lab.evaluate.data import FaceSet
from ppfr_ops.lab.evaluate.lineup import AGE_APART, draw_trials, interval, parse, score

PEOPLE = 40


def gallery(**attributes: list[int | None]) -> FaceSet:
    who = [f"person{i // 3:02d}" for i in range(3 * PEOPLE)]
    images = np.zeros((len(who), 112, 112, 3), np.uint8)
    origins = [("made", i) for i in range(len(who))]
    return FaceSet(images, who, who, attributes, origins, [None] * len(who))


def test_another_photo_of_the_person_and_strangers() -> None:
    faces = gallery()
    trials = draw_trials(faces, 100, 5, np.random.default_rng(0))
    assert len(trials) == 100
    who = faces.identities
    assert who is not None
    for trial in trials:
        assert trial.probe not in trial.candidates
        people = [who[i] for i in trial.candidates]
        assert people[trial.answer] == who[trial.probe]
        assert len(set(people)) == 5
    first = [who[trial.probe] for trial in trials[:PEOPLE]]
    assert len(set(first)) == PEOPLE  # everybody once before anybody twice
    places = np.bincount([trial.answer for trial in trials], minlength=5)
    assert (places > 5).all()


def test_strangers_are_alike_where_there_are_labels() -> None:
    person = np.arange(3 * PEOPLE) // 3
    faces = gallery(
        gender=[int(p % 2) for p in person], age=[20 if p % 4 < 2 else 60 for p in person]
    )
    for trial in draw_trials(faces, 30, 5, np.random.default_rng(1)):
        target = trial.candidates[trial.answer]
        for other in trial.candidates:
            assert faces.attributes["gender"][other] == faces.attributes["gender"][target]
            a, b = faces.attributes["age"][other], faces.attributes["age"][target]
            assert a is not None and b is not None and abs(a - b) <= AGE_APART


def test_too_few_people() -> None:
    with pytest.raises(UserError, match="40 people, 41 candidates"):
        draw_trials(gallery(), 1, 41, np.random.default_rng(0))


def test_clopper_pearson() -> None:
    low, high = interval(12, 24)
    assert (low, high) == (pytest.approx(0.291, abs=1e-3), pytest.approx(0.709, abs=1e-3))
    assert interval(0, 10)[0] == 0 and interval(10, 10)[1] == 1
    for found, trials in ((3, 24), (27, 100)):
        low, high = interval(found, trials)
        assert binom.sf(found - 1, trials, low) == pytest.approx(0.025, abs=1e-6)
        assert binom.cdf(found, trials, high) == pytest.approx(0.025, abs=1e-6)


def test_scoring() -> None:
    answers = Answers(candidates=5, shown="published", method=None, alike=[], answers=[1, 2, 3, 4])
    found = score(answers, parse("1, 2\n5 -"), "v")
    assert (found.found, found.trials, found.chance) == (2, 3, 0.2)
    assert found.low < found.rate < found.high
    for text, message in (
        ("1 2 3", "3 answers, but 4 trials"),
        ("1 2 3 9", "from 1 to 5"),
        ("- - - -", "no trial"),
        ("a b c d", "expected numbers"),
    ):
        with pytest.raises(UserError, match=message):
            score(answers, parse(text), "v")


def test_the_command(tmp_path: Path) -> None:
    encoding, faces = Encoding("png"), sample.faces(24, seed=0, identities=8)
    rows = [{"bytes": encoding.encode(f), "path": f"alice/{i}.png"} for i, f in enumerate(faces)]
    who = [f"alice{i % 8}" for i in range(24)]
    pq.write_table(
        pa.table({"image": pa.array(rows, IMAGE_TYPE), "identity": who}), tmp_path / "g.parquet"
    )
    out = tmp_path / "out"
    command = ["lineup", "make", f"--gallery={tmp_path / 'g.parquet'}", f"--out={out}"]
    runner = CliRunner()
    refused = runner.invoke(program, command)
    assert refused.exit_code == 2 and not out.exists()
    made = runner.invoke(program, [*command, "--method=blur", "--trials=7", "--candidates=4"])
    assert made.exit_code == 0, made.output
    assert out.stat().st_mode & 0o077 == 0  # it holds originals
    html = (out / "lineup.html").read_text()
    assert html.count("data:image/jpeg;base64,") == 7 * 5
    assert not re.search(r'(src|href)="(?!data:)', html) and "alice" not in html
    assert "owner's" in html and "never publish it" in html
    truth = json.loads((out / "answers.json").read_text())
    assert str(truth["answers"]) not in html
    assert "alice" not in json.dumps(truth)
    sheets = sorted((out / "sheets").iterdir())
    assert len(sheets) == 2 and Image.open(sheets[0]).size[0] > 4 * 168
    given = tmp_path / "given.txt"
    given.write_text(" ".join(map(str, truth["answers"])))
    scored = runner.invoke(program, ["lineup", "score", str(out), f"--given={given}"])
    assert scored.exit_code == 0 and "found 7 of 7 (1.00" in scored.output
    assert json.loads((out / "result.json").read_text())["p_value"] == pytest.approx(0.25**7)
    again = runner.invoke(program, [*command, "--originals"])
    assert again.exit_code == 2 and "exists" in again.output
