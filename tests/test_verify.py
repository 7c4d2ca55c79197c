"""Verify finds what was done to an output, and nothing where nothing was done."""

import hashlib
import io
import json
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
from PIL import Image, PngImagePlugin

from ppfr_ops.cli.verify import main
from ppfr_ops.contracts.ledger import LedgerEntry
from ppfr_ops.contracts.manifest import Listing, ReleaseManifest
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.release.foreign import foreign_part
from ppfr_ops.release.listing import Shards, write_rows
from ppfr_ops.release.signing import SIGNATURE, make_signature, seal, sign
from ppfr_ops.release.verify import verify
from ppfr_ops.sample import faces
from ppfr_ops.sanitize.finish import finish
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.prepare import prepare
from ppfr_ops.sanitize.worker import Worker
from ppfr_ops.store.ledger import Ledger


@pytest.fixture(scope="module")
def untouched(tmp_path_factory) -> Path:
    """Three units, one of them with a dead letter, sanitized without an engine and signed."""
    folder = tmp_path_factory.mktemp("verify")
    (folder / "in").mkdir()
    cells = [{"bytes": Encoding().encode(face), "path": "x"} for face in faces(12, seed=0)]
    cells[5]["bytes"] = b"no picture"
    pq.write_table(pa.table({"image": cells, "age": list(range(12))}), folder / "in/a.parquet")
    options = SanitizeOptions(
        input=str(folder / "in"),
        output=str(folder / "out"),
        method="pixelate",
        unit_rows=4,
        keep_columns=("age",),
        max_dead_letter_rate=0.5,
    )
    job = prepare(options)
    Ledger(options.output).open(job.settings)
    worker = Worker(job)
    for ordinal in range(len(job.plan.units)):
        worker.process(ordinal)
    finish(job, "test")
    key = Ed25519PrivateKey.generate()
    pem, none = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, none))
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "pub").write_bytes(public)
    sign(options.output, key)
    return folder


@pytest.fixture
def output(untouched: Path, tmp_path: Path) -> Path:
    shutil.copytree(untouched / "out", tmp_path / "out")
    return tmp_path / "out"


def shards(output: Path, kind: str) -> list[Path]:
    folder = output / ("release" if kind == "data" else "evidence") / kind
    return sorted(folder.glob("*.parquet"))


def reseal(output: Path) -> None:
    """What a forger does: every digest in manifests, ledger and seal is made to fit again."""
    listed = Shards()
    for path in (output / "evidence/ledger/units").iterdir():
        entry = json.loads(path.read_text())
        for shard in entry["shards"].values():
            data = (output / shard["path"]).read_bytes()
            shard["bytes"], shard["sha256"] = len(data), hashlib.sha256(data).hexdigest()
            shard["rows"] = pq.read_metadata(io.BytesIO(data)).num_rows
        path.write_text(json.dumps(entry))
        listed.add(LedgerEntry.model_validate(entry))
    relist(output, listed.table())


