"""An output held against its input: every row accounted for, and the figures measured on it."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from test_verify import reseal, rewrite, shards

from ppfr_ops.cli.sanitize_beam import main as sanitize
from ppfr_ops.cli.verify import main
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.release.signing import SIGNATURE
from ppfr_ops.sample import faces
from ppfr_ops.sanitize.audit import audit
from ppfr_ops.source.plan import Columns

KEY = "0123456789abcdef" * 4
PERSON = "Jane_Doe"


def write_input(folder: Path, count: int = 24, bad: tuple[int, ...] = (5, 17)) -> None:
    cells = [{"bytes": Encoding().encode(face), "path": "x"} for face in faces(count, seed=0)]
    for row in bad:
        cells[row]["bytes"] = b"no picture"
    ages = pa.array([float("nan") if row == 2 else row for row in range(count)])
    table = pa.table({"image": cells, "identity": [f"{PERSON}{i % 4}" for i in range(count)]})
    folder.mkdir()
    pq.write_table(table.append_column("age", ages), folder / f"{PERSON}.parquet")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Four units of six rows, two of them dead letters, signed by the run itself."""
    folder = tmp_path_factory.mktemp("audit")
    write_input(folder / "in")
    (folder / "key").write_text(KEY)
    owner = Ed25519PrivateKey.generate()
    pem, none = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "owner").write_bytes(
        owner.private_bytes(pem, serialization.PrivateFormat.PKCS8, none)
    )
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    (folder / "public").write_bytes(owner.public_key().public_bytes(pem, form))
    assert run(folder, "--signing-key", str(folder / "owner")) == 0
    return folder


def run(folder: Path, *more: str) -> int:
    options = ["--input", str(folder / "in"), "--output", str(folder / "out"), "--unit-rows", "6"]
    options += ["--method", "signed-field", "--keep-column", "age", "--identity-column", "identity"]
    options += ["--identity-key-file", str(folder / "key"), "--max-dead-letter-rate", "0.5"]
    done = CliRunner().invoke(sanitize, [*options, *more], standalone_mode=False)
    assert done.exception is None, done.output
    code: int = done.return_value
    return code


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "made")
    return tmp_path / "made"


def against(folder: Path, *more: str) -> tuple[int, str]:
    options = [
        str(folder / "out"),
        "--against",
        str(folder / "in"),
        "--identity-column",
        "identity",
    ]
    options += ["--identity-key-file", str(folder / "key"), *more]
    done = CliRunner().invoke(main, options, standalone_mode=False)
    assert done.exception is None, done.output
    code: int = done.return_value
    return code, done.output


def test_all_rows_are_accounted_for_and_the_run_has_signed(made: Path) -> None:
    code, said = against(made, "--public-key", str(made / "public"))
    assert code == 0, said
    assert said.strip() == (
        "all holds (version 1); all 24 rows of the input are accounted for; "
        "22 records measured again"
    )


def add_rows(folder: Path) -> None:
    rewrite(
        folder / "in" / f"{PERSON}.parquet",
        lambda table: pa.concat_tables([table, table.slice(0, 6)]),
    )


def lose_a_row(folder: Path) -> None:
    """As a tool would that dropped a row and made all counts and digests fit."""
    out = folder / "out"
    path = next(path for path in shards(out, "dead_letters") if pq.read_table(path).num_rows)
    rewrite(path, lambda table: table.slice(1))
    manifest = json.loads((out / "evidence/manifest.json").read_text())
    fewer = {"rows_in": 23, "dead_letters": 1, "dead_letters_by_code": {"not_an_image": 1}}
    manifest["counts"] |= fewer
    (out / "evidence/manifest.json").write_text(json.dumps(manifest))
    reseal(out)


def lower_a_metric(folder: Path) -> None:
    def lower(table: pa.Table) -> pa.Table:
        values = table["disclosure"].to_numpy().copy()
        values[0] *= 0.5
        return table.set_column(1, table.schema.field(1), pa.array(values))

    rewrite(shards(folder / "out", "metrics")[0], lower)
    reseal(folder / "out")


def swap_two_pictures(folder: Path) -> None:
    def swap(table: pa.Table) -> pa.Table:
        cells = table["image"].to_pylist()
        cells[0]["bytes"], cells[1]["bytes"] = cells[1]["bytes"], cells[0]["bytes"]
        column = pa.array(cells, table.schema.field("image").type)
        return table.set_column(1, table.schema.field(1), column)

    rewrite(shards(folder / "out", "data")[0], swap)
    reseal(folder / "out")


def publish_an_original(folder: Path) -> None:
    original = pq.read_table(folder / "in")["image"].to_pylist()

    def put(table: pa.Table) -> pa.Table:
        cells = table["image"].to_pylist()
        age = table["age"][0].as_py()
        cells[0]["bytes"] = original[2 if math.isnan(age) else int(age)]["bytes"]
        column = pa.array(cells, table.schema.field("image").type)
        return table.set_column(1, table.schema.field(1), column)

    rewrite(shards(folder / "out", "data")[0], put)
    reseal(folder / "out")


