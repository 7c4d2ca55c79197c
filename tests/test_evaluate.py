"""``ppfr evaluate`` and ``ppfr compare`` from the outside: results, resume, wrong input."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner, Result

from ppfr_ops import sample
from ppfr_ops.cli import program
from ppfr_ops.contracts.evaluation import Evaluation, Point, Recovery
from ppfr_ops.contracts.records import IMAGE_TYPE
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.lab.evaluate.remarks import trained

PEOPLE, PHOTOS = 40, 4


class Corner(torch.nn.Module):
    """A made FR model: the picture, 16x16 px of it, centred."""

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        small = torch.nn.functional.avg_pool2d(faces, 7).flatten(1)
        return torch.nn.functional.normalize(small - small.mean(1, keepdim=True), dim=1)


class Broken(torch.nn.Module):
    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        return faces.flatten(1)[:, :8] * float("nan")


class Moody(torch.nn.Module):
    """NaN for anything but the noise that a model is tried on first."""

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        unusual = (faces.mean(dim=(1, 2, 3)) - 127.5).abs() > 1.5
        return faces[:, :, 0, :8].flatten(1).masked_fill(unusual[:, None], float("nan"))


class Larger(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(160 * 160 * 3, 4)

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        return self.layer(faces.flatten(1))


def write_faces(path: Path, images: np.ndarray, names: list[str], **columns: Any) -> None:
    encoding = Encoding("png")
    rows = [{"bytes": encoding.encode(i), "path": n} for i, n in zip(images, names, strict=True)]
    pq.write_table(pa.table({"image": pa.array(rows, IMAGE_TYPE), **columns}), path)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of made people, pairs in four folds, faces to attack with, FR models."""
    root = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    base = sample.faces(PEOPLE, seed=1)
    noise = rng.normal(0, 12, (PEOPLE, PHOTOS, 112, 112, 3))
    images = np.clip(base[:, None] + noise, 0, 255).astype(np.uint8).reshape(-1, 112, 112, 3)
    names = [f"person{p:02d}_{i}.jpg" for p in range(PEOPLE) for i in range(PHOTOS)]
    who = [f"person{p:02d}" for p in range(PEOPLE) for _ in range(PHOTOS)]
    (root / "gallery").mkdir()
    for part in range(2):
        half = slice(part * 80, part * 80 + 80)
        write_faces(
            root / "gallery" / f"part-{part}.parquet", images[half], names[half], identity=who[half]
        )
    pairs: list[tuple[str, str, bool, int]] = []
    for p in range(PEOPLE):
        other = (p + 1) % PEOPLE
        pairs.append((f"person{p:02d}_0.jpg", f"person{p:02d}_1.jpg", True, p % 4))
        pairs.append((f"person{p:02d}_0.jpg", f"person{other:02d}_0.jpg", False, p % 4))
    write_pairs(root / "pairs.parquet", pairs)
    attack = np.roll(np.concatenate([base] * 11), 1, 2)[:440]
    write_faces(
        root / "attack.parquet",
        attack,
        [f"a{i}" for i in range(len(attack))],
        age=pa.array([(i * 7) % 90 if i % 11 else None for i in range(440)], pa.int16()),
        gender=pa.array([i // 10 % 2 for i in range(440)], pa.int8()),
    )
    modules = {"corner": Corner(), "broken": Broken(), "moody": Moody(), "larger": Larger()}
    for name, module in modules.items():
        torch.jit.script(module).save(str(root / f"{name}.pt"))
    return root


def write_pairs(path: Path, rows: list[tuple[str, str, bool, int]]) -> None:
    a, b, same, fold = zip(*rows, strict=True)
    pq.write_table(
        pa.table({"a": a, "b": b, "same": same, "fold": pa.array(fold, pa.int8())}), path
    )


def evaluate(world: Path, out: Path, *extra: str, **instead: str) -> Result:
    options = {
        "method": "signed-field",
        "gallery": str(world / "gallery"),
        "pairs": str(world / "pairs.parquet"),
        "attack-faces": str(world / "attack.parquet"),
        "black-box": f"corner={world / 'corner.pt'}",
        "out": str(out),
    } | {key.replace("_", "-"): value for key, value in instead.items()}
    arguments = [f"--{key}={value}" for key, value in options.items() if value]
    return CliRunner().invoke(program, ["evaluate", *arguments, *extra])


ATTACKS = "--attacks=unet,templates,averaging,fixed,leaked"
SMALL = (
    "--setting=batch=8",
    "--setting=disclosure_faces=16",
    "--setting=group_faces=44",
    "--setting=pictures=4",
    "--setting=student_pairs=32",
)
SHORT = ("--attack-steps=2", "--side-steps=1", "--averaging-faces=64", "--test-faces=8", *SMALL)
OLD = "--stages=utility,disclosure,diversity,linkage,recovery,groups"
FEW = ("--stages=utility,disclosure", *SMALL)


@pytest.fixture(scope="module")
def finished(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "signed"
    result = evaluate(world, out, *SHORT, ATTACKS, OLD, "--show-faces")
    assert result.exit_code == 0, result.output
    return out


def test_everything_is_measured(finished: Path) -> None:
    document = Evaluation.model_validate_json((finished / "evaluation.json").read_text())
    assert document.mode == "custom" and document.method == "signed-field"
    assert document.utility is not None and document.linkage is not None
    assert document.utility["corner"].original.accuracy > 0.95
    assert document.headline.black_box_accuracy == (
        document.utility["corner"].protected_protected.accuracy
    )
    assert document.linkage["corner"].rank1_original == 1
    assert document.linkage["corner"].student is not None
    assert document.diversity is not None and document.diversity.draw_similarity < 0.7
    assert document.recovery is not None and document.recovery.best in ("unet", "templates")
    knows = {name: a.knows for name, a in document.recovery.attackers.items()}
    assert knows == {
        "unet": "fresh",
        "templates": "fresh",
        "averaging": "averaging",
        "fixed": "fixed",
        "leaked": "leaked",
    }
    assert [a.steps for a in document.recovery.attackers.values()] == [2, 2, 1, 1, 1]
    assert document.recovery.attackers["averaging"].pictures == 4
    assert document.groups is not None and set(document.groups.attributes) == {"age", "gender"}
    gaps = [gap.gap for gap in document.groups.largest_gaps]
    assert gaps == sorted(gaps, reverse=True)
    measured = {gap.measure.partition("_")[0] for gap in document.groups.largest_gaps}
    assert {"accuracy", "disclosure"} <= measured
    for group_ in document.groups.attributes["gender"].values():
        assert group_.rec_ssim is not None and group_.rec_ssim_above_floor is not None
        assert group_.rec_ssim_above_floor < group_.rec_ssim
        assert all(0.4 <= value <= 1 for value in group_.accuracy.values()) and group_.accuracy
    assert any("personal data" in remark for remark in document.remarks)
    assert any("Keep no draw" in remark for remark in document.remarks)
    plots = {path.name for path in (finished / "plots").iterdir()}
    grids = {f"faces_{name}.png" for name in knows}  # --show-faces
    assert plots == grids | {"roc.png", "scores.png", "disclosure.png", "recovery.png"}
    tables = {path.stem for path in (finished / "tables").iterdir()}
    assert {"scores", "identity", "disclosure", "diversity", "linkage", "recovery_unet"} <= tables
    for folder in ("tables", "stages", "checkpoints"):
        assert not list((finished / folder).glob("*.tmp"))


def test_no_name_leaves_the_evaluation(finished: Path, world: Path) -> None:
    for path in finished.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert b"person0" not in data and str(world).encode() not in data


def test_it_goes_on_where_it_was(world: Path, finished: Path) -> None:
    before = json.loads((finished / "evaluation.json").read_text())
    (finished / "evaluation.json").unlink()
    (finished / "stages" / "disclosure.json").unlink()
    result = evaluate(world, finished, *SHORT, ATTACKS, OLD)
    assert result.exit_code == 0, result.output
    stages = ("utility", "diversity", "linkage", "recovery", "groups")
    done = [line for line in result.output.splitlines() if line.endswith("done by an earlier run")]
    assert [line.split(":")[0] for line in done] == list(stages)
    after = json.loads((finished / "evaluation.json").read_text())
    for volatile in ("created", "seconds"):
        before.pop(volatile), after.pop(volatile)
    assert after == before


def test_another_evaluation_is_not_overwritten(world: Path, finished: Path) -> None:
    before = (finished / "evaluation.json").read_bytes()
    result = evaluate(world, finished, *SHORT, "--attacks=unet", method="blur")
    assert result.exit_code == 2 and "--force" in result.output
    assert (finished / "evaluation.json").read_bytes() == before


def test_requirements(world: Path, tmp_path: Path) -> None:
    result = evaluate(world, tmp_path / "a", *FEW, "--require=disclosure<=0.01")
    assert result.exit_code == 3 and "missed: disclosure" in result.output
    result = evaluate(world, tmp_path / "a", *FEW, "--require=disclosure<=0.99")
    assert result.exit_code == 0
    result = evaluate(world, tmp_path / "b", "--require=beauty>=1")
    assert result.exit_code == 2 and not (tmp_path / "b").exists()


def test_dry_run_writes_nothing(world: Path, tmp_path: Path) -> None:
    result = evaluate(world, tmp_path / "out", "--dry-run", method="blur")
    assert result.exit_code == 0 and "would measure 80 pairs" in result.output
    assert (
        "takes no draws" in result.output
        and "linker: a network" in result.output
        and not (tmp_path / "out").exists()
    )


@pytest.mark.parametrize("place", ["out", "out/release", "out/release/data"])
def test_what_sanitize_wrote_without_its_mapping_is_refused(
    world: Path, tmp_path: Path, place: str
) -> None:
    """Wherever in the output one points: the records stand in a random order."""
    _sanitized(world, tmp_path)
    sanitized = f"--sanitized={tmp_path / place}"
    result = evaluate(world, tmp_path / "a", sanitized, "--attacks=none", method="")
    assert result.exit_code == 2 and "--mapping" in result.output
    done = CliRunner().invoke(
        program,
        [
            *("lineup", "make", "--gallery", str(world / "gallery"), sanitized),
            *("--out", str(tmp_path / "lineup"), "--trials", "4"),
        ],
    )
    assert done.exit_code == 2 and "--mapping" in done.output, done.output


def _sanitized(world: Path, folder: Path) -> None:
    """The gallery as ``ppfr sanitize`` publishes it, but for one picture that is none."""
    (folder / "in").mkdir()
    number = 0
    for path in sorted((world / "gallery").glob("*.parquet")):
        table = pq.read_table(path)
        cells = table["image"].to_pylist()
        if number == 0:
            cells[5]["bytes"] = b"no picture"
        image = pa.array(cells, table.schema.field("image").type)
        table = table.set_column(table.column_names.index("image"), "image", image)
        pq.write_table(table, folder / "in" / path.name)
        number += len(table)
    done = CliRunner().invoke(
        program,
        [
            *("sanitize-beam", "--input", str(folder / "in"), "--output", str(folder / "out")),
            *("--method", "blur", "--metrics", "none", "--output-format", "png"),
            *("--mapping", str(folder / "mapping.parquet")),
        ],
        standalone_mode=False,
    )
    assert done.return_value == 0, done.output


def test_what_sanitize_wrote(world: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    _sanitized(world, tmp_path)
    sanitized = f"--sanitized={tmp_path / 'out'}"
    mapping = f"--mapping={tmp_path / 'mapping.parquet'}"
    result = evaluate(world, tmp_path / "a", sanitized, mapping, *SMALL, method="")
    assert result.exit_code == 0, result.output
    assert "1 of 160 faces were not published" in result.output
    result = evaluate(world, tmp_path / "b", *FEW, "--format=png", method="blur", attack_faces="")
    assert result.exit_code == 0, result.output
    a, b = (
        Evaluation.model_validate_json((tmp_path / name / "evaluation.json").read_text())
        for name in "ab"
    )
    assert a.method is None and set(a.skipped) >= {"diversity", "recovery", "groups", "student"}
    assert a.disclosure is not None and b.disclosure is not None
    assert a.disclosure.disclosure.mean == pytest.approx(b.disclosure.disclosure.mean, abs=0.02)

    compared = runner.invoke(
        program,
        ["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "c")],
    )
    assert compared.exit_code == 0, compared.output
    assert "| blur |" in compared.output and "galleries differ" in compared.output
    assert {path.name for path in (tmp_path / "c").iterdir()} == {
        "table.md",
        "table.parquet",
        "plane.png",
    }
    assert pq.read_table(tmp_path / "c" / "table.parquet")["label"].to_pylist() == [
        "sanitized",
        "blur",
    ]


def _one_fold(path: Path) -> None:
    write_pairs(
        path,
        [
            ("person00_0.jpg", "person00_1.jpg", True, 0),
            ("person00_0.jpg", "person01_1.jpg", False, 0),
        ],
    )


def _missing(path: Path) -> None:
    write_pairs(
        path,
        [
            ("person00_0.jpg", "somebody.jpg", True, 0),
            ("person00_0.jpg", "person01_1.jpg", False, 1),
        ],
    )


def _small(path: Path) -> None:
    write_faces(path, np.zeros((2, 64, 64, 3), np.uint8), ["a", "b"])


def _rotten(path: Path) -> None:
    rows = [{"bytes": b"SECRETBYTES" * 9, "path": "/home/owner/alice.jpg"}]
    pq.write_table(pa.table({"image": pa.array(rows, IMAGE_TYPE)}), path)


def _text(path: Path) -> None:
    path.write_text("not parquet")


@pytest.mark.parametrize(
    ("option", "make", "message"),
    [
        ("pairs", _one_fold, "only one fold"),
        ("pairs", _missing, "1 of the images named are not in the gallery"),
        ("pairs", _small, "column a, b, fold, same missing"),
        ("pairs", _text, "no readable Parquet"),
        ("gallery", _small, "needed: an aligned face of 112x112"),
        ("gallery", _rotten, "gallery, row 0"),
        ("gallery", _text, "no readable Parquet"),
        ("attack_faces", _rotten, "attack faces, row 0"),
    ],
)
def test_wrong_data(world: Path, tmp_path: Path, option: str, make: Any, message: str) -> None:
    make(tmp_path / "input.parquet")
    result = evaluate(world, tmp_path / "out", **{option: str(tmp_path / "input.parquet")})
    assert_refused(result, message, tmp_path / "out")
    assert "SECRET" not in result.output and "alice" not in result.output


@pytest.mark.parametrize(
    ("extra", "instead", "message"),
    [
        (("--fr=larger={world}/larger.pt",), {}, "'larger' cannot take N x 3 x 112 x 112"),
        (("--fr=broken={world}/broken.pt",), {}, "'broken' gave an embedding that is NaN"),
        (("--fr=moody={world}/moody.pt",), {}, "'moody' gave an embedding that is NaN"),
        (("--fr=gone={world}/gone.onnx",), {}, "'gone': no such file"),
        (("--fr=pairs={world}/pairs.parquet",), {}, "neither .onnx nor"),
        (("--fr=corner={world}/corner.pt",), {}, "'corner' is given twice"),
        (("--fr=nonsense",), {}, "expected NAME=PATH"),
        ((), {"black_box": ""}, "no FR model"),
        ((), {"method": "melt"}, "unknown method 'melt'"),
        ((), {"method": ""}, "--method NAME or --sanitized DIR"),
        (("--method-option=sigma=-1",), {}, "option 'sigma'"),
        (("--method-option=sigma",), {}, "expected KEY=VALUE"),
        (("--attacks=guess",), {}, "unknown attack 'guess'"),
        (("--stages=beauty",), {}, "unknown stage 'beauty'"),
        (("--setting=beauty=1",), {}, "--setting beauty=1: there are seed"),
        (("--setting=linker_pairs=0",), {}, "linker_pairs: expected"),
        (("--identities={world}/attack.parquet",), {}, "identities: no column identity"),
        (("--format=bmp",), {}, "unknown image format"),
        (("--require=disclosure",), {}, "expected NAME<=VALUE"),
    ],
)
def test_wrong_options(
    world: Path, tmp_path: Path, extra: tuple[str, ...], instead: dict[str, str], message: str
) -> None:
    filled = [text.format(world=world) for text in extra]
    result = evaluate(world, tmp_path / "out", *filled, **instead)
    assert_refused(result, message, tmp_path / "out")


def assert_refused(result: Result, message: str, out: Path) -> None:
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert len(lines) == 1 and result.stderr.splitlines()[-1] == lines[0]
    assert not out.exists()


def test_compare_refuses_what_is_no_evaluation(tmp_path: Path) -> None:
    runner = CliRunner()
    result = runner.invoke(program, ["compare", str(tmp_path)])
    assert result.exit_code == 2 and "no evaluation.json" in result.output
    (tmp_path / "evaluation.json").write_text('{"schema_version": 9}')
    result = runner.invoke(program, ["compare", str(tmp_path)])
    assert result.exit_code == 2 and len(result.output.strip().splitlines()) == 1


def test_an_attacker_that_learned_by_heart_is_named() -> None:
    def attacker(*curve: float) -> Recovery:
        points = [
            Point(step=10 * i, seconds=1, val_ssim=value, val_psnr=1)
            for i, value in enumerate(curve, 1)
        ]
        return Recovery.model_construct(rise_in_last_fifth=0.0, flattened=True, curve=points)

    assert trained("unet", attacker(0.4, 0.45, 0.449)) == []
    (remark,) = trained("averaging", attacker(0.4, 0.45, 0.3))
    assert "averaging was best at step 20" in remark and "--averaging-faces" in remark


def _shifted(source: Path, target: Path, share: float) -> None:
    """The files of a folder under the same names; a share of each one's rows shows others."""
    target.mkdir()
    for path in source.glob("*.parquet"):
        table = pq.read_table(path)
        image = table["image"].to_pylist()
        moved = int(len(image) * share)
        image[:moved] = [*image[1:moved], *image[:1]]
        column = pa.array(image, table.schema.field("image").type)
        place = table.column_names.index("image")
        pq.write_table(table.set_column(place, "image", column), target / path.name)


def test_other_people_in_files_of_the_same_names_are_paired_with_nobody(
    world: Path, tmp_path: Path
) -> None:
    """Most rows are others: refused by all that pair; a few: left out and counted; a mapping from
    before originals were noted in it: a line says that nothing is checked."""
    _sanitized(world, tmp_path)
    mapping = tmp_path / "mapping.parquet"
    _shifted(world / "gallery", tmp_path / "most", 0.9)
    _shifted(world / "gallery", tmp_path / "few", 0.2)
    old = pq.read_table(mapping)
    pq.write_table(old.drop_columns("original"), tmp_path / "old.parquet")
    pictures = [data for table in map(pq.read_table, (tmp_path / "in").glob("*"))
                for data in pc.struct_field(table["image"], "bytes").to_pylist()]  # fmt: skip
    plain = {hashlib.sha256(data).hexdigest()[:32] for data in pictures}
    assert not plain & set(old["original"].to_pylist())

    asked = iter(range(20))

    def ask(name: str, gallery: Path, mapping: Path) -> Result:
        out = f"--out={tmp_path / f'o{next(asked)}'}"
        sanitized, more = str(tmp_path / "out"), [f"--mapping={mapping}"]
        if name == "intruder":
            command = ["intruder", sanitized, f"--candidates={gallery}"]
        elif name == "lineup":
            command = ["lineup", "make", "--trials=4", out, f"--gallery={gallery}"]
            more.append(f"--sanitized={sanitized}")
        else:
            command = ["evaluate", "--attacks=none", "--dry-run", out, f"--gallery={gallery}"]
            command += [f"--pairs={world / 'pairs.parquet'}"]
            more += [f"--sanitized={sanitized}", f"--black-box=corner={world / 'corner.pt'}"]
        return CliRunner().invoke(program, [*command, *more], standalone_mode=False)

    for name in ("lineup", "evaluate", "intruder"):
        done = ask(name, tmp_path / "most", mapping)
        assert "143 of the 159 rows of the input that --mapping names" in str(done.exception)
        done = ask(name, tmp_path / "few", mapping)
        assert not done.exception and done.output.startswith("31 of the 159 rows"), done.output
        assert "are not the ones that went in: left out" in done.output
        done = ask(name, world / "gallery", tmp_path / "old.parquet")
        assert not done.exception and "159 of the rows of the input are" in done.output, done.output
        done = ask(name, world / "gallery", mapping)
        assert not done.exception and "went in" not in done.output, done.output
