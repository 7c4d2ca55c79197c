"""Promises that one line keeps, each by changing what it depends on."""

import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from pictures import jpeg

from ppfr_ops import sample
from ppfr_ops.cli import program
from ppfr_ops.contracts.policy import PolicyError, parse
from ppfr_ops.contracts.records import records_schema, released
from ppfr_ops.imaging import detector
from ppfr_ops.methods.base import Anonymizer
from ppfr_ops.methods.registry import find
from ppfr_ops.options import declared, extra, flag
from ppfr_ops.release.looking import _same
from ppfr_ops.sanitize import isolation
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.photographs import options as photograph_options
from ppfr_ops.sanitize.photographs.finder import Finder
from ppfr_ops.sanitize.photographs.options import PhotographOptions
from ppfr_ops.sanitize.prepare import prepare
from ppfr_ops.source.plan import Columns, plan, read_unit
from ppfr_ops.store.ledger import Ledger, LedgerError

# -- the settings digest -----------------------------------------------------------------------

OTHERWISE: dict[str, Any] = {
    "image_column": "other",
    "method": "pixelate",
    "method_options": {"sigma": "5"},
    "keep_columns": ("age",),
    "output_format": "png",
    "quality": 80,
    "metrics": "none",
    "seed": 3,
    "max_disclosure": 0.9,
    "mark": False,
    "align": "ffhq",
}
"""Another value of every option that shapes the output of aligned faces, where a test can give one
without a model, a key or a policy; those are below."""
OF_TREES = {"names", "output_form", "identity_from", "labels"}
OF_FILES = {"fr", "identity_column", "identity_key_file", "policy"}
OF_MARKS = {"invisible_mark", "c2pa_training"}
OF_VIRTUAL_PEOPLE = {"identity", "variation", "keep_look", "look_epsilon"}
OF_VIRTUAL_PEOPLE |= {"size_rounding", "size_anonymity"}

PHOTOGRAPHS: dict[str, Any] = {
    "output_faces": "in-place",
    "no_face": "drop",
    "background": "blur",
    "cover": "mosaic",
    "face_threshold": 0.33,
    "face_sure": 0.77,
    "smallest_face": 33.0,
    "thorough": True,
    "detector": "test_promises:Nobody",
    "boxes_column": "boxes",
    "boxes_format": "xywh",
    "boxes_frame": "stored",
    "unboxed": "leave",
    "landmarks_column": "points",
    "keep_regions_column": "regions",
    "photo_label": "all",
}
WITH = {
    "background": {"output_faces": "in-place"},
    "cover": {"output_faces": "in-place"},
    "boxes_format": {"boxes_column": "boxes"},
    "boxes_frame": {"boxes_column": "boxes"},
    "unboxed": {"boxes_column": "boxes"},
    "landmarks_column": {"boxes_column": "boxes"},
}
"""What else has to be given for an option to make sense."""


class Nobody:
    """A detector that finds nobody."""

    def __call__(self, pictures: Any) -> Any:
        return [detector.Detections.none() for _ in pictures]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("in")
    cells = [{"bytes": jpeg(face), "path": "x"} for face in sample.faces(4)]
    columns = {"image": cells, "other": cells, "age": [1, 2, 3, 4], "who": list("aabb")}
    for name in ("boxes", "points", "regions"):
        columns[name] = ["[]"] * 4
    pq.write_table(pa.table(columns), folder / "a.parquet")
    return folder


def settings(source: Path, **values: Any) -> dict[str, str]:
    given = {"input": str(source), "output": str(source.parent / "o"), "method": "blur"}
    given |= {"image_column": "image"}
    return dict(prepare(SanitizeOptions.model_validate(given | values)).settings)


def shaping_names(model: Any) -> set[str]:
    return {name for name, field in declared(model).items() if extra(field)["shapes"]}


def test_every_option_that_shapes_is_tried() -> None:
    """Whoever adds one adds another value of it here."""
    aligned = shaping_names(SanitizeOptions)
    others = {"coarsen"} | OF_FILES | OF_MARKS | OF_VIRTUAL_PEOPLE | OF_TREES
    assert aligned == set(OTHERWISE) | others
    assert shaping_names(PhotographOptions) == set(PHOTOGRAPHS)


@pytest.mark.parametrize("name", sorted(OTHERWISE))
def test_an_option_of_faces_is_in_the_digest(source: Path, name: str) -> None:
    one, other = settings(source), settings(source, **{name: OTHERWISE[name]})
    changed = {key for key in one | other if one.get(key) != other.get(key)}
    wanted = flag(name, SanitizeOptions.model_fields[name])
    assert wanted in changed and changed <= {wanted, "--method", "--method-option", "input"}


