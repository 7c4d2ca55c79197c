"""A release that somebody made to harm whoever verifies it: little time, little memory, no lies."""

import io
import json
import os
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from PIL import Image
from test_verify import output, relist, reseal, shards, untouched  # noqa: F401

from ppfr_ops.contracts.manifest import FILES_SCHEMA, ReleaseManifest
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.release.foreign import foreign_part
from ppfr_ops.release.listing import Unlisted, read_files, read_rows
from ppfr_ops.release.looking import picture_fault
from ppfr_ops.release.signing import _ENTRIES_SCHEMA, EntryList, sign
from ppfr_ops.release.standalone.check import check
from ppfr_ops.release.verify import verify
from ppfr_ops.sample import faces
from ppfr_ops.store.folder import Folder
from ppfr_ops.store.ledger import Ledger


def repeated(folder: Path) -> None:
    """A text of two megabytes that is written once, and is that of 4,000 rows: 8 GB."""
    path = shards(folder, "data")[0]
    table = pq.read_table(path).take([0] * 4000)
    image = pa.array([{"bytes": b"x" * 2_000_000, "path": "x"}] * 1, table.schema.field(1).type)
    table = table.set_column(
        1, table.schema.field(1), pa.chunked_array([image.take(pa.array([0] * 100))] * 40)
    )
    pq.write_table(table, path, use_dictionary=True, compression="zstd", row_group_size=4000)


def zeros(folder: Path) -> None:
    """Pages of a gigabyte each that compress to nothing."""
    path = shards(folder, "data")[0]
    table = pq.read_table(path)
    image = pa.array(
        [{"bytes": bytes(400 << 20), "path": "x"}] * len(table), table.schema.field(1).type
    )
    table = table.set_column(1, table.schema.field(1), image)
    pq.write_table(table, path, use_dictionary=False, compression="zstd", row_group_size=1)


def chunks(folder: Path) -> None:
    """Half a million chunks in a picture."""
    path = shards(folder, "data")[0]
    table = pq.read_table(path)
    chunk = b"\0\0\0\0IDAT" + zlib.crc32(b"IDAT").to_bytes(4, "big")
    png = Encoding("png").encode(faces(1)[0])
    place = png.index(b"IDAT") - 4
    data = png[:place] + chunk * 500_000 + png[place:]
    cells = table["image"].to_pylist()
    cells[0]["bytes"] = data
    pq.write_table(
        table.set_column(1, table.schema.field(1), pa.array(cells, table.schema.field(1).type)),
        path,
        compression="zstd",
    )


@pytest.mark.parametrize("kind", ["data", "metrics"])
def test_a_shard_that_is_a_hole_is_not_read(output: Path, kind: str) -> None:  # noqa: F811
    """Forty gigabytes that take no room on the disk, and that an unsigned list says are there."""
    size = 40 << 30
    path = shards(output, kind)[0]
    os.truncate(path, size)
    place = f"{kind}/{path.name}"
    if kind == "data":
        ledger = Ledger(str(output))
        manifest = ReleaseManifest.model_validate_json(
            (output / "release/manifest.json").read_text()
        )
        listed = read_files(ledger, manifest, "release").to_pylist()
        for row in listed:
            row["bytes"] = size if row["path"].decode() == place else row["bytes"]
        relist(output, pa.Table.from_pylist(listed, FILES_SCHEMA))
    for entry in (output / "evidence/ledger/units").iterdir():
        told = json.loads(entry.read_text())
        if told["shards"][kind]["path"].endswith(path.name):
            told["shards"][kind]["bytes"] = size
        entry.write_text(json.dumps(told))
    faults = [str(fault) for fault in verify(str(output)) if fault.file.endswith(place)]
    assert len(faults) == 1 and "more memory or time" in faults[0]


CHILD = """
import sys, time
from ppfr_ops.release.standalone.check import check
from ppfr_ops.release.verify import verify
began = time.monotonic()
found = list(verify(sys.argv[1]))
lines = open("/proc/self/status").read().splitlines()
kib = next(line.split()[1] for line in lines if line.startswith("VmHWM"))
print(time.monotonic() - began, kib, len(found))
for finding in found[:5]: print(finding)
"""


