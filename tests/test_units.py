"""Planning and reading: every row of the input is in one unit, once, in order."""

import io
import json
import tarfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import jpeg

from ppfr_ops.contracts.records import IMAGE_TYPE
from ppfr_ops.errors import UserError
from ppfr_ops.source import plan as units
from ppfr_ops.source.plan import Columns, plan, read_unit
from ppfr_ops.source.tar import WebDataset

KEY = b"0123456789abcdef"


def write_parquet(path: Path, count: int, row_group: int = 7, first: int = 0) -> None:
    rows = [
        {
            "image": {"bytes": b"%d" % number, "path": f"Jane_{number}.jpg"},
            "identity": f"Jane_{number % 3}",
            "age": number,
        }
        for number in range(first, first + count)
    ]
    schema = pa.schema([("image", IMAGE_TYPE), ("identity", pa.string()), ("age", pa.int16())])
    pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=row_group)


def everything(chosen: units.Plan) -> list[bytes]:
    tables = [read_unit(chosen, unit) for unit in chosen.units]
    return [value for table in tables for value in table["image"].to_pylist()]


@pytest.mark.parametrize("unit_rows", [1, 3, 7, 10, 1000])
@pytest.mark.parametrize("row_group", [1, 4, 1000])
def test_parquet_rows_each_once_in_order(tmp_path: Path, unit_rows: int, row_group: int) -> None:
    write_parquet(tmp_path / "a.parquet", 23, row_group)
    write_parquet(tmp_path / "b.parquet", 9, row_group, first=23)
    chosen = plan(str(tmp_path), Columns(), unit_rows=unit_rows)
    assert everything(chosen) == [b"%d" % number for number in range(32)]
    assert max(unit.rows for unit in chosen.units) <= unit_rows
    assert chosen.rows == 32


def test_a_small_input_is_shared_out(tmp_path: Path) -> None:
    """So that workers have something to share; but not with a key: units must not change as the
    input grows."""
    for name in ("p", "t"):
        (tmp_path / name).mkdir()
    write_parquet(tmp_path / "p" / "a.parquet", 400)
    for number in range(120):
        (tmp_path / "t" / f"{number:03d}.jpg").write_bytes(b"%d" % number)
    for folder, rows in (("p", [50] * 8), ("t", [15] * 8)):
        chosen = plan(str(tmp_path / folder), Columns(), least_units=16)
        assert [unit.rows for unit in chosen.units] == rows
        assert len(plan(str(tmp_path / folder), Columns()).units) == 1
    keyed = plan(str(tmp_path / "p"), Columns(), least_units=16, key=KEY)
    assert [unit.rows for unit in keyed.units] == [400]
    assert [unit.rows for unit in plan(str(tmp_path / "p"), Columns(), unit_rows=100).units] == (
        [100] * 4
    )


def test_planning_twice_gives_the_same_and_reprs_hide_sources(tmp_path: Path) -> None:
    write_parquet(tmp_path / "Jane.parquet", 20)
    first, second = (plan(str(tmp_path), Columns(), unit_rows=6, key=KEY) for _ in range(2))
    assert first == second and first.digest() == second.digest()
    assert "Jane" not in repr(first) + repr(first.units)


def test_keyed_ids_survive_a_growing_input_and_ordinals_do_not_leak(tmp_path: Path) -> None:
    write_parquet(tmp_path / "m.parquet", 20)
    before = plan(str(tmp_path), Columns(), unit_rows=6, key=KEY)
    write_parquet(tmp_path / "a.parquet", 5)
    after = plan(str(tmp_path), Columns(), unit_rows=6, key=KEY)
    assert {unit.id for unit in before.units} < {unit.id for unit in after.units}
    other = plan(str(tmp_path), Columns(), unit_rows=6, key=KEY[::-1])
    assert not {unit.id for unit in other.units} & {unit.id for unit in after.units}
    assert [unit.id for unit in plan(str(tmp_path), Columns()).units] == ["u000000", "u000001"]