def relist(output: Path, shards: pa.Table) -> None:
    """Another list of shards in the release, with a manifest and a seal that fit it."""
    ledger = Ledger(str(output))
    listing = Listing(**write_rows(ledger, shards, "release", "files.pq"))
    told = ReleaseManifest.model_validate_json((output / "release/manifest.json").read_text())
    records = sum(shards["rows"].to_pylist()) if "rows" in shards.column_names else told.records
    told = told.model_copy(update={"listing": listing, "records": records})
    (output / "release/manifest.json").write_bytes(told.text())
    seal(ledger, told.version, None)


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def flip_a_byte(output: Path) -> None:
    data = bytearray(shards(output, "data")[0].read_bytes())
    data[len(data) // 2] ^= 1
    shards(output, "data")[0].write_bytes(bytes(data))


def remove_a_shard(output: Path) -> None:
    shards(output, "metrics")[1].unlink()


def add_a_shard(output: Path) -> None:
    shutil.copy(shards(output, "data")[0], output / "release" / "data" / f"{9:032x}.parquet")


def double_a_row(output: Path) -> None:
    first, second = shards(output, "data")[0], shards(output, "data")[2]
    row = pq.read_table(first).slice(0, 1)
    rewrite(second, lambda table: pa.concat_tables([table, row]))
    reseal(output)


def change_a_metric(output: Path) -> None:
    def lower(table: pa.Table) -> pa.Table:
        values = pa.array(np.zeros(len(table), "f"))
        return table.set_column(1, table.schema.field(1), values)

    rewrite(shards(output, "metrics")[0], lower)


def forge(output: Path) -> None:
    change_a_metric(output)
    reseal(output)


def plant_exif(output: Path) -> None:
    def plant(table: pa.Table) -> pa.Table:
        cells = table["image"].to_pylist()
        picture = Image.open(io.BytesIO(cells[0]["bytes"]))
        exif, target = Image.Exif(), io.BytesIO()
        exif[0x010E] = "Jane Doe"
        picture.save(target, "JPEG", exif=exif)
        cells[0]["bytes"] = target.getvalue()
        column = pa.array(cells, table.schema.field("image").type)
        return table.set_column(1, table.schema.field(1), column)

    rewrite(shards(output, "data")[0], plant)
    reseal(output)


def add_a_column(output: Path) -> None:
    rewrite(
        shards(output, "data")[0],
        lambda table: table.append_column("name", pa.array(["Jane"] * len(table))),
    )
    reseal(output)


TAMPERINGS = {
    flip_a_byte: ("data/", "sha256"),
    remove_a_shard: ("evidence/metrics/u000001.parquet", "missing"),
    add_a_shard: (f"data/{9:032x}.parquet", "not in the manifest"),
    double_a_row: ("data/", ".parquet too"),
    change_a_metric: ("evidence/metrics/u000000.parquet", "manifest"),
    forge: ("evidence/seal.json", "not what was sealed"),
    plant_exif: ("data/", "APP1"),
    add_a_column: ("data/", "'name' is not on the allow-list"),
}


def test_nothing_is_found_where_nothing_was_done(untouched: Path) -> None:
    assert list(verify(str(untouched / "out"))) == []
    arguments = [str(untouched / "out"), "--public-key", str(untouched / "pub")]
    result = CliRunner().invoke(main, arguments, standalone_mode=False)
    assert result.return_value == 0 and result.output.strip() == "all holds (version 1)"


@pytest.mark.parametrize("tamper", TAMPERINGS, ids=lambda tamper: tamper.__name__)
def test_every_tampering_is_named(tamper, output: Path, untouched: Path) -> None:
    tamper(output)
    arguments = [str(output), "--public-key", str(untouched / "pub"), "--json"]
    result = CliRunner().invoke(main, arguments, standalone_mode=False)
    assert result.return_value == 1
    file, reason = TAMPERINGS[tamper]
    findings = json.loads(result.output)["findings"]
    assert any(f["file"].startswith(file) and reason in f["reason"] for f in findings), findings


def test_the_forgery_is_found_by_the_signature_alone(output: Path) -> None:
    forge(output)
    assert list(verify(str(output))) == []


def test_the_sum_of_the_records_is_held_against_the_shards(output: Path) -> None:
    path = output / "release/manifest.json"
    told = ReleaseManifest.model_validate_json(path.read_text())
    path.write_bytes(told.model_copy(update={"records": told.records + 1}).text())
    found = [str(f) for f in verify(str(output / "release"))]
    assert f"manifest.json: counts {told.records + 1} records, lists {told.records}" in found


def test_a_missing_signature_and_a_foreign_key_are_findings(output: Path, untouched: Path) -> None:
    other = Ed25519PrivateKey.generate().public_key()
    release = str(output / "release")
    assert [f.file for f in verify(str(output), other)] == ["manifest.json", "evidence/seal.json"]
    assert [f.file for f in verify(release, other)] == ["manifest.json"]
    (output / "release" / SIGNATURE).unlink()
    assert [str(f) for f in verify(release, other)] == [f"{SIGNATURE}: there is no signature"]


def test_nothing_to_verify_is_wrong_usage(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [str(tmp_path)])
    assert result.exit_code == 2 and "no manifest.json" in result.output


def _with(format_: str, **options: object) -> bytes:
    target = io.BytesIO()
    Image.fromarray(faces(1, seed=0)[0]).save(target, format_, **options)
    return target.getvalue()


def _png_text() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("name", "Jane Doe")
    return info


def _inserted(marker: int, *bodies: bytes) -> bytes:
    """A picture of ours with segments besides, before its own tables; decoders do not mind."""
    data = Encoding("jpeg").encode(faces(1)[0])
    parts = [bytes([0xFF, marker]) + (len(b) + 2).to_bytes(2, "big") + b for b in bodies]
    place = data.index(b"\xff\xdb")
    return data[:place] + b"".join(parts) + data[place:]


def _in_scan(text: bytes) -> bytes:
    data = Encoding("jpeg").encode(faces(1)[0])
    return data[:-2] + text + data[-2:]


HUFFMAN = bytes(7) + b"\x09" + bytes(8) + b"Jane Doe!"


@pytest.mark.parametrize("quality", [5, 75, 100])
@pytest.mark.parametrize("shape", [(1, 1), (8, 300), (112, 112)])
def test_a_jpeg_of_any_quality_and_size_holds_nothing_foreign(
    quality: int, shape: tuple[int, int]
) -> None:
    noise = np.random.default_rng(quality).integers(0, 256, (*shape, 3), np.uint8)
    assert foreign_part(Encoding("jpeg", quality).encode(noise)) is None


@pytest.mark.parametrize("format_", ["jpeg", "png", "webp"])
def test_our_own_pictures_hold_nothing_foreign(format_) -> None:
    for face in faces(5, seed=2):
        assert foreign_part(Encoding(format_).encode(face)) is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (_with("JPEG", comment=b"Jane"), "COM"),
        (_with("JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"), "APP1"),
        (_with("JPEG", icc_profile=b"x" * 200), "APP2"),
        (_with("JPEG") + b"thumbnail", "after the end"),
        (_with("JPEG")[:-200], "truncated"),
        (_inserted(0xDB, b"\0" + b"Jane Doe" * 8), "more than it needs"),
        (_inserted(0xDB, *[bytes([n]) + b"Jane Doe" * 8 for n in (2, 3)]), "more than it needs"),
        (_inserted(0xC4, b"\0" + HUFFMAN), "more than it needs"),
        (_inserted(0xC4, b"\x21" + HUFFMAN), "more than it needs"),
        (_inserted(0xC0, b"\x08\0\x70\0\x70\x03" + b"Jane Doe!"), "more than it needs"),
        (_inserted(0xDD, b"\0\x02"), "0xDD"),
        (_in_scan(b"\xff\xd0\xff\xd5"), "more than one scan"),
        (_with("JPEG", progressive=True), "0xC2"),
        (_with("PNG", pnginfo=_png_text()), "tEXt"),
        (_with("PNG") + b"more", "after the end"),
        (_with("WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"), "VP8X"),
        (b"GIF89a", "not a JPEG"),
        (b"", "not a JPEG"),
    ],
)
def test_foreign_parts_of_pictures_are_named(data: bytes, reason: str) -> None:
    assert reason in (foreign_part(data) or "")


def test_a_plain_signature_is_of_this_text_by_this_key_and_of_nothing_else() -> None:
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    made, public = make_signature(b"a text", key), key.public_key()
    assert made.holds(b"a text", public)
    for data, by in ((b"a text.", public), (b"a text", other.public_key())):
        assert not made.holds(data, by)
    named = make_signature(b"a text", other).public_key
    assert not made.model_copy(update={"public_key": named}).holds(b"a text", public)
    unpadded = made.model_copy(update={"signature": made.signature.rstrip("=") + "A"})
    assert not unpadded.holds(b"a text", public)
