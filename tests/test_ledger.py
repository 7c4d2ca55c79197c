"""Committing a unit: once, whole, whatever dies in between."""

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ppfr_ops.contracts.dead_letters import DEAD_LETTERS_SCHEMA
from ppfr_ops.contracts.ledger import KINDS, Kind, LedgerEntry, Shard, Source, shard_path
from ppfr_ops.contracts.metrics import metrics_schema
from ppfr_ops.contracts.records import records_schema
from ppfr_ops.release.publish import rotten
from ppfr_ops.store.documents import COMPACTED
from ppfr_ops.store.ledger import Attempts, Ledger, LedgerError, Tables

SETTINGS = {"method": "a", "input": "b"}


def tables(mark: str = "x", count: int = 3) -> Tables:
    ids = [f"u-{row}" for row in range(count)]
    images = [{"bytes": mark.encode(), "path": f"{name}.jpg"} for name in ids]
    metrics = {name: pa.array([0.5] * count, pa.float32()) for name in metrics_schema().names[1:]}
    return Tables(
        pa.table({"record_id": ids, "image": images}, schema=records_schema()),
        pa.table({"record_id": ids, **metrics}, schema=metrics_schema()),
        DEAD_LETTERS_SCHEMA.empty_table(),
    )


def commit(ledger: Ledger, unit: str, mark: str = "x") -> LedgerEntry:
    return ledger.commit(unit, tables(mark), 3, method_digest="m", settings_digest="s")


