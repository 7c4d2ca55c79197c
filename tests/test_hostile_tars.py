"""Tars made by an enemy: no sample vanishes, planning ends, and one bad item stops no other."""

import io
import json
import os
import struct
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
from pictures import jpeg

from ppfr_ops.contracts.dead_letters import REASONS
from ppfr_ops.source.plan import Columns, plan, read_unit, sources

FIELDS = Columns(identity="who", keep=("age",))


def member(name: str, body: bytes = b"x", **attributes: object) -> bytes:
    """Header and padded body, as ``tarfile`` would write them."""
    info = tarfile.TarInfo(name)
    info.size = len(body)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT) + body + bytes(-len(body) % 512)


def sample(number: int) -> bytes:
    fields = json.dumps({"who": f"Jane {number}", "age": number}).encode()
    return member(f"{number}.jpg", jpeg() + b"%d" % number) + member(f"{number}.json", fields)


END = bytes(1024)


def with_checksum(header: bytes) -> bytes:
    total = sum(header[:148]) + 8 * 32 + sum(header[156:512])
    return header[:148] + b"%06o\0 " % total + header[156:]


def negative(name: str) -> bytes:
    header = bytearray(member(name, b"")[:512])
    header[124:136] = b"\xff" * 4 + struct.pack(">q", -512)
    return with_checksum(bytes(header))


def pax(records: dict[str, str]) -> bytes:
    info = tarfile.TarInfo("p")
    return info._create_pax_generic_header(records, tarfile.XHDTYPE, "utf-8")  # type: ignore[attr-defined]


def seen(folder: Path, columns: Columns = FIELDS) -> tuple[list[int], list[str]]:
    """Numbers of the samples that were read, and the reasons of those that were not."""
    chosen = plan(str(folder), columns, unit_rows=2)
    table = pa.concat_tables([read_unit(chosen, unit) for unit in chosen.units])
    assert table.num_rows == chosen.rows
    assert sum(1 for unit in chosen.units for _ in sources(chosen, unit)) == chosen.rows
    codes = [code for code in table["read_error"].to_pylist() if code is not None]
    pictures = [body for body in table["image"].to_pylist() if body is not None]
    return [int(body[len(jpeg()) :] or -1) for body in pictures], codes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a sound tar that sorts last."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "z.tar").write_bytes(sample(8) + sample(9) + END)
    return tmp_path / "in"


FOUR = [sample(number) for number in range(4)]
CASES = {
    "zero block": (FOUR[0] + FOUR[1] + bytes(512) + FOUR[2] + FOUR[3] + END, [0, 1, 2, 3], []),
    "concatenated": (FOUR[0] + FOUR[1] + END + FOUR[2] + FOUR[3] + END, [0, 1, 2, 3], []),
    "padded": (FOUR[0] + bytes(10_240 * 30) + FOUR[1] + END, [0, 1], []),
    "duplicates": (
        FOUR[0] + FOUR[0] + member("0.jpg", jpeg() + b"7") + END,
        [0, 0],
        ["unlabelled"],
    ),
    "negative size": (FOUR[0] + negative("n.jpg") + FOUR[1] + END, [], ["unreadable_unit"]),
    "negative size, later": (b"".join(FOUR) + negative("n.jpg"), [0, 1, 2], ["truncated_unit"]),
    "pax size": (
        b"".join(FOUR) + pax({"size": "1" + "0" * 20}) + member("n.jpg") + END,
        [0, 1, 2],
        ["truncated_unit"],
    ),
    "pax size of many digits": (
        b"".join(FOUR) + pax({"size": "9" * 5000}) + member("n.jpg") + END,
        [0, 1, 2],
        ["truncated_unit"],
    ),
    "sparse of 100 GB": (
        FOUR[0] + pax({"GNU.sparse.size": str(10**11)}) + member("n.jpg") + FOUR[1] + END,
        [0, 1],
        ["unreadable_file"],
    ),
    "old sparse": (
        FOUR[0] + member("n.jpg", type=b"S") + FOUR[1] + END,
        [0, 1],
        ["unreadable_file"],
    ),
    "link": (
        FOUR[0] + member("n.jpg", b"", type=b"1", linkname="0.jpg") + END,
        [0],
        ["unreadable_file"],
    ),
    "no end": (b"".join(FOUR), [0, 1, 2], ["truncated_unit"]),
    "only a pax header": (FOUR[0] + pax({"path": "a.jpg"}) + END, [], ["unreadable_unit"]),
    "nothing": (b"", [], ["unreadable_unit"]),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.timeout(60)
def test_no_sample_vanishes_and_planning_ends(folder: Path, name: str) -> None:
    data, numbers, codes = CASES[name]
    (folder / "a.tar").write_bytes(data)
    assert seen(folder) == ([*numbers, 8, 9], codes)
    assert set(codes) <= REASONS.keys()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        (b"[" * 1_000_000, "unreadable_row"),
        (b'{"who": ' + b"[" * 100_000, "unreadable_row"),
        (b'{"who": "\\ud800", "age": "\\udfff"}', None),
        (b'{"who": ' + b"9" * 5000 + b"}", "unreadable_row"),
        (b"\xff\xfe", "unreadable_row"),
        (b'{"who": "J\xfcrgen"}', "unreadable_row"),
        (b'{"who": "Jane', "unreadable_row"),
        (b'{"who": NaN, "age": 1e999}', None),
        (b'{"who": null}', None),
        (b'{"age": 3}', "unlabelled"),
        (b'["Jane"]', "unlabelled"),
    ],
)
def test_fields_that_nobody_can_read_cost_their_row(
    folder: Path, fields: bytes, code: str | None
) -> None:
    """And are not taken for a person without a name."""
    (folder / "a.tar").write_bytes(member("0.jpg", jpeg() + b"0") + member("0.json", fields) + END)
    assert seen(folder) == (([0, 8, 9], []) if code is None else ([8, 9], [code]))


