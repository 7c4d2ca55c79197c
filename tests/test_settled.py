"""A run that has nothing to do: what it reads, what it notices, and that it signs nothing."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from driving import drive
from test_rotten import FACES, UNITS, Disk

from ppfr_ops.contracts.ledger import Kind, LedgerEntry
from ppfr_ops.release import publish, up_to_date
from ppfr_ops.release.signing import load_public_key, load_signing_key
from ppfr_ops.release.up_to_date import UpToDate
from ppfr_ops.release.verify import verify
from ppfr_ops.sample import write_sample
from ppfr_ops.sanitize import conductor
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.store.folder import Listed
from ppfr_ops.store.ledger import Ledger

KINDS: tuple[Kind, ...] = ("data", "metrics", "dead_letters")


def keys(folder: Path, name: str = "key") -> Path:
    """A signing key, and its public half beside it."""
    key = Ed25519PrivateKey.generate()
    pem, none = serialization.Encoding.PEM, serialization.NoEncryption()
    path = folder / name
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, none))
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub").write_bytes(public)
    return path


class Output:
    """An output that a run has finished and signed."""

    def __init__(self, folder: Path, key: Path | None) -> None:
        write_sample(folder / "in", count=FACES, identities=3, files=1)
        path = next((folder / "in").iterdir())
        faces = pq.read_table(path)
        rows = faces.to_pylist()
        rows[2 * FACES // UNITS]["image"]["bytes"] = b"no picture"  # in the unit that is tried
        pq.write_table(pa.Table.from_pylist(rows, faces.schema), path)
        self.folder, self.key = folder, key
        self.root = folder / "out"
        assert self.run() == (0, [[0, 1, 2, 3]])

    def run(self, **options: object) -> tuple[int, list[list[int]]]:
        """The same command again: exit code, and the units that were done."""
        given = {
            "input": str(self.folder / "in"),
            "output": str(self.root),
            "unit_rows": FACES // UNITS,
            "method": "pixelate",
            "metrics": "basic",
            "max_dead_letter_rate": 0.2,
            "signing_key": None if self.key is None else str(self.key),
        }
        disk = Disk(self.root, times=0)
        chosen = SanitizeOptions.model_validate(given | options)
        code = drive(chosen, disk, "serial", dry_run=False, as_json=False)
        return code, disk.asked

    def entry(self) -> LedgerEntry:
        return Ledger(str(self.root)).entries()["u000002"]

    def written(self) -> dict[str, tuple[bytes, int]]:
        """What a run that has something to do writes anew."""
        names = ("release/manifest.json", "release/manifest.sig", "evidence/manifest.json")
        paths = [self.root / name for name in (*names, "evidence/seal.json")]
        return {
            path.name: (path.read_bytes(), path.stat().st_mtime_ns)
            for path in paths
            if path.exists()
        }

    def holds(self) -> bool:
        return not list(verify(str(self.root), load_public_key(f"{self.key}.pub")))


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return Output(tmp_path, keys(tmp_path))


def in_place(path: Path, data: bytes) -> None:
    """Other bytes in a file, its size and times put back."""
    found = path.stat()
    assert len(data) == found.st_size
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def turned(path: Path) -> bytes:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    return bytes(data)


@pytest.mark.parametrize("signed", [True, False])
def test_nothing_is_read_and_nothing_written(
    tmp_path: Path,
    signed: bool,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    output = Output(tmp_path, keys(tmp_path) if signed else None)
    before = output.written()
    capfd.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(publish, "_CHUNK", None)  # whoever reads a shard fails
        patch.setattr(Ledger, "entries", None)
        assert output.run() == (0, [])
    said = " ".join(capfd.readouterr().err.split())
    assert "12 rows in 4 units, 4 of them done before" in said and "none was read" in said
    assert "published 11" in said and output.written() == before
    last = json.loads((output.root / "evidence/ledger/last.json").read_text())
    assert last["exit_code"] == 0 and last["finished"]
    assert not signed or output.holds()


def test_all_are_read_where_that_is_asked(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    before = output.written()
    assert output.run(check_shards="all") == (0, [])
    after = output.written()
    assert after["manifest.json"] != before["manifest.json"] and output.holds()
    assert output.run() == (0, []) and output.written() == after


def test_a_death_between_the_list_and_the_seal_leaves_the_seal_before(output: Output) -> None:
    """The list of the next seal lies there already; the one before counts, and the run may sign."""
    (sealed,) = (output.root / "evidence").glob("seal.*.parquet")
    stray = sealed.with_name(f"seal.{7:016x}.parquet")
    stray.write_bytes(b"half a list")
    assert output.run() == (0, []) and output.holds()
    (now,) = (output.root / "evidence").glob("seal.*.parquet")
    assert now not in (sealed, stray)
    # Of a release the list may be newer than the manifest: the same command writes both.
    (output.root / "release/files.pq").write_bytes(b"of another manifest")
    assert not output.holds()
    assert output.run() == (0, []) and output.holds()


def rot(output: Output, kind: Kind) -> None:
    path = output.root / output.entry().shards[kind].path
    in_place(path, turned(path))


def delete(output: Output, kind: Kind) -> None:
    (output.root / output.entry().shards[kind].path).unlink()


def lengthen(output: Output, kind: Kind) -> None:
    with (output.root / output.entry().shards[kind].path).open("ab") as file:
        file.write(b"a face, say")


def forge(output: Output, kind: Kind) -> None:
    """The shard and its ledger entry, both, each as long and as old as it was."""
    entry = output.entry()
    path = output.root / entry.shards[kind].path
    data = turned(path)
    in_place(path, data)
    place = output.root / f"evidence/ledger/units/{entry.unit}.json"
    digest = hashlib.sha256(data).hexdigest()
    in_place(place, place.read_text().replace(entry.shards[kind].sha256, digest).encode())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", [rot, delete, lengthen, forge], ids=lambda way: way.__name__)
def test_what_was_done_to_a_shard_is_noticed_and_never_signed(
    output: Output, way: Callable[[Output, Kind], None], kind: Kind
) -> None:
    way(output, kind)
    assert not output.holds()
    assert output.run() == (0, [[2]])
    assert output.holds()
    before = output.written()
    assert output.run() == (0, []) and output.written() == before


def test_what_rots_unseen_is_neither_signed_nor_missed_by_verify(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that turns bytes and tells no file system of it."""
    before = output.written()
    listed = up_to_date.shards_as_listed(Ledger(str(output.root)))
    rot(output, "data")
    with monkeypatch.context() as patch:
        patch.setattr(up_to_date, "shards_as_listed", lambda folder: listed)
        assert output.run() == (0, []) and output.written() == before
    assert not output.holds()
    assert output.run(check_shards="all") == (0, [[2]]) and output.holds()