@pytest.fixture(params=["local", "memory"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "out")
    store = fsspec.filesystem("memory")
    if store.exists("/out"):
        store.rm("/out", recursive=True)
    return "memory://out"


def opened(output: str) -> Ledger:
    ledger = Ledger(output)
    ledger.open(SETTINGS)
    return ledger


FILLED = KINDS[:2]  # no dead letters
RUN = {"evidence/ledger/run.json", "evidence/ledger/secret.json"}


def shards(ledger: Ledger, entry: LedgerEntry) -> set[str]:
    """Of the unit u1: under the unit's name, or, without renames, one that no other copy has."""
    name = "u1" if ledger.local else f"u1.{entry.copy_id}"
    outside = ledger.ids.unit(name)
    return {shard_path(kind, outside if kind == "data" else name) for kind in FILLED}


def files(output: str) -> set[str]:
    fs, root = fsspec.core.url_to_fs(output)
    return {path.removeprefix(root).lstrip("/") for path in fs.find(root)}


def test_commit_leaves_the_shards_and_the_entry_and_nothing_else(output: str) -> None:
    ledger = opened(output)
    assert ledger.attempt("u1") == Attempts()
    entry = commit(ledger, "u1")
    left = shards(ledger, entry) | RUN | {"evidence/ledger/units/u1.json"}
    assert files(output) == left | {"evidence/ledger/attempts/u1.first"}
    ledger.sweep(ledger.entries())
    assert files(output) == left
    fs, root = fsspec.core.url_to_fs(output)
    for shard in entry.shards.values():
        data = fs.cat_file(f"{root}/{shard.path}")
        assert (len(data), hashlib.sha256(data).hexdigest()) == (shard.bytes, shard.sha256)
        assert pq.read_metadata(pa.BufferReader(data)).num_rows == shard.rows
    assert ledger.committed("u1") == entry == ledger.entries()["u1"]
    assert entry.metrics["disclosure"].mean == 0.5


def test_the_first_copy_counts_and_a_late_one_changes_nothing(output: str) -> None:
    first = commit(opened(output), "u1", "first")
    late = commit(Ledger(output), "u1", "late")
    assert late == first
    fs, root = fsspec.core.url_to_fs(output)
    data = fs.cat_file(f"{root}/{first.shards['data'].path}")
    assert hashlib.sha256(data).hexdigest() == first.shards["data"].sha256
    assert files(output) == shards(Ledger(output), first) | RUN | {"evidence/ledger/units/u1.json"}


def test_many_copies_at_once_leave_one(tmp_path: Path) -> None:
    opened(str(tmp_path))
    with ThreadPoolExecutor(8) as pool:
        marks = [f"copy {number}" for number in range(16)]
        entries = list(pool.map(lambda mark: commit(Ledger(str(tmp_path)), "u1", mark), marks))
    assert len({entry.copy_id for entry in entries}) == 1
    data = (tmp_path / entries[0].shards["data"].path).read_bytes()
    assert hashlib.sha256(data).hexdigest() == entries[0].shards["data"].sha256
    Ledger(str(tmp_path)).recover()
    assert not list((tmp_path / "evidence/staging").iterdir())


@pytest.mark.parametrize("moved", range(3))
def test_death_at_any_step_is_undone_or_completed(output: str, moved: int) -> None:
    """The entry exists and ``moved`` of its files were moved; then everything died."""
    ledger = opened(output)
    entry = commit(ledger, "u1")
    fs = ledger.fs
    for kind in FILLED[moved:]:
        staged = ledger.path("evidence", "staging", f"u1.{entry.copy_id}.{kind}.parquet")
        fs.mv(ledger.path(entry.shards[kind].path), staged)
    fs.pipe_file(ledger.path("evidence", "staging", "u2.1234.data.parquet"), b"half")
    fs.pipe_file(ledger.path("evidence", "ledger", "attempts", "u1.1"), b"")
    again = opened(output)
    assert again.entries() == {"u1": entry}
    assert files(output) == shards(ledger, entry) | RUN | {"evidence/ledger/units/u1.json"}


@pytest.mark.parametrize("written", range(3))
def test_death_before_the_entry_leaves_nothing_that_lasts(
    output: str, written: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = opened(output)
    done: list[Kind] = []
    write = Ledger._write_shard

    def killed(*_: object) -> Shard:
        raise KeyboardInterrupt

    def dies(self: Ledger, unit: str, copy: str, kind: Kind, table: pa.Table) -> Shard:
        if len(done) == written:
            killed()
        done.append(kind)
        return write(self, unit, copy, kind, table)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Ledger, "_write_shard", dies)
        patch.setattr(Ledger, "fenced_off", killed)
        commit(ledger, "u1")
    assert len(files(output) - RUN) == written
    assert opened(output).entries() == {} and files(output) == RUN


def test_who_was_paused_before_the_entry_commits_late_and_leaves_nothing(
    output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its shards are written, a new run sweeps, does the unit and ends; then it goes on."""
    ledger = opened(output)
    create = Ledger._create_entry
    meanwhile: list[LedgerEntry] = []

    def paused(self: Ledger, entry: LedgerEntry) -> LedgerEntry:
        monkeypatch.setattr(Ledger, "_create_entry", create)
        meanwhile.append(commit(opened(output), "u1", "new"))
        return create(self, entry)

    monkeypatch.setattr(Ledger, "_create_entry", paused)
    assert commit(ledger, "u1", "late") == meanwhile[0]
    entry = meanwhile[0]
    assert files(output) == shards(ledger, entry) | RUN | {"evidence/ledger/units/u1.json"}
    assert opened(output).entries() == {"u1": entry}


def test_who_was_paused_before_the_entry_is_not_counted_without_its_shards(
    output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its shards were swept up, and then its entry comes first."""
    ledger = opened(output)
    create = Ledger._create_entry

    def paused(self: Ledger, entry: LedgerEntry) -> LedgerEntry:
        opened(output)
        return create(self, entry)

    monkeypatch.setattr(Ledger, "_create_entry", paused)
    with contextlib.suppress(LedgerError):
        commit(ledger, "u1", "late")
    monkeypatch.setattr(Ledger, "_create_entry", create)
    entry = commit(Ledger(output), "u1", "new")
    again = opened(output)
    assert again.entries() == {"u1": entry} and rotten(again, [entry]) == []
    assert files(output) == shards(ledger, entry) | RUN | {"evidence/ledger/units/u1.json"}


def test_an_entry_without_its_files_is_done_again(output: str) -> None:
    ledger = opened(output)
    entry = commit(ledger, "u1")
    ledger.fs.rm_file(ledger.path(entry.shards["metrics"].path))
    assert ledger.committed("u1") is None  # for a worker, to whom nobody has said it yet
    again = opened(output)
    assert again.entries() == {} and again.committed("u1") is None
    assert files(output) == RUN
    assert commit(again, "u1").unit == "u1"


def test_what_is_not_ours_is_not_swept_away(tmp_path: Path) -> None:
    ledger = opened(str(tmp_path))
    commit(ledger, "u1")
    theirs = tmp_path / "release/data/notes.txt"
    theirs.write_text("of somebody else")
    ledger.recover()
    assert theirs.read_text() == "of somebody else"


def test_a_damaged_entry_does_not_count(tmp_path: Path) -> None:
    ledger = opened(str(tmp_path))
    commit(ledger, "u1")
    (tmp_path / "evidence" / "ledger" / "units" / "u1.json").write_text('{"unit": "u1"')
    assert "u1.json" in opened(str(tmp_path)).noticed[0]
    assert commit(opened(str(tmp_path)), "u1", "new").unit == "u1"


def test_attempts_are_counted_until_the_commit(output: str) -> None:
    ledger = opened(output)
    assert [ledger.attempt("u1").here for _ in range(3)] == [0, 1, 2]
    assert ledger.attempt("u10").here == 0
    assert opened(output).attempt("u1").here == 3
    assert Ledger(output, fence=1).attempt("u1") == Attempts(here=0, earlier=4)
    assert Ledger(output, fence=1).attempt("u1", apart=True) == Attempts()
    entry = commit(ledger, "u1")
    assert ledger.begin("u1") == entry
    ledger.sweep(ledger.entries())
    assert ledger.attempt("u1") == Attempts()


def test_work_begins_once_where_the_answer_was_lost(
    output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = opened(output)
    create = Ledger.create_bytes

    def lost(self: Ledger, data: bytes, *parts: str) -> bool:
        assert create(self, data, *parts)
        return False  # as a creation that is tried again finds it

    monkeypatch.setattr(Ledger, "create_bytes", lost)
    assert ledger.begin("u1") == Attempts()
    entry = commit(ledger, "u1")
    monkeypatch.undo()
    assert ledger.begin("u1") == entry == opened(output).entries()["u1"]
    assert files(output) == shards(ledger, entry) | RUN | {"evidence/ledger/units/u1.json"}


def test_what_a_store_leaves_of_many_is_removed_one_by_one(
    output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = opened(output)
    ledger.begin("u1")
    entry = commit(ledger, "u1")
    commit(ledger, "u2")
    ledger.remove("evidence", "ledger", "units", "u2.json")  # so its shards are strays
    with monkeypatch.context() as patch:
        patch.setattr(type(ledger.fs), "rm", lambda *_: None)
        ledger.sweep(ledger.entries())
    assert files(output) == shards(ledger, entry) | RUN | {"evidence/ledger/units/u1.json"}


def test_other_settings_and_foreign_folders_are_refused(output: str) -> None:
    commit(opened(output), "u1")
    with pytest.raises(LedgerError, match="another method; give the same options"):
        Ledger(output).open({**SETTINGS, "method": "other"})
    Ledger(output).open({**SETTINGS, "method": "other"}, overwrite=True)
    assert files(output) == RUN
    fs, root = fsspec.core.url_to_fs(output)
    fs.makedirs(f"{root}-foreign/data", exist_ok=True)
    fs.pipe_file(f"{root}-foreign/data/theirs.parquet", b"precious")
    for overwrite in (False, True):
        with pytest.raises(LedgerError, match="not empty"):
            Ledger(f"{output}-foreign").open(SETTINGS, overwrite=overwrite)
    assert fs.cat_file(f"{root}-foreign/data/theirs.parquet") == b"precious"


def test_run_settings_are_plain_to_read(tmp_path: Path) -> None:
    opened(str(tmp_path))
    assert json.loads((tmp_path / "evidence/ledger/run.json").read_text()) == SETTINGS


def test_what_was_compacted_is_not_read_again_unless_it_was_written_anew(
    output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = opened(output)
    entries = {unit: commit(ledger, unit) for unit in ("u1", "u2", "u3")}
    assert ledger.entries() == entries
    ledger.compact()
    asked: list[str] = []
    read_many = Ledger.read_many

    def noted(self: Ledger, paths: Sequence[str]) -> list[bytes | None]:
        asked.extend(path.rpartition("/")[2] for path in paths)
        return read_many(self, paths)

    monkeypatch.setattr(Ledger, "read_many", noted)
    assert Ledger(output).entries() == entries and not asked
    ledger.restamp(entries["u2"], Source(stamp="s", content=None, files=()))
    ledger.remove("evidence", "ledger", "units", "u3.json")
    commit(ledger, "u4")
    found = Ledger(output).entries()
    assert asked == ["u2.json", "u4.json"] and sorted(found) == ["u1", "u2", "u4"]
    assert found["u2"].source is not None
    ledger.put(b"nothing of ours", *COMPACTED)
    asked.clear()
    assert sorted(Ledger(output).entries()) == ["u1", "u2", "u4"] and len(asked) == 3


def test_a_compacted_entry_of_another_unit_or_place_counts_as_not_there(output: str) -> None:
    ledger = opened(output)
    commit(ledger, "u1")
    ledger.entries()
    ledger.compact()
    table = pq.read_table(pa.BufferReader(ledger.read_bytes(*COMPACTED) or b""))
    forged = table["entry"][0].as_py().replace("evidence/metrics/u1", "evidence/metrics/../x")
    for entry in (forged, forged.replace('"unit":"u1"', '"unit":"u2"'), None):
        sink = pa.BufferOutputStream()
        changed = table.set_column(2, "entry", pa.array([entry], pa.string()))
        pq.write_table(changed, sink)
        ledger.put(sink.getvalue().to_pybytes(), *COMPACTED)
        assert list(Ledger(output)._compacted()) == []
    assert list(Ledger(output).entries()) == ["u1"]


def test_what_is_the_owners_is_closed_from_the_start_and_closed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the umask, and also where it lay open before. What leaves is as the umask says."""
    old = os.umask(0o022)
    try:
        (tmp_path / "evidence/ledger").mkdir(parents=True)
        (tmp_path / "evidence/ledger").chmod(0o755)
        (tmp_path / "evidence").chmod(0o755)
        born: dict[str, int] = {}
        real = os.open

        def opening(path: str, flags: int, mode: int = 0o777, **more: int) -> int:
            descriptor = real(path, flags, mode, **more)
            if flags & os.O_CREAT:
                born[str(path)] = os.fstat(descriptor).st_mode & 0o777
            return descriptor

        made, folders_born = os.mkdir, dict[str, int]()

        def making(path: str, mode: int = 0o777, **more: int) -> None:
            made(path, mode, **more)
            folders_born[str(path)] = os.stat(path).st_mode & 0o777

        monkeypatch.setattr(os, "open", opening)
        monkeypatch.setattr(os, "mkdir", making)
        fresh = tmp_path.with_name("fresh")
        opened(str(fresh))
        assert folders_born[str(fresh / "evidence")] == 0o700
        ledger = opened(str(tmp_path))
        commit(ledger, "u1")
        ledger.entries()
        ledger.compact()
        monkeypatch.undo()
        assert born and not any(
            mode & 0o077 for path, mode in born.items() if ".data.parquet" not in path
        )
        for root, folders, names in os.walk(tmp_path / "evidence"):
            for name in (*folders, *names):
                assert not os.stat(os.path.join(root, name)).st_mode & 0o077, name
        assert (tmp_path / "evidence").stat().st_mode & 0o777 == 0o700
        (shard,) = (tmp_path / "release/data").iterdir()
        assert shard.stat().st_mode & 0o777 == 0o644
        # opened by somebody meanwhile
        for root, folders, names in os.walk(tmp_path / "evidence"):
            for name in (*folders, *names):
                os.chmod(os.path.join(root, name), 0o755)
        (tmp_path / "evidence").chmod(0o755)
        opened(str(tmp_path))
        for root, folders, names in os.walk(tmp_path / "evidence"):
            for name in (*folders, *names):
                assert not os.stat(os.path.join(root, name)).st_mode & 0o077, name
    finally:
        os.umask(old)
