"""What people bring: read right, or refused aloud. A case a test, on made files."""

import io
import json
import os
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import FACE, jpeg, saved
from PIL import Image
from test_photographs import build, photograph, unit

from ppfr_ops import sanitize_batch
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.codec import ImageError, decode
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.prepare import prepare
from ppfr_ops.sanitize.run_context import pseudonyms
from ppfr_ops.source.labels import label
from ppfr_ops.source.plan import Columns, Plan, plan, read_unit


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def rows(chosen: Plan) -> pa.Table:
    return pa.concat_tables([read_unit(chosen, each) for each in chosen.units])


def seen(root: Path | str, columns: Columns | None = None, **options: str) -> list[str]:
    table = rows(plan(str(root), columns or Columns(), **options))
    return [data.decode() for data in table["image"].to_pylist()]


def parquet(path: Path, **columns: list[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count = len(next(iter(columns.values())))
    images = [f"{path.stem}-{n}".encode() for n in range(count)]
    pq.write_table(pa.table({"image": images, **columns}), path)


HIDDEN = (
    ".Trash/1.jpg",
    ".cache/a/1.jpg",
    "_private/1.jpg",
    "__MACOSX/._1.jpg",
    "a/_temporary/1.jpg",
)


def test_hidden_folders_are_no_data_and_counted(tmp_path: Path) -> None:
    write(tmp_path, "a/1.jpg", *HIDDEN)
    chosen = plan(str(tmp_path), Columns())
    assert seen(tmp_path) == ["a/1.jpg"] == seen(f"{tmp_path}/**/*.jpg")
    assert sum(chosen.left_out.values()) == len(HIDDEN) and "hidden" in str(chosen.left_out)
    parquet(tmp_path / "p" / "part-0.parquet", age=[1])
    parquet(tmp_path / "p" / "_temporary" / "0" / "part-0.parquet", age=[1])
    assert plan(str(tmp_path / "p"), Columns()).rows == 1
    # The root itself may lie in such a folder.
    assert seen(tmp_path / ".Trash") == [".Trash/1.jpg"]


@pytest.mark.parametrize(
    ("mark", "name"),
    [
        ("_delta_log/00000000000000000000.json", "Delta"),
        (".hoodie/hoodie.properties", "Hudi"),
        ("metadata/v1.metadata.json", "Iceberg"),
        ("_versions/1.manifest", "Lance"),
    ],
)
def test_tables_below_an_input_or_in_part_are_refused(tmp_path: Path, mark: str, name: str) -> None:
    parquet(tmp_path / "t" / "part-0.parquet", age=[1])
    write(tmp_path / "t", mark)
    with pytest.raises(UserError, match=f"a table of {name}.*deleted and replaced rows"):
        plan(str(tmp_path), Columns())
    if name in ("Delta", "Hudi"):
        with pytest.raises(UserError, match=name):
            plan(f"{tmp_path}/t/*.parquet", Columns())
        with pytest.raises(UserError, match=name):
            plan(f"{tmp_path}/t/part-0.parquet", Columns())


def test_linked_and_unreadable_folders_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "in/a/1.jpg", "elsewhere/2.jpg")
    (tmp_path / "in" / "b").symlink_to(tmp_path / "elsewhere")
    assert plan(str(tmp_path / "in"), Columns()).left_out == {"linked folder": 1}
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("/a"):
            raise PermissionError(13, "no")
        return real(path)

    monkeypatch.setattr("ppfr_ops.source.listing.os.scandir", scandir)
    with pytest.raises(UserError, match="1 folders of the input cannot be read"):
        plan(str(tmp_path / "in"), Columns())


def test_a_folder_named_with_a_bracket_is_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "2020 [raw]", "a/1.jpg")
    assert seen(tmp_path / "2020 [raw]") == ["a/1.jpg"]


def test_what_is_not_read_is_said_and_strict_refuses_it(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.jpg").write_bytes(jpeg())
    write(tmp_path / "in", "a.mov", "b.mov", "c.txt")
    options = SanitizeOptions(
        input=str(tmp_path / "in"), output=str(tmp_path / "out"), method="blur", metrics="none"
    )
    assert prepare(options).plan.left_out == {".mov": 2, ".txt": 1}
    with pytest.raises(UserError, match=r"--strict.*2 \.mov \(.*frames.*1 \.txt"):
        prepare(options.model_copy(update={"strict": True}))


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, body in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))


