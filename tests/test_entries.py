"""Entries packed in blocks: what is asked of them, what it takes to hold and to renew them."""

import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from test_ledger import SETTINGS

from ppfr_ops.contracts.ledger import KINDS, LedgerEntry, Merged, Shard, Statistic, shard_path
from ppfr_ops.store.documents import COMPACTED
from ppfr_ops.store.entries import BLOCK, Block, Entries, HashSet, Row, line
from ppfr_ops.store.ledger import Ledger

MANY = 20_000
MOST_BYTES = 800
"""An entry in the memory of a driver, listing and all; as an object it takes 7 KiB."""


def entry_of(number: int) -> LedgerEntry:
    unit = f"u{number:06d}"
    shards = {
        kind: Shard(
            path=shard_path(kind, f"{number:032x}" if kind == "data" else unit),
            rows=1,
            bytes=1000 + number,
            sha256=f"{number * 7919:064x}",
        )
        for kind in KINDS[:2]
    }
    names = ("disclosure", "ssim", "ms_ssim", "psnr", "lowfreq_corr")
    figure = Statistic(count=1, mean=number / MANY, min=number / MANY, max=number / MANY)
    return LedgerEntry(
        unit=unit,
        copy_id=f"{number:016x}",
        rows_in=1,
        records=1,
        dead_letters={},
        shards=shards,
        method_digest="m",
        settings_digest="s",
        metrics=dict.fromkeys(names, figure),
    )


def packed(numbers: Sequence[int], stamp: bytes = bytes(16)) -> Entries:
    rows = [
        Row(entry.unit, stamp, entry.model_dump_json().encode()) for entry in map(entry_of, numbers)
    ]
    return Entries(Block.of(rows[at : at + BLOCK]) for at in range(0, len(rows), BLOCK))


def test_entries_are_a_mapping_in_the_order_of_their_units() -> None:
    numbers = range(0, 2 * BLOCK + 10, 2)
    entries = packed(numbers)
    assert len(entries) == len(numbers) and list(entries) == [f"u{n:06d}" for n in numbers]
    assert entries["u000510"] == entry_of(510) and entries.get("u000511") is None
    assert "u000000" in entries and "u" not in entries and "u9" not in entries and 7 not in entries
    assert [entry.records for entry in entries.values()] == [1] * len(numbers)
    assert entries == {f"u{n:06d}": entry_of(n) for n in numbers} and Entries() == {}


def test_entries_can_be_deleted_while_they_are_gone_over() -> None:
    entries = packed(range(BLOCK + 4))
    seen = []
    for unit in entries:
        seen.append(unit)
        if unit in ("u000001", f"u{BLOCK:06d}"):
            del entries[unit]
    assert len(seen) == BLOCK + 4 and len(entries) == BLOCK + 2
    assert "u000001" not in entries and entries.stamp("u000001") is None
    with pytest.raises(KeyError):
        del entries["u000001"]
    with pytest.raises(KeyError):
        entries["u000001"]
    assert sum(len(rows) for rows in entries.rows()) == BLOCK + 2


def test_a_block_all_of_whose_files_are_as_they_were_is_taken_over_as_it_is() -> None:
    entries = packed(range(3 * BLOCK))
    changed = BLOCK + 5
    files = [line(f"u{n:06d}", bytes(16)) for n in range(3 * BLOCK + 1)]
    files[changed] = line(f"u{changed:06d}", b"x" * 16)
    del files[2 * BLOCK - 1]  # the last of the second block is gone

    def read() -> Iterator[Row]:
        for number in (changed, 3 * BLOCK):
            text = entry_of(number).model_copy(update={"rows_in": 9}).model_dump_json()
            yield Row(f"u{number:06d}", b"x" * 16, text.encode(), b"d" * 32)

    renewed = entries.renewed(files, read())
    assert renewed._blocks[0] is entries._blocks[0] and renewed._blocks[2] is entries._blocks[2]
    assert len(renewed) == 3 * BLOCK and f"u{2 * BLOCK - 1:06d}" not in renewed
    assert [unit for unit, entry in renewed.items() if entry.rows_in == 9] == [
        f"u{changed:06d}",
        f"u{3 * BLOCK:06d}",
    ]
    assert renewed.digest(f"u{changed:06d}") == b"d" * 32 and renewed.digest("u000000") is None
    del entries["u000003"]  # its file is there still, and does not hold an entry any more
    files = [line(f"u{n:06d}", bytes(16)) for n in range(3 * BLOCK)]
    again = entries.renewed(files, iter(()))
    assert len(again) == 3 * BLOCK - 1 and "u000003" not in again


def test_digests_are_remembered_until_a_file_changes() -> None:
    entries = packed(range(4))
    entries.note("u000002", b"d" * 32)
    entries.note("u9", b"d" * 32)  # nobody's
    files = [line(f"u{n:06d}", bytes(16)) for n in range(4)]
    assert entries.renewed(files, iter(())).digest("u000002") == b"d" * 32
    files[2] = line("u000002", b"y" * 16)
    text = entry_of(2).model_dump_json().encode()
    fresh = entries.renewed(files, iter([Row("u000002", b"y" * 16, text)]))
    assert fresh.digest("u000002") is None


def test_marks_know_what_is_among_them() -> None:
    marks = HashSet((f"a/{number}", number) for number in range(1000))
    assert len(marks) == 1000 and all((f"a/{number}", number) in marks for number in range(1000))
    assert ("a/1", 2) not in marks and "a/1" not in marks and "x" not in HashSet(())


def test_merged_is_the_statistic_over_all() -> None:
    merged = Merged()
    merged.add({"a": Statistic(count=1, mean=2.0, min=2.0, max=2.0)})
    merged.add({"a": Statistic(count=3, mean=4.0, min=1.0, max=9.0)})
    merged.add({"b": Statistic(count=0, mean=0.0, min=0.0, max=0.0)})
    assert merged.statistics() == {"a": Statistic(count=4, mean=3.5, min=1.0, max=9.0)}


def test_twenty_thousand_entries_take_little_memory(tmp_path: Path) -> None:
    """What a driver holds when it opens an output; laid down without its shards."""
    ledger = Ledger(str(tmp_path))
    ledger.open(SETTINGS)
    folder = tmp_path / "evidence/ledger/units"
    for number in range(MANY):
        entry = entry_of(number)
        (folder / f"{entry.unit}.json").write_text(entry.model_dump_json())
    for _ in range(2):  # read one by one; then from the copy of all
        whole = Ledger(str(tmp_path))
        tracemalloc.start()
        entries = whole.entries()
        assert entries is not whole.entries()  # while those before are held
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        whole.compact()
        assert len(entries) == MANY
        assert peak < MANY * MOST_BYTES, f"{peak / MANY:.0f} bytes an entry"
    assert (tmp_path / "/".join(COMPACTED)).stat().st_size < MANY * 400
