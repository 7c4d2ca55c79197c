"""An output that is damaged, planted, or gone in mid-run: named, set aside, survived."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from test_ledger import SETTINGS, commit, opened

from ppfr_ops.cli.status import look
from ppfr_ops.contracts.ledger import LedgerEntry
from ppfr_ops.release import publish
from ppfr_ops.release.publish import looked_at, rotten
from ppfr_ops.release.signing import drop_unsealed_units, seal
from ppfr_ops.store.lease import Lease
from ppfr_ops.store.ledger import LEDGER, Attempts, Ledger, LedgerError
from ppfr_ops.store.storage import StoreError, open_store

BRACKETS = b"[" * 100_000 + b"]" * 100_000
DAMAGE = {
    "cut": b'{"unit": "u1"',
    "brackets": BRACKETS,
    "not text": b"\xff\xfe\x00",
    "empty": b"",
    "a list": b"[1, 2]",
    "no field": b"{}",
    "a number of a million digits": b'{"beat": ' + b"9" * 1_000_000 + b"}",
}
PLACES = (
    "run.json",
    "secret.json",
    "units/u1.json",
    "lease/00000001.json",
    "tombstones/u2.json",
    "last.json",
    "attempts/x",
)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("place", PLACES)
def test_whatever_is_damaged_the_next_run_works(tmp_path: Path, place: str, damage: str) -> None:
    output = str(tmp_path)
    with Lease(Ledger(output)) as lease:
        commit(_open(output, lease), "u1")
    target = tmp_path / "evidence/ledger" / place
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(DAMAGE[damage])
    if place not in ("run.json", "secret.json"):
        look(output)
    with Lease(Ledger(output)) as lease:
        ledger = _open(output, lease)
        assert ledger.committed_ids() <= {"u1"}
        assert commit(ledger, "u1").unit == "u1" and commit(ledger, "u2").unit == "u2"
        if place in ("run.json", "secret.json", "units/u1.json"):
            assert any("damaged" in line for line in ledger.noticed), ledger.noticed
            kept = [path.read_bytes() for path in (tmp_path / "evidence/set_aside").iterdir()]
            assert kept == [DAMAGE[damage]]
        ledger.tombstones()
    assert set(opened(output).entries()) == {"u1", "u2"}
    assert look(output).units_published == 2


def _open(output: str, lease: Lease) -> Ledger:
    ledger = Ledger(output, lease.fence)
    ledger.open(SETTINGS)
    return ledger


def test_an_output_that_is_deleted_in_mid_run(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with Lease(Ledger(str(output)), beat=0.05) as lease:
        ledger = _open(str(output), lease)
        commit(ledger, "u1")
        while output.exists():
            shutil.rmtree(output, ignore_errors=True)  # the lease beats meanwhile
        ledger.attempt("u2")
        with pytest.raises(LedgerError, match="removed"):
            commit(ledger, "u2")
        assert ledger.fenced_off()
    assert output.exists()  # what the run left behind since
    for overwrite in (False, True):
        again = Ledger(str(output))
        again.open(SETTINGS, overwrite=overwrite)
        assert commit(again, "u2").unit == "u2"
        shutil.rmtree(output / "evidence/ledger/units")
        (output / "evidence/ledger/run.json").unlink()


def test_units_of_other_settings_do_not_count_where_the_run_is_unknown(tmp_path: Path) -> None:
    ledger = opened(str(tmp_path))
    commit(ledger, "u1")
    (tmp_path / "evidence/ledger/run.json").unlink()
    again = opened(str(tmp_path))
    assert again.entries() == {} and "settings of its run are gone" in again.noticed[0]


PLANTED = (
    "../../input/precious.parquet",
    "/etc/passwd",
    "release/data/../../../input/precious.parquet",
    "evidence/metrics/u9.parquet",
    "evidence/ledger/run.json",
)


@pytest.mark.parametrize("path", PLANTED)
@pytest.mark.parametrize("kind", ["data", "metrics"])
def test_a_planted_entry_moves_and_removes_nothing(tmp_path: Path, path: str, kind: str) -> None:
    (tmp_path / "input").mkdir()
    precious = tmp_path / "input/precious.parquet"
    precious.write_bytes(b"precious")
    output = tmp_path / "out"
    ledger = opened(str(output))
    commit(ledger, "u1")
    place = output / "evidence/ledger/units/u1.json"
    entry = json.loads(place.read_text())
    entry["shards"][kind]["path"] = path
    entry["shards"][kind]["bytes"] = 5
    place.write_text(json.dumps(entry))
    staged = output / "evidence/staging" / f"u1.{entry['copy_id']}.{kind}.parquet"
    staged.write_bytes(b"other")
    ledger.retire("u1")
    place.write_text(json.dumps(entry))
    again = opened(str(output))
    assert again.entries() == {} and again.noticed
    assert precious.read_bytes() == b"precious"
    assert json.loads((output / "evidence/ledger/run.json").read_text()) == SETTINGS


@pytest.mark.parametrize("name", ["../../x", "u1/../../x", "u1\n", "U1", "x" * 300])
def test_a_unit_of_a_wrong_name_is_none(tmp_path: Path, name: str) -> None:
    ledger = opened(str(tmp_path))
    commit(ledger, "u1")
    entry = json.loads((tmp_path / "evidence/ledger/units/u1.json").read_text())
    (tmp_path / "evidence/ledger/units/u2.json").write_text(json.dumps({**entry, "unit": name}))
    assert ledger.entry(name) is None and ledger.entry("u2") is None
    assert set(ledger.entries()) == {"u1"}


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    opened(str(tmp_path / "out"))
    shutil.rmtree(tmp_path / "out/release/data")
    (tmp_path / "out/release/data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LedgerError, match="symbolic link"):
        opened(str(tmp_path / "out"))


def test_an_output_of_version_1_is_not_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "_ledger").mkdir()
    (tmp_path / "_ledger/run.json").write_text(json.dumps(SETTINGS))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/u000000.parquet").write_bytes(b"theirs")
    for overwrite in (False, True):
        with pytest.raises(LedgerError, match="not empty, and not of an earlier run"):
            Ledger(str(tmp_path)).open(SETTINGS, overwrite=overwrite)
    assert (tmp_path / "data/u000000.parquet").read_bytes() == b"theirs"


def test_finish_finds_a_shard_that_rots_or_goes(tmp_path: Path) -> None:
    ledger = opened(str(tmp_path))
    entries = [commit(ledger, f"u{number}") for number in range(4)]
    assert rotten(ledger, entries) == []
    first = tmp_path / entries[0].shards["data"].path
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 1
    first.write_bytes(data)  # of the same size
    (tmp_path / entries[2].shards["metrics"].path).unlink()
    assert rotten(ledger, entries) == ["u0", "u2"]


@pytest.mark.parametrize("at_once", [0, 1 << 20])
def test_finish_finds_a_shard_that_rots_in_a_store(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(publish, "_AT_ONCE", at_once)
    fs = fsspec.filesystem("memory")
    if fs.exists("/rots"):
        fs.rm("/rots", recursive=True)
    ledger = opened("memory://rots")
    entries = [commit(ledger, f"u{number}") for number in range(3)]
    assert rotten(ledger, entries) == []
    first = ledger.path(entries[0].shards["data"].path)
    data = bytearray(fs.cat_file(first))
    data[len(data) // 2] ^= 1
    fs.pipe_file(first, bytes(data))  # of the same size
    fs.rm_file(ledger.path(entries[2].shards["metrics"].path))
    assert rotten(ledger, entries) == ["u0", "u2"]


def test_shards_are_looked_at_as_entries_come_and_few_wait(tmp_path: Path) -> None:
    ledger = opened(str(tmp_path))
    entry = commit(ledger, "u1")
    taken: list[int] = []

    def many() -> Iterator[LedgerEntry]:
        for number in range(1000):
            taken.append(number)
            yield entry

    found = looked_at(ledger, many())
    assert next(found) == (entry, True) and len(taken) < 100
    assert sum(holds for _, holds in found) == 999 and len(taken) == 1000


def test_what_was_planted_since_the_seal_is_not_vouched_for(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    ledger = opened(str(tmp_path))
    assert drop_unsealed_units(ledger, key) is None
    commit(ledger, "u1")
    commit(ledger, "u2")
    seal(ledger, 1, key)
    assert drop_unsealed_units(ledger, key) is None and set(ledger.entries()) == {"u1", "u2"}
    place = tmp_path / "evidence/ledger/units/u1.json"
    entry = json.loads(place.read_text())
    place.write_text(json.dumps({**entry, "rows_in": 4}))
    assert drop_unsealed_units(ledger, key) is None
    assert set(ledger.entries()) == {"u2"} and "not what was sealed" in ledger.noticed[-1]
    (tmp_path / "evidence/seal.json").unlink()
    assert "no seal of this key" in (drop_unsealed_units(ledger, key) or "")


def test_a_store_without_conditional_puts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fs = fsspec.filesystem("memory")
    if fs.exists("/plain"):
        fs.rm("/plain", recursive=True)
    Ledger("memory://plain").refuse_unconditional()
    put = type(fs).pipe_file
    forgetful = lambda self, path, value, mode="overwrite", **more: put(self, path, value)  # noqa: E731
    monkeypatch.setattr(type(fs), "pipe_file", forgetful)
    with pytest.raises(StoreError, match="--single-writer"):
        Ledger("memory://plain").refuse_unconditional()
    assert fs.find("/plain") == []
    ledger = opened("memory://plain")
    ledger.looks_first = True  # as a worker does with --single-writer
    assert [ledger.begin("u1") for _ in range(3)] == [Attempts(count) for count in range(3)]
    first = commit(ledger, "u1")
    assert commit(ledger, "u1", "late") == first == ledger.begin("u1")


def test_a_creation_whose_answer_was_lost_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again, and finds that it is there: lease, secret of the ids, ledger entry."""
    create = Ledger.create_bytes
    lost = lambda self, data, *place: create(self, data, *place) and False  # noqa: E731
    monkeypatch.setattr(Ledger, "create_bytes", lost)
    with Lease(Ledger(str(tmp_path))) as lease:
        ledger = _open(str(tmp_path), lease)
        assert commit(ledger, "u1") == ledger.committed("u1")
    with Lease(Ledger(str(tmp_path))) as lease:
        assert _open(str(tmp_path), lease).committed_ids() == {"u1"}


def test_a_lost_entry_whose_files_were_swept_is_done_again(tmp_path: Path) -> None:
    """A run that was stopped before its entry, and woke when another had swept its files up."""
    ledger = opened(str(tmp_path))
    late = commit(ledger, "u1")
    for shard in late.shards.values():
        (tmp_path / shard.path).unlink()
    entry = commit(opened(str(tmp_path)), "u1", "new")
    assert entry.copy_id != late.copy_id and Ledger(str(tmp_path)).committed("u1") == entry


@pytest.mark.parametrize("url", ["simplecache::s3://b/x", "zip://a::file:///b", "filecache://x"])
def test_urls_that_leave_copies_are_refused(url: str) -> None:
    with pytest.raises(StoreError, match="leave copies"):
        open_store(url)


def test_the_ledger_is_the_owners_alone(tmp_path: Path) -> None:
    opened(str(tmp_path / "out"))
    assert (tmp_path / "out/evidence").stat().st_mode & 0o077 == 0
    secret = (tmp_path / "out").joinpath(*LEDGER, "secret.json")
    assert secret.stat().st_mode & 0o777 == 0o600