def test_a_note_that_another_wrote_does_not_count(output: Output, tmp_path: Path) -> None:
    place = output.root / "evidence/ledger/settled.json"
    ledger = Ledger(str(output.root))
    for key in (None, load_signing_key(str(keys(tmp_path, "theirs")))):
        forge(output, "metrics")
        found = UpToDate.model_validate_json(place.read_bytes())
        listed = up_to_date.shards_as_listed(ledger)
        up_to_date.mark_up_to_date(ledger, found.command, found.manifest, listed, key)
        assert output.run() == (0, [[2]]) and output.holds()
    note = json.loads(place.read_text())
    note["manifest"]["counts"]["dead_letters"] = 5
    place.write_text(json.dumps(note))
    before = output.written()
    assert output.run() == (0, []) and output.written() != before


@pytest.mark.parametrize("damage", [b"", b"{", b"[" * 100_000, b"{}", b"\xff"])
def test_a_damaged_note_is_none(output: Output, damage: bytes) -> None:
    place = output.root / "evidence/ledger/settled.json"
    place.write_bytes(damage)
    assert output.run() == (0, []) and output.holds()
    assert UpToDate.model_validate_json(place.read_bytes())


def test_what_lies_beside_the_shards_is_noticed(output: Output) -> None:
    for place in ("release/data/planted", "evidence/metrics/u9.parquet", "release/manifest.sig"):
        (output.root / place).write_bytes(b"x")
        before = output.written()
        assert output.run() == (0, []) and output.written() != before


def test_another_command_looks_at_all(output: Output) -> None:
    mapping = output.folder / "mapping.parquet"
    for options in (
        {"max_dead_letter_rate": 0.5},
        {"mapping": str(mapping)},
        {"signing_key": None},
    ):
        before = output.written()
        assert output.run(**options) == (0, []) and output.written() != before
    assert mapping.exists()


def test_a_run_that_dies_leaves_no_note(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    place = output.root / "evidence/ledger/settled.json"
    with monkeypatch.context() as patch:
        patch.setattr(conductor, "finish", None)
        with pytest.raises(TypeError):
            output.run(check_shards="all")
    assert not place.exists()
    assert output.run() == (0, []) and place.exists()


@pytest.mark.parametrize(
    "stray",
    ["evidence/staging/u000001.0123.data.parquet", "evidence/ledger/attempts/u000001.1-0-0"],
)
def test_what_a_late_worker_left_is_swept_up(output: Output, stray: str) -> None:
    path = output.root / stray
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"late")
    assert output.run() == (0, [])
    assert not path.exists()
    # and one that is there while the note is written is no reason to leave it there
    path.write_bytes(b"late")
    ledger = Ledger(str(output.root))
    manifest = UpToDate.model_validate_json(
        (output.root / "evidence" / "ledger" / "settled.json").read_bytes()
    ).manifest
    up_to_date.unmark_up_to_date(ledger)
    up_to_date.mark_up_to_date(
        ledger, "0" * 64, manifest, up_to_date.shards_as_listed(ledger), None
    )
    assert not (output.root / "evidence" / "ledger" / "settled.json").exists()


def test_of_the_evidence_a_store_lists_the_beginning(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request is for a thousand files, so a run with nothing to do asks once for so many units;
    of the release it sees all."""
    asked: dict[str, int] = {}
    scanned = Ledger.listing

    def counted(self: Ledger, *place: str) -> Iterator[tuple[str, Listed]]:
        for found in sorted(scanned(self, *place)):
            asked["/".join(place)] = asked.get("/".join(place), 0) + 1
            yield found

    monkeypatch.setattr(Ledger, "listing", counted)
    monkeypatch.setattr(up_to_date, "_GLANCE", UNITS - 1)
    ledger = Ledger(str(output.root))
    up_to_date.shards_as_listed(ledger)
    assert asked["release/data"] == asked["evidence/metrics"] == UNITS
    asked.clear()
    ledger.local = False
    before = up_to_date.shards_as_listed(ledger)
    assert asked["release/data"] == UNITS and asked["evidence/metrics"] == UNITS - 1
    (output.root / "evidence/metrics/u000000.parquet").write_bytes(b"x")
    changed = up_to_date.shards_as_listed(ledger)
    assert {k for k in before if before[k] != changed[k]} == {"evidence/metrics"}
