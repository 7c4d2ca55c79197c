"""A release that depends on no face, as it grows, shrinks, breaks off, and loses its key."""

import contextlib
import hashlib
import hmac
import json
import os
import re
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from independent import SIZES, inline, options, records, released, rows_of, run, write

from ppfr_ops.errors import UserError
from ppfr_ops.release.verify import verify
from ppfr_ops.sanitize.conductor import conduct
from ppfr_ops.sanitize.events import ignore
from ppfr_ops.sanitize.release_plan import PLACE, epochs
from ppfr_ops.store.folder import Folder
from ppfr_ops.store.ledger import LEDGER, Ledger


@pytest.fixture
def key(tmp_path: Path) -> Path:
    place = tmp_path / "key"
    place.write_text("k" * 40)
    place.chmod(0o600)
    return place


def growing(source: Path, output: Path, key: Path, **more: Any) -> Any:
    asked: dict[str, Any] = {"incremental": True, "identity_key_file": str(key)}
    asked |= {"propagate_deletions": True, "allow_deletions": "90%", "unit_rows": 20}
    return options(source, output, **(asked | more))


def sizes(output: Path) -> Counter[str]:
    return Counter(row["identity"] for row in records(output))


def test_new_rows_are_mixed_among_themselves_and_sizes_stay_shared(
    tmp_path: Path, key: Path
) -> None:
    source, output = write(tmp_path / "in", rows_of(SIZES)), tmp_path / "out"
    run(growing(source, output, key))
    versions = [sizes(output)]
    pictures = {row["record_id"]: row["image"]["bytes"] for row in records(output)}
    for step in (1, 2, 3):
        before = released(output)
        more = write(tmp_path / f"more-{step}", rows_of([step] * 12), seed=step)
        shutil.copy(more / "part-0.parquet", source / f"more-{step}.parquet")
        done = run(growing(source, output, key))
        assert done.counts is not None and not list(verify(str(output)))
        now = released(output)
        kept = [name for name in before if name.startswith("data/")]
        assert all(now[name] == before[name] for name in kept)
        versions.append(sizes(output))
        together = [tuple(version[who] for version in versions) for who in versions[-1]]
        # whoever has all versions finds nobody by the numbers in them, but for those who are new
        # together with fewer than that: of 14 rows without a name and two new people none
        assert min(Counter(together).values()) >= 2, Counter(together)
    assert len(epochs(Ledger(str(output)))) == 4
    after = {row["record_id"]: row["image"]["bytes"] for row in records(output)}
    assert pictures.items() <= after.items()


def test_what_is_withdrawn_leaves_no_gap_and_the_rest_looks_the_same(
    tmp_path: Path, key: Path
) -> None:
    source, output = write(tmp_path / "in", rows_of([6] * 20), files=4), tmp_path / "out"
    run(growing(source, output, key))
    before = {row["record_id"]: row["image"]["bytes"] for row in records(output)}
    rows = pq.read_table(source / "part-1.parquet")
    pq.write_table(rows.slice(3), source / "part-1.parquet")
    done = run(growing(source, output, key))
    shards = [pq.read_table(path) for path in (output / "release" / "data").iterdir()]
    assert max(t.num_rows for t in shards) - min(t.num_rows for t in shards) <= 1
    after = {row["record_id"]: row["image"]["bytes"] for row in records(output)}
    assert after.items() <= before.items()
    assert done.counts is not None and done.counts.rows_in == 119
    assert min(Counter(sizes(output).values()).values()) >= 3
    ledger = Ledger(str(output))
    assert [epoch.number for epoch in epochs(ledger)] == [1]
    assert not [name for name in ledger.names(*PLACE) if name.startswith("0000")]
    # a file that is gone
    (source / "part-3.parquet").unlink()
    run(growing(source, output, key))
    assert not list(verify(str(output))) and len(sizes(output)) < 22


def test_a_run_that_changes_nothing_changes_nothing(tmp_path: Path, key: Path) -> None:
    source, output = write(tmp_path / "in", rows_of([3] * 8), files=2), tmp_path / "out"
    run(growing(source, output, key))
    before = {path: path.stat().st_mtime_ns for path in (output / "release").rglob("*")}
    run(growing(source, output, key))
    assert before == {path: path.stat().st_mtime_ns for path in (output / "release").rglob("*")}
    # a file that was written anew with the same rows
    table = pq.read_table(source / "part-0.parquet")
    pq.write_table(table, source / "part-0.parquet")
    data = released(output)
    run(growing(source, output, key))
    again = released(output)
    assert {n: d for n, d in data.items() if n[:5] == "data/"} == {
        n: d for n, d in again.items() if n[:5] == "data/"
    }


def test_splitting_does_not_grow(tmp_path: Path, key: Path) -> None:
    source = write(tmp_path / "in", rows_of([3] * 8))
    with pytest.raises(UserError, match="add or drop"):
        run(growing(source, tmp_path / "out", key, size_rounding="split"))


