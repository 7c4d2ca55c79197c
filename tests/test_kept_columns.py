"""Kept columns: whom they single out, and how they are made coarser."""

import datetime
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from ppfr_ops import SanitizeOptions, run
from ppfr_ops.cli import report, sanitize
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.release.singled import SinglingOut, singled
from ppfr_ops.sample import faces, write_sample
from ppfr_ops.source.coarsening import Kept, coarsened, parse


def test_people_are_singled_out_by_size_and_by_kept_columns() -> None:
    people = list("aabbccdde")
    table = pa.table({"identity": people})
    assert singled(table) == SinglingOut(5, 1, 1, 1)  # e alone has one photo
    even = pa.table({"identity": people[:8]})
    assert singled(even) == SinglingOut(4, 0, 0, 4)
    ages = pa.table({"identity": people[:8], "age": [30, 31, 31, 30, 40, 41, 40, 42]})
    assert singled(ages) == SinglingOut(4, 2, 0, 1)  # a and b have the same ages, in another order
    coarse = ages.set_column(1, "age", coarsened(ages["age"], parse("age:bins=10")))
    assert singled(coarse) == SinglingOut(4, 0, 0, 2)


def test_columns_count_together_and_rows_may_come_in_any_order() -> None:
    one = {"identity": ["a", "a", "b", "b"], "x": [1, 2, 1, 2], "y": ["p", "q", "q", "p"]}
    assert singled(pa.table(one)).singled_out == 2
    assert singled(pa.table(one).drop(["y"])).singled_out == 0
    assert singled(pa.table(one).take([2, 0, 3, 1])) == singled(pa.table(one))


def test_rows_without_a_person_are_people_of_their_own_and_nulls_are_values() -> None:
    table = pa.table({"identity": pa.array([None, None, "a"]), "x": pa.array([None, 1, None])})
    assert singled(table) == SinglingOut(3, 1, 0, 1)
    empty = pa.table({"identity": pa.array([], pa.string())})
    assert singled(empty) == SinglingOut(0, 0, 0, 0)
    lists = pa.table({"identity": ["a", "b", "c"], "x": [[1, 2], [1, 2], [3]]})
    assert singled(lists).singled_out == 1


def test_a_column_to_keep_says_how_coarse() -> None:
    assert parse("age") == Kept("age")
    assert parse("age:bins=10") == Kept("age", "bins", "10")
    assert parse("a:b:first=2") == Kept("a:b", "first", "2")
    assert parse("exif:date") == Kept("exif:date")
    assert parse("odd:by=1", frozenset({"odd:by=1"})) == Kept("odd:by=1")
    assert str(parse("age:bins=10")) == "age:bins=10"
    for text in ("age:bins=0", "age:bins=x", "age:bins=inf", "a:first=0", "a:by=hour", "a:o=1"):
        with pytest.raises(UserError, match="--coarsen"):
            parse(text)


def test_values_become_coarser_and_keep_their_type() -> None:
    def of(values: list, spec: str, kind: pa.DataType | None = None) -> list:
        column = pa.chunked_array([pa.array(values, kind)])
        found = coarsened(column, parse(f"x:{spec}"))
        assert found.type == column.type and len(found) == len(column)
        return found.to_pylist()

    assert of([0, 9, 10, 39, None], "bins=10", pa.int16()) == [0, 0, 10, 30, None]
    assert of([-1, 255], "bins=10", pa.int64()) == [-10, 250]
    assert of([0.24, 0.26], "bins=0.25") == [0.0, 0.25]
    assert of(["Zürich", None], "first=1") == ["Z", None]
    assert of(["m", "f", "x", None], "only=m|f") == ["m", "f", None, None]
    assert of([1, 2, 3], "only=1|3") == [1, None, 3]
    day = datetime.date(2024, 5, 17)
    assert of([day], "by=month") == [datetime.date(2024, 5, 1)]
    assert of([day], "by=year") == [datetime.date(2024, 1, 1)]
    with pytest.raises(UserError, match="made coarser"):
        coarsened(pa.array([[1]]), parse("x:bins=10"))


def test_a_policy_holds_a_release_to_how_many_look_alike(tmp_path: Path) -> None:
    write_sample(tmp_path / "faces", 24, 4, 1, 0)
    (file,) = (tmp_path / "faces").iterdir()
    table = pq.read_table(file)
    people = sorted(set(table["identity"].to_pylist()))
    ages = [20 + 10 * people.index(name) for name in table["identity"].to_pylist()]
    pq.write_table(table.append_column("age", pa.array(ages)), file)
    policy = tmp_path / "policy.yaml"
    policy.write_text('dataset: {structure_k: ">= 2", singled_out: "== 0"}')
    out = tmp_path / "out"
    options = ["--input", str(file), "--output", str(out), "--method", "blur", "--metrics", "none"]
    options += ["--identity-column", "identity", "--policy", str(policy), "--actors", "1"]
    kept = ["--keep-column", "age"]
    done = CliRunner().invoke(sanitize.main, [*options, *kept], standalone_mode=False)
    assert done.return_value == 3, done.output
    verdict = json.loads((out / "evidence" / "manifest.json").read_text())["verdict"]
    found = {check["name"]: check["found"] for check in verdict["checks"]}
    assert found == {"structure_k": 1, "singled_out": 4}
    told = CliRunner().invoke(
        report.main, [str(out), "--policy", str(policy)], standalone_mode=False
    )
    assert told.return_value == 3, told.output
    page = (out / "evidence" / "report.html").read_text()
    assert page.index("pictures aside") < page.index("What is required")
    assert "with the kept columns 4 are singled out" in " ".join(page.split())


def test_a_run_makes_kept_columns_coarser(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pictures = [Encoding().encode(face) for face in faces(6)]
    table = pa.table({"image": pictures, "who": list("aabbcc"), "age": [31, 38, 39, 40, 55, 9]})
    pq.write_table(table, tmp_path / "in" / "a.parquet")
    options = SanitizeOptions(
        input=str(tmp_path / "in"),
        output=str(tmp_path / "out"),
        method="blur",
        metrics="none",
        keep_columns=("age",),
        coarsen=("age:bins=10",),
    )
    assert run(options).exit_code == 0
    data = pq.read_table(tmp_path / "out" / "release" / "data")
    assert sorted(data["age"].to_pylist()) == [0, 30, 30, 30, 40, 50]
    told = json.loads((tmp_path / "out" / "release" / "manifest.json").read_text())["options"]
    assert told["coarsen"] == ["age:bins=10"]
    for wrong in ("age", "age:halves=2", "sex:first=1"):
        with pytest.raises(UserError, match="--coarsen"):
            run(options.model_copy(update={"coarsen": (wrong,)}))