def test_how_coarse_a_column_is_kept_is_in_the_digest(source: Path) -> None:
    kept = {"keep_columns": ("age",)}
    one, other = settings(source, **kept), settings(source, **kept, coarsen=("age:bins=10",))
    assert {key for key in one if one[key] != other[key]} == {"--coarsen"}


@pytest.mark.parametrize("name", sorted(PHOTOGRAPHS))
def test_an_option_of_photographs_is_in_the_digest(source: Path, name: str) -> None:
    beside = WITH.get(name, {})
    method = {"method": "stochastic-local"} if name in ("background", "cover") else {}
    value = {**beside, name: PHOTOGRAPHS[name]}
    if name == "output_faces":
        method = {"max_disclosure": 1.0}
        beside = {**beside, "cover": None}
    if method.get("method"):
        method = {}
        beside, value = {**beside, "cover": "blur"}, {"cover": "blur", **value}
        method["method"] = SanitizeOptions.model_fields["method"].default
    one = settings(source, photographs=PhotographOptions(**beside), **method)
    other = settings(source, photographs=PhotographOptions(**value), **method)
    changed = {key for key in one | other if one.get(key) != other.get(key)}
    assert flag(name, PhotographOptions.model_fields[name]) in changed


@pytest.mark.parametrize("name", ["CENTERFACE", "YUNET"])
def test_another_detector_is_another_digest(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    one = settings(source, photographs=PhotographOptions())
    (tmp_path / "other.onnx").write_bytes(b"of a later version")
    monkeypatch.setattr(photograph_options, name, tmp_path / "other.onnx")
    other = settings(source, photographs=PhotographOptions())
    assert {key for key in one | other if one.get(key) != other.get(key)} == {"--detector"}


@pytest.mark.parametrize(
    "name", ["identity_column", "identity_key_file", "policy", "fr", "invisible_mark"]
)
def test_what_lies_in_a_file_is_in_the_digest(source: Path, tmp_path: Path, name: str) -> None:
    def given(number: int) -> dict[str, Any]:
        path = tmp_path / f"file{number}"
        text = {"policy": f'record: {{ssim: "<= 0.{number}"}}'}.get(name, str(number) * 32)
        path.write_text(text)
        path.chmod(0o600)
        if name == "identity_column":
            return {"identity_column": "who"} if number == 1 else {}
        return {name: (f"m={path}",) if name == "fr" else str(path)}

    one, other = settings(source, **given(1)), settings(source, **given(2))
    assert flag(name, SanitizeOptions.model_fields[name]) in {
        key for key in one if one[key] != other[key]
    }


# -- the detector ------------------------------------------------------------------------------


def test_the_detector_heeds_its_threshold() -> None:
    picture = np.full((240, 240, 3), 110, np.uint8)
    picture[64:176, 64:176] = sample.faces(1, seed=4)[0]
    found = {}
    for threshold in (0.05, 0.999):
        options = PhotographOptions(face_threshold=threshold, thorough=False)
        (faces,) = Finder(options, {}, 1).detect([picture])
        assert all(score >= threshold for score in faces.scores)
        found[threshold] = len(faces)
    assert found[0.05] > found[0.999]


# -- policies ----------------------------------------------------------------------------------


def test_bounds_may_be_negative_and_small() -> None:
    policy = parse('record:\n  id_cosine_a: ">= -0.2"\n  ssim: "<= 1e-3"\n  psnr: "<= .5"\n')
    assert {n: b.value for n, b in policy.record.items()} == {
        "id_cosine_a": -0.2,
        "ssim": 1e-3,
        "psnr": 0.5,
    }
    for text in ("<= 1e", "<= -", "<= 0x1", "<= nan", "<= inf", "<= 1 2", "< 1"):
        with pytest.raises(PolicyError):
            parse(f'record:\n  ssim: "{text}"\n')


@pytest.mark.parametrize(
    "text",
    [
        'record:\n  ssim: "<= 0.1"\n  ssim: "<= 0.9"\n',
        'record:\n  ssim: "<= 0.1"\nrecord:\n  ssim: "<= 0.9"\n',
        'record:\n  ssim: "<= 0.1"\n  "ssim": "<= 0.9"\n',
    ],
)
def test_a_bound_is_there_once(text: str) -> None:
    with pytest.raises(PolicyError, match=r"line 3: .* is there twice"):
        parse(text)


# -- methods of others -------------------------------------------------------------------------


class Mine(Anonymizer):
    """A method of somebody's own."""

    def anonymize(self, faces: Any, draws: Any) -> Any:
        return faces


def test_a_method_of_two_names_keeps_both() -> None:
    one, other = find("test_promises:Mine"), find("test_promises:Mine")
    assert one.name == "test_promises:Mine" and one is other and issubclass(one, Mine)
    from ppfr_ops.methods import registry

    assert registry._checked("short", "test_promises:Mine").name == "short"
    assert one.name == Mine.name == "test_promises:Mine"


# -- WebDataset --------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["PNG", "png", "Png"])
def test_the_extension_of_pictures_is_found_in_any_case(tmp_path: Path, column: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        for number, suffix in enumerate(("png", "PNG")):
            data = jpeg(sample.faces(1)[0])
            entry = tarfile.TarInfo(f"{number:04d}.{suffix}")
            entry.size = len(data)
            file.addfile(entry, BytesIO(data))
    made = plan(str(tmp_path / "a.tar"), Columns(image=column))
    table = read_unit(made, made.units[0])
    assert table["image"].null_count == 0 and len(table) == 2


# -- units that are taken apart ----------------------------------------------------------------


def test_a_child_that_dies_of_itself_buries_no_innocent_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two deaths of one row, and one that came while a child started: no other row's fault."""
    killer, starts = 2, []

    class Unit:
        id, rows = "u1", 4

    class Plan:
        units = (Unit(),)

    class Job:
        plan = Plan()

    class Child:
        def __init__(self, *args: Any) -> None:
            starts.append(True)
            if len(starts) == 3:
                raise isolation._Died

        def sanitize(self, start: int, stop: int) -> list[int]:
            if start <= killer < stop:
                raise isolation._Died
            return list(range(start, stop))

        def close(self) -> None:
            pass

    class Writing:
        def add_dead_letters(self, ids: list[str], unit: str, code: str) -> list[str]:
            return [f"dead {name}" for name in ids]

    monkeypatch.setattr(isolation, "_Child", Child)
    monkeypatch.setattr(isolation, "concatenate", lambda parts: [x for p in parts for x in p])
    found = isolation.sanitize_apart(Job(), 0, Writing(), 1)  # type: ignore[arg-type]
    assert found[:2] == [0, 1] and found[3:] == [3] and str(found[2]).startswith("dead")


# -- descriptions of columns -------------------------------------------------------------------


def test_a_release_whose_columns_were_described_otherwise_verifies() -> None:
    expected = released(records_schema((), True))
    field = expected.field("image")

    def changed(**metadata: str) -> pa.Schema:
        said = {**{k.decode(): v for k, v in (field.metadata or {}).items()}, **metadata}
        place = expected.get_field_index("image")
        return expected.set(place, field.with_metadata(said))

    assert _same(expected, expected)
    assert _same(changed(description="The picture, as it was called last year."), expected)
    assert not _same(changed(description="x" * 401), expected)
    assert not _same(changed(description="\x00\x01"), expected)
    assert not _same(changed(unit="faces"), expected)
    assert not _same(changed(pandas="{}"), expected)
    assert not _same(expected.with_metadata({"ppfr_schema": "records/1"}), expected)
    assert not _same(expected.remove(place_of(expected)), expected)


def place_of(schema: pa.Schema) -> int:
    return int(schema.get_field_index("identity"))


# -- runs that were refused --------------------------------------------------------------------


def test_a_run_that_was_refused_leaves_an_output_that_is_nobodys(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    ledger.open({"method": "a", "input": "b"})
    other = {"method": "other", "input": "b"}
    Ledger(str(tmp_path)).check(other)
    again = Ledger(str(tmp_path))
    again.open(other)
    from test_ledger import commit

    commit(again, "u1")
    with pytest.raises(LedgerError, match="another method"):
        Ledger(str(tmp_path)).check({"method": "a", "input": "b"})
    again.retire("u1")
    assert again.read("evidence", "ledger", "run.json") == other


def test_a_command_that_was_refused_does_not_bind_the_next(tmp_path: Path, source: Path) -> None:
    (tmp_path / "key").write_text("k" * 40)
    (tmp_path / "key").chmod(0o600)
    base = ["sanitize-beam", "--input", str(source), "--output", str(tmp_path / "out")]
    base += ["--image-column", "image"]
    private = ["--method", "dp-eigenface", "--identity-column", "who", "--accept-unsound"]
    private += ["--identity-key-file", str(tmp_path / "key"), "--privacy-budget", "0.001"]
    private += ["--method-option", "epsilon=1"]
    refused = CliRunner().invoke(program, [*base, *private])
    assert refused.exit_code == 2 and "would overdraw" in refused.output, refused.output
    done = CliRunner().invoke(
        program, [*base, "--method", "blur", "--metrics", "none"], standalone_mode=False
    )
    assert done.return_value == 0, done.output


def test_nothing_heavy_is_loaded_for_a_refusal() -> None:
    code = "import ppfr_ops.cli.terminal, sys; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
