"""Natural people: nothing of a face is read, batches do not matter, pictures are whole faces."""

import io
import math
import os
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import chi2

from ppfr_ops.cli.invent import main as invent_command
from ppfr_ops.errors import UserError
from ppfr_ops.imaging import look
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.imaging.detector import CenterFace
from ppfr_ops.imaging.geometry import align
from ppfr_ops.imaging.portraits import skin_colour, yaw
from ppfr_ops.invent import invent
from ppfr_ops.keys import IDENTITY, derive
from ppfr_ops.methods.base import Context
from ppfr_ops.methods.codes import KEY_SIZE, normals
from ppfr_ops.methods.codes import person as whose
from ppfr_ops.methods.natural import SIZES, Natural, files
from ppfr_ops.methods.natural.generator import PEOPLE_TRIED
from ppfr_ops.methods.natural.looks import KINDS, LAWS
from ppfr_ops.methods.natural.network import LAYERS, STYLE
from ppfr_ops.methods.natural.quality import redness
from ppfr_ops.methods.registry import create
from ppfr_ops.recognizers import Recognizer, RecognizerSpec
from ppfr_ops.sanitize.sanitizer import column

SHARED = Path(os.environ.get("PPFR_SHARED", Path(__file__).parent.parent.parent / "shared"))
KEY = bytes(range(32))
COUNT = 32
pytestmark = pytest.mark.timeout(900)
NOBODY = np.zeros((1, 112, 112, 3), np.uint8)


def method(**options: Any) -> Natural:
    made = create("natural", options).with_secrets({"identity-key": KEY})
    assert isinstance(made, Natural)
    return made


def draws(count: int, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, Natural().draw_size), dtype=np.float32)


def shown(labels: list[str | None], seed: int = 0, **options: Any) -> Faces:
    given, context = draws(len(labels), seed), Context({"identity": labels})
    return method(**options)(NOBODY.repeat(len(labels), 0), given, context)


def test_a_kept_look_is_followed_and_changes_nobody() -> None:
    """Light as far as pixels go, heads to the side that was asked for; who it is stays."""
    looks = ["0-02", "4-20"]
    given = Context({"identity": ["a"] * 2, "look": looks})
    pictures = method(keep_look="light,pose")(NOBODY.repeat(2, 0), draws(2), given)
    assert look.noted(pictures, ("light",)) == ["--02", "--20"]
    left, right = (look.shape(points)["yaw"] for points in look.landmarks(pictures))
    assert left < -0.06 and right > 0.06
    unknown = Context({"identity": ["a"], "look": ["----"]})
    drawn = method(keep_look="pose")(NOBODY, draws(1), unknown)
    assert (drawn == shown(["a"])).all(), "nothing that is kept: as drawn"


@pytest.mark.parametrize("epsilon", [1e-3 / 4, 0.5, 2.0, 16.0, 64.0])
@pytest.mark.parametrize("bins", [3, 5])
def test_no_bin_is_told_more_likely_than_epsilon_allows(bins: int, epsilon: float) -> None:
    """By the very weights that are drawn by, exactly; a face that nobody found among them."""
    bound = Decimal(epsilon).exp()
    rows = [look.response(bins, epsilon, true) for true in (None, *range(bins))]
    assert all(sum(row) == look.WHOLE and min(row) > 0 for row in rows)
    for told in zip(*rows, strict=True):
        assert Decimal(max(told)) <= bound * min(told)
    meant = math.exp(epsilon) / (math.exp(epsilon) + bins - 1)
    assert rows[1][0] / look.WHOLE == pytest.approx(meant, rel=1e-3)


def test_bins_are_told_as_often_as_the_table_says() -> None:
    """A chi-square that chance exceeds once in 10 million, of 4,000 photos; and by which key."""
    faces = np.random.default_rng(0).integers(0, 256, (4000, 112, 112, 3), np.uint8)
    looks = ["4-02"] * 2000 + ["0120"] * 2000
    kept = ("pose", "light")
    told = look.noised(faces, looks, kept, 6.0, os.urandom(32))
    assert look.noised(faces[:9], looks[:9], kept, 6.0, KEY) != told[:9]
    for start, seen in ((0, looks[0]), (2000, looks[-1])):
        for place, name in enumerate(look.EDGES):
            found = [int(each[place]) for each in told[start : start + 2000]]
            bins = len(look.EDGES[name]) - 1
            true = None if seen[place] == "-" else int(seen[place])
            meant = 2000 * np.array(look.response(bins, 1.5, true)) / look.WHOLE
            far = np.square(np.bincount(found, minlength=bins) - meant) / meant
            assert far.sum() < chi2.isf(1e-8, bins - 1)
    light = look.noised(faces[:1], ["----"], ("light",), 6.0, KEY)[0]
    assert light[:2] == "--" and light[2:].isdigit(), "what is not kept is not made up"