def test_only_the_allow_list_is_read(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", 3)
    chosen = plan(str(tmp_path), Columns(identity="identity", keep=("age",)))
    table = read_unit(chosen, chosen.units[0])
    assert table.column_names == ["record_id", "image", "read_error", "identity", "keep.age"]
    assert chosen.keep == (pa.field("age", pa.int16()),)


def test_plain_binary_column_is_found(tmp_path: Path) -> None:
    pq.write_table(pa.table({"face": [b"x", None], "age": [1, 2]}), tmp_path / "a.parquet")
    chosen = plan(str(tmp_path), Columns())
    assert everything(chosen) == [b"x", None]


def test_struct_that_is_null_or_lacks_bytes_is_null(tmp_path: Path) -> None:
    images = pa.array(
        [{"bytes": b"x", "path": "p"}, None, {"bytes": None, "path": "q"}], IMAGE_TYPE
    )
    pq.write_table(pa.table({"image": images}), tmp_path / "a.parquet")
    assert everything(plan(str(tmp_path), Columns())) == [b"x", None, None]


def test_half_a_parquet_file_is_one_row_with_a_reason(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", 50)
    write_parquet(tmp_path / "b.parquet", 5)
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[: len(whole) // 2])
    chosen = plan(str(tmp_path), Columns())
    first, second = (read_unit(chosen, unit) for unit in chosen.units)
    assert first["read_error"].to_pylist() == ["unreadable_unit"]
    assert second["read_error"].null_count == 5


def test_damaged_pages_lose_their_rows_only(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", 40, row_group=10)
    path = tmp_path / "a.parquet"
    data = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(2).column(0)
    place = column.dictionary_page_offset or column.data_page_offset
    data[place : place + 30] = bytes(30)
    path.write_bytes(data)
    chosen = plan(str(tmp_path), Columns())
    errors = read_unit(chosen, chosen.units[0])["read_error"].to_pylist()
    assert errors == [None] * 20 + ["unreadable_row"] * 10 + [None] * 10


def test_a_file_that_lacks_a_column_is_named_a_dead_letter(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", 3)
    pq.write_table(pa.table({"image": [b"x"]}), tmp_path / "b.parquet")
    chosen = plan(str(tmp_path), Columns(keep=("age",)))
    assert read_unit(chosen, chosen.units[1])["read_error"].to_pylist() == ["missing_column"]


def test_a_tree_of_pictures_with_its_folders(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "a/1.PNG", "a/0.jpeg", "a/notes.txt", "a/.hidden.jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    chosen = plan(str(tmp_path), Columns(identity="folder", keep=("folder",)), unit_rows=2)
    assert everything(chosen) == [b"a/0.jpeg", b"a/1.PNG", b"b/2.jpg"]
    assert sum(chosen.left_out.values()) == 2 and len(chosen.units) == 2
    tables = [read_unit(chosen, unit) for unit in chosen.units]
    assert pa.concat_tables(tables)["identity"].to_pylist() == ["a", "a", "b"]
    globbed = plan(str(tmp_path / "a" / "*.jpeg"), Columns())
    assert everything(globbed) == [b"a/0.jpeg"]


def write_tar(path: Path, count: int) -> list[int]:
    """Samples of a picture and a JSON; returns the offset after every sample."""
    ends = []
    with tarfile.open(path, "w") as tar:
        for number in range(count):
            members = {
                "jpg": jpeg() + b"%d" % number,
                "json": json.dumps({"who": f"Jane {number}", "age": number}).encode(),
            }
            for suffix, body in members.items():
                info = tarfile.TarInfo(f"people/Jane_{number}.{suffix}")
                info.size = len(body)
                tar.addfile(info, io.BytesIO(body))
            ends.append(tar.offset)
    return ends


def test_tar_samples_each_once_with_their_fields(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", 11)
    chosen = plan(str(tmp_path), Columns(identity="who", keep=("age",)), unit_rows=4)
    tables = [read_unit(chosen, unit) for unit in chosen.units]
    assert [table.num_rows for table in tables] == [3, 4, 4]
    joined = pa.concat_tables(tables)
    assert joined["identity"].to_pylist() == [f"Jane {number}" for number in range(11)]
    assert joined["keep.age"].to_pylist() == [str(number) for number in range(11)]
    assert [body[len(jpeg()) :] for body in joined["image"].to_pylist()] == [
        b"%d" % number for number in range(11)
    ]


@pytest.mark.parametrize("where", ["in a body", "in a header", "between samples", "garbage"])
def test_half_a_tar_keeps_its_whole_samples(tmp_path: Path, where: str) -> None:
    ends = write_tar(tmp_path / "a.tar", 8)
    data = (tmp_path / "a.tar").read_bytes()
    cut = {"in a body": 700, "in a header": 100, "between samples": 0, "garbage": 0}[where]
    rest = b"\x01" * 4096 if where == "garbage" else b""
    (tmp_path / "a.tar").write_bytes(data[: ends[3] + cut] + rest)
    chosen = plan(str(tmp_path), Columns(), unit_rows=2)
    errors = [e for unit in chosen.units for e in read_unit(chosen, unit)["read_error"].to_pylist()]
    # The last whole sample may lack members that were cut off, so it may be given up too.
    assert errors in ([None] * 4 + ["truncated_unit"], [None] * 3 + ["truncated_unit"])


def test_several_or_no_pictures_in_a_sample(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("1.left.jpg", "1.right.jpg", "2.json", "3.left.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 2
            tar.addfile(info, io.BytesIO(name.replace(".", "").encode()))
    chosen = plan(str(tmp_path), Columns())
    table = read_unit(chosen, chosen.units[0])
    assert table["read_error"].to_pylist() == ["several_images", None, None]
    assert table["image"].to_pylist() == [None, None, b"3l"]
    chosen = plan(str(tmp_path), Columns(image="left.jpg"))
    assert everything(chosen) == [b"1l", None, b"3l"]
    with open(tmp_path / "a.tar", "rb") as file:  # of several pictures none is needed
        held = [sample.bodies for sample in WebDataset().samples(file, 0, Columns())]
    assert held == [{"image": b"1l"}, {}, {"image": b"3l"}]


def test_sources_name_every_row(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", 5)
    chosen = plan(str(tmp_path), Columns(), unit_rows=2)
    rows = [row for unit in chosen.units for _, row in units.sources(chosen, unit)]
    assert rows == [0, 1, 2, 3, 4]
    (tmp_path / "t").mkdir()
    write_tar(tmp_path / "t" / "b.tar", 3)
    chosen = plan(str(tmp_path / "t"), Columns(), unit_rows=2)
    names = [name for unit in chosen.units for name, _ in units.sources(chosen, unit)]
    assert [name.partition("#")[2] for name in names] == [f"people/Jane_{n}" for n in range(3)]


def test_limit_counts_rows(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", 20)
    chosen = plan(str(tmp_path), Columns(), unit_rows=6, limit=8)
    assert everything(chosen) == [b"%d" % number for number in range(8)]


def test_any_fsspec_file_system(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", 10)
    store = fsspec.filesystem("memory")
    store.pipe_file("/faces/a.parquet", (tmp_path / "a.parquet").read_bytes())
    assert everything(plan("memory://faces", Columns())) == [b"%d" % number for number in range(10)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (Columns(image="age"), "holds no pictures"),
        (Columns(image="nope"), "holds no pictures"),
        (Columns(identity="nope"), "no column 'nope'"),
        (Columns(keep=("nope",)), "no column 'nope'"),
        (Columns(keep=("image",)), "a picture may hide"),
    ],
)
def test_wrong_columns_are_refused(tmp_path: Path, columns: Columns, message: str) -> None:
    write_parquet(tmp_path / "a.parquet", 3)
    with pytest.raises(UserError, match=message):
        plan(str(tmp_path), columns)


def test_wrong_inputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        plan(str(tmp_path / "nope"), Columns())
    with pytest.raises(UserError, match="no Parquet file, picture or tar"):
        plan(str(tmp_path), Columns())
    write_parquet(tmp_path / "a.parquet", 3)
    (tmp_path / "b.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="choose one with --input-format"):
        plan(str(tmp_path), Columns())
    assert plan(str(tmp_path), Columns(), format="images").rows == 1


@pytest.mark.parametrize("kind", ["simplecache", "filecache", "blockcache"])
def test_stores_that_leave_copies_on_disk_are_refused(kind: str, tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", 3)
    with pytest.raises(UserError, match="leave copies behind"):
        plan(f"{kind}::file://{tmp_path}", Columns())
