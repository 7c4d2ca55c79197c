"""A column that is kept holds no picture, in whatever type or letters it comes."""

import base64
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ppfr_ops.errors import UserError
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.sample import faces
from ppfr_ops.source.kept import LONGEST_TEXT, kept_field, looks_like_picture, refuse_pictures
from ppfr_ops.source.plan import Columns, content, plan, read_unit
from ppfr_ops.source.units import READ_ERROR
from ppfr_ops.store.ids import Ids, publish
from ppfr_ops.store.shards import Tables

PICTURE = Encoding().encode(faces(1, seed=0)[0])
SECRET = {b"who": b"Jane Doe"}

REFUSED = (
    pa.binary(),
    pa.large_binary(),
    pa.binary(16),
    pa.binary_view(),
    pa.dictionary(pa.int32(), pa.binary()),
    pa.list_(pa.uint8()),
    pa.large_list(pa.int8()),
    pa.list_(pa.uint16(), 4),
    pa.list_(pa.list_(pa.uint8())),
    pa.struct([("a", pa.struct([("b", pa.binary())]))]),
    pa.list_(pa.struct([("a", pa.uint8())])),
    pa.map_(pa.string(), pa.int32()),
    pa.dictionary(pa.int32(), pa.list_(pa.uint8())),
    pa.list_view(pa.int32()),
    pa.run_end_encoded(pa.int32(), pa.string()),
)
TAKEN = (
    pa.bool_(),
    pa.uint8(),
    pa.int64(),
    pa.float16(),
    pa.decimal128(10, 2),
    pa.large_string(),
    pa.timestamp("ns", "UTC"),
    pa.date32(),
    pa.list_(pa.float32()),
    pa.list_(pa.list_(pa.int32())),
    pa.struct([("a", pa.string()), ("b", pa.uint8())]),
    pa.dictionary(pa.int32(), pa.string()),
)


@pytest.mark.parametrize("kind", REFUSED, ids=str)
def test_types_in_which_a_picture_hides_are_refused(kind: pa.DataType) -> None:
    with pytest.raises(UserError, match="'x'"):
        kept_field(pa.field("x", kind))


@pytest.mark.parametrize("kind", TAKEN, ids=str)
def test_all_others_are_kept_without_metadata(kind: pa.DataType) -> None:
    field = kept_field(pa.field("x", kind, metadata=SECRET))
    assert field.metadata is None and not pa.types.is_dictionary(field.type)


def test_metadata_is_dropped_at_every_depth() -> None:
    inner = pa.field("b", pa.string(), metadata=SECRET)
    outer = pa.field("a", pa.struct([inner]), metadata=SECRET)
    kind = pa.list_(pa.field("item", pa.struct([outer]), metadata=SECRET))
    schema = pa.schema([kept_field(pa.field("x", kind, metadata=SECRET))])
    assert b"Jane" not in schema.serialize().to_pybytes()


HIDDEN = {
    "base64": base64.b64encode(PICTURE).decode(),
    "urlsafe": base64.urlsafe_b64encode(PICTURE).decode(),
    "in lines": base64.encodebytes(PICTURE).decode(),
    "data URL": "data:image/jpeg;base64," + base64.b64encode(PICTURE).decode(),
    "hex": PICTURE.hex(),
    "latin-1": PICTURE.decode("latin-1"),
    "a thumbnail": base64.b64encode(PICTURE)[:400].decode(),
    "png": base64.b64encode(Encoding("png").encode(faces(1)[0]))[:400].decode(),
    "json": json.dumps({"img": base64.b64encode(PICTURE).decode()[:900]}),
    "a data URL in json": '{"a": "data:image/jpeg;base64,' + base64.b64encode(PICTURE).decode(),
    "quotes": f'"{base64.b64encode(PICTURE).decode()}"',
    "a number in hex": f"0x{PICTURE.hex()}",
    "bytea": f"\\\\x{PICTURE.hex()}",
    "as Python prints it": repr(PICTURE),
    "png as Python prints it": repr(Encoding("png").encode(faces(1)[0])),
    "svg": "<svg xmlns='http://www.w3.org/2000/svg'><path d='M0 0'/></svg>",
}


