"""Originals back, or the reason why not; from the functions and from the commands."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from sealed_world import MASTER, ROWS, UNITS, World, all_bytes, original

from ppfr_ops.cli import program
from ppfr_ops.contracts.records import IMAGE_TYPE
from ppfr_ops.store.files import Files
from ppfr_ops.vault import audit
from ppfr_ops.vault.erasing import check, erase
from ppfr_ops.vault.recovery import RestoreRequest, originals_of


def keys_folder(world: World) -> Path:
    return Path(world.url, "keys", Files(world.url).names("keys")[0])


def test_all_of_it_byte_for_byte(world: World, tmp_path: Path) -> None:
    count, failures = erase(world.opened(), RestoreRequest(), str(tmp_path / "back"))
    assert (count.given, failures) == (UNITS * ROWS, [])
    found = pq.read_table(tmp_path / "back").to_pylist()
    assert {row["record_id"]: row["image"]["bytes"] for row in found} == {
        world.outside(name): original(name) for name in world.records
    }
    assert found[0]["image"]["path"].endswith(".jpg")
    assert {path.suffix for path in (tmp_path / "back").iterdir()} == {".parquet"}


def test_one_record_as_a_file_and_one_persons(world: World, tmp_path: Path) -> None:
    name = world.records[5]
    for number, said in enumerate((name, world.outside(name))):
        target = str(tmp_path / f"one-{number}")
        erase(world.opened(), RestoreRequest(frozenset({said})), target, as_files=True)
        assert all_bytes(target) == {f"{world.outside(name)}.jpg": original(name)}
    wish = RestoreRequest(people=frozenset({"person 3"}))
    count, _ = erase(world.opened(), wish, str(tmp_path / "person"))
    assert count.given == UNITS * ROWS // 7


def damage(world: World, harm: str) -> set[str]:
    """Do harm to the vault or the output; returns codes that are right then."""
    sealed = sorted(Path(world.url, "sealed").iterdir())[0]
    keys = sorted(keys_folder(world).iterdir())[0]
    if harm == "bit in a picture":
        data = bytearray(sealed.read_bytes())
        data[len(data) // 2] ^= 4
        sealed.write_bytes(data)
        return {"not_authentic", "vault_damaged"}
    if harm == "truncated":
        sealed.write_bytes(sealed.read_bytes()[:-100])
        return {"vault_damaged"}
    if harm == "truncated keys":
        keys.write_bytes(keys.read_bytes()[: keys.stat().st_size // 2])
        return {"vault_damaged"}
    if harm == "missing":
        sealed.unlink()
        return {"vault_damaged"}
    if harm == "records swapped":
        table = pq.read_table(sealed)
        order = [1, 0, *range(2, ROWS)]
        swapped = table.set_column(1, table.schema.field(1), table["nonce"].take(order))
        for index in (2, 3):
            column = table[table.column_names[index]].take(order)
            swapped = swapped.set_column(index, table.schema.field(index), column)
        pq.write_table(swapped, sealed)
        return {"not_authentic"}
    if harm == "keys swapped":
        table = pq.read_table(keys)
        metadata = table.schema.metadata
        order = [1, 0, *range(2, ROWS)]
        columns = [table["entry"], *(table[n].take(order) for n in table.column_names[1:])]
        pq.write_table(
            pa.table(columns, schema=table.schema).replace_schema_metadata(metadata), keys
        )
        return {"another_picture"}
    if harm == "units swapped":
        other = sorted(Path(world.url, "sealed").iterdir())[1]
        other_data = other.read_bytes()
        other.write_bytes(sealed.read_bytes())
        sealed.write_bytes(other_data)
        return {"vault_damaged"}
    entry = world.opened().units["u000000"]
    path = Path(world.output, entry.shards["data"].path)
    table = pq.read_table(path)
    pictures = table["image"].to_pylist()
    pictures[0], pictures[1] = pictures[1], pictures[0]
    pq.write_table(table.set_column(1, table.schema.field(1), pa.array(pictures, IMAGE_TYPE)), path)
    return {"another_picture"}


HARMS = [
    "bit in a picture",
    "truncated",
    "truncated keys",
    "missing",
    "records swapped",
    "keys swapped",
    "units swapped",
    "pictures swapped",
]


@pytest.mark.parametrize("harm", HARMS)
def test_what_was_harmed_is_refused_and_nothing_of_it_is_written(
    world: World, tmp_path: Path, harm: str
) -> None:
    codes = damage(world, harm)
    count, failures = erase(world.opened(), RestoreRequest(), str(tmp_path / "back"))
    assert failures and {failure.code for failure in failures} <= codes
    assert count.given + len(failures) == UNITS * ROWS
    letters = pq.read_table(tmp_path / "back" / "dead_letters.parquet").to_pylist()
    assert {row["record_id"] for row in letters} == {failure.entry for failure in failures}
    refused = {failure.entry for failure in failures}
    inside = world.inside()
    for path in (tmp_path / "back").glob("u*.parquet"):
        for row in pq.read_table(path).to_pylist():
            assert row["record_id"] not in refused
            assert row["image"]["bytes"] == original(inside[row["record_id"]])
    assert all("\n" not in str(failure) for failure in failures)
    if harm != "pictures swapped":
        assert all(failure.unit in ("u000000", "u000001") for failure in failures)


@pytest.mark.parametrize("position", range(0, 1000, 97))
def test_a_flipped_bit_anywhere_never_gives_a_wrong_original(world: World, position: int) -> None:
    for path in (next(Path(world.url, "sealed").iterdir()), next(keys_folder(world).iterdir())):
        whole = path.read_bytes()
        broken = bytearray(whole)
        broken[len(whole) * position // 1000] ^= 1
        path.write_bytes(broken)
        opened, inside = world.opened(), world.inside()
        for unit in opened.units:
            for name, found in opened.originals(unit, RestoreRequest()):
                assert not isinstance(found, bytes) or found == original(inside[name])
        path.write_bytes(whole)


def test_a_photograph_with_several_faces_is_kept_once() -> None:
    images = [{"bytes": b"%d" % n, "path": ""} for n in range(3)]
    records = pa.table(
        [["p1-f000", "p1-f001", "p2-f000"], pa.array(images, IMAGE_TYPE), ["p1", "p1", "p2"]],
        ["record_id", "image", "source_id"],
    )
    read = pa.table([["p0", "p1", "p2"], [b"none", b"one", b"two"]], ["record_id", "image"])
    kept = list(originals_of(records, read))
    assert [(entry, data) for entry, data, _ in kept] == [("p1", b"one"), ("p2", b"two")]
    assert kept[0][2] != kept[1][2]


def test_verify_shows_nothing_and_counts(world: World) -> None:
    count, failures = check(world.opened())
    assert (count.given, count.revoked, failures) == (UNITS * ROWS, 0, [])
    world.vault.revoke(world.records[:4])
    count, failures = check(world.opened())
    assert (count.given, count.revoked, count.failures) == (UNITS * ROWS - 4, 4, 0)


# -- commands ----------------------------------------------------------------------------------


@pytest.fixture
def key(tmp_path: Path) -> str:
    (tmp_path / "key").write_text(MASTER.hex())
    (tmp_path / "key").chmod(0o600)
    return str(tmp_path / "key")


def ppfr(*args: str) -> Result:
    return CliRunner().invoke(program, list(args), standalone_mode=False)


def run(*args: str) -> int:
    """Exit code of a command that was not refused."""
    result = ppfr(*args)
    assert result.exception is None, result.exception
    return int(result.return_value or 0)


def refused(*args: str) -> str:
    """The one line of a command that was."""
    result = ppfr(*args)
    assert result.exception is not None and getattr(result.exception, "exit_code", 0) == 2
    line = result.exception.format_message()  # type: ignore[attr-defined]
    assert "\n" not in line
    return str(line)


def test_erase_from_the_command_line(world: World, tmp_path: Path, key: str) -> None:
    vault = ("--vault", world.url)
    back = str(tmp_path / "back")
    assert run("erase", world.output, *vault, "--key", key, "--out", back, "--who", "dpo") == 0
    assert len(pq.read_table(back)) == UNITS * ROWS
    entries = audit.read(Files(world.url))
    assert [(e["who"], e["what"], e["which"]) for e in entries] == [("dpo", "erase", "all")] * 2
    assert entries[-1]["outcome"] == f"{UNITS * ROWS} given back, 0 not"


def test_a_wrong_key_leaves_no_output(world: World, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("11" * 32)
    (tmp_path / "wrong").chmod(0o600)
    back = tmp_path / "back"
    args = ("--vault", world.url, "--key", str(tmp_path / "wrong"), "--out", str(back))
    assert "not the one of this vault" in refused("erase", world.output, *args)
    assert not back.exists()


@pytest.mark.parametrize("where", ["output", "url"])
def test_originals_never_go_into_the_output_or_the_vault(
    world: World, key: str, where: str
) -> None:
    inside = f"{getattr(world, where)}/back"
    args = ("--vault", world.url, "--key", key, "--out", inside)
    assert "must not lie inside" in refused("erase", world.output, *args)


def test_revoke_then_erase(world: World, tmp_path: Path, key: str) -> None:
    vault = ("--vault", world.url)
    gone = tmp_path / "gone"
    gone.write_text("\n".join(world.records[:3]))
    assert "give --record" in refused("vault", "revoke", world.output, *vault)
    assert "no such record" in refused("vault", "revoke", world.output, *vault, "--record", "x")
    assert run("vault", "revoke", world.output, *vault, "--from-file", str(gone)) == 0
    assert run("vault", "revoke", world.output, *vault, "--person", "person 6") == 0
    back = str(tmp_path / "back")
    assert run("erase", world.output, *vault, "--key", key, "--out", back) == 0
    letters = pq.read_table(tmp_path / "back" / "dead_letters.parquet").to_pylist()
    assert {row["code"] for row in letters} == {"revoked"}
    assert len(letters) == 3 + UNITS * ROWS // 7
    assert run("vault", "verify", world.output, *vault, "--key", key) == 0


def test_rotate_split_join_then_erase(world: World, tmp_path: Path, key: str) -> None:
    vault = ("--vault", world.url)
    (tmp_path / "new").write_text("22" * 32)
    (tmp_path / "new").chmod(0o600)
    new = str(tmp_path / "new")
    assert run("vault", "rotate", *vault, "--key", key, "--new-key", new) == 0
    assert run("vault", "rotate", *vault, "--key", key, "--new-key", new) == 0  # once more: nothing
    assert "not the one" in refused("vault", "verify", world.output, *vault, "--key", key)
    shares = tmp_path / "shares"
    args = ("--shares", "3", "--needed", "2", "--out", str(shares))
    assert run("vault", "split", "--key", new, *args) == 0
    whole = str(tmp_path / "whole")
    assert "too few" in refused("vault", "join", str(shares / "share-2"), "--out", whole)
    two = (str(shares / "share-3"), str(shares / "share-1"))
    assert run("vault", "join", *two, "--out", whole) == 0
    back = str(tmp_path / "back")
    assert run("erase", world.output, *vault, "--key", whole, "--out", back) == 0
    assert len(pq.read_table(back)) == UNITS * ROWS


def test_a_log_whose_end_was_cut_off_is_noticed(world: World, key: str) -> None:
    args = ("vault", "verify", world.output, "--vault", world.url, "--key", key)
    assert run(*args) == 0 and run(*args) == 0
    head = audit.read(Files(world.url))[-1]["digest"]
    assert run(*args, "--head", head) == 0
    for path in sorted(Path(world.url, "audit").iterdir())[1:]:
        path.unlink()
    assert "cut off" in refused(*args, "--head", head)
