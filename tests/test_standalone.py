"""A release checked by what is not ours: OpenSSF Model Signing, openssl, Python alone."""

import ast
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from test_tampering import WAYS, release, signed
from test_verify import (
    add_a_column,
    add_a_shard,
    double_a_row,
    flip_a_byte,
    output,
    plant_exif,
    reseal,
    untouched,
)

from ppfr_ops.release import standalone
from ppfr_ops.release.attestation import SIGNATURE, read_bundle
from ppfr_ops.release.signing import load_public_key, load_signing_key, sign
from ppfr_ops.release.standalone.check import check
from ppfr_ops.release.standalone.parquet import (
    Unreadable,
    Unsupported,
    is_filled,
    read_column,
    read_footer,
)
from ppfr_ops.release.verify import verify
from ppfr_ops.store.shards import write_table

__all__ = ["output", "release", "signed", "untouched"]


def key_on(curve: ec.EllipticCurve, folder: Path) -> tuple[Path, Path]:
    """Private and public, PEM."""
    key = ec.generate_private_key(curve)
    pem, none = serialization.Encoding.PEM, serialization.NoEncryption()
    private, public = folder / "ec.key", folder / "ec.pub"
    private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, none))
    private.chmod(0o600)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(pem, form))
    return private, public


def run_alone(release: Path, *more: str, path: str | None = None) -> tuple[int, list[str]]:
    """The verifier that lies in a release, with nothing but Python."""
    command = [sys.executable, "-S", "-I", str(release / "verify.py"), *more]
    environment = {"PATH": path or os.environ["PATH"]}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines()


# -- OpenSSF Model Signing ------------------------------------------------------------------


@pytest.fixture
def on_a_curve(release: Path) -> Path:
    """Signed on a curve that Model Signing knows; the public key lies where the other does."""
    made = release.parent.parent
    private, public = key_on(ec.SECP256R1(), made)
    sign(str(release.parent), load_signing_key(str(private)))
    shutil.copy(private, made / "key")
    shutil.copy(public, made / "pub")
    return release


def by_model_signing(release: Path) -> None:
    """
    Raises:
        Exception: it does not hold.
    """
    verifying = pytest.importorskip("model_signing.verifying")
    config = verifying.Config().use_elliptic_key_verifier(public_key=release.parent.parent / "pub")
    config.verify(release, release / SIGNATURE)


BEYOND_MODEL_SIGNING = {
    "name_a_folder",
    "add_a_version_control",
    "lengthen_the_signature",
    "count_rows_elsewhere",
}
"""It looks at no empty folder and no ``.git``, passes over blanks after the signature, and knows
nothing of rows."""


def test_model_signing_verifies_a_release(on_a_curve: Path) -> None:
    by_model_signing(on_a_curve)
    assert (
        list(verify(str(on_a_curve), load_public_key(str(on_a_curve.parent.parent / "pub")))) == []
    )


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_model_signing_finds_the_same(way: Callable[[Path], None], on_a_curve: Path) -> None:
    pytest.importorskip("model_signing")
    way(on_a_curve)
    if way.__name__ in BEYOND_MODEL_SIGNING:
        by_model_signing(on_a_curve)
        return
    with pytest.raises(Exception, match=r"."):
        by_model_signing(on_a_curve)


def test_the_statement_says_what_was_done_and_nothing_of_a_record(release: Path) -> None:
    bundle = read_bundle((release / SIGNATURE).read_bytes())
    assert bundle is not None
    told = json.loads(bundle.payload)
    assert told["_type"] == "https://in-toto.io/Statement/v1"
    manifest = json.loads((release / "manifest.json").read_bytes())
    facts = told["predicate"]["ppfr"]
    assert facts["records"] == 11 and facts["method"] == manifest["method"]
    assert {name: manifest[name] for name in facts} == facts
    digests = {item["name"]: item["digest"] for item in told["predicate"]["resources"]}
    there = {str(path.relative_to(release)): path for path in release.rglob("*") if path.is_file()}
    there.pop(SIGNATURE)
    assert digests == {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in there.items()
    }


