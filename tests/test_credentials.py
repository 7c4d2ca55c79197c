"""Content Credentials in pictures: read by C2PA's own reader, checked by both verifiers."""

import io
import json
import pickle
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from certificates import chain
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from test_standalone import BEYOND_MODEL_SIGNING, by_model_signing, key_on, run_alone
from test_tampering import WAYS
from test_verify import reseal, rewrite, shards

from ppfr_ops import sanitize_batch
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.imaging.credentials import Credentials
from ppfr_ops.imaging.marks import SOURCE_TYPES, iptc, store_fault, without_credentials
from ppfr_ops.release.foreign import Mark, foreign_part
from ppfr_ops.release.looking import picture_fault
from ppfr_ops.release.publish import write_documents
from ppfr_ops.release.signing import load_public_key, load_signing_key
from ppfr_ops.release.standalone.check import check
from ppfr_ops.release.verify import verify
from ppfr_ops.sample import faces, write_sample
from ppfr_ops.sanitize import marking
from ppfr_ops.sanitize.finish import finish
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.photographs.options import PhotographOptions
from ppfr_ops.sanitize.prepare import prepare
from ppfr_ops.sanitize.sealing import opened, seal
from ppfr_ops.sanitize.worker import Worker
from ppfr_ops.store.ledger import Ledger

c2pa = pytest.importorskip("c2pa")

DRAWN = SOURCE_TYPES[0]
FORMATS = ("jpeg", "png", "webp")
SIGNED = Mark(DRAWN, True, True, "notAllowed")


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return chain(tmp_path_factory.mktemp("owner"))


@pytest.fixture(scope="module")
def credentials(owner: tuple[Path, Path]) -> Credentials:
    return Credentials(owner[0].read_bytes(), owner[1].read_bytes(), DRAWN, "notAllowed")


@pytest.fixture(scope="module", params=FORMATS)
def signed(request: pytest.FixtureRequest, credentials: Credentials) -> bytes:
    return Encoding(request.param, 95, DRAWN, credentials).encode(faces(1)[0])


def form_of(data: bytes) -> str:
    return "jpeg" if data[:2] == b"\xff\xd8" else "png" if data[:4] == b"\x89PNG" else "webp"


@pytest.mark.parametrize(
    ("key", "training"),
    [
        (None, None),
        (ec.generate_private_key(ec.SECP384R1()), "allowed"),
        (ed25519.Ed25519PrivateKey.generate(), "notAllowed"),
    ],
)
def test_the_reader_of_c2pa_says_what_the_picture_is(key, training, tmp_path: Path) -> None:
    certificates, private = chain(tmp_path, key)
    signer = Credentials(certificates.read_bytes(), private.read_bytes(), DRAWN, training)
    for form in FORMATS:
        plain = Encoding(form, 95, DRAWN).encode(faces(1)[0])
        data = Encoding(form, 95, DRAWN, signer).encode(faces(1)[0])
        with c2pa.Reader(f"image/{form}", io.BytesIO(data)) as reader:
            told = json.loads(reader.json())
        assert told["validation_state"] == "Valid"
        (manifest,) = told["manifests"].values()
        (action,) = manifest["assertions"][0]["data"]["actions"]
        assert action == {"action": "c2pa.created", "digitalSourceType": iptc(DRAWN)}
        assert len(manifest["assertions"]) == (1 if training is None else 2)
        assert not {"thumbnail", "title", "ingredients"} & manifest.keys()
        assert np.array_equal(Encoding.decode(plain), Encoding.decode(data))
        found = without_credentials(data)
        assert found is not None and found[0] == plain and len(data) - len(plain) < 4000
        assert store_fault(found[1], DRAWN, training) is None
        assert picture_fault(data, Mark(DRAWN, True, True, training)) is None