def test_keys_of_tars_with_dots(tmp_path: Path) -> None:
    who = json.dumps({"who": "Jane"}).encode()
    write_tar(tmp_path / "a.tar", {"v1.5.jpg": b"x", "v1.5.json": who, "._v1.jpg": b"mac"})
    table = rows(plan(str(tmp_path), Columns(identity="who")))
    assert table["identity"].to_pylist() == ["Jane"] and table["image"].to_pylist() == [b"x"]
    frames = {f"clip.{n:04d}.jpg": b"%d" % n for n in range(5)}
    write_tar(tmp_path / "a.tar", frames)
    with pytest.raises(UserError, match=r"several pictures each.*--input-format tar"):
        plan(str(tmp_path), Columns())
    assert seen(tmp_path, format="tar") == ["0", "1", "2", "3", "4"]


def test_columns_that_no_sample_has_are_refused(tmp_path: Path) -> None:
    members = {f"{n}.jpg": b"x" for n in range(3)}
    who = json.dumps({"who": "Jane"}).encode()
    write_tar(tmp_path / "a.tar", members | {f"{n}.json": who for n in range(3)})
    with pytest.raises(UserError, match="no column 'woh'"):
        plan(str(tmp_path), Columns(identity="woh"))
    with pytest.raises(UserError, match="no column 'aeg'"):
        plan(str(tmp_path), Columns(keep=("aeg",)))
    with pytest.raises(UserError, match="no sample has such a member"):
        plan(str(tmp_path), Columns("webp"))
    table = rows(plan(str(tmp_path), Columns(identity="who")))
    codes = table["read_error"].to_pylist()
    assert len(table) == 6 and table["image"].null_count == 6, (
        "json after all jpgs: rows of nothing, and of nobody"
    )
    assert codes == ["unlabelled"] * 3 + [None] * 3


def test_who_is_in_a_tree(tmp_path: Path) -> None:
    write(tmp_path / "n", "Jane/v1/1.jpg", "Jane/v2/1.jpg", "John/v1/1.jpg")
    with pytest.raises(UserError, match="folders lie in folders"):
        plan(str(tmp_path / "n"), Columns(identity="folder"))

    def who(root: Path, text: str) -> list[str | None]:
        columns = Columns(identity="identity", identity_from=text)
        found: list[str | None] = rows(plan(str(root), columns))["identity"].to_pylist()
        return found

    assert (
        who(tmp_path / "n", "2")
        == ["Jane", "Jane", "John"]
        == who(tmp_path / "n", "{identity}/*/*")
    )
    assert who(tmp_path / "n", "1") == ["v1", "v2", "v1"]
    write(tmp_path / "f", "Aaron_Eckhart_0001.jpg", "Aaron_Eckhart_0002.jpg", "Abba_Eban_0001.jpg")
    with pytest.raises(UserError, match="one folder and would be one person"):
        plan(str(tmp_path / "f"), Columns(identity="folder"))
    names = ["Aaron_Eckhart", "Aaron_Eckhart", "Abba_Eban"]
    assert who(tmp_path / "f", "{identity}_*.jpg") == names
    with pytest.raises(UserError, match="3 of 3 paths do not follow it"):
        who(tmp_path / "f", "{identity}-*")
    with pytest.raises(UserError, match="expected the number of a folder"):
        who(tmp_path / "f", "*/x")
    write(tmp_path / "s", "train/Jane/1.jpg", "train/John/1.jpg", "test/Jane/2.jpg")
    chosen = plan(str(tmp_path / "s"), Columns(identity="folder"))
    assert rows(chosen)["identity"].to_pylist() == ["Jane", "Jane", "John"]
    assert rows(chosen)["keep.split"].to_pylist() == ["test", "train", "train"]
    options = SanitizeOptions(
        input=str(tmp_path / "f"),
        output=str(tmp_path / "out"),
        method="blur",
        metrics="none",
        identity_from="{identity}_*",
    )
    assert prepare(options).plan.columns.identity == "identity"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (1.0, "1"),
        ("1", "1"),
        ("1.0", "1"),
        (" 1 ", "1"),
        (-0.0, "0"),
        (0, "0"),
        (1.5, "1.5"),
        (float("nan"), None),
        ("", None),
        ("nan", None),
        (None, None),
        ("Jane", "Jane"),
        (b"Jane", "Jane"),
        ("007", "007"),
        (True, "True"),
    ],
)
def test_a_label_is_one_text_however_it_is_stored(value: object, text: str | None) -> None:
    assert label(value) == text


