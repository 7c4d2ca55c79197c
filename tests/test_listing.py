"""The list of a release's shards: the same for the same shards, and not believed."""

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_entries import entry_of
from test_tampering import release, sign_again, signed, verify
from test_verify import relist, untouched

from ppfr_ops.contracts.manifest import FILES, FILES_SCHEMA, Listing, ReleaseManifest
from ppfr_ops.release.listing import LARGEST, Shards, packed, twice, unpacked, write_rows
from ppfr_ops.release.signing import load_signing_key
from ppfr_ops.release.verify import verify as findings_of
from ppfr_ops.store.folder import Folder
from ppfr_ops.store.ledger import Ledger

__all__ = ["release", "signed", "untouched"]


def test_the_same_shards_give_the_same_bytes_in_whatever_order(tmp_path: Path) -> None:
    numbers, digests = list(range(40_000)), set()
    for _ in range(2):
        random.Random(3).shuffle(numbers)
        shards = Shards()
        for number in numbers:
            shards.add(entry_of(number))
        told = write_rows(Folder(str(tmp_path)), shards.table(), FILES)
        digests.add(told["sha256"])
    assert len(digests) == 1 and told["rows"] == 40_000
    raw = (tmp_path / FILES).read_bytes()
    assert len(raw) == told["bytes"] < 40_000 * 130
    assert hashlib.sha256(raw).hexdigest() == told["sha256"]
    found = pq.ParquetFile(tmp_path / FILES)
    assert set(found.metadata.metadata) == {b"ARROW:schema", b"ppfr_schema"}
    paths = found.read()["path"].to_pylist()
    assert paths == sorted(paths) and paths[7] == f"data/{7:032x}.parquet".encode()


def test_an_empty_list_is_one(tmp_path: Path) -> None:
    assert Shards().table().equals(FILES_SCHEMA.empty_table())
    assert write_rows(Folder(str(tmp_path)), Shards().table(), FILES)["rows"] == 0


# -- of a release that is signed --------------------------------------------------------------


def lose_it(path: Path) -> None:
    path.unlink()


def turn_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def lengthen_it(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"Jane Doe")


def link_it(path: Path) -> None:
    path.rename(path.parent.parent / "moved")
    path.symlink_to(path.parent.parent / "moved")


WAYS: dict[Callable[[Path], None], str] = {
    lose_it: "is missing",
    turn_a_byte: "its sha256 is not that in the manifest",
    lengthen_it: "bytes, the manifest says",
    link_it: "is a symbolic link",
}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_list_that_was_changed_is_one_line(way: Callable[[Path], None], release: Path) -> None:
    way(release / FILES)
    for place in (release, release.parent):
        code, said = verify(place)
        assert code == 1 and len(said) == 1, said
        assert said[0].startswith(f"{FILES}: ") and WAYS[way] in said[0]


# -- of one whose manifest says what the list is ----------------------------------------------


def _column(table: pa.Table, name: str, values: list[object]) -> pa.Table:
    place = FILES_SCHEMA.get_field_index(name)
    field = FILES_SCHEMA.field(name)
    return table.set_column(place, field, pa.array(values, field.type))


def _path(text: str) -> list[object]:
    return [text.ljust(45, "x").encode()[:45]] * 3


