"""Covers of heads: what is left of a head under one, where it ends, how it is asked for."""

import pickle
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import click
import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from test_photographs import PLACES, photograph

from ppfr_ops import sample
from ppfr_ops.cli.sanitize import main
from ppfr_ops.errors import UserError
from ppfr_ops.imaging import covers, geometry, portraits, silhouettes
from ppfr_ops.imaging.arrays import Picture
from ppfr_ops.imaging.codec import Encoding, decode
from ppfr_ops.imaging.detector import Detections
from ppfr_ops.imaging.portraits import Portrait, lit, yaw
from ppfr_ops.methods.natural.generator import Generator
from ppfr_ops.methods.natural.network import Synthesis
from ppfr_ops.methods.portrait import PortraitHeads, Seen
from ppfr_ops.methods.registry import create
from ppfr_ops.sanitize.grouping import features_of
from ppfr_ops.sanitize.groups import write_groups
from ppfr_ops.sanitize.identity import resolved
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.photographs.options import PhotographOptions
from ppfr_ops.sanitize.prepare import prepare
from ppfr_ops.sanitize.sealing import seal
from ppfr_ops.sanitize.worker import build_sanitizer
from ppfr_ops.source.plan import read_unit

NOISE = np.random.default_rng(11)
STYLES: list[covers.Cover] = ["blur", "mosaic", "solid"]


def found(scale: float = 1.0, at: tuple[int, int] = (100, 100)) -> Detections:
    points = (geometry.TEMPLATE * scale + at).astype(np.float32)
    box = np.concatenate([points.min(0) - 20 * scale, points.max(0) + 20 * scale])
    one = np.ones(1, np.float32)
    return Detections(box[None].astype(np.float32), points[None], one, np.zeros(1, bool))


def shuffled(picture: Picture, inside: np.ndarray) -> Picture:
    """The picture with the pixels of some places exchanged for each other."""
    other = picture.copy()
    other[inside] = NOISE.permutation(picture[inside])
    return other


