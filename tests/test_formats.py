"""Formats of inputs: the registry, and what each reader makes of made files."""

import gzip
import hashlib
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from driving import drive, serial
from pictures import jpeg
from test_sanitize import ROOT, environment, short_tmp

from ppfr_ops.contracts.records import IMAGE_TYPE
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.codec import decode
from ppfr_ops.sample import faces
from ppfr_ops.sandbox import LimitError
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.source import formats
from ppfr_ops.source.plan import Columns, plan, read_unit, sources
from ppfr_ops.source.sandboxed import Sandboxed

__all__ = ["short_tmp"]

LINES = '''
"""Pictures in letters: a line a picture, `LABEL HEX`."""

import pyarrow as pa

from ppfr_ops.source.reader import MissingColumnError, Reader, Record, table_of
from ppfr_ops.source.units import Unit, even


class Lines(Reader):
    name = "lines"
    what = "pictures in letters"
    suffixes = frozenset({".lines"})

    def columns(self, listing, paths, columns):
        for name in columns.beside:
            if name != "label":
                raise MissingColumnError(name, ["label"])
        return columns, tuple(pa.field(name, pa.string()) for name in columns.keep)

    def cut(self, listing, paths, cutting):
        for path in paths:
            rows = listing.fs.cat_file(path).count(b"\\n")
            for start, stop in even(rows, cutting.unit_rows):
                yield Unit("", self.name, (path,), start, stop)

    def read(self, fs, plan, unit):
        records = []
        for line in fs.cat_file(unit.sources[0]).decode().splitlines()[unit.start : unit.stop]:
            label, letters = line.split()
            records.append(Record(bytes.fromhex(letters), values={"label": label}))
        return table_of(plan, records)
'''


def lines(path: Path, count: int) -> list[bytes]:
    made = [jpeg(face) for face in faces(count)]
    path.write_text("".join(f"Jane_{n} {data.hex()}\n" for n, data in enumerate(made)))
    return made


def test_a_format_is_registered_and_known_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = lines(tmp_path / "a.lines", 5)
    with pytest.raises(UserError, match="no Parquet"):
        plan(str(tmp_path), Columns())
    scope: dict[str, type] = {}
    exec(LINES, scope)
    monkeypatch.setattr(formats, "_registered", {})
    formats.register(scope["Lines"]())
    chosen = plan(str(tmp_path), Columns(identity="label"), unit_rows=2)
    assert chosen.format == "lines" and [unit.rows for unit in chosen.units] == [1, 2, 2]
    tables = [read_unit(chosen, unit) for unit in chosen.units]
    assert [data for table in tables for data in table["image"].to_pylist()] == made
    assert tables[0]["identity"].to_pylist() == ["Jane_0"]
    assert plan(str(tmp_path), Columns(), format="lines").rows == 5
    with pytest.raises(UserError, match="no column 'age'"):
        plan(str(tmp_path), Columns(keep=("age",)))
    with pytest.raises(UserError, match=r"'nope': there are: auto, arrow, .*lines, numpy, parquet"):
        plan(str(tmp_path), Columns(), format="nope")