def change_a_column(name: str, value: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        def put(table: pa.Table) -> pa.Table:
            place = table.column_names.index(name)
            values = [value, *table[name].to_pylist()[1:]]
            kind = table.schema.field(place)
            return table.set_column(place, kind, pa.array(values, kind.type))

        rewrite(shards(folder / "out", "data")[0], put)
        reseal(folder / "out")

    return change


TAMPERINGS = {
    "rows that were added upstream": (add_rows, "unit "),
    "a row that was dropped": (lose_a_row, "neither published nor a dead letter"),
    "a metric that was made better": (lower_a_metric, "disclosure is"),
    "pictures that were swapped": (swap_two_pictures, "the file says"),
    "an original that got through": (publish_an_original, "the picture is the original"),
    "a kept column that was changed": (change_a_column("age", 99.0), "'age' is not as in"),
    "a pseudonym that was changed": (change_a_column("identity", "0" * 64), "pseudonym is not"),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_what_digests_cannot_tell_the_input_does(name: str, folder: Path) -> None:
    tamper, reason = TAMPERINGS[name]
    tamper(folder)
    (folder / "out" / "release" / SIGNATURE).unlink()  # its statement would tell, without any key
    options = [str(folder / "out")]
    done = CliRunner().invoke(main, options, standalone_mode=False)
    assert done.return_value == 0, done.output  # all digests fit
    code, said = against(folder)
    assert code == 1 and reason in said, said
    assert PERSON not in said and str(folder) not in said


def test_what_paths_and_labels_say_is_held_against_the_release_too(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    lines = ["path,age"]
    for number, face in enumerate(faces(6)):
        (tmp_path / "in" / f"Jane{number // 2}_{number}.jpg").write_bytes(Encoding().encode(face))
        lines.append(f"Jane{number // 2}_{number}.jpg,{number}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    (tmp_path / "key").write_text(KEY)
    how = ["--identity-from", "{identity}_*", "--labels", str(tmp_path / "table.csv")]
    how += ["--identity-key-file", str(tmp_path / "key")]
    options = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), *how]
    options += ["--method", "signed-field", "--keep-column", "age", "--metrics", "basic"]
    done = CliRunner().invoke(sanitize, options, standalone_mode=False)
    assert done.return_value == 0, done.output
    checked = [str(tmp_path / "out"), "--against", str(tmp_path / "in"), *how]
    done = CliRunner().invoke(main, checked, standalone_mode=False)
    assert done.return_value == 0 and "all 6 rows" in done.output, done.output
    checked[checked.index("{identity}_*")] = "*_{identity}.jpg"
    done = CliRunner().invoke(main, checked, standalone_mode=False)
    assert done.return_value == 1 and "the pseudonym is not" in done.output, done.output


def test_another_input_or_key_has_no_unit_in_common(folder: Path) -> None:
    (folder / "key").write_text("another key, and long enough for one")
    code, said = against(folder)
    assert code == 1 and "none of its units is of this input, or the key is another" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--against", "in"), "had a key"),
        (("--against", "in", "--identity-key-file", "absent"), "identity key cannot be read"),
        (("--against", "nothing", "--identity-key-file", "key"), "the input does not exist"),
        (("--fr", "a=b"), "go with --against"),
        (
            ("--against", "in", "--identity-key-file", "key", "--fr", "a=absent.onnx"),
            "no such file",
        ),
        (("--against", "in", "--identity-key-file", "key", "--fr", "a=b.onnx"), "not a readable"),
    ],
)
def test_wrong_usage_is_one_line(
    made: Path, options: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)
    (made / "b.onnx").write_bytes(b"no model")
    done = CliRunner().invoke(main, ["out", *options])
    assert done.exit_code == 2 and len(done.output.strip().splitlines()) == 1, done.output
    assert message in done.output


def test_fr_models_measure_again(shared: Path, tmp_path: Path) -> None:
    model = f"mobileface={shared / 'models' / 'mobileface.onnx'}"
    write_input(tmp_path / "in")
    (tmp_path / "key").write_text(KEY)
    assert run(tmp_path, "--fr", model, "--metrics", "basic") == 0
    code, said = against(tmp_path, "--fr", model)
    assert code == 0 and "22 records measured again" in said, said

    def lower(table: pa.Table) -> pa.Table:
        place = table.column_names.index("id_cosine_mobileface")
        values = pa.array(np.zeros(len(table), "f"))
        return table.set_column(place, table.schema.field(place), values)

    rewrite(shards(tmp_path / "out", "metrics")[0], lower)
    reseal(tmp_path / "out")
    assert against(tmp_path)[0] == 0
    code, said = against(tmp_path, "--fr", model)
    assert code == 1 and "id_cosine_mobileface is" in said and "the file says 0.0000" in said
    other = shared / "models" / "dlib.onnx"
    with pytest.raises(ValueError, match="not one that the run measured with"):
        from ppfr_ops.recognizers import Recognizer, RecognizerSpec

        audit(
            str(tmp_path / "out"),
            str(tmp_path / "in"),
            Columns(),
            key=KEY.encode(),
            recognizers=[Recognizer(RecognizerSpec("mobileface", str(other)))],
        )


def test_a_manifest_that_is_written_anew_drops_the_old_signature(folder: Path) -> None:
    assert (folder / "out" / "release" / SIGNATURE).exists()
    assert run(folder) == 0
    assert not (folder / "out" / "release" / SIGNATURE).exists()


def test_a_signing_key_that_is_none_is_refused_before_any_work(folder: Path) -> None:
    shutil.rmtree(folder / "out")
    base = ["--input", str(folder / "in"), "--output", str(folder / "out"), "--method", "pixelate"]
    (folder / "out").mkdir()
    for key, message in (
        (folder / "key", "no readable PEM"),
        (folder / "absent", "no readable PEM"),
    ):
        done = CliRunner().invoke(sanitize, [*base, "--signing-key", str(key)])
        assert done.exit_code == 2 and message in done.stderr, done.output
    shutil.copy(folder / "owner", folder / "out" / "owner")
    done = CliRunner().invoke(sanitize, [*base, "--signing-key", str(folder / "out" / "owner")])
    assert done.exit_code == 2 and "must not lie inside the output" in done.stderr
    assert [path.name for path in (folder / "out").iterdir()] == ["owner"]