# -- Python alone ---------------------------------------------------------------------------


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_signatures_on_curves_hold(curve: ec.EllipticCurve, release: Path) -> None:
    made = release.parent.parent
    private, public = key_on(curve, made)
    sign(str(release.parent), load_signing_key(str(private)))
    assert list(verify(str(release.parent), load_public_key(str(public)))) == []
    code, said = run_alone(release, "--public-key", str(public))
    *left, last = said
    assert (code, last) == (0, "all that was checked holds (version 2)")
    assert [line for line in left if "JPEG's scan" not in line] == []
    code, said = run_alone(release, "--public-key", str(made / "pub"))
    assert (code, said[0]) == (1, "manifest.json: is not what was signed, or another key signed it")


def test_what_is_not_checked_is_said(release: Path, tmp_path: Path) -> None:
    code, said = run_alone(release)
    assert code == 0 and said[0] == "not checked: who signed it: no --public-key was given"
    public = str(release.parent.parent / "pub")
    code, said = run_alone(release, "--public-key", public, path=str(tmp_path))
    assert code == 0
    assert said[0] == "not checked: the signature: there is no openssl on this machine"
    (release / SIGNATURE).unlink()
    assert run_alone(release)[1][0] == "not checked: the signature: there is none"
    assert run_alone(release, "--public-key", public)[0] == 1


def test_it_finds_an_older_release_by_its_version(release: Path) -> None:
    code, said = run_alone(release, "--min-version", "3")
    assert code == 1 and said[0] == "manifest.json: is version 2, expected: 3 or later"


FORGED = {
    flip_a_byte: "sha256",
    add_a_shard: "is not in the manifest",
    double_a_row: "too",
    plant_exif: "APP1",
    add_a_column: "'name' is not on the allow-list",
}
"""Those that make every digest fit again are found without a signature."""


@pytest.mark.parametrize("tamper", FORGED, ids=lambda tamper: tamper.__name__)
def test_what_ppfr_verify_finds_in_shards_it_finds_too(
    tamper: Callable[[Path], None], output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plainly = {"compression": "none", "use_dictionary": False}
    monkeypatch.setattr(pq, "write_table", partial(pq.write_table, **plainly))
    tamper(output)
    (output / "release" / SIGNATURE).unlink()
    found = check(str(output / "release")).findings
    assert any(FORGED[tamper] in reason for _, reason in found), found


def test_a_shard_that_is_stored_in_another_way_is_named(output: Path) -> None:
    plant_exif(output)  # and compressed, as others write Parquet
    found = check(str(output / "release")).findings
    assert any("is stored compressed, which shards are not" in reason for _, reason in found)


def test_the_parts_of_the_verifier_do_not_clash() -> None:
    tree = ast.parse(standalone.text())
    names = Counter(
        name.id if isinstance(name, ast.Name) else name.name
        for node in tree.body
        for name in (node.targets if isinstance(node, ast.Assign) else [node])
        if isinstance(name, ast.Name | ast.FunctionDef | ast.ClassDef)
    )
    assert not [name for name, count in names.items() if count > 1]
    own = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom | ast.Import)]
    found = {getattr(n, "module", None) or n.names[0].name for n in own}
    assert {name.partition(".")[0] for name in found} <= sys.stdlib_module_names


# -- Parquet without pyarrow ----------------------------------------------------------------


def shard(rows: int, seed: int = 0) -> bytes:
    chance = random.Random(seed)
    ids = sorted(f"{chance.getrandbits(128):032x}" for _ in range(rows))
    cells = [{"bytes": chance.randbytes(chance.randrange(900)), "path": f"{x}.jpg"} for x in ids]
    words = [None if chance.random() < 0.3 else "x" * chance.randrange(9) for _ in ids]
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    columns = {
        "record_id": pa.array(ids, pa.string()),
        "image": pa.array(cells, image),
        "word": pa.array(words, pa.string()),
        "lists": pa.array([[1, 2]] * rows, pa.list_(pa.int64())),
    }
    table = pa.table(columns)
    target = io.BytesIO()
    write_table(table, target)
    return target.getvalue()


