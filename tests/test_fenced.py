"""A run that was stopped while another took over its output: it changes nothing when it wakes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from test_ledger import SETTINGS, commit

from ppfr_ops.contracts.ledger import LedgerEntry, Source, Tombstone
from ppfr_ops.contracts.manifest import Counts, Manifest, Method, ReleaseManifest
from ppfr_ops.release import signing, up_to_date
from ppfr_ops.release.listing import Shards
from ppfr_ops.release.publish import put_manifest, write_documents, write_release
from ppfr_ops.store.documents import Documents
from ppfr_ops.store.lease import Lease
from ppfr_ops.store.ledger import LEDGER, Ledger, LedgerError

KEY = Ed25519PrivateKey.generate()


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files if "lease" not in str(path)}


def manifest(ledger: Ledger) -> Manifest:
    return Manifest(
        versions={},
        engine="none",
        finished_at="2026-01-01T00:00:00+00:00",
        method=Method(name="m", options={}, digest="d", figures={}, columns=[]),
        recognizers=[],
        options={},
        settings_digest="s",
        plan_digest="p",
        counts=Counts(
            units=2, rows_in=6, extra_faces=0, records=6, dead_letters=0, dead_letters_by_code={}
        ),
        metrics={},
    )


def released(ledger: Ledger) -> ReleaseManifest:
    shards = Shards()
    for entry in ledger.entries().values():
        shards.add(entry)
    return write_release(ledger, manifest(ledger), shards.table(), KEY)


def entry_of(ledger: Ledger) -> LedgerEntry:
    return ledger.entries()["u1"]


CHANGES: dict[str, Callable[[Ledger, Any], Any]] = {
    "open": lambda ledger, made: ledger.open(SETTINGS),
    "open anew": lambda ledger, made: ledger.open(SETTINGS, overwrite=True),
    "recover": lambda ledger, made: ledger.recover(),
    "sweep": lambda ledger, made: ledger.sweep({}),
    "commit": lambda ledger, made: commit(ledger, "u3"),
    "retire": lambda ledger, made: ledger.retire("u1"),
    "take_back": lambda ledger, made: ledger.take_back("u1", "it is damaged"),
    "add_tombstone": lambda ledger, made: ledger.add_tombstone(
        Tombstone(unit="u1", seen="now", records=3, removed=True)
    ),
    "restamp": lambda ledger, made: ledger.restamp(
        entry_of(ledger), Source(stamp="a", content=None, files=())
    ),
    "drop": lambda ledger, made: ledger.drop(entry_of(ledger), "metrics"),
    "compact": lambda ledger, made: (ledger.entries(), ledger.compact()),
    "set_aside": lambda ledger, made: ledger.set_aside("damaged", *LEDGER, "run.json"),
    "write_release": lambda ledger, made: released(ledger),
    "put_manifest": lambda ledger, made: put_manifest(ledger, made, KEY),
    "write_documents": lambda ledger, made: write_documents(ledger, {"README.md": "x"}, KEY),
    "seal": lambda ledger, made: signing.seal(ledger, 9, KEY),
    "mark_up_to_date": lambda ledger, made: up_to_date.mark_up_to_date(
        ledger, "c", manifest(ledger), {}, KEY
    ),
    "unmark_up_to_date": lambda ledger, made: up_to_date.unmark_up_to_date(ledger),
}


@pytest.mark.parametrize("name", CHANGES)
def test_with_a_lost_fence_nothing_changes(tmp_path: Path, name: str) -> None:
    first = Lease(Ledger(str(tmp_path)), beat=60)
    first._stop.set()
    ledger = Ledger(str(tmp_path), first.fence)
    ledger.open(SETTINGS)
    commit(ledger, "u1")
    commit(ledger, "u2")
    ledger.entries()
    made = released(ledger)
    up_to_date.mark_up_to_date(ledger, "c", manifest(ledger), {}, None)
    ledger.sweep(ledger.entries())
    place = (*LEDGER, "lease", f"{first.fence:08d}.json")
    document = ledger.read(*place)
    assert document is not None
    ledger.write({**document, "machine": "another"}, *place)
    with Lease(Ledger(str(tmp_path)), beat=60, expiry=0):
        before = content(tmp_path)
        with pytest.raises(LedgerError, match="another run has taken over"):
            CHANGES[name](ledger, made)
        assert content(tmp_path) == before


def test_the_list_of_changes_is_whole() -> None:
    """Whatever a ledger can do either reads, notes an attempt (which counts for nothing), or is in
    the list above."""
    reading = {
        *("check", "shards_there", "committed", "fenced_off", "still_mine", "can_redo", "ids"),
        *("committed_ids", "entries", "entry", "digests", "secret", "tombstones"),
    }
    noting = {"begin", "attempt", "forget_attempts"}
    public = {n for c in (Ledger, Documents) for n in vars(c) if not n.startswith("_")}
    assert public - reading - noting == set(CHANGES) & public