def test_names_of_another_encoding(folder: Path) -> None:
    data = bytearray(FOUR[0])
    data[:3] = b"\xe9\xff."
    (folder / "a.tar").write_bytes(with_checksum(bytes(data[:512])) + bytes(data[512:]) + END)
    numbers, codes = seen(folder)
    assert (numbers[-2:], codes) == ([8, 9], ["unlabelled"]), "its fields are of another name"


def test_a_sparse_archive_of_zeros_is_not_read_to_its_end(folder: Path) -> None:
    with open(folder / "a.tar", "wb") as file:
        file.write(FOUR[0])
        file.truncate(200 * 10**9)
    assert seen(folder) == ([8, 9], ["unreadable_unit"])


def test_a_picture_larger_than_allowed_is_not_read(folder: Path) -> None:
    with open(folder / "a.tar", "wb") as file:
        file.write(FOUR[0])
        info = tarfile.TarInfo("n.jpg")
        info.size = 10**11
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.seek(info.size + -info.size % 512, io.SEEK_CUR)
        file.write(FOUR[1] + END)
    assert seen(folder) == ([0, 1, 8, 9], ["too_large"])


@pytest.mark.timeout(60)
def test_pipes_devices_and_large_pictures_in_a_tree(tmp_path: Path) -> None:
    for name in ("a", "z"):
        (tmp_path / f"{name}.jpg").write_bytes(jpeg())
    os.mkfifo(tmp_path / "b.jpg")
    (tmp_path / "c.jpg").symlink_to("/dev/zero")
    (tmp_path / "d.jpg").symlink_to("nowhere")
    with open(tmp_path / "e.jpg", "wb") as file:
        file.truncate(200 * 10**9)
    folder = tmp_path / os.fsdecode(b"\xe9")
    folder.mkdir()
    (folder / "f.jpg").write_bytes(jpeg())
    for key in (None, b"0123456789abcdef"):
        chosen = plan(str(tmp_path), Columns(identity="folder"), unit_rows=100, key=key)
        table = pa.concat_tables([read_unit(chosen, unit) for unit in chosen.units])
        codes = table["read_error"].to_pylist()
        assert sorted(filter(None, codes)) == ["too_large", *["unreadable_file"] * 3]
        assert codes.count(None) == 3
        rows = [row for unit in chosen.units for row in sources(chosen, unit)]
        assert len(pa.array([name for name, _ in rows], pa.string())) == 7


def test_a_pipe_among_tars_and_parquet_files(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(folder / "a.tar")
    assert seen(folder) == ([8, 9], ["unreadable_unit"])