@pytest.mark.parametrize("rows", [0, 1, 255, 256, 1000])
def test_it_reads_what_pyarrow_wrote(rows: int) -> None:
    data = shard(rows)
    footer = read_footer(io.BytesIO(data), len(data))
    table = pq.read_table(io.BytesIO(data))
    assert footer.rows == rows and footer.columns == table.column_names
    ids = [name.encode() for name in table["record_id"].to_pylist()]
    assert list(read_column(io.BytesIO(data), footer, "record_id")) == ids
    pictures = [cell["bytes"] for cell in table["image"].to_pylist()]
    assert list(read_column(io.BytesIO(data), footer, "image.bytes")) == pictures
    if rows:
        with pytest.raises(Unsupported):
            list(read_column(io.BytesIO(data), footer, "word"))


@pytest.mark.parametrize(
    "where",
    [
        "between",
        "before the footer",
        "in a chunk",
        "in a page",
        "as a page",
        "as a page in a chunk",
        "as an empty page in a chunk",
    ],
)
def test_bytes_to_which_nothing_points(where: str) -> None:
    data = shard(200)
    footer = read_footer(io.BytesIO(data), len(data))
    assert is_filled(io.BytesIO(data), len(data), footer)
    chunk = footer.groups[0][1][0][3]
    hidden, length = b"a face, smuggled" * 9, int.from_bytes(data[-8:-4], "little")
    if where.startswith("as a page"):  # a dictionary's, of 16 bytes
        hidden = bytes([0x15, 4, 0x15, 32, 0x15, 32, 0]) + hidden[:16]
    if where == "as an empty page in a chunk":
        about = bytes([0x2C, 0x15, 0, 0x15, 0, 0x15, 6, 0x15, 6, 0, 0])
        hidden = bytes([0x15, 0, 0x15, 32, 0x15, 32]) + about + hidden[:16]
    inside = where == "between" or where.startswith("as a")
    place = chunk[9] + chunk[7] if inside else len(data) - 8 - length
    larger = data[:place] + hidden + data[place:]
    for moved in (chunk[3] for group in footer.groups for chunk in group[1]):
        moved[9] += len(hidden) * (moved[9] >= place)
    if where.endswith("page in a chunk"):
        chunk[7] += len(hidden)
    if where == "in a chunk":
        footer.groups[-1][1][-1][3][7] += len(hidden)
    if where == "in a page":  # one that is there, and that nobody needs
        place = chunk[9] + chunk[7]
        larger = data[:place] + data[chunk[9] : place] + data[place:]
        for moved in (each[3] for group in footer.groups for each in group[1]):
            moved[9] += chunk[7] * (moved[9] >= place) if moved is not chunk else 0
        chunk[7] *= 2
    assert not is_filled(io.BytesIO(larger), len(larger), footer)


def test_bytes_in_a_shard_to_which_nothing_points_are_found(output: Path) -> None:
    path = min((output / "release/data").glob("*.parquet"))
    data = path.read_bytes()
    place = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    path.write_bytes(data[:place] + b"smuggled" + data[place:])
    reseal(output)
    (output / "release" / SIGNATURE).unlink()
    told = [finding.reason for finding in verify(str(output / "release"))]
    assert told == ["holds bytes to which nothing points"]
    assert [reason for _, reason in check(str(output / "release")).findings] == told


def test_it_reads_nulls() -> None:
    values = [None if n % 7 in (1, 2) else f"{n}" for n in range(3000)]
    target = io.BytesIO()
    options = {"compression": "none", "use_dictionary": False}
    pq.write_table(pa.table({"a": values}), target, **options)
    data = target.getvalue()
    footer = read_footer(io.BytesIO(data), len(data))
    read = [None if v is None else v.decode() for v in read_column(io.BytesIO(data), footer, "a")]
    assert read == values


def test_damaged_files_are_unreadable_and_nothing_else() -> None:
    chance, whole = random.Random(5), shard(40)
    for _ in range(1500):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            data[-chance.randrange(1, len(data) // 8)] = chance.randrange(256)
        cut = bytes(data[: chance.choice([len(data), chance.randrange(len(data))])])
        try:
            footer = read_footer(io.BytesIO(cut), len(cut))
            for name in ("record_id", "image.bytes"):
                list(read_column(io.BytesIO(cut), footer, name))
        except (Unreadable, Unsupported):
            pass