@pytest.mark.slow
def test_a_format_of_an_installed_package_is_read_by_the_command(
    tmp_path: Path, short_tmp: Path
) -> None:
    """In worker processes, too."""
    folder = tmp_path / "elsewhere"
    info = folder / "lines-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "lines_format.py").write_text(LINES)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lines\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        textwrap.dedent("""\
            [ppfr.formats]
            lines = lines_format:Lines
            """)
    )
    (tmp_path / "in").mkdir()
    lines(tmp_path / "in" / "a.lines", 5)
    settings = environment(short_tmp)
    settings["PYTHONPATH"] = f"{folder}:{settings['PYTHONPATH']}"
    command = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    command += ["--method", "pixelate"]
    done = subprocess.run(
        [sys.executable, "-m", "ppfr_ops.cli", "sanitize", *command, "--metrics", "none"],
        env=settings,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    shards = sorted((tmp_path / "out").rglob("release/**/data/*.parquet"))
    assert sum(pq.read_table(shard).num_rows for shard in shards) == 5


# -- made files of every format --------------------------------------------------------------------


def records(pictures: list[bytes], split: int | None = None) -> bytes:
    """As MXNet's ``MXIndexedRecordIO`` packs them, between records of no picture."""
    out = b""

    def add(body: bytes) -> None:
        nonlocal out
        pieces = [body] if split is None or len(body) < 2 * split else body.split(MAGIC)
        for number, piece in enumerate(pieces):
            kind = (
                0
                if len(pieces) == 1
                else 1
                if number == 0
                else 3
                if number == len(pieces) - 1
                else 2
            )
            out += (
                MAGIC + struct.pack("<I", kind << 29 | len(piece)) + piece + bytes(-len(piece) % 4)
            )

    add(struct.pack("<IfQQ", 2, 0, 0, 0) + struct.pack("<2f", len(pictures) + 1, len(pictures) + 3))
    for number, data in enumerate(pictures):
        add(struct.pack("<IfQQ", 0, number // 2, number + 1, 0) + data)
    add(struct.pack("<IfQQ", 2, 0, 99, 0) + struct.pack("<2f", 1, 3))
    return out


MAGIC = struct.pack("<I", 0xCED7230A)


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return buffer.getvalue()


def tarred(pictures: list[bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for number, data in enumerate(pictures):
            who = json.dumps({"who": f"Jane {number // 2}"}).encode()
            for ending, body in (("jpg", data), ("json", who)):
                info = tarfile.TarInfo(f"{number:04d}.{ending}")
                info.size = len(body)
                tar.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


def arrow(pictures: list[bytes], stream: bool = True) -> bytes:
    table = pa.table(
        {
            "image": pa.array([{"bytes": data, "path": None} for data in pictures], IMAGE_TYPE),
            "who": [f"Jane {number // 2}" for number in range(len(pictures))],
        }
    )
    sink = io.BytesIO()
    writer = pa.ipc.new_stream if stream else pa.ipc.new_file
    with writer(sink, table.schema) as out:
        out.write_table(table, max_chunksize=4)
    return sink.getvalue()


def stack(pictures: list[bytes]) -> bytes:
    buffer = io.BytesIO()
    pixels = np.stack([decode(data) for data in pictures])
    who = np.array([f"Jane {number // 2}" for number in range(len(pictures))])
    np.savez_compressed(buffer, faces=pixels, who=who)
    return buffer.getvalue()


def parquet(pictures: list[bytes]) -> bytes:
    buffer = io.BytesIO()
    who = [f"Jane {number // 2}" for number in range(len(pictures))]
    pq.write_table(pa.table({"image": pictures, "who": who}), buffer)
    return buffer.getvalue()


def hdf5(pictures: list[bytes], encoded: bool = False) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        if encoded:
            rows = file.create_dataset("faces", len(pictures), h5py.vlen_dtype(np.uint8))
            for row, data in enumerate(pictures):
                rows[row] = np.frombuffer(data, np.uint8)
        else:
            pixels = np.stack([decode(data) for data in pictures])
            file.create_dataset(
                "set/faces", data=pixels, compression="gzip", chunks=(3, 112, 112, 3)
            )
        file["who"] = [f"Jane {number // 2}" for number in range(len(pictures))]
        file["age"] = np.arange(len(pictures), dtype=np.float32)
        file["other"] = np.zeros((2, 3))
    return buffer.getvalue()


def lists(pictures: list[bytes], struct: bool = True, stream: bool = False) -> bytes:
    pairs = [pictures[place : place + 2] for place in range(0, len(pictures), 2)]
    rows: list[list[object]] = [
        [{"bytes": data, "path": "x"} for data in pair] if struct else list(pair) for pair in pairs
    ]
    kind = pa.list_(IMAGE_TYPE if struct else pa.binary())
    who = [f"Jane {number}" for number in range(len(pairs))]
    table, buffer = pa.table({"faces": pa.array(rows, kind), "who": who}), io.BytesIO()
    if stream:
        with pa.ipc.new_stream(buffer, table.schema) as out:
            out.write_table(table, max_chunksize=2)
    else:
        pq.write_table(table, buffer, row_group_size=2)
    return buffer.getvalue()


FORMATS: dict[str, tuple[str, Callable[[list[bytes]], bytes], str]] = {
    "recordio": ("train.rec", records, "label"),
    "verification": ("lfw.bin", lambda p: pickle.dumps((p, [True] * (len(p) // 2)), 4), "pair"),
    "zip": (
        "a.zip",
        lambda p: zipped({f"x/Jane {n // 2}/{n:04d}.jpg": data for n, data in enumerate(p)}),
        "folder",
    ),
    "tar.gz": ("a.tar.gz", tarred, "who"),
    "webdataset": ("a.tar", lambda p: gzip.decompress(tarred(p)), "who"),
    "arrow": ("data-00000-of-00001.arrow", arrow, "who"),
    "numpy": ("a.npz", stack, "who"),
    "parquet": ("part-00000", parquet, "who"),
    "parquet-lists": ("a.parquet", lists, "who"),
    "arrow-lists": ("a.arrow", lambda p: lists(p, stream=True), "who"),
    "hdf5": ("a.h5", hdf5, "who"),
}
"""Name of a file, how it is made of pictures, two of a person, and the column that says of whom."""


def everything(
    folder: Path, columns: Columns, rows: int = 3, format: str = "auto"
) -> tuple[list[bytes], list[str]]:
    chosen = plan(str(folder), columns, unit_rows=rows, format=format)
    assert len(chosen.units) >= 3 and not chosen.left_out
    table = pa.concat_tables([read_unit(chosen, unit) for unit in chosen.units])
    assert table["read_error"].null_count == len(table) == chosen.rows
    assert sum(1 for unit in chosen.units for _ in sources(chosen, unit)) == chosen.rows
    return table["image"].to_pylist(), table["identity"].to_pylist()


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_a_round_trip(kind: str, tmp_path: Path) -> None:
    """The pictures come out as they went in, byte for byte (of stacks: pixel for pixel), and the
    labels name the same people."""
    pictures = [jpeg(face) for face in faces(10)]
    name, make, column = FORMATS[kind]
    (tmp_path / name).write_bytes(make(pictures))
    asked = kind if kind.endswith("-lists") else "auto"
    found, who = everything(tmp_path, Columns(identity=column), format=asked)
    if kind in ("numpy", "hdf5"):
        assert all(
            np.array_equal(decode(a), decode(b)) for a, b in zip(found, pictures, strict=True)
        )
    else:
        assert found == pictures
    assert who[0::2] == who[1::2] and len(set(who)) == 5
    with pytest.raises(UserError, match="no column 'woh'"):
        plan(str(tmp_path), Columns(identity="woh"), format=asked)
    assert plan(str(tmp_path), Columns(), format=kind).format == kind


FACES = int(os.environ.get("PPFR_ROUND_TRIP", 6))
"""Of every format; 1,000 by hand."""


def released(folder: Path, column: str, kind: str) -> Counter[tuple[str, ...]]:
    """The pictures of every person, by digest."""
    output = folder.with_name(f"{folder.name}-out")
    options = SanitizeOptions(
        input=str(folder),
        output=str(output),
        identity_column=column,
        input_format=kind,
        method="pixelate",
        metrics="none",
        unit_rows=max(3, FACES // 4),
    )
    assert drive(options, serial, "serial") == 0
    people: dict[str, list[str]] = {}
    for shard in output.rglob("release/data/*.parquet"):
        for row in pq.read_table(shard).to_pylist():
            digest = hashlib.sha256(row["image"]["bytes"]).hexdigest()
            people.setdefault(row["identity"], []).append(digest)
    return Counter(tuple(sorted(found)) for found in people.values())


def test_the_same_release_from_every_format(tmp_path: Path) -> None:
    """Byte for byte, and the same people: as from Parquet, whatever the faces came in."""
    pictures = [jpeg(face) for face in faces(FACES)]
    wanted: Counter[tuple[str, ...]] | None = None
    for kind in ("parquet", *sorted({*FORMATS, "images"} - {"parquet"})):
        folder = tmp_path / kind
        if kind == "images":
            column = "folder"
            for number, data in enumerate(pictures):
                (folder / f"Jane {number // 2}").mkdir(parents=True, exist_ok=True)
                (folder / f"Jane {number // 2}" / f"{number:04d}.jpg").write_bytes(data)
        else:
            name, make, column = FORMATS[kind]
            folder.mkdir()
            (folder / name).write_bytes(make(pictures))
        found = released(folder, column, kind)
        wanted = wanted or found
        assert found == wanted and sum(map(len, found.elements())) == FACES, kind


def test_a_unit_whose_reader_never_ends_costs_minutes_and_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [jpeg(face) for face in faces(2)] * 40
    pq.write_table(pa.table({"image": cells}), tmp_path / "a.parquet")
    made = plan(str(tmp_path), Columns())
    given: list[float] = []

    def endless(*args: Any, seconds: float) -> Any:
        given.append(seconds)
        raise LimitError("time")

    monkeypatch.setattr(Sandboxed, "apart", endless)
    table = read_unit(made, made.units[0])
    assert table["read_error"].to_pylist() == ["unreadable_row"] * 80
    assert given[0] == 60 and min(given) >= 10 and sum(given) <= 240


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_verification_sets_of_any_pickle(protocol: int, tmp_path: Path) -> None:
    pictures = [jpeg(face) for face in faces(4)]
    same = pictures[0]
    data = pickle.dumps(([*pictures, same, same], [True, False, True]), max(protocol, 3))
    (tmp_path / "a.bin").write_bytes(data)
    chosen = plan(str(tmp_path), Columns(keep=("pair", "same")))
    table = read_unit(chosen, chosen.units[0])
    assert table["image"].to_pylist() == [*pictures, same, same]
    assert table["keep.same"].to_pylist() == ["True", "True", "False", "False", "True", "True"]


def test_a_pickle_of_anything_else_is_not_unpickled(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "owned",)

    (tmp_path / "a.bin").write_bytes(pickle.dumps(([jpeg(), Evil()], [True]), 4))
    (tmp_path / "b.bin").write_bytes(pickle.dumps(([jpeg()] * 2, [True]), 4))
    chosen = plan(str(tmp_path), Columns())
    codes = [c for unit in chosen.units for c in read_unit(chosen, unit)["read_error"].to_pylist()]
    assert codes == [None, "truncated_unit", None, None]
    assert not (tmp_path / "owned").exists()


def test_records_in_parts(tmp_path: Path) -> None:
    """MXNet cuts a record where its magic number stands in it."""
    picture = jpeg() + MAGIC + b"more" * 100
    (tmp_path / "a.rec").write_bytes(records([picture] * 3, split=1))
    chosen = plan(str(tmp_path), Columns())
    assert read_unit(chosen, chosen.units[0])["image"].to_pylist() == [picture] * 3


def test_files_that_belong_to_others_are_not_left_out(tmp_path: Path) -> None:
    (tmp_path / "train.rec").write_bytes(records([jpeg()]))
    for name in ("train.idx", "property", "train.lst"):
        (tmp_path / name).write_text("x")
    assert not plan(str(tmp_path), Columns()).left_out
    (tmp_path / "h").mkdir()
    (tmp_path / "h" / "data-00000-of-00001.arrow").write_bytes(arrow([jpeg()], stream=False))
    for name in ("state.json", "dataset_info.json"):
        (tmp_path / "h" / name).write_text("{}")
    assert plan(str(tmp_path / "h"), Columns()).rows == 1


def test_a_table_of_paths(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for number, face in enumerate(faces(3)):
        (tmp_path / "x" / f"{number}.jpg").write_bytes(jpeg(face))
    table = tmp_path / "a.csv"
    table.write_text("path,who\nx/2.jpg,Jane\nx/0.jpg,John\nx/gone.jpg,Jim\n")
    for key in (None, b"k" * 16):
        chosen = plan(str(table), Columns(identity="who"), key=key)
        found = read_unit(chosen, chosen.units[0])
        assert found["identity"].to_pylist() == ["Jane", "John", "Jim"]
        assert found["read_error"].to_pylist() == [None, None, "unreadable_file"]
        assert found["image"][1].as_py() == jpeg(faces(3)[0])
    table.write_text("path,who\n../../etc/passwd,Jane\n")
    with pytest.raises(UserError, match="1 of 1 paths of the table lie outside"):
        plan(str(table), Columns(identity="who"))


@pytest.mark.parametrize("shape", ["NHW", "NHWC", "NCHW"])
def test_stacks_of_any_layout(shape: str, tmp_path: Path) -> None:
    pixels = faces(4)
    made = {"NHW": pixels[..., 0], "NHWC": pixels, "NCHW": pixels.transpose(0, 3, 1, 2)}[shape]
    np.save(tmp_path / "a.npy", np.ascontiguousarray(made))
    chosen = plan(str(tmp_path), Columns(), unit_rows=2)
    found = [decode(d) for u in chosen.units for d in read_unit(chosen, u)["image"].to_pylist()]
    wanted = np.repeat(pixels[..., :1], 3, 3) if shape == "NHW" else pixels
    assert np.array_equal(np.stack(found), wanted)


def test_hdf5_of_encoded_pictures_and_of_several_stacks(tmp_path: Path) -> None:
    pictures = [jpeg(face) for face in faces(5)]
    (tmp_path / "a.h5").write_bytes(hdf5(pictures, encoded=True))
    chosen = plan(str(tmp_path), Columns(keep=("age",)), unit_rows=2)
    tables = pa.concat_tables([read_unit(chosen, unit) for unit in chosen.units])
    assert tables["image"].to_pylist() == pictures
    assert tables["keep.age"].to_pylist() == ["0.0", "1.0", "2.0", "3.0", "4.0"]
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["pixels"] = faces(3)
    with pytest.raises(UserError, match="--image-column; there are: faces, pixels"):
        plan(str(tmp_path), Columns())
    assert plan(str(tmp_path), Columns(image="pixels")).rows == 3


def test_hdf5_leads_to_no_other_file(tmp_path: Path) -> None:
    faces(4).tofile(tmp_path / "secret.raw")
    shape = (4, 112, 112, 3)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["faces"] = faces(4)
    for number in range(3):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            if number == 0:
                outside = [(str(tmp_path / "secret.raw"), 0, 4 * 112 * 112 * 3)]
                file.create_dataset("faces", shape, "uint8", external=outside)
            elif number == 1:
                layout = h5py.VirtualLayout(shape, "uint8")
                layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "faces", shape)
                file.create_virtual_dataset("faces", layout)
            else:
                file["faces"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "faces")
        chosen = plan(str(tmp_path / "a.h5"), Columns())
        assert [unit.damaged for unit in chosen.units] == ["unreadable_unit"]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
@pytest.mark.parametrize("struct", [True, False])
def test_lists_of_pictures(struct: bool, kind: str, tmp_path: Path) -> None:
    """Rows of none, one and several; every picture is a record."""
    pictures = [jpeg(face) for face in faces(4)]
    rows = [[pictures[0]], [], pictures[1:3], None, [None, pictures[3]]]
    one = IMAGE_TYPE if struct else pa.binary()
    if struct:
        rows = [row and [d and {"bytes": d, "path": None} for d in row] for row in rows]
    listed = pa.large_list(one) if struct else pa.list_(one)
    table = pa.table({"image": pa.array(rows, listed), "who": list("abcde")})
    if kind == "parquet":
        pq.write_table(table, tmp_path / "a.parquet")
    else:
        with pa.ipc.new_stream(tmp_path / "a.arrow", table.schema) as out:
            out.write_table(table, max_chunksize=2)
    with pytest.raises(UserError, match=f"holds lists of pictures: --input-format {kind}-lists"):
        plan(str(tmp_path), Columns())
    chosen = plan(str(tmp_path), Columns(identity="who"), format=f"{kind}-lists", unit_rows=2)
    found = pa.concat_tables([read_unit(chosen, unit) for unit in chosen.units])
    assert found["image"].to_pylist() == [
        pictures[0], None, pictures[1], pictures[2], None, None, pictures[3]
    ]  # fmt: skip
    assert found["identity"].to_pylist() == list("abccdee")
    assert found["read_error"].null_count == 7


def test_a_file_of_lists_among_others_is_dead_letters(tmp_path: Path) -> None:
    """A row of it is no record: as many records as rows would lose the other pictures unsaid."""
    for name in "ab":
        pq.write_table(pa.table({"image": [b"1", b"2"]}), tmp_path / f"{name}.parquet")
    lists = pa.array([[b"3", b"4", b"5"], [b"6"]], pa.list_(pa.binary()))
    pq.write_table(pa.table({"image": lists}), tmp_path / "c.parquet")
    chosen = plan(str(tmp_path), Columns())
    found = read_unit(chosen, chosen.units[-1])
    assert found["image"].to_pylist() == [None, None]
    assert found["read_error"].to_pylist() == ["unreadable_row"] * 2


def test_a_column_that_is_called_like_a_part_of_the_pictures_is_another(tmp_path: Path) -> None:
    table = pa.table({"image": [b"1", b"2"], "image.bytes": [b"3", b"4"]})
    pq.write_table(table, tmp_path / "a.parquet")
    chosen = plan(str(tmp_path), Columns())
    assert read_unit(chosen, chosen.units[0])["image"].to_pylist() == [b"1", b"2"]


def test_one_damaged_stack_does_not_decide_for_all(tmp_path: Path) -> None:
    """A dataset that damage made look like pictures, in one file of three."""
    h5py = pytest.importorskip("h5py")
    for name in "abc":
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["faces"] = faces(2)
            if name == "a":
                file["who"] = faces(2)
            else:
                file["who"] = ["Jane", "Joe"]
    chosen = plan(str(tmp_path), Columns(identity="who"))
    found = {unit.sources[0][-4]: read_unit(chosen, unit) for unit in chosen.units}
    assert [found[name]["identity"].to_pylist() for name in "bc"] == [["Jane", "Joe"]] * 2
    (tmp_path / "c.h5").unlink()
    with pytest.raises(UserError, match="there are: faces, who"):
        plan(str(tmp_path), Columns(identity="who"))


@pytest.mark.parametrize("damage", ["put in", "lost", "moved"])
@pytest.mark.parametrize("stream", [True, False])
def test_no_column_gets_the_bytes_of_another(stream: bool, damage: str, tmp_path: Path) -> None:
    """Nothing in Arrow's files sums up a column: bytes put in would shift names into numbers."""
    names = ["Jane_Doe" * 20, "Jane_Doe" * 20]
    table = pa.table({"image": [jpeg()] * 2, "name": names, "age": [41, 42]})
    sink = io.BytesIO()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as out:
        out.write_table(table)
        out.write_table(table)
    data = sink.getvalue()
    at = data.rindex(b"Jane_Doe")
    ages = data.index(struct.pack("<qq", 41, 42), at) - (at - 39 * 8)
    if damage == "put in":
        data = data[:at] + b"Jane_Doe" * 4 + data[at:]
    elif damage == "lost":
        data = data[: at - 24] + data[at:]
    else:  # where the numbers lie, as the second batch says it, is on the names
        where = max(n for n in range(at) if data[n : n + 8] == struct.pack("<q", 16))
        start = struct.unpack("<q", data[where - 8 : where])[0]
        data = data[: where - 8] + struct.pack("<q", start - ages) + data[where:]
    (tmp_path / "a.arrow").write_bytes(data)
    chosen = plan(str(tmp_path), Columns(keep=("age",)))
    found = pa.concat_tables([read_unit(chosen, unit) for unit in chosen.units])
    assert found["keep.age"].to_pylist()[:2] == [41, 42]
    assert found["keep.age"].null_count == found.num_rows - 2
    assert found["read_error"].null_count == 2 and found.num_rows > 2 - (damage != "moved")


@pytest.mark.parametrize("kind", ["parquet", "arrow", "lance"])
def test_pictures_deeper_in_a_column_are_refused_by_its_name(kind: str, tmp_path: Path) -> None:
    """Lists in a table of Lance; and structs in lists, as datasets of clips have them."""
    clips = [[{"frame": {"bytes": jpeg(), "path": None}}]] * 2
    column = pa.array(clips, pa.list_(pa.struct({"frame": IMAGE_TYPE})))
    if kind == "lance":
        column = pa.array([[jpeg()]] * 2, pa.list_(pa.binary()))
    table = pa.table({"clip": column, "who": ["a", "b"]})
    if kind == "lance":
        lance = pytest.importorskip("lance")
        lance.write_dataset(table, tmp_path / "t")
    elif kind == "parquet":
        pq.write_table(table, tmp_path / "a.parquet")
    else:
        with pa.ipc.new_stream(tmp_path / "a.arrow", table.schema) as out:
            out.write_table(table)
    root = str(tmp_path / "t" if kind == "lance" else tmp_path)
    with pytest.raises(UserError, match="'clip' holds pictures within lists or structs"):
        plan(root, Columns())


def test_archives_that_unpack_to_more_than_they_may(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({"1.jpg": bytes(140 * 2**20), "2.jpg": jpeg()}))
    chosen = plan(str(tmp_path), Columns())
    codes = [c for unit in chosen.units for c in read_unit(chosen, unit)["read_error"].to_pylist()]
    assert codes == ["too_large", None]
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "a.tgz").write_bytes(gzip.compress(bytes(200 * 2**20), 9))
    chosen = plan(str(tmp_path / "t"), Columns())
    assert read_unit(chosen, chosen.units[0])["read_error"].to_pylist() == ["unreadable_unit"]


def test_a_damaged_name_in_a_zip_costs_its_picture_only(tmp_path: Path) -> None:
    pictures = [jpeg(face) for face in faces(4)]
    sound = zipped({f"Jane_{n // 2}/{n}.jpg": data for n, data in enumerate(pictures)})
    at = sound.rindex(b"Jane_0/1.jpg")  # in the directory at the end
    whole = (
        b"Ja/e_0/1.jpg",
        b"_ane_0/1.jpg",
        b"Jane_0/1.jqg",
        b"Jane_0/1.jp\xff",
        b"\0ane_0/1.jpg",
    )
    for new in whole:
        (tmp_path / "a.zip").write_bytes(sound[:at] + new + sound[at + len(new) :])
        chosen = plan(str(tmp_path), Columns(identity="folder"))
        table = read_unit(chosen, chosen.units[0])
        lost = table["read_error"].to_pylist()
        assert sorted(lost, key=str) == [None, None, None, "unreadable_file"], new
        assert [d for d in table["image"].to_pylist() if d] == [pictures[n] for n in (0, 2, 3)]
    claimed = sound.rindex(b"PK\5\6") + 10
    (tmp_path / "a.zip").write_bytes(sound[:claimed] + b"\5\0" + sound[claimed + 2 :])
    assert plan(str(tmp_path), Columns()).units[0].damaged == "truncated_unit"


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_who_is_in_an_archive(kind: str, tmp_path: Path) -> None:
    names = ["x/Jane/a_1.jpg", "x/Jane/a_2.jpg", "x/John/b_1.jpg"]
    members = dict(zip(names, [jpeg(face) for face in faces(3)], strict=True))
    if kind == "zip":
        (tmp_path / "a.zip").write_bytes(zipped(members))
    else:
        with tarfile.open(tmp_path / f"a.{kind}", "w:gz" if "gz" in kind else "w") as tar:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    told = {
        "1": ["Jane", "Jane", "John"],
        "2": ["x", "x", "x"],
        "x/{identity}/*": ["Jane", "Jane", "John"],
        "*/*/{identity}_?.jpg": ["a", "a", "b"],
        "{identity}_*.jpg": ["a", "a", "b"],
    }
    for how, who in told.items():
        chosen = plan(str(tmp_path), Columns(identity="identity", identity_from=how), unit_rows=2)
        table = pa.concat_tables([read_unit(chosen, unit) for unit in chosen.units])
        assert table["identity"].to_pylist() == who, how
    with pytest.raises(UserError, match="3 of 3 paths do not follow it"):
        plan(str(tmp_path), Columns(identity="identity", identity_from="y/{identity}/*"))