@pytest.mark.parametrize("harm", [repeated, zeros, chunks], ids=lambda harm: harm.__name__)
def test_what_nobody_signed_takes_what_an_honest_file_takes(
    output: Path,  # noqa: F811
    harm: Callable[[Path], None],
) -> None:
    harm(output)
    reseal(output)
    assert sum(p.stat().st_size for p in output.rglob("*") if p.is_file()) < 12 << 20
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(output)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    seconds, kib, count = done.stdout.splitlines()[0].split()
    assert int(count) > 0 and "data/" in done.stdout, done.stdout
    assert float(seconds) < 45 and int(kib) < 700_000, done.stdout


def test_a_list_whose_texts_unfold_is_not_read(tmp_path: Path) -> None:
    rows = 50_000
    table = pa.table(
        [pa.array(["u" * 1_000_000]).take(pa.array([0] * 1)), pa.array([b"d" * 32], pa.binary(32))],
        schema=_ENTRIES_SCHEMA,
    )
    folder = Folder(str(tmp_path))
    big = pa.concat_tables([table] * 300)
    with folder.writing("list.parquet") as file:
        pq.write_table(big, file, compression="none", use_dictionary=["unit"])
    data = (tmp_path / "list.parquet").read_bytes()
    import hashlib

    told = EntryList(
        path="seal.0000000000000000.parquet",
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        rows=300,
    )
    assert len(data) < 3_000_000 and rows
    with pytest.raises(Unlisted, match="unfolds"):
        read_rows(folder, told, _ENTRIES_SCHEMA, "list.parquet")


def test_a_file_that_is_listed_often_is_read_once(output: Path) -> None:  # noqa: F811
    from ppfr_ops.contracts.manifest import File, ReleaseManifest
    from ppfr_ops.release.signing import seal
    from ppfr_ops.store.ledger import Ledger

    place = output / "release/manifest.json"
    told = ReleaseManifest.model_validate_json(place.read_text())
    (output / "release/README.md").write_bytes(bytes(2_000_000))
    import hashlib

    digest = hashlib.sha256(bytes(2_000_000)).hexdigest()
    file = File(path="README.md", bytes=2_000_000, sha256=digest, rows=None)
    told = told.model_copy(update={"files": [file] * 10_000})
    place.write_bytes(told.text())
    seal(Ledger(str(output)), told.version, None)
    began = time.process_time()
    assert any("lists README.md twice" in f.reason for f in verify(str(output)))
    assert time.process_time() - began < 10