def test_a_picture_tells_no_time_and_nothing_of_another(credentials: Credentials) -> None:
    """What differs is drawn or hashed: after ids, salts, hashes and signature are taken out, the
    store has the same bytes in every picture; and no date is in it but those of certificates."""
    stores = set()
    for face in faces(4, seed=3):
        found = without_credentials(Encoding("jpeg", 95, DRAWN, credentials).encode(face))
        assert found is not None
        store = found[1]
        head = store[: store.index(b"c2pa.signature\0")]
        assert str(datetime.now(UTC).year).encode() not in head
        assert b"sigTst" not in store
        head = re.sub(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", b"ID", head)
        head = re.sub(rb"(?s)c2sh.{16}", b"SALT", head)
        head = re.sub(rb"(?s)dhashX .{32}", b"HASH", head)
        stores.add(head)
    assert len(stores) == 1


def break_the_pixels(data: bytes) -> bytes:
    place = data.index(b"\xff\xda") + 60 if form_of(data) == "jpeg" else 2000
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def change(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data.replace(old, new, 1)


FORGED: dict[str, Callable[[bytes], bytes]] = {
    "another action": change(b"c2pa.created", b"c2pa.opened!"),
    "another source": change(b"qdigitalSourceTypexFhttp", b"qdigitalSourceTypexFhttq"),
    "another use": change(b"notAllowed", b"allowedAll"),
    "a label more": change(b"c2pa.hash.data\0", b"c2pa.hash.more\0"),
    "another generator": change(b"hppfr_ops", b"hppfr_opz"),
    "a box of another kind": change(b"jumb", b"jxmb"),
    "another manifest's name": change(b"urn:c2pa:", b"urn:uuid:"),
    "pixels": break_the_pixels,
    "another signature": lambda data: data.replace(b"c2pa.signature\0", b"c2pa.signaturf\0", 1),
    "a certificate": lambda data: (
        data[: data.index(b"cpad") - 300] + b"x" + data[data.index(b"cpad") - 299 :]
    ),
}


@pytest.mark.parametrize("way", FORGED)
def test_what_was_changed_is_found(way: str, signed: bytes) -> None:
    if form_of(signed) == "png":
        pytest.skip("a chunk with another CRC is no chunk, see below")
    changed = FORGED[way](signed)
    assert changed != signed
    assert picture_fault(changed, SIGNED) is not None


def test_every_byte_of_the_form_counts(signed: bytes) -> None:
    """The standalone verifier sees what does not belong, without checking signatures."""
    assert foreign_part(signed, SIGNED) is None
    plain = Encoding(form_of(signed), 95, DRAWN).encode(faces(1)[0])  # type: ignore[arg-type]
    assert "no Content Credentials" in (foreign_part(plain, SIGNED) or "")
    assert "metadata" in (foreign_part(signed, Mark(DRAWN, True)) or "")
    assert "metadata" in (foreign_part(signed) or "")
    assert "do not say" in (foreign_part(signed, Mark(DRAWN, True, True, "allowed")) or "")
    assert "less than they must" in (foreign_part(signed, Mark(DRAWN, True, True, None)) or "")
    assert foreign_part(signed + b"more", SIGNED) is not None
    bare = Encoding(form_of(signed)).encode(faces(1)[0])  # type: ignore[arg-type]
    whole = Mark(SOURCE_TYPES[1], False, True)
    assert foreign_part(bare, whole) is None and picture_fault(bare, whole) is None
    found = without_credentials(signed)
    assert found is not None
    store = found[1]
    for place in range(0, len(store) - 8, 7):
        cut = store[:place]
        assert store_fault(cut, DRAWN, "notAllowed") is not None
    assert store_fault(store + store, DRAWN, "notAllowed") is not None
    assert "larger" in (store_fault(store + bytes(40_000), DRAWN, "notAllowed") or "")


def options(owner: tuple[Path, Path], **more: object) -> dict[str, object]:
    return {"c2pa": str(owner[0]), "c2pa_key": str(owner[1]), "c2pa_training": "notAllowed"} | more


def test_what_they_say_of_training_is_in_the_digest(
    owner: tuple[Path, Path], tmp_path: Path
) -> None:
    write_sample(tmp_path / "in", count=2, identities=1, files=1)
    place = {"input": str(tmp_path / "in"), "output": str(tmp_path / "out")}
    given = {"method": "stochastic-local", "identity": "original", "metrics": "none"}
    one, other = (
        prepare(SanitizeOptions(**place, **given, **options(owner, c2pa_training=said))).settings
        for said in ("allowed", "notAllowed")
    )
    assert {name for name in one if one[name] != other[name]} == {"--c2pa-training"}


@pytest.fixture(scope="module")
def made(owner: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output of which the pictures are signed."""
    folder = tmp_path_factory.mktemp("made")
    write_sample(folder / "in", count=11, identities=2, files=1)
    given = {"method": "stochastic-local", "identity": "original", "metrics": "none"}
    place = {"input": str(folder / "in"), "output": str(folder / "out"), "unit_rows": 4}
    job = prepare(SanitizeOptions(**place, **given, **options(owner)))
    assert set(job.secrets) == {marking.CHAIN, marking.SIGNER}
    assert "SECRET" not in repr(job) and "PRIVATE" not in repr(job.encoding(job.build_method()))
    sealed, key = seal(job)
    travels = pickle.dumps(sealed)
    assert not [word for word in job.secrets.values() if word in travels or word[40:90] in travels]
    assert opened(sealed, key).secrets == job.secrets
    Ledger(job.options.output).open(job.settings)
    worker = Worker(job, 1)
    states = [worker.process(number).state for number in range(len(job.plan.units))]
    assert set(states) == {"committed"}
    finish(job, "test")
    private, public = key_on(ec.SECP256R1(), folder)
    private.rename(folder / "key")
    public.rename(folder / "pub")
    documents = {"README.md": "# card\n", "croissant.json": "{}\n"}
    write_documents(Ledger(job.options.output), documents, load_signing_key(str(folder / "key")))
    return folder / "out"


def smuggle_a_manifest(release: Path) -> None:
    """The Content Credentials of one picture in another."""
    path = sorted((release / "data").iterdir())[0]
    raw = path.read_bytes()
    places = [found.start() for found in re.finditer(b"JP\x02\x11", raw)]
    size = 3000
    stores = [raw[place : place + size] for place in places[:2]]
    path.write_bytes(raw.replace(stores[0], stores[1]))


def test_every_way_of_tampering_is_found(made: Path, tmp_path: Path) -> None:
    """By ppfr verify, by the file in the release, by Model Signing; with signed pictures as well as
    without."""
    found: dict[str, set[str]] = {"ppfr verify": set(), "verify.py": set(), "model_signing": set()}
    ways = {way.__name__: way for way in (*WAYS, smuggle_a_manifest)}
    for name, way in ways.items():
        shutil.copytree(made.parent, tmp_path / name)
        release = tmp_path / name / "out/release"
        way(release)
        public = str(tmp_path / name / "pub")
        if list(verify(str(release), load_public_key(public))):
            found["ppfr verify"].add(name)
        if check(str(release), public).findings:
            found["verify.py"].add(name)
        try:
            by_model_signing(release)
        except Exception:
            found["model_signing"].add(name)
    assert found["ppfr verify"] == found["verify.py"] == set(ways)
    assert set(ways) - found["model_signing"] == BEYOND_MODEL_SIGNING


def test_a_release_is_signed_and_both_verifiers_say_so(made: Path) -> None:
    manifest = json.loads((made / "release/manifest.json").read_bytes())
    assert manifest["options"]["c2pa"] is True
    assert manifest["options"]["c2pa_training"] == "notAllowed"
    assert list(verify(str(made))) == []
    code, said = run_alone(made / "release")
    assert code == 0 and any("signatures of Content Credentials" in line for line in said)


def test_a_picture_without_them_is_found_in_a_release(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bare(table: pa.Table) -> pa.Table:
        cells = table["image"].to_pylist()
        cells[0]["bytes"], _ = without_credentials(cells[0]["bytes"]) or (b"", b"")
        place, item = table.column_names.index("image"), table.schema.field("image")
        return table.set_column(place, item, pa.array(cells, item.type))

    plainly = {"compression": "none", "use_dictionary": False}
    monkeypatch.setattr(pq, "write_table", partial(pq.write_table, **plainly))
    shutil.copytree(made, tmp_path / "out")
    rewrite(shards(tmp_path / "out", "data")[0], bare)
    reseal(tmp_path / "out")
    said = [str(finding) for finding in verify(str(tmp_path / "out/release"))]
    assert any("has no Content Credentials" in line for line in said), said
    _, said = run_alone(tmp_path / "out/release")
    assert any("has no Content Credentials" in line for line in said), said


def test_batches_sign_too(owner: tuple[Path, Path]) -> None:
    rows = {"image": [{"bytes": Encoding().encode(face), "path": "x"} for face in faces(2)]}
    given = {"identity": "original", "method": "stochastic-local", "metrics": "none"}
    made = sanitize_batch(rows, **given, **options(owner))
    for cell in made["image"]:
        assert picture_fault(cell["bytes"], SIGNED) is None


def test_what_cannot_be_signed_is_refused_before_the_run(
    owner: tuple[Path, Path], tmp_path: Path
) -> None:
    def refused(**more: object) -> str:
        with pytest.raises(UserError) as error:
            sanitize_batch({"image": []}, **{"identity": "original", "metrics": "none"} | more)
        return str(error.value)

    method = {"method": "stochastic-local"}
    assert "goes with --c2pa-key" in refused(**method, c2pa=str(owner[0]))
    assert "goes with --c2pa" in refused(**method, c2pa_training="allowed")
    assert "goes with --mark" in refused(**method, **options(owner), mark=False)
    assert "blur draws none" in refused(method="blur", **options(owner), identity=None)
    other = chain(tmp_path)[1]
    assert "does not hold" in refused(**method, **options(owner, c2pa_key=str(other)))
    text = tmp_path / "text"
    text.write_text("no certificate")
    assert "refuses them" in refused(**method, **options(owner, c2pa=str(text)))
    other.chmod(0o644)
    assert "chmod 600" in refused(**method, **options(owner, c2pa_key=str(other)))
    text.chmod(0o600)
    assert "not a private key" in refused(**method, **options(owner, c2pa_key=str(text)))


def test_photographs_without_a_drawn_face_are_not_signed(credentials: Credentials) -> None:
    encoding = Encoding("jpeg", 95, DRAWN, credentials)
    assert encoding.encode(faces(1)[0], marked=False) == Encoding().encode(faces(1)[0])
    whole = SanitizeOptions(
        input="a", output="b", photographs=PhotographOptions(output_faces="in-place")
    )
    assert whole.encoding(True).source_type == SOURCE_TYPES[1]