@pytest.mark.parametrize("how", HIDDEN)
def test_a_picture_in_letters_is_told(how: str) -> None:
    assert looks_like_picture(HIDDEN[how])


@pytest.mark.parametrize(
    "text",
    [
        "Jane",
        "BMW of the year 1998, blue, four doors",
        "a" * 200,
        "",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        '{"path": "C:\\\\x20\\\\pictures", "url": "https://example.org/people/RIFFraff-and-others.html"}',
    ],
)
def test_words_are_words(text: str) -> None:
    assert not looks_like_picture(text)


def test_rows_that_hide_something_are_dead_letters(tmp_path: Path) -> None:
    notes: list[str | None] = ["ok", None, HIDDEN["base64"][:300], "x" * (LONGEST_TEXT + 1), "ok"]
    numbers = [[1.0], None, [2.0], [3.0], [0.5] * 3000]
    table = pa.table(
        {
            "image": pa.array([PICTURE] * 5),
            "note": pa.array(notes).dictionary_encode(),
            "template": pa.array(numbers),
            "age": [1, 2, 3, 4, 5],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    chosen = plan(str(tmp_path), Columns("image", keep=("note", "template", "age")))
    read = read_unit(chosen, chosen.units[0])
    assert read[READ_ERROR].to_pylist() == [None, None, *["kept_picture"] * 3]
    assert read["keep.note"].to_pylist() == ["ok", None, None, None, None]
    assert read["keep.age"].to_pylist() == [1, 2, None, None, None]
    assert read.schema.field("keep.note").type == pa.string()


def test_a_time_that_no_calendar_has_is_a_row_that_cannot_be_read() -> None:
    times = pa.array([0, 2**62], pa.timestamp("s"))
    table = pa.table({READ_ERROR: pa.nulls(2, pa.string()), "keep.born": times})
    found = refuse_pictures(table)
    assert found[READ_ERROR].to_pylist() == [None, "unreadable_row"]
    assert found["keep.born"].null_count == 1


def test_an_identity_that_no_calendar_has_ends_nothing(tmp_path: Path) -> None:
    table = pa.table(
        {
            "image": pa.array([PICTURE] * 2),
            "born": pa.array([0, 2**62], pa.timestamp("us")),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    chosen = plan(str(tmp_path), Columns("image", identity="born"), key=b"k" * 32)
    read = read_unit(chosen, chosen.units[0])
    assert read.num_rows == 2
    late = [pa.table({"born": pa.array([2**62 + n], pa.timestamp("us"))}) for n in range(2)]
    assert len({content(table, b"k" * 32) for table in late}) == 2


def test_units_have_128_bits(tmp_path: Path) -> None:
    for name in "ab":
        pq.write_table(pa.table({"image": pa.array([PICTURE])}), tmp_path / f"{name}.parquet")
    chosen = plan(str(tmp_path), Columns("image"), key=b"k" * 32)
    assert {len(unit.id) for unit in chosen.units} == {33}


def test_an_id_that_is_there_twice_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows would be lost without a word: the second of two units would count as done."""
    for name in "ab":
        pq.write_table(pa.table({"image": pa.array([PICTURE])}), tmp_path / f"{name}.parquet")
    monkeypatch.setattr("ppfr_ops.source.plan._unit_id", lambda *of: "u00")
    with pytest.raises(UserError, match="two units have the same id"):
        plan(str(tmp_path), Columns("image"), key=b"k" * 32)
    records = pa.table({"record_id": ["u0-000000", "u0-000000"]})
    tables = Tables(records, records, records)
    with pytest.raises(ValueError, match="two records of a unit have the same id"):
        publish(tables, Ids(bytes(32)))