def test_answers_with_two_epsilons_come_of_two_draws() -> None:
    """Of one draw, some pairs of answers would be possible with one bin alone, whatever epsilon."""
    faces = np.random.default_rng(0).integers(0, 256, (900, 112, 112, 3), np.uint8)
    seen = set()
    for bin_ in ("0", "2"):
        told = (look.noised(faces, [f"--{bin_}-"] * 900, ("light",), e, KEY) for e in (0.5, 1.0))
        seen.add(frozenset((one[2], other[2]) for one, other in zip(*told, strict=True)))
    assert seen == {frozenset((a, b) for a in "012" for b in "012")}
    alone = look.noised(faces[:9], ["--2-"] * 9, ("light",), 1.0, KEY)
    more = look.noised(faces[:9], ["112-"] * 9, ("light", "pose"), 2.0, KEY)
    assert [each[2] for each in alone] == [each[2] for each in more], "the same question again"


@pytest.mark.parametrize("epsilon", [0.0, -1.0, 65.0, float("nan")])
def test_no_epsilon_is_refused(epsilon: float) -> None:
    with pytest.raises(UserError, match="look_epsilon"):
        method(keep_look="light", look_epsilon=epsilon)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("natural", {}),
        ("stochastic-local", {"identity": "virtual", "variation": 0}),
        ("dp-virtual", {"epsilon": 0}),
    ],
)
def test_who_reads_no_faces_gives_the_same_for_any(name: str, options: dict[str, Any]) -> None:
    chosen = create(name, options).with_secrets({"identity-key": KEY})
    assert not chosen.reads_faces
    rng = np.random.default_rng(0)
    given = rng.standard_normal((3, chosen.draw_size), dtype=np.float32)
    context = Context({"identity": ["a", None, None]})
    one = chosen(rng.integers(0, 256, (3, 112, 112, 3), dtype=np.uint8), given, context)
    other = chosen(NOBODY.repeat(3, 0), given, context)
    assert (one == other).all()
    assert (one[1] != one[2]).any()  # without a label: somebody new each time


def test_who_reads_faces_says_so() -> None:
    for name, options in (
        ("blur", {}),
        ("stochastic-local", {"identity": "virtual", "variation": 0.5}),
        ("stochastic-local", {}),
        ("dp-virtual", {"epsilon": 1}),
    ):
        assert create(name, options).reads_faces


def test_a_record_gives_the_same_bytes_whatever_batch_it_stands_in() -> None:
    labels, given = ["a", "b", None, "a", "c"], draws(5)
    whole = method()(NOBODY.repeat(5, 0), given, Context({"identity": labels}))
    order = [4, 2, 0]
    some = method()(NOBODY.repeat(3, 0), given[order], Context({"identity": ["c", None, "a"]}))
    assert (some == whole[order]).all()
    alone = method()(NOBODY, given[3:4], Context({"identity": ["a"]}))
    assert (alone == whole[3:4]).all()


def test_quick_pictures_show_the_same_people_in_the_same_look() -> None:
    labels: list[str | None] = ["a", "e"]  # of b and c one quality draws another look
    full, fast = shown(labels), shown(labels, quality="fast")
    for one, other, stranger in zip(full, fast, fast[::-1], strict=True):
        near, far = (np.corrcoef(one.ravel(), each.ravel())[0, 1] for each in (other, stranger))
        assert 0.7 < near < 1 and far < 0.5
    assert method(quality="fast").options()["quality"] == "fast"
    assert "quality" not in method().options()


def test_key_label_and_draw_decide() -> None:
    one, again, label, look = shown(["a"]), shown(["a"]), shown(["b"]), shown(["a"], 1)
    assert (one == again).all() and (one != label).any() and (one != look).any()
    other = create("natural").with_secrets({"identity-key": bytes(32)})
    assert (other(NOBODY, draws(1), Context({"identity": ["a"]})) != one).any()
    still = shown(["a", "a", "b"], variation=0)
    assert (still[0] == still[1]).all() and (still[0] != still[2]).any()


def test_glasses_and_sex_hold_over_a_persons_photos() -> None:
    generator = method().generator()
    looks, rng = generator.looks, np.random.default_rng(0)
    starts = [start for start, _ in LAYERS.values()]
    sides = []
    for _ in range(12):
        person = looks.person(generator.style(rng.standard_normal(STYLE, np.float32)))
        for _ in range(6):
            others = [generator.style(z) for z in rng.standard_normal((3, STYLE), np.float32)]
            draw = torch.from_numpy(rng.standard_normal(16, np.float32))
            bands = looks.styles(person, torch.stack(others), draw, 1.0)[starts] - looks.mean
            read = dict(zip(LAWS, torch.einsum("abs,bs->a", looks.read, bands), strict=True))
            sides.append([bool(read[name] > edge) for name, (_, edge, _) in KINDS.items()])
    found = np.array(sides).reshape(12, 6, len(KINDS))
    assert (found == found[:, :1]).all()
    assert found.any((0, 1)).all() and not found.all((0, 1)).any()  # there are both