def _from(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    def forge(output: Path) -> None:
        relist(output, change(pq.read_table(output / "release" / FILES)))

    return forge


FORGED = {
    "unsorted": (lambda t: t.take([2, 1, 0]), "each shard once, in the order of their names"),
    "twice": (lambda t: t.take([0, 0, 1, 2]), "each shard once, in the order of their names"),
    "elsewhere": (lambda t: _column(t, "path", _path("data/../../key")), "a path that is none"),
    "not text": (lambda t: _column(t, "path", [b"\xff" * 45] * 3), "a path that is none"),
    "a document": (lambda t: _column(t, "path", _path("README.md")), "a path that is none"),
    "digest": (lambda t: _column(t, "sha256", [b"X" * 64] * 3), "a sha256 that is none"),
    "below zero": (lambda t: _column(t, "rows", [-1, 1, 11]), "a number of rows below zero"),
    "no size": (lambda t: _column(t, "bytes", [-1, 1, 1]), "a number of bytes below zero"),
    "a column more": (lambda t: t.append_column("name", pa.array(["Jane"] * 3)), "the columns of"),
    "a column less": (lambda t: t.drop_columns(["sha256"]), "the columns of"),
    "wider": (lambda t: t.cast(pa.schema([(n, pa.large_binary()) if n == "path" else (n, t[n].type)
                                          for n in t.column_names])), "the columns of"),
    "a name": (lambda t: t.replace_schema_metadata({"who": "Jane Doe"}), "the columns of"),
}  # fmt: skip


@pytest.mark.parametrize("way", FORGED)
def test_a_list_of_another_form_is_refused(way: str, untouched: Path, tmp_path: Path) -> None:
    shutil.copytree(untouched / "out", tmp_path / "out")
    change, reason = FORGED[way]
    _from(change)(tmp_path / "out")
    (said,) = findings_of(str(tmp_path / "out"))
    assert said.file == FILES and reason in said.reason


def claim(output: Path, **claims: object) -> None:
    """Make the manifest say of the list what it does not hold."""
    path = output / "release/manifest.json"
    told = ReleaseManifest.model_validate_json(path.read_bytes())
    assert told.listing is not None
    raw = (output / "release" / FILES).read_bytes()
    now = {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    listing = told.listing.model_copy(update=now | claims)
    path.write_bytes(told.model_copy(update={"listing": listing}).text())


@pytest.fixture
def output(untouched: Path, tmp_path: Path) -> Path:
    shutil.copytree(untouched / "out", tmp_path / "out")
    return tmp_path / "out"


def test_a_list_that_claims_more_rows_than_it_has_room_for_is_not_read(output: Path) -> None:
    """Ten million rows in a few hundred bytes, as run lengths of one value."""
    rows = pa.concat_tables([pq.read_table(output / "release" / FILES).slice(0, 1)] * 1000)
    rows = pa.concat_tables([rows] * 1000)
    pq.write_table(rows, output / "release" / FILES, compression="none", use_dictionary=True)
    assert (output / "release" / FILES).stat().st_size < 50_000
    claim(output, rows=1_000_000)
    before = pa.total_allocated_bytes()
    (said,) = findings_of(str(output))
    assert said.file == FILES and "more rows than it has room for" in said.reason
    assert pa.total_allocated_bytes() - before < 1 << 20


def test_a_list_that_is_compressed_or_no_parquet_is_not_read(output: Path) -> None:
    path = output / "release" / FILES
    claim(output, rows=4)
    (said,) = findings_of(str(output))
    assert said.reason == "3 rows, the manifest says 4"
    pq.write_table(pq.read_table(path), path, compression="zstd")
    claim(output, rows=3)
    (said,) = findings_of(str(output))
    assert "is compressed" in said.reason
    path.write_bytes(b"PAR1" + b"x" * 1000 + b"PAR1")
    claim(output)
    (said,) = findings_of(str(output))
    assert said.reason == "is no readable Parquet file"


def test_a_list_that_is_larger_than_any_is_not_read(output: Path) -> None:
    with (output / "release" / FILES).open("ab") as file:
        file.truncate(LARGEST + 1)  # a hole
    path = output / "release/manifest.json"
    told = ReleaseManifest.model_validate_json(path.read_bytes())
    listing = Listing(bytes=LARGEST + 1, sha256="0" * 64, rows=3)
    path.write_bytes(told.model_copy(update={"listing": listing}).text())
    (said,) = findings_of(str(output))
    assert said.file == FILES and "larger than any list" in said.reason


def test_a_manifest_that_lists_shards_beside_the_list_is_found(release: Path) -> None:
    path = release / "manifest.json"
    told = json.loads(path.read_bytes())
    first = pq.read_table(release / FILES).to_pylist()[0]
    first = {key: v.decode() if isinstance(v, bytes) else v for key, v in first.items()}
    told["files"].append(first)
    path.write_bytes(ReleaseManifest.model_validate(told).text())
    sign_again(release, load_signing_key(str(release.parent.parent / "key")))
    code, said = verify(release)
    assert code == 1 and any(f"lists shards, which are in {FILES}" in line for line in said)


def test_the_list_of_the_seal_is_held_to_it(release: Path) -> None:
    (path,) = (release.parent / "evidence").glob("seal.*.parquet")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert verify(release)[0] == 0  # recipients have no evidence
    code, said = verify(release.parent)
    assert code == 1 and len(said) == 1
    assert said[0].startswith(f"evidence/{path.name}: its sha256")


def test_an_entry_that_nothing_sealed_is_found(release: Path) -> None:
    units = release.parent / "evidence/ledger/units"
    entry = json.loads((units / "u000001.json").read_text())
    shards = {kind: shard | {"path": shard["path"].replace("u000001", "u9")}
              for kind, shard in entry["shards"].items()}  # fmt: skip
    (units / "u9.json").write_text(json.dumps(entry | {"unit": "u9", "shards": shards}))
    code, said = verify(release.parent)
    assert code == 1 and any("counts 3 units, the ledger has 4" in line for line in said)
    (units / "u9.json").write_text("{}")
    code, said = verify(release.parent)
    assert code == 1 and said == ["evidence/ledger/units/u9.json: is damaged"]


def test_ids_of_records_are_packed_and_found_twice() -> None:
    ids = [f"{number:032x}" for number in (1, 2, 2**64, 2**64 + 1)]
    assert unpacked(packed(ids) or b"") == ids and packed([]) == b""
    for odd in ([None], ["x" * 32], [ids[0], ids[1][:-1]], [7]):
        assert packed(odd) is None  # type: ignore[arg-type]
    seen = {"a": packed(ids[:3]) or b"", "b": packed([ids[3], ids[0]]) or b"", "c": b""}
    assert list(twice(seen)) == [(ids[0], "b", "a")]
    assert list(twice({"a": seen["a"]})) == [] and list(twice({})) == []


def test_an_output_says_the_same_when_it_is_listed_anew(output: Path) -> None:
    ledger = Ledger(str(output))
    shards = Shards()
    for entry in ledger.entries().values():
        shards.add(entry)
    assert shards.table().equals(pq.read_table(output / "release" / FILES))