def test_labels_of_several_files_are_one_person(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", who=[1, 2])
    parquet(tmp_path / "b.parquet", who=[1.0, float("nan")])
    parquet(tmp_path / "c.parquet", who=["1", ""])
    table = rows(plan(str(tmp_path), Columns(identity="who")))
    assert table["identity"].to_pylist() == ["1", "2", "1", None, "1", None]
    faces = {"image": [jpeg()] * 3, "who": [1, 1.0, float("nan")]}
    done = sanitize_batch(faces, method="pixelate", metrics="none", identity_column="who")
    assert done["identity"][0] == done["identity"][1] and done["identity"][2] is None


def test_the_label_of_a_photograph_is_not_the_bystanders() -> None:
    table = unit([photograph(2), photograph(1)])
    table = table.append_column("identity", pa.array(["Jane", "Jane"]))

    def people(**options: str) -> list[str]:
        sanitizer = build(pseudonymize=pseudonyms(b"k" * 32), **options)
        found: list[str] = sanitizer(table, "u").records["identity"].to_pylist()
        return found

    first, second, third = people()
    assert second == third and first not in (second, None), "the second is nearer the middle"
    assert len(set(people(photo_label="all"))) == 1


def test_splits_and_keys_of_hive_are_columns(tmp_path: Path) -> None:
    parquet(tmp_path / "f" / "train-00000-of-00001.parquet", age=[1])
    parquet(tmp_path / "f" / "test-00000-of-00001.parquet", age=[2])
    chosen = plan(str(tmp_path / "f"), Columns(keep=("age",)))
    assert [item.name for item in chosen.keep] == ["age", "split"]
    assert rows(chosen)["keep.split"].to_pylist() == ["test", "train"]
    parquet(tmp_path / "h" / "split=dev" / "year=2020" / "0.parquet", age=[1])
    parquet(tmp_path / "h" / "split=train" / "year=2021" / "0.parquet", age=[2])
    chosen = plan(str(tmp_path / "h"), Columns(identity="year", keep=("split",)))
    assert rows(chosen)["identity"].to_pylist() == ["2020", "2021"]
    assert rows(chosen)["keep.split"].to_pylist() == ["dev", "train"]
    # A null key is a value, too.
    for key in ("Jane%20Doe", "__HIVE_DEFAULT_PARTITION__"):
        parquet(tmp_path / "n" / f"who={key}" / "0.parquet", age=[1])
    assert rows(plan(str(tmp_path / "n"), Columns(identity="who")))["identity"].to_pylist() == [
        "Jane Doe",
        None,
    ]
    # What the files have themselves counts.
    parquet(tmp_path / "o" / "train-0.parquet", split=["mine"])
    assert plan(str(tmp_path / "o"), Columns()).keep == ()
    chosen = plan(str(tmp_path / "o"), Columns(keep=("split",)))
    assert rows(chosen)["keep.split"].to_pylist() == ["mine"]


def test_tables_beside_pictures_are_their_labels(tmp_path: Path) -> None:
    write(tmp_path / "c", "train/1.jpg", "train/2.jpg")
    (tmp_path / "c" / "train" / "metadata.csv").write_text(
        "file_name,who,age\n2.jpg,John,3\n1.jpg,Jane,4\n"
    )
    chosen = plan(str(tmp_path / "c"), Columns(identity="who", keep=("age",)))
    table = rows(chosen)
    assert table["identity"].to_pylist() == ["Jane", "John"]
    assert table["keep.age"].to_pylist() == ["4", "3"] and not chosen.left_out
    with pytest.raises(UserError, match="no column 'woh'"):
        plan(str(tmp_path / "c"), Columns(identity="woh"))
    write(tmp_path / "j", "1.jpg")
    (tmp_path / "j" / "metadata.jsonl").write_text('{"file_name": "1.jpg", "who": 7}\n')
    assert rows(plan(str(tmp_path / "j"), Columns(identity="who")))["identity"].to_pylist() == ["7"]
    write(tmp_path / "j", "2.jpg")
    with pytest.raises(UserError, match="say nothing of 1 of 2 pictures"):
        plan(str(tmp_path / "j"), Columns(identity="who"))
    write(tmp_path / "a", "000001.jpg", "000002.jpg")
    (tmp_path / "a" / "identity_CelebA.txt").write_text("000001.jpg 2880\n000002.jpg 2937\n")
    chosen = plan(str(tmp_path / "a"), Columns(identity="identity"))
    assert rows(chosen)["identity"].to_pylist() == ["2880", "2937"]
    (tmp_path / "said.csv").write_text("path;who\n000001.jpg;Jane\n000002.jpg;John\n")
    given = Columns(identity="who", labels=(str(tmp_path / "said.csv"),), labels_given=True)
    assert rows(plan(str(tmp_path / "a"), given))["identity"].to_pylist() == ["Jane", "John"]


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_grey_of_a_camera_in_a_16_bit_png(bits: int) -> None:
    grey = np.asarray(Image.fromarray(FACE).convert("L"))
    wide = np.rint(grey / grey.max() * (2**bits - 1)).astype(np.uint16)
    wanted = grey / grey.max() * 255
    assert np.abs(decode(saved(Image.fromarray(wide), "PNG"))[..., 0] - wanted).max() <= 1


def with_gamma(data: bytes, gamma: float) -> bytes:
    body = b"gAMA" + struct.pack(">I", round(gamma * 100_000))
    chunk = struct.pack(">I", 4) + body + struct.pack(">I", zlib.crc32(body))
    return data[:33] + chunk + data[33:]


def test_gamma_of_a_png() -> None:
    plain = saved(Image.fromarray(FACE), "PNG")
    assert np.array_equal(decode(with_gamma(plain, 1 / 2.2)), FACE)
    light = (FACE / 255.0) ** 2.2
    linear = saved(Image.fromarray(np.rint(light * 255).astype(np.uint8)), "PNG")
    brought_back = decode(with_gamma(linear, 1.0)).astype(int)
    assert np.abs(brought_back - FACE)[FACE > 60].mean() < 4
    assert np.array_equal(decode(with_gamma(plain, 0)), FACE), "nonsense is ignored"


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PPM", {}), ("JPEG2000", {}), ("AVIF", {"quality": 95}), ("HEIF", {"quality": 95})],
)
def test_pictures_of_other_kinds(kind: str, options: dict[str, int]) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    data = saved(Image.fromarray(FACE), kind, **options)
    assert np.abs(decode(data).astype(int) - FACE).mean() < 4
    with pytest.raises(ImageError):
        decode(data[: len(data) // 3])


def test_a_picture_of_an_odd_mode_costs_its_row_only() -> None:
    face = Image.fromarray(FACE)
    odd = [face.convert("CMYK"), face.convert("LAB"), face.convert("F"), object(), face]
    done = sanitize_batch({"image": odd}, method="pixelate", metrics="none")
    assert done["dead_letter"][0] is None and done["dead_letter"][4] is None
    assert all(code is not None for code in done["dead_letter"][2:4])


def test_tensors_of_several_sizes_cost_their_rows_only() -> None:
    from ray.data.extensions import ArrowVariableShapedTensorArray

    pictures = np.empty(3, object)
    pictures[:] = [FACE, np.zeros((50, 60, 3), np.uint8), FACE]
    table = pa.table({"image": ArrowVariableShapedTensorArray.from_numpy(pictures)})
    done = sanitize_batch(table, method="pixelate", metrics="none")
    assert done["dead_letter"].to_pylist() == [None, "wrong_size", None]