@pytest.fixture(scope="module")
def pictures() -> Faces:
    """People by four."""
    return shown([f"person {i // 4}" for i in range(COUNT)], 3)


def test_no_picture_is_broken(pictures: Faces) -> None:
    wide = [np.pad(face, ((24, 24), (24, 24), (0, 0)), "edge") for face in pictures]
    found = [faces for i in range(0, COUNT, 20) for faces in CenterFace(0.3)(wide[i : i + 20])]
    assert all(len(faces) for faces in found)
    # Light, colours and traits redden one nose in so many, which is sound all the same.
    assert sorted(redness(face) for face in pictures)[-2] < 50
    assert pictures.std((1, 2, 3)).min() > 15
    assert len({face.tobytes() for face in pictures}) == COUNT


def test_whole_pictures_of_every_size_show_the_same_face_in_the_same_place() -> None:
    styles = method().styles(["a"], draws(1))
    assert styles.shape == (1, 15, 512)
    small = method().render(styles, 128)
    for size in SIZES[1:]:
        large = method().render(styles, size)
        assert large.pictures.shape == (1, size, size, 3) and large.scores[0] > 0.3
        astray = np.abs((large.landmarks + 0.5) * 128 / size - 0.5 - small.landmarks).max()
        assert astray < 3
    with pytest.raises(ValueError, match="size must be one of"):
        method().render(styles, 100)


def test_weights_that_are_missing_or_of_another_kind_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(files, "WEIGHTS", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"natural: no weights at natural\.safetensors"):
        files.read("natural")
    (tmp_path / "natural.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no readable safetensors file"):
        files.read("natural")


def test_the_digest_is_of_every_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(files, "WEIGHTS", tmp_path)
    digests = set()
    for name in ("natural", "natural.traits", "natural.later"):
        for content in (b"one", b"other"):
            (tmp_path / f"{name}.safetensors").write_bytes(content)
            digests.add(files.digest())
    assert len(digests) == 6


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared: models")
def test_photos_of_a_person_are_alike_to_a_recogniser_and_strangers_are_not(
    pictures: Faces,
) -> None:
    who = np.arange(COUNT) // 4
    recogniser = Recognizer(RecognizerSpec.parse(f"sface={SHARED / 'models' / 'sface.onnx'}"))
    templates = recogniser.embed(pictures)
    cosines = templates @ templates.T
    same = who[:, None] == who
    pairs = np.triu_indices(COUNT, 1)
    genuine, strangers = cosines[pairs][same[pairs]], cosines[pairs][~same[pairs]]
    assert genuine.mean() > strangers.mean() + 0.3
    assert (genuine > np.quantile(strangers, 0.99)).mean() > 0.8


def test_invented_people_are_a_dataset_without_a_source(tmp_path: Path) -> None:
    folder = tmp_path / "invented"
    asked = ["--people", "2", "--photos", "3", "--output", str(folder)]
    done = CliRunner().invoke(invent_command, asked)
    assert done.exit_code == 0, done.output
    assert "6 photos of 2 people in 1 files" in done.output
    table = pq.read_table(folder)
    assert table["identity"].to_pylist() == ["person000000"] * 3 + ["person000001"] * 3
    files = [image["bytes"] for image in table["image"].to_pylist()]
    assert {Image.open(io.BytesIO(data)).size for data in files} == {(112, 112)}
    assert len(set(files)) == 6
    again = CliRunner().invoke(invent_command, asked)
    assert again.exit_code == 2 and "is not empty" in again.output
    (whole,) = invent(tmp_path / "whole", 1, 1, 256)
    data = pq.read_table(whole)["image"].to_pylist()[0]["bytes"]
    assert Image.open(io.BytesIO(data)).size == (256, 256)


def test_a_mix_gives_people_of_the_kinds_that_are_asked_for() -> None:
    looks = method().generator().looks
    for text, sides in (("women=1,dark=0", (True, False)), ("dark=1,women=0", (False, True))):
        asked = method(mix=text)
        assert asked.options()["mix"] == ",".join(sorted(text.split(",")))
        for label in "abc":
            (styles,) = asked.styles([label], draws(1))
            assert np.isfinite(styles).all()
            key = derive(KEY, IDENTITY, KEY_SIZE)
            mix = tuple((name, float(share)) for name, _, share in _parts(text))
            person = asked.generator().person(key, whose(label, draws(1)[0]), mix)
            assert looks.is_of(person, dict(zip(("women", "dark"), sides, strict=True)))
    assert "mix" not in method().options()