def test_a_large_manifest_is_read_if_it_is_signed(
    output: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ppfr_ops.release import verify as module

    monkeypatch.setattr(module, "LARGEST_UNSIGNED", 100)
    assert [f.reason for f in verify(str(output))] == [
        "is larger than one that nobody vouches for may be"
    ]
    key = Ed25519PrivateKey.generate()
    place = output / "release"
    sign(str(output), key)
    found = list(verify(str(place), key.public_key()))
    assert found == []
    assert len(list(verify(str(place), Ed25519PrivateKey.generate().public_key()))) == 2


@pytest.mark.parametrize("list_name", ["files.pq", "SHA256SUMS"])
def test_a_list_is_no_larger_than_what_lies_there(output: Path, list_name: str) -> None:  # noqa: F811
    """900 MB of a list that nobody signed, a hole: it is not even hashed, by neither verifier."""
    release = output / "release"
    place = release / "manifest.json"
    with (release / list_name).open("ab") as file:
        file.truncate(900 << 20)
    told = json.loads(place.read_bytes())
    told["listing"] |= {"path": list_name, "bytes": 900 << 20}
    place.write_bytes(ReleaseManifest.model_validate(told).text())
    began = time.process_time()
    found = [(f.file, f.reason) for f in verify(str(release))]
    assert (list_name, "is larger than any list of what lies there") in found
    assert (list_name, "is larger than any list of what lies there") in check(str(release)).findings
    assert time.process_time() - began < 0.5


# -- pictures ----------------------------------------------------------------------------------

PNG = Encoding("png").encode(faces(1)[0])
JPEG = Encoding("jpeg", 90).encode(faces(1)[0])
WEBP = Encoding("webp", 90).encode(faces(1)[0])
SECRET = b"a face, smuggled"


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def idat() -> tuple[bytes, bytes, bytes]:
    place = PNG.index(b"IDAT") - 4
    pixels, position = b"", place
    while PNG[position + 4 : position + 8] == b"IDAT":
        length = int.from_bytes(PNG[position : position + 4], "big")
        pixels += PNG[position + 8 : position + 8 + length]
        position += 12 + length
    return PNG[:place], pixels, PNG[position:]


def smuggled() -> dict[str, bytes]:
    head, pixels, tail = idat()
    end = tail.index(b"IEND") - 4
    marker = JPEG.index(b"\xff\xdb")
    return {
        "in IEND": head + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", SECRET),
        "after IEND": PNG + SECRET,
        "PLTE": head + png_chunk(b"PLTE", SECRET + b"xx") + png_chunk(b"IDAT", pixels) + tail,
        "tEXt": head + png_chunk(b"tEXt", SECRET) + png_chunk(b"IDAT", pixels) + tail,
        "after the pixels": head + png_chunk(b"IDAT", pixels + SECRET) + tail,
        "a chunk after the pixels": head
        + png_chunk(b"IDAT", pixels)
        + png_chunk(b"IDAT", SECRET)
        + tail,
        "rows below the picture": head
        + png_chunk(b"IDAT", zlib.compress(zlib.decompress(pixels) + SECRET))
        + tail,
        "second header": head + head[8:] + png_chunk(b"IDAT", pixels) + tail,
        "no end": head + png_chunk(b"IDAT", pixels) + tail[:end],
        "JFIF twice": JPEG[:20] + JPEG[2:20] + JPEG[20:],
        "longer table": JPEG[:marker]
        + b"\xff\xdb"
        + struct.pack(">H", int.from_bytes(JPEG[marker + 2 : marker + 4], "big") + len(SECRET))
        + JPEG[marker + 4 : marker + 4 + int.from_bytes(JPEG[marker + 2 : marker + 4], "big") - 2]
        + SECRET
        + JPEG[marker + 2 + int.from_bytes(JPEG[marker + 2 : marker + 4], "big") :],
        "SOI again": JPEG[:2]
        + b"\xff\xd8"
        + struct.pack(">H", 2 + len(SECRET))
        + SECRET
        + JPEG[2:],
        "after EOI": JPEG + SECRET,
        "webp chunk": WEBP + b"EXIF" + struct.pack("<I", len(SECRET)) + SECRET,
        "webp twice": WEBP + WEBP[12:],
        "webp end": WEBP + SECRET,
    }


@pytest.mark.parametrize("where", smuggled())
def test_what_is_smuggled_in_a_picture_is_found(where: str) -> None:
    assert foreign_part(smuggled()[where]) is not None


def test_our_own_pictures_hold_nothing_else() -> None:
    rng = np.random.default_rng(0)
    for size in ((112, 112), (1, 1), (3, 250), (301, 97)):
        picture = rng.integers(0, 255, (*size, 3), np.uint8)
        for kind in ("jpeg", "png", "webp"):
            for quality in (1, 50, 95, 100):
                assert foreign_part(Encoding(kind, quality).encode(picture)) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("grey", [False, True])
def test_nothing_hides_behind_the_pixels_in_a_scan(grey: bool) -> None:
    """Bytes behind the last block, of which no decoder tells; they are no segment."""
    rng = np.random.default_rng(5)
    noise = rng.integers(0, 256, (61, 113, 3), np.uint8)
    for picture in (faces(1)[0], noise, noise[:1, :1], np.full((90, 41, 3), 255, np.uint8)):
        for quality in (30, 90, 100):
            data = Encoding("jpeg", quality).encode(picture)
            if grey:
                made = io.BytesIO()
                Image.fromarray(picture).convert("L").save(made, "JPEG", quality=quality)
                data = made.getvalue()
            assert picture_fault(data, None) is None
            for hidden in (SECRET, bytes(10), b"\xff\0" * 4000):
                larger = data[:-2] + hidden + data[-2:]
                assert foreign_part(larger) is None
                assert picture_fault(larger, None) == "bytes behind its pixels"
    assert picture_fault(JPEG[:-400] + JPEG[-2:], None) in (None, "damaged JPEG")  # cut off