def test_what_was_noted_and_is_damaged_is_looked_at_again(tmp_path: Path) -> None:
    source, output = write(tmp_path / "in", rows_of(SIZES), files=2), tmp_path / "out"
    run(options(source, output))
    before = released(output)
    look = next((output / "evidence" / "look").iterdir())
    look.write_bytes(look.read_bytes()[:-9])
    run(options(source, output))
    after = released(output)
    assert {n for n in after if after[n] != before.get(n)} <= {"manifest.json"}
    shard = next((output / "release" / "data").iterdir())
    shard.write_bytes(b"?" * shard.stat().st_size)
    run(options(source, output))
    assert {n for n in released(output) if released(output)[n] != before[n]} <= {"manifest.json"}


# -- the key is thrown away -----------------------------------------------------------------------

DISCARD: dict[str, Any] = {"discard_key": True, "seed": None}


def left(output: Path) -> list[bytes]:
    return [path.read_bytes() for path in output.rglob("*") if path.is_file()]


def test_an_enemy_with_the_whole_folder_and_the_input_finds_nobody(tmp_path: Path) -> None:
    """Held against everything that could be named: labels under any key that lies there, and rows
    of the input by anything that was noted of them."""
    source, output = write(tmp_path / "in", rows_of([5] * 40), files=4), tmp_path / "out"
    run(options(source, output, **DISCARD))
    assert not list(verify(str(output)))
    people = set(sizes(output))
    ledger = Ledger(str(output))
    assert ledger.thrown_away() and ledger.secret() is None
    assert not (output / "evidence" / "look").exists() or not list(
        (output / "evidence" / "look").iterdir()
    )
    names = [row["identity"] for row in rows_of([5] * 40) if row["identity"]]
    pieces = _secrets(output)
    for secret in pieces:
        for name in names[:5]:
            for text in (name, f"identity|{name}"):
                assert hmac.new(secret, text.encode(), hashlib.sha256).hexdigest() not in people
    # no file but the release tells a pseudonym or an id of a record
    for path in (output / "evidence").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not any(who.encode() in data or bytes.fromhex(who) in data for who in people)
            assert not any(row["record_id"].encode() in data for row in records(output)[:50])
    # and the order of the shards in the ledger is that of ids, which are random
    entries = [entry for entry in ledger.entries().values() if entry.stage == "draw"]
    assert len(entries) > 1 and all(set(entry.shards) == {"data"} for entry in entries)


def _secrets(output: Path) -> set[bytes]:
    """Everything of 16 bytes or more that lies there in hex."""
    found: set[bytes] = set()
    for data in left(output / "evidence"):
        for text in re.findall(rb"[0-9a-f]{32,64}", data):
            found.add(bytes.fromhex(text[: len(text) // 2 * 2].decode()))
    return found


@pytest.mark.timeout(1200)  # with PPFR_TORTURE at every one
def test_killed_at_every_write_the_same_command_throws_the_key_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, whole = write(tmp_path / "in", rows_of([2] * 4), files=2), tmp_path / "whole"
    calls = _count_changes(monkeypatch, None)
    done = run(options(source, whole, **DISCARD, unit_rows=9))
    total, records_made = calls[0], done.counts and done.counts.records
    assert total > 40
    some = [*range(5, total - 24, 23), *range(total - 24, total + 1, 3)]
    for last in range(1, total + 1) if os.environ.get("PPFR_TORTURE") == "1" else some:
        output = tmp_path / f"killed-{last}"
        if (child := os.fork()) == 0:
            with contextlib.suppress(BaseException):
                _count_changes(monkeypatch, last)
                conduct(options(source, output, **DISCARD, unit_rows=9), inline, "x", ignore)
            os._exit(0)
        os.waitpid(child, 0)
        result = run(options(source, output, **DISCARD, unit_rows=9))
        assert result.counts is not None and result.counts.records == records_made
        ledger = Ledger(str(output))
        assert ledger.thrown_away() and not ledger.exists(*LEDGER, "release_key.json")
        assert all(name.endswith(".json") for name in ledger.names(*PLACE))
        assert not ledger.names("evidence", "look") and not ledger.names("evidence", "staging")
        assert not list(verify(str(output)))
        shutil.rmtree(output)


def _count_changes(patch: pytest.MonkeyPatch, last: int | None) -> list[int]:
    """Count what changes the output; after the ``last`` change the process is dead."""
    calls = [0]
    for name in ("_write", "remove_path", "remove_all", "move"):
        plain = getattr(Folder, name)

        def counted(self: Any, *args: Any, _plain: Any = plain, **more: Any) -> Any:
            if last is not None and calls[0] >= last:
                os.kill(os.getpid(), signal.SIGKILL)
            calls[0] += 1
            return _plain(self, *args, **more)

        patch.setattr(Folder, name, counted)
    return calls


def test_afterwards_nothing_can_be_added_and_damage_is_told(tmp_path: Path) -> None:
    source, output = write(tmp_path / "in", rows_of([5] * 8)), tmp_path / "out"
    run(options(source, output, **DISCARD))
    before = released(output)
    run(options(source, output, **DISCARD))  # nothing to do
    assert released(output) == before
    run(options(source, output, **DISCARD, check_shards="all"))
    shard = next((output / "release" / "data").iterdir())
    shard.write_bytes(b"?" * shard.stat().st_size)
    done = run(options(source, output, **DISCARD, check_shards="all"), code=1)
    assert any("thrown away" in problem for problem in done.problems)
    told = json.loads((output / "release" / "manifest.json").read_text())
    assert told["metrics"] == {} and told["withheld_percent"] is None and told["engine"] == ""