def test_half_of_the_people_are_women_where_nothing_is_asked_for() -> None:
    """Read off 300 candidates, and whoever is passed over makes room for one of the same sex;
    within three standard errors of chance."""
    chosen, key = method(), derive(KEY, IDENTITY, KEY_SIZE)
    generator, sexes = chosen.generator(), []
    with torch.inference_mode():
        for number in range(300):
            name = whose(f"person {number}", draws(1)[0])
            found = next(generator.candidates(key, name, chosen.shares))
            both = [generator.looks.is_of(found, {"women": yes}) for yes in (True, False)]
            sexes.append(both)
    women, men = np.array(sexes).T
    assert (women ^ men).all() and abs(women.mean() - 0.5) < 3 * (0.25 / 300) ** 0.5
    assert dict(method(mix="dark=1").shares) == {"women": 0.5, "dark": 1.0}
    assert dict(method(mix="women=0").shares) == {"women": 0.0}


def test_candidates_are_looked_over_together_and_are_those_of_one_by_one() -> None:
    """To the bit: among others a style is rounded otherwise, and nobody may be somebody else."""
    chosen, key = method(), derive(KEY, IDENTITY, KEY_SIZE)
    generator, name = chosen.generator(), whose("somebody", draws(1)[0])
    with torch.inference_mode():
        women = next(
            yes
            for each in generator.candidates(key, name, chosen.shares)
            for yes in (True, False)
            if generator.looks.is_of(each, {"women": yes})
        )
        alone = (
            generator.looks.person(generator.style(each))
            for number in range(400)
            for each in [normals(key, "natural person", number.to_bytes(2, "big") + name, STYLE)]
        )
        known = [each for each in alone if generator.looks.is_of(each, {"women": women})]
        known = [each for each in known[:PEOPLE_TRIED] if not generator.looks.crowded(each)]
        found = list(islice(generator.candidates(key, name, chosen.shares), len(known)))
    assert 5 < len(known) == len(found)
    assert all(torch.equal(one, other) for one, other in zip(known, found, strict=True))


def test_what_a_picture_will_be_like_is_told_before_it_is_drawn() -> None:
    """How far its head is turned and how bright its skin is, of the same looks."""
    generator, told, seen = method().generator(), [], []
    with torch.inference_mode():
        for styles in method().styles([None] * 16, draws(16, 8)):
            each = torch.from_numpy(styles[:13])
            picture, _ = generator.drawn(each)
            marks, score = generator.landmarks(picture)
            if score:
                told.append(generator.foretold(each[None])[1][0, 4:].numpy())
                bright = np.log(skin_colour(align(picture, marks[None])[0]) + 10).mean()
                seen.append([yaw(marks), bright])
    both = np.corrcoef(np.array(told).T, np.array(seen).T)
    assert len(seen) >= 14 and both[0, 2] > 0.8 and both[1, 3] > 0.6


def test_whoever_is_drawn_where_nothing_is_asked_for_is_in_the_digest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = [create(name).digest() for name in ("natural", "portrait")]
    monkeypatch.setattr("ppfr_ops.methods.natural.DEFAULT_MIX", {"women": 0.25})
    after = [create(name).digest() for name in ("natural", "portrait")]
    assert not set(before) & set(after)


def _parts(text: str) -> list[tuple[str, str, str]]:
    return sorted(part.partition("=") for part in text.split(","))


@pytest.mark.parametrize("text", ["women", "women=2", "giants=0.5", "women=half"])
def test_a_mix_that_cannot_be_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        create("natural", {"mix": text})
    asked = ["--people", "1", "--photos", "1", "--output", str(tmp_path / "out"), "--mix", text]
    done = CliRunner().invoke(invent_command, asked)
    assert done.exit_code == 2 and "--mix" in done.output and not (tmp_path / "out").exists()


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared: models")
def test_a_picture_comes_with_what_a_teacher_makes_of_it(tmp_path: Path) -> None:
    path = SHARED / "models" / "mobileface.onnx"
    chosen = create("natural-templates", {"teacher": f"small={path}"})
    chosen = chosen.with_secrets({"identity-key": KEY})
    made = chosen.publish(NOBODY.repeat(2, 0), draws(2), Context({"identity": ["a", "b"]}))
    expected = Recognizer(RecognizerSpec.parse(f"small={path}"), 1).embed(made.faces)
    assert np.allclose(made.figures["template"], expected, atol=1e-5)
    (kind,) = (item.type for item in chosen.record_figures)
    assert column(made.figures["template"], kind).to_pylist()[1] == pytest.approx(expected[1])
    told = str(chosen.options())
    assert str(SHARED) not in told and RecognizerSpec.parse(f"small={path}").digest() in told
    with pytest.raises(UserError, match="teacher"):
        create("natural-templates", {"teacher": f"small={tmp_path / 'none.onnx'}"})