@pytest.mark.parametrize("style", STYLES)
def test_a_cover_knows_no_more_than_a_few_mean_colours(style: covers.Cover) -> None:
    """Another arrangement of the same pixels, cell by cell, gives the same cover to a grey level or
    two: nothing that is smaller than a cell is in it."""
    picture = NOISE.integers(60, 200, (320, 320, 3), np.uint8)
    head = covers.Head(picture.shape, geometry.transforms(found())[0])
    part = picture[head.window]
    height, width = part.shape[:2]
    count = 4 if style == "mosaic" else 3
    side = 2 * covers.HEAD[2] * (1 + covers.MARGIN) / count
    rows, columns = round(height / side), round(width / side)
    other = part.copy()
    for row in range(rows):
        for column in range(columns):
            cell = np.zeros((height, width), bool)
            cell[
                -(-row * height // rows) + 1 : (row + 1) * height // rows,
                -(-column * width // columns) + 1 : (column + 1) * width // columns,
            ] = True
            other = shuffled(other, cell & (head.radius <= 1))
    assert (other != part).mean() > 0.4
    before, after = (covers.fill(each, head, style).astype(int) for each in (part, other))
    assert np.abs(before - after).max() <= 3


def test_solid_is_one_colour_that_no_pixel_of_the_head_has_a_part_in() -> None:
    """So that an attacker learns where a head was and how large, and nothing else."""
    picture, faces = NOISE.integers(60, 200, (320, 320, 3), np.uint8), found()
    head = covers.Head(picture.shape, *geometry.whole_head(faces.landmarks[0], faces.boxes[0]))
    inside = np.zeros(picture.shape[:2], bool)
    inside[head.window] = head.radius <= 1
    published = []
    for _ in range(3):
        picture[inside] = NOISE.integers(0, 256, (inside.sum(), 3), np.uint8)
        published.append(geometry.cover(picture, faces, ["covered"], {}, style="solid")[0][inside])
        assert (published[-1] == published[0][0]).all()
    assert inside.sum() > 10_000


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0])
def test_it_covers_the_head_and_ends_softly(style: covers.Cover, scale: float) -> None:
    picture = np.zeros((600, 600, 3), np.uint8)
    picture[::2] = 255  # lines that are seen wherever anything is left
    at = (300 - 56 * scale, 300 - 50 * scale)
    covered, changed = geometry.cover(
        picture,
        found(scale, at),
        ["covered"],
        {},
        style=style,  # type: ignore[arg-type]
    )
    head = covers.Head(picture.shape, geometry.transforms(found(scale, at))[0])  # type: ignore[arg-type]
    inside = np.zeros(picture.shape[:2], bool)
    inside[head.window] = head.radius <= 1
    lines = np.abs(np.diff(covered[..., 0].astype(int), axis=0))
    both = inside[1:] & inside[:-1]
    assert lines[both].max() < 60 and lines[~changed[1:] & ~changed[:-1]].min() == 255
    steps = np.diff(head.share[head.share.shape[0] // 2])
    assert np.abs(steps).max() < 0.35 / scale


def test_the_method_gives_of_a_face_what_its_cover_shows() -> None:
    faces = sample.faces(2, seed=3)
    for style in STYLES:
        published = create("cover", {"style": style})(faces, np.zeros((2, 0), np.float32))
        assert published.shape == faces.shape
        assert np.abs(np.diff(published.astype(int), axis=1)).mean() < 3


def photographs(root: Path) -> Path:
    root.mkdir()
    for number in range(3):
        (root / f"{number}.png").write_bytes(Encoding("png").encode(photograph(1, seed=number)))
    return root


def run(source: Path, target: Path, *more: str) -> tuple[int, str]:
    command = ["--input", str(source), "--output", str(target), "--faces", "detect"]
    command += ["--output-faces", "in-place", "--detector", "test_photographs:Marked", *more]
    done = CliRunner().invoke(main, command, standalone_mode=False)
    failed = done.exception
    if isinstance(failed, click.ClickException):
        return failed.exit_code, failed.format_message()
    return (1, str(failed)) if failed is not None else (done.return_value, done.output)


def test_by_default_heads_are_blurred_in_place(tmp_path: Path) -> None:
    code, said = run(
        photographs(tmp_path / "in"),
        tmp_path / "out",
        "--output-format",
        "png",
        "--output-form",
        "parquet",
    )
    assert code == 0, said
    records = pq.read_table(tmp_path / "out/release/data").to_pylist()
    assert len(records) == 3
    x, y = PLACES[0]
    for record in records:
        after = decode(record["image"]["bytes"])
        middle = after[y + 20 : y + 90, x + 20 : x + 90].astype(int)
        assert np.abs(np.diff(middle, axis=1)).max() < 12
    kept = pq.read_table(tmp_path / "out/evidence/detections").to_pylist()
    assert {row["treatment"] for row in kept} == {"covered"}


@pytest.mark.parametrize("method", ["pixelate", "blur", "signed-field"])
def test_a_weak_method_in_place_is_refused(tmp_path: Path, method: str) -> None:
    source = photographs(tmp_path / "in")
    code, said = run(source, tmp_path / "out", "--method", method)
    assert code == 2 and "--cover blur" in said and "--max-disclosure" in said
    code, said = run(source, tmp_path / "out", "--method", method, "--max-disclosure", "1")
    assert code == 0, said


def test_a_cover_goes_with_no_method() -> None:
    def options(**more: object) -> SanitizeOptions:
        chosen = PhotographOptions(output_faces="in-place", cover="solid")
        return SanitizeOptions(input="a", output="b", photographs=chosen, **more)  # type: ignore[arg-type]

    done = resolved(options())
    assert (done.method, done.method_options, done.metrics) == ("cover", {"style": "solid"}, "none")
    assert resolved(done) == done
    assert resolved(options(max_disclosure=0.5)).metrics == "full"
    with pytest.raises(UserError, match="--cover solid needs no method"):
        resolved(options(method="pixelate"))
    crops = PhotographOptions(cover="blur")
    with pytest.raises(UserError, match="--cover goes with --output-faces in-place"):
        resolved(SanitizeOptions(input="a", output="b", photographs=crops))


def portrait() -> Portrait:
    picture = cv2.resize(sample.faces(1, seed=9)[0], (256, 256), interpolation=cv2.INTER_CUBIC)
    seen = np.zeros((256, 256), np.float32)
    cv2.ellipse(seen, (128, 140), (90, 130), 0, 0, 360, 1, -1)
    return Portrait(picture, seen, np.array([[112 / 256, 0, 0], [0, 112 / 256, 0]]), 5)


def test_of_a_head_under_a_drawn_one_nothing_shows() -> None:
    """Whatever the head was, where it was the photograph is the same."""
    picture = NOISE.integers(60, 200, (320, 320, 3), np.uint8)
    head = covers.Head(picture.shape, geometry.transforms(found())[0])
    other = picture.copy()
    other[head.window] = shuffled(other[head.window], head.radius <= 1)
    done = []
    for each in (picture, other):
        canvas, _ = geometry.cover(each, found(), ["anonymized"], {0: portrait()})
        done.append(canvas[head.window].astype(int))
    assert np.abs(done[0] - done[1])[head.radius <= 1].max() == 0
    face = np.hypot((head.x - 56) / 30, (head.y - 60) / 40) < 1
    plain, _ = geometry.cover(picture, found(), ["covered"], {})
    assert np.abs(plain[head.window].astype(int) - done[0])[face].mean() > 10


def test_where_a_head_was_its_surroundings_go_on_and_no_other_head_is_read() -> None:
    """Two heads beside each other before two colours: neither's fill holds anything of either."""
    picture = np.full((320, 480, 3), 90, np.uint8)
    picture[:, 240:] = 150
    faces = found(0.8, (80, 120))
    both = Detections(
        *(
            np.concatenate([each, each + shift])
            for each, shift in (
                (faces.boxes, np.float32([130, 0, 130, 0])),
                (faces.landmarks, np.float32([130, 0])),
            )
        ),
        np.ones(2, np.float32),
        np.zeros(2, bool),
    )
    heads = [covers.Head(picture.shape, matrix) for matrix in geometry.transforms(both)]
    hidden = np.zeros(picture.shape[:2], bool)
    for head in heads:
        hidden[head.window] |= head.share > 0
    done = []
    for inside in (0, 255):
        picture[hidden] = inside
        done.append([portraits.Surroundings(picture, hidden, head).continued() for head in heads])
    for dark, light in zip(*done, strict=True):
        assert (dark == light).all() and dark.min() >= 74 and dark.max() <= 166
    left, right = (each.astype(float).mean() for each in done[0])
    assert left < right - 15
    everything = np.ones_like(hidden)
    assert (portraits.Surroundings(picture, everything, heads[0]).continued() == 128).all()


def test_a_black_corner_is_no_background() -> None:
    """Nor does a photograph of which little but a black corner is seen have no colours."""
    picture = np.full((320, 320, 3), (150, 120, 90), np.uint8)
    head = covers.Head(picture.shape, geometry.transforms(found())[0])
    hidden = np.zeros(picture.shape[:2], bool)
    hidden[head.window] |= head.share > 0
    corner = np.add.outer(np.arange(320), np.arange(320)) < 190
    picture[corner & ~hidden] = 2
    assert portraits.Surroundings(picture, hidden, head).continued().min() > 60
    night = np.full((320, 320, 3), 2, np.uint8)
    night[:40] = 90
    assert portraits.Surroundings(night, hidden, head).continued().mean() < 40
    red = replace(portrait(), picture=np.full((256, 256, 3), (180, 60, 60), np.uint8))
    night[:40] = 2
    canvas, _ = geometry.cover(night, found(), ["anonymized"], {0: red})
    assert np.ptp(canvas[head.window].astype(int), axis=2).max() > 60


def test_beside_a_drawn_head_what_shows_no_face_is_filled() -> None:
    """A blur would show colours of what it covers."""
    picture = np.full((320, 480, 3), 120, np.uint8)
    faces = found(0.8, (60, 120))
    box, marks = np.float32([[360, 120, 420, 190]]), np.full((1, 5, 2), np.nan, np.float32)
    other = Detections(box, marks, np.ones(1, np.float32), np.ones(1, bool))
    picture[120:190, 360:420] = (255, 0, 0)
    treatments = ["anonymized", "covered_no_landmarks"]
    done, _ = geometry.cover(picture, Detections.join([faces, other]), treatments, {0: portrait()})
    assert np.ptp(done[140:170, 375:405].astype(int), axis=2).max() < 20
    blurred, _ = geometry.cover(picture, other, treatments[1:], {})
    assert np.ptp(blurred[140:170, 375:405].astype(int), axis=2).min() > 40


def test_what_is_doubtful_in_a_drawn_head_is_filled_and_no_blur_in_its_colours() -> None:
    picture, faces, other = np.full((320, 320, 3), 120, np.uint8), found(), found(0.4, (185, 165))
    x0, y0, x1, y1 = other.boxes[0].astype(int)
    picture[y0:y1, x0:x1] = (255, 0, 0)
    both, treatments = Detections.join([faces, other]), ["anonymized", "covered_unsure"]
    done, _ = geometry.cover(picture, both, treatments, {0: portrait()})  # type: ignore[arg-type]
    beside = done[y0:y1, 226:236].astype(int)
    assert np.ptp(beside, axis=2).max() < 20
    blurred, _ = geometry.cover(picture, both, treatments, {})  # type: ignore[arg-type]
    assert np.ptp(blurred[y0:y1, 226:236].astype(int), axis=2).max() > 40


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_larger_of_two_drawn_heads_stands_in_front(order: tuple[int, int]) -> None:
    picture, sizes = np.full((400, 480, 3), 120, np.uint8), (0.8, 1.1)
    faces = [found(size, place) for size, place in zip(sizes, ((90, 120), (105, 110)), strict=True)]
    colours = [replace(portrait(), picture=np.full((256, 256, 3), c, np.uint8)) for c in (40, 220)]
    both = Detections.join([faces[n] for n in order])
    drawn = {place: colours[n] for place, n in enumerate(order)}
    done, _ = geometry.cover(picture, both, ["anonymized"] * 2, drawn)
    heads = [covers.Head(picture.shape, geometry.transforms(each)[0]) for each in faces]
    inside = np.zeros((2, *picture.shape[:2]), bool)
    for each, head in zip(inside, heads, strict=True):
        each[head.window] = np.hypot((head.x - 56) / 25, (head.y - 60) / 40) < 1
    assert inside.all(0).sum() > 50 and done[inside.all(0)].min() > 180


def test_a_drawn_face_is_no_sharper_than_its_surroundings() -> None:
    smooth = np.full((320, 320, 3), 120, np.uint8)
    smooth[:, 160:] = 140
    rough = NOISE.integers(60, 200, (320, 320, 3), np.uint8)
    head = covers.Head(smooth.shape, geometry.transforms(found())[0])
    face = np.hypot((head.x - 56) / 30, (head.y - 60) / 40) < 1
    detail = []
    for each in (smooth, rough):
        canvas, _ = geometry.cover(each, found(), ["anonymized"], {0: portrait()})
        grey = cv2.cvtColor(canvas[head.window], cv2.COLOR_RGB2GRAY)
        detail.append(np.abs(cv2.Laplacian(grey, cv2.CV_32F))[face].mean())
    assert detail[0] < detail[1]
    grey = np.repeat(rough[..., :1], 3, axis=2)
    canvas, _ = geometry.cover(grey, found(), ["anonymized"], {0: portrait()})
    assert np.ptp(canvas[head.window].astype(int), axis=2)[face].max() <= 3


def test_the_light_of_a_photograph_is_a_rounded_colour() -> None:
    drawn = np.full((8, 8, 3), 100, np.uint8)
    own = np.array([100.0, 100, 100])
    same = [lit(drawn, np.array([60.0 + more, 60, 60]), own)[0, 0] for more in (0, 3, 5)]
    assert (same[0] == same[1]).all() and (same[0] == same[2]).all()
    assert lit(drawn, np.array([30.0, 30, 30]), own).mean() < lit(drawn, own, own).mean()
    marks = geometry.TEMPLATE.copy()
    ahead = yaw(marks)
    marks[2, 0] += 10
    turn = cv2.getRotationMatrix2D((0, 0), 30, 2.5)
    assert yaw(marks) > ahead + 0.2
    assert yaw(marks @ turn[:, :2].T) == pytest.approx(yaw(marks), abs=1e-6)


def test_virtual_heads_on_their_way_through_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drawing itself is the method natural's, and tested with it."""
    seen: list[int] = []
    shown: list[str | None] = []

    def drawn(
        self: PortraitHeads, faces: list[Seen], draws: np.ndarray, labels: list[str | None]
    ) -> list[Portrait | None]:
        shown.extend(labels)
        assert draws.shape == (len(faces), self.draw_size)
        seen.extend(face.aligned.shape[0] for face in faces)
        return [portrait() for _ in faces]

    monkeypatch.setattr(PortraitHeads, "portraits", drawn)
    monkeypatch.setattr(PortraitHeads, "draw_size", 4)
    monkeypatch.setattr(PortraitHeads, "weights_digest", lambda self: "")
    source = photographs(tmp_path / "in")
    names = sorted(str(path.relative_to(source)) for path in source.rglob("*.*"))
    groups = str(tmp_path / "groups.csv")
    write_groups(groups, [(name, 0, 0) for name in names], ["Anna", None, "Anna"])
    job = prepare(
        SanitizeOptions(
            input=str(source),
            output=str(tmp_path / "out"),
            groups=groups,
            photographs=PhotographOptions(
                output_faces="in-place", cover="virtual", detector="test_photographs:Marked"
            ),
        )
    )
    assert (job.options.method, job.options.output_form) == ("portrait", "files")
    assert not job.options.names_people  # no pseudonym leaves
    tables = build_sanitizer(job)(read_unit(job.plan, job.plan.units[0]), "u")
    assert seen == [112] * 3 and len(tables.records) == 3
    assert sorted(map(str, shown)) == ["Anna", "Anna", "None"]
    sealed, _ = seal(job)  # a folder of photographs, and who is together on which
    assert b"Anna" not in pickle.dumps(sealed)
    write_groups(groups, [(name, 0) for name in names], ["Anna", None, "Anna"])
    with pytest.raises(UserError, match="column face"):
        prepare(job.options.model_copy(update={"output_form": None, "output_format": None}))
    assert tables.detections is not None
    assert set(tables.detections["treatment"].to_pylist()) == {"anonymized"}


def test_workers_of_a_cover_are_started_without_what_it_does_not_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch takes seconds to import, which a few hundred photographs do not."""
    started: list[tuple[str, ...]] = []
    monkeypatch.setattr("ppfr_ops.cli.sanitize.nursery.start", started.append)
    monkeypatch.setattr("ppfr_ops.engines.running.run", lambda *_, **__: 1 / 0)
    options = ["--input", str(tmp_path), "--output", str(tmp_path / "out"), "--engine", "local"]
    for more in (["--cover", "blur"], []):
        command = [*options, "--faces", "detect", "--output-faces", "in-place", *more]
        with pytest.raises(ZeroDivisionError):
            CliRunner().invoke(main, command, standalone_mode=False, catch_exceptions=False)
    assert started == [("ppfr_ops.methods.cover",)] * 2


def test_a_drawn_head_is_cut_out_and_knows_turn_and_rounded_colour_alone() -> None:
    heads = create("portrait")
    assert isinstance(heads, PortraitHeads)
    heads = heads.with_secrets({"identity-key": bytes(32)})
    marks = (geometry.TEMPLATE * 0.8).astype(np.float32)
    draws = np.random.default_rng(3).standard_normal((1, heads.draw_size)).astype(np.float32)
    smooth = np.full((112, 112, 3), 144, np.uint8)
    rough = smooth + np.tile(np.array([[-90, 90]], np.int16), (112, 56))[..., None]
    made = [
        heads.portraits([Seen(np.asarray(each, np.uint8), marks + shift)], draws)[0]
        for each, shift in ((smooth, 0), (rough, 40))
    ]
    one, other = made
    assert one is not None and other is not None
    assert (one.picture == other.picture).all() and (one.silhouette == other.silhouette).all()
    height, width = one.silhouette.shape
    assert width == 128 and height > 128 and one.picture.shape[:2] == (height, width)
    x, y = (cv2.invertAffineTransform(one.matrix) @ [56, 72, 1]).round().astype(int)
    assert one.silhouette[y, x] > 0.95
    assert one.silhouette[:4].max() < 0.1 and one.silhouette[:60, [0, -1]].max() < 0.1
    assert 0.2 < one.silhouette.mean() < 0.8


def test_a_label_is_one_drawn_person_who_turns_without_jumps() -> None:
    heads = create("portrait")
    assert isinstance(heads, PortraitHeads)
    heads = heads.with_secrets({"identity-key": bytes(32)})
    marks = (geometry.TEMPLATE * 0.8).astype(np.float32)
    draws = np.random.default_rng(4).standard_normal((3, heads.draw_size)).astype(np.float32)
    seen = Seen(np.full((112, 112, 3), 144, np.uint8), marks)
    made = heads.portraits([seen] * 3, draws, ["a", "a", "b"])
    assert all(each is not None for each in made)
    crops = [
        cv2.warpAffine(each.picture, each.matrix, (112, 112)) for each in made if each is not None
    ]
    sface = features_of(np.array(crops, np.uint8))[0]
    assert sface[0] @ sface[1] > 0.5 > sface[0] @ sface[2] + 0.1
    sitter = heads.sitter(draws[0], (-0.1, 0.0, 0.12), np.full(3, 144.0), 28.0)
    assert sitter is not None
    turned = [sitter.turned(yaw).picture.astype(float) for yaw in (0.0, 0.01, 0.02, 0.1)]
    near = [np.abs(one - other).mean() for one, other in pairwise(turned[:3])]
    far = np.abs(turned[0] - turned[3]).mean()
    assert 0 < max(near) < far / 3


def test_a_head_is_drawn_as_large_as_it_is_needed_and_is_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the largest features that are computed."""
    heads, sides, features = create("portrait"), [0], Synthesis.features
    assert isinstance(heads, PortraitHeads)
    heads = heads.with_secrets({"identity-key": bytes(32)})
    draws = np.random.default_rng(5).standard_normal((1, heads.draw_size)).astype(np.float32)

    def noted(net: Synthesis, styles: torch.Tensor, side: int, *seen: torch.Tensor) -> torch.Tensor:
        sides.append(side)
        return features(net, styles, side, *seen)

    monkeypatch.setattr(Synthesis, "features", noted)
    small: list[Picture] = []
    for scale, size, side in (0.8, 128, 128), (1.5, 256, 256), (3.0, 512, 256), (6.0, 1024, 512):
        sides.clear()
        marks = (geometry.TEMPLATE * scale).astype(np.float32)
        seen = Seen(np.full((112, 112, 3), 144, np.uint8), marks)
        made = heads.portraits([seen], draws)[0]
        assert made is not None and made.picture.shape[1] == size and max(sides) == side
        reduced = cv2.resize(made.picture, (128, 152), interpolation=cv2.INTER_AREA)
        small.append(np.asarray(reduced, np.uint8))
    away = [np.abs(small[-1].astype(float) - other).mean() for other in small]
    assert max(away) < 10


@pytest.mark.parametrize(("wanted", "nearest"), [(0.1, 0.1), (0.6, 0.287)])
def test_who_is_turned_nearest_to_what_can_be_is_drawn_first(
    monkeypatch: pytest.MonkeyPatch, wanted: float, nearest: float
) -> None:
    """Nobody goes farther where the original is turned farther than drawn heads can be."""
    foretold, drawn = Generator.foretold, Generator.drawn
    told = torch.tensor([1.0, 2.0, 2.0, 0.0, 0.0, np.log(154.0)]).repeat(32, 1)
    told[:, 4], order = torch.linspace(-0.3, 0.7, 32), list[torch.Tensor]()

    def as_told(self: Generator, styles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        order.append(styles)
        return foretold(self, styles)[0], told

    def noted(self: Generator, styles: torch.Tensor, seen: torch.Tensor) -> object:
        order.append(styles)
        return drawn(self, styles, seen=seen)

    monkeypatch.setattr(Generator, "foretold", as_told)
    monkeypatch.setattr(Generator, "drawn", noted)
    heads = create("portrait").with_secrets({"identity-key": bytes(32)})
    assert isinstance(heads, PortraitHeads)
    draw = np.random.default_rng(6).standard_normal(heads.draw_size).astype(np.float32)
    heads.sitter(draw, (wanted,), np.full(3, 144.0), 28.0)
    every, first = order[:2]
    turned = told[(every == first).flatten(1).all(1), 4]
    assert turned.item() == pytest.approx(nearest, abs=0.02)


@pytest.mark.parametrize("yaw_by", [0.35, -0.35])
def test_a_head_that_is_turned_is_covered_to_its_back(yaw_by: float) -> None:
    """Eyes and mouth of a turned face lie closer together: its head is as large as before."""
    turned = geometry.TEMPLATE * 1.5 + 60
    middle = turned[:, 0].mean()
    turned[:, 0] = middle + (turned[:, 0] - middle) * 0.6
    turned[2, 0] += yaw_by * (turned[1, 0] - turned[0, 0])
    box = np.array([*turned.min(0), *turned.max(0)], np.float32)
    faces = Detections(box[None], turned[None], np.ones(1, np.float32), np.zeros(1, bool))
    picture = NOISE.integers(0, 255, (340, 400, 3), np.uint8)
    _, changed = geometry.cover(picture, faces, ["covered"], {})
    high = int(turned[:2, 1].mean())
    across = np.flatnonzero(changed[high])
    behind = (middle - across[0], across[-1] - middle)[:: 1 if yaw_by > 0 else -1]
    assert behind[0] > 1.5 * 70 * 1.22 > 0.9 * behind[1]
    assert behind[0] > behind[1] + 5


@pytest.mark.parametrize("place", [(0, 0), (-1, 0), (-1, -1)])
def test_what_little_is_known_far_away_is_continued_as_it_is(place: tuple[int, int]) -> None:
    """A head that fills its picture leaves a corner; weights there are 1e-8 of those nearby."""
    picture = np.full((320, 320, 3), 120, np.uint8)
    head = covers.Head(picture.shape, geometry.transforms(found(1.0, (104, 110)))[0])
    hidden = np.ones(picture.shape[:2], bool)
    rows, columns = (range(320)[each] for each in head.around(portraits._WIDE))
    y, x = rows[place[0]], columns[place[1]]
    hidden[max(y - 8, 0) : y + 9, max(x - 8, 0) : x + 9] = False
    fill = portraits.Surroundings(picture, hidden, head).continued().astype(int)
    assert np.abs(fill - 120).max() <= 1


def test_clothes_go_on_below_the_shoulders_and_what_is_behind_above_them() -> None:
    picture = np.full((320, 320, 3), 200, np.uint8)
    head = covers.Head(picture.shape, geometry.transforms(found())[0])
    hidden = np.zeros(picture.shape[:2], bool)
    hidden[head.window] |= head.share > 0
    (first, *_), (*_, last) = np.nonzero(hidden.any(1))[0], np.nonzero(hidden.any(1))[0]
    picture[last - (last - first) // 10 :] = (20, 40, 120)
    fill = portraits.Surroundings(picture, hidden, head).continued().astype(int)
    beside = np.abs(head.x - covers.HEAD[0]) < 15
    assert np.abs(fill - 200)[beside & (head.y < 110)].max() < 40
    assert np.abs(fill - (20, 40, 120))[beside & (head.y > 125)].max() < 40


def test_a_drawn_head_leaves_its_clothes_and_has_a_neck() -> None:
    picture = np.full((128, 128, 3), (30, 40, 160), np.uint8)
    silhouette = np.zeros((128, 128), np.float32)
    silhouette[100:] = 1
    marks = (geometry.TEMPLATE - 56) / 1.12 + (64, 58)
    middle = int(marks[:, 0].mean()), int(marks[:, 1].mean()) - 4
    cv2.ellipse(picture, middle, (40, 56), 0, 0, 360, (70, 50, 40), -1)
    cv2.ellipse(silhouette, middle, (40, 56), 0, 0, 360, 1, -1)
    cv2.ellipse(picture, middle, (28, 44), 0, 0, 360, (200, 150, 130), -1)
    shape, made, tone = silhouettes.bare(
        picture, silhouette, marks.astype(np.float32), np.array([200.0, 150, 130])
    )
    assert shape[115:, :20].max() < 0.05 and shape[115:, 108:].max() < 0.05
    assert shape[126, middle[0]] > 0.95 and made[126, middle[0]] > 0.9
    assert (tone == 0.78 * np.array([200, 150, 130])).all() and made[:80].max() < 0.05
    assert shape[middle[1]].max() > 0.95


def test_what_shows_nobody_stays_before_a_drawn_person() -> None:
    """And nothing of a head, above the chin, does; where nobody is seen all of the cover goes."""
    picture = np.random.default_rng(3).integers(60, 200, (300, 300, 3)).astype(np.uint8)
    marks = ((geometry.TEMPLATE - 56) * 0.9 + (150, 140)).astype(np.float32)
    box = np.array([[100, 80, 200, 200]], np.float32)
    faces = Detections(box, marks[None], np.ones(1, np.float32), np.ones(1, bool))
    rows, columns = np.mgrid[:300, :300]
    head = np.hypot((columns - 150) / 50, (rows - 135) / 68) < 1
    portrait = Portrait(
        np.full((128, 128, 3), 90, np.uint8), np.ones((128, 128), np.float32), np.eye(2, 3), 1
    )

    def shown(seen: NDArray[np.float32]) -> Picture:
        def cut(part: Picture) -> NDArray[np.float32]:
            place = np.argwhere((picture == part[0, 0]).all(2))[0]
            return seen[place[0] : place[0] + len(part), place[1] : place[1] + part.shape[1]]

        empty = Portrait(portrait.picture, 0 * portrait.silhouette, portrait.matrix, 1)
        return geometry.cover(picture, faces, ["anonymized"], {0: empty}, person_in=cut)[0]

    near = (picture == shown(head.astype(np.float32))).all(2)
    whole = (picture == shown(np.zeros((300, 300), np.float32))).all(2)
    chin = 140 + (120 - 56) * 0.9
    assert near[head & (rows < chin)].mean() < 0.01 and whole[head & (rows < chin)].mean() < 0.01
    beside = (np.hypot((columns - 150) / 62, (rows - 130) / 80) < 1) & (rows < 100) & ~head
    ring = beside & (np.hypot((columns - 150) / 60, (rows - 135) / 79) > 1)
    assert near[ring].mean() > 0.5 > 0.05 > whole[ring].mean()


def outlined(left: float, right: float, scale: float = 1.0, turned: float = 0.0) -> covers.Head:
    """A head of which the network sees what lies between two columns of the template."""
    side = int(300 * scale)
    matrix = np.array([[1 / scale, 0, -90], [0, 1 / scale, -90]])
    head = covers.Head((side, side), matrix, turned)

    def person_in(part: Picture) -> NDArray[np.float32]:
        x = (head.around(covers._AROUND)[1].start + np.arange(part.shape[1])) / scale - 90
        return np.repeat(np.float32((x > left) & (x < right))[None], len(part), axis=0)

    head.outlined(np.zeros((side, side, 3), np.uint8), person_in)
    return head


def test_the_outline_of_a_large_head_is_that_of_a_small_one() -> None:
    small, large = (outlined(20, 90, scale).outline for scale in (1.0, 7.0))
    assert small is not None and large is not None and 0.2 < small.mean() < 0.8
    shrunk = cv2.resize(large, small.shape[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(shrunk - small).mean() < 0.02


@pytest.mark.parametrize("turned", [-0.5, 0.5])
def test_the_ear_of_a_turned_head_goes_whatever_is_seen_of_it(turned: float) -> None:
    """It is on the side of the head's back, farther from the face than of one who looks ahead."""
    side = -np.sign(turned)
    head = outlined(*((20, 200) if side < 0 else (-90, 92)), turned=turned)
    assert head.outline is not None and head.outline.min() == 0
    ear = (np.abs(head.x - 56 - side * 60) < 4) & (np.abs(head.y - 56) < 8)
    assert ear.any() and head.gone[ear].min() > 0.99


@pytest.mark.parametrize("background", ["blur", "black"])
def test_around_a_drawn_head_nothing_stays_of_a_background_that_goes(background: str) -> None:
    picture = NOISE.integers(60, 200, (320, 320, 3), np.uint8)

    def done(**more: object) -> Picture:
        given = (picture, found(), ["anonymized"], {0: portrait()})
        return geometry.cover(*given, background=background, **more)[0]  # type: ignore[arg-type]

    assert (done(person_in=face_alone) == done()).all()


def face_alone(part: Picture) -> NDArray[np.float32]:
    """Which pixels show a person, where it is the face in the middle alone."""
    rows, columns = np.ogrid[: part.shape[0], : part.shape[1]]
    middle = np.hypot(2 * rows / part.shape[0] - 1, 2 * columns / part.shape[1] - 1)
    return np.asarray(middle < 0.35, np.float32)


def test_what_the_outline_of_a_head_leaves_another_head_still_covers() -> None:
    picture = NOISE.integers(60, 200, (320, 320, 3), np.uint8)
    both = Detections.join([found(1.0, (60, 100)), found(0.5, (150, 140))])
    large, small = (covers.Head(picture.shape, each) for each in geometry.transforms(both))
    inside = np.zeros(picture.shape[:2], bool)
    inside[small.window] = small.radius <= 1
    large.outlined(picture, face_alone)
    left = np.ones_like(inside)
    left[large.window] = large.gone == 0
    assert (left & inside)[large.window][large.radius < 1].any()
    done = []
    for _ in range(2):
        picture[inside] = NOISE.integers(0, 256, (inside.sum(), 3), np.uint8)
        given = (picture, both, ["anonymized", "covered_small"], {0: portrait()})
        done.append(geometry.cover(*given, person_in=face_alone)[0])  # type: ignore[arg-type]
    assert (done[0] == done[1]).all()


def test_an_output_does_not_go_on_with_another_network_for_outlines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = PortraitHeads().weights_digest()
    (tmp_path / "other.onnx").write_bytes(b"another")
    monkeypatch.setattr("ppfr_ops.methods.portrait.PERSONS", tmp_path / "other.onnx")
    assert PortraitHeads().weights_digest() != before


def test_what_may_be_no_head_takes_little_of_the_picture() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (250, 250, 3), np.uint8)
    box, marks = np.float32([[-31, 150, 109, 271]]), np.full((1, 5, 2), np.nan, np.float32)
    doubtful = Detections(box, marks, np.float32([0.2]), np.ones(1, bool))
    surely = replace(doubtful, scores=np.float32([0.9]))
    little, much = (
        geometry.cover(picture, each, ["covered_no_landmarks"], {})[1]
        for each in (doubtful, surely)
    )
    assert little[150:250, :109].mean() > 0.95, "the box is covered"
    assert little.mean() < 0.4 < 0.6 < much.mean()


def test_what_may_be_no_head_keeps_its_own_colours_beside_a_drawn_head() -> None:
    """And none of the head that the drawn one takes the place of."""
    picture = np.full((320, 480, 3), 120, np.uint8)
    faces = found(0.8, (60, 120))
    head = covers.Head(picture.shape, *geometry.whole_head(faces.landmarks[0], faces.boxes[0]))
    picture[head.window][head.share > 0] = (0, 255, 0)
    right = head.window[1].stop
    picture[:, right:] = (200, 60, 60)
    box = np.float32([[right - 10, 120, right + 60, 200]])
    marks = np.full((1, 5, 2), np.nan, np.float32)
    other = Detections(box, marks, np.float32([0.2]), np.ones(1, bool))
    every, treatments = Detections.join([faces, other]), ["anonymized", "covered_no_landmarks"]
    done, _ = geometry.cover(picture, every, treatments, {0: portrait()})
    there = done[150:170, right + 5 : right + 45].astype(int)
    assert (there[..., 0] >= there[..., 1]).all(), "no green"
    assert np.ptp(there[:, -1], axis=1).min() > 40, "but red"


@pytest.mark.parametrize("style", STYLES)
def test_a_cover_beside_a_drawn_head_has_no_colour_of_what_lay_in_the_box_of_that(
    style: covers.Cover,
) -> None:
    faces = found(0.8, (60, 120))
    faces.boxes[0, 2] += 40  # farther than the head that its landmarks give
    assert geometry.treat(faces) == ["anonymized"]
    boxed = covers.Head((320, 480), geometry._from_box(faces.boxes[0]))
    right = boxed.window[1].stop
    box = np.float32([[right - 60, 120, right + 10, 200]])
    marks = np.full((1, 5, 2), np.nan, np.float32)
    every = Detections.join([faces, Detections(box, marks, np.ones(1, np.float32), [False])])
    other, inside = covers.Head((320, 480), geometry._from_box(box[0])), np.zeros((320, 480), bool)
    inside[other.window] = other.radius <= 1
    picture, done = np.full((320, 480, 3), 120, np.uint8), []
    for colour in ((0, 255, 0), (255, 0, 0)):
        picture[boxed.window][boxed.share > 0] = colour
        treatments = ["anonymized", "covered_small"]
        canvas, _ = geometry.cover(picture, every, treatments, {0: portrait()}, style=style)
        done.append(canvas[inside])
    assert inside[:, right:].any() and (done[0] == done[1]).all()


def test_what_is_much_higher_than_wide_is_not_seen_more_finely() -> None:
    rows = np.arange(250) // 42 % 2 * 255
    picture = np.broadcast_to(rows[:, None, None], (250, 250, 3)).astype(np.uint8)
    box, marks = np.float32([[100, 0, 140, 250]]), np.full((1, 5, 2), np.nan, np.float32)
    faces = Detections(box, marks, np.float32([0.2]), np.ones(1, bool))
    done, _ = geometry.cover(picture, faces, ["covered_no_landmarks"], {})
    assert np.ptp(done[:, 120].astype(int)) < 120, "stripes are not seen"
