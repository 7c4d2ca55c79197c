"""Whose original it is, is said by what was committed and sealed, not by whoever can write to the
release."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sealed_world import MASTER, World, original, tables

from ppfr_ops.cli import program
from ppfr_ops.cli.vault import main as vault
from ppfr_ops.contracts.detections import detections_schema
from ppfr_ops.release.signing import seal
from ppfr_ops.store.ledger import LEDGER, Ledger, Tables
from ppfr_ops.vault import FileKey, VaultError
from ppfr_ops.vault.erasing import erase
from ppfr_ops.vault.recovery import Failure, Opened, RestoreRequest, entries_of, originals_of
from ppfr_ops.vault.shards import Keys

ONE, TWO = "person 1", "person 2"
EVERYTHING = RestoreRequest()


def swap(world: World, unit: str, honest: bool = False, two: str = TWO) -> None:
    """Give all records of two people to each other; ``honest``: and tell the ledger."""
    ledger = Ledger(world.output)
    entry = ledger.entries()[unit]
    path = Path(world.output, entry.shards["data"].path)
    table = pq.read_table(path)
    people = [{ONE: two, two: ONE}.get(who, who) for who in table["identity"].to_pylist()]
    place = table.column_names.index("identity")
    changed = table.set_column(place, table.schema.field("identity"), pa.array(people))
    pq.write_table(changed, path)
    if honest:
        tell_the_ledger(world, unit, "data")


def tell_the_ledger(world: World, unit: str, kind: str) -> None:
    """Make the ledger say that a shard is as it is now."""
    file = Path(world.output, *LEDGER, "units", f"{unit}.json")
    document = json.loads(file.read_text())
    shard = document["shards"][kind]
    data = Path(world.output, shard["path"]).read_bytes()
    shard |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    file.write_text(json.dumps(document))


def rewrite(world: World, unit: str, kind: str, change: Callable[[pa.Table], pa.Table]) -> None:
    path = Path(world.output, Ledger(world.output).entries()[unit].shards[kind].path)
    pq.write_table(change(pq.read_table(path)), path)
    tell_the_ledger(world, unit, kind)


@pytest.mark.parametrize("honest", [False, True])
def test_two_pseudonyms_swapped_yield_nobody_elses_original(
    world: World, tmp_path: Path, honest: bool
) -> None:
    theirs = {n for n, d in _given(world, RestoreRequest(people=frozenset({ONE})))}
    swap(world, "u000000", honest)
    wish = RestoreRequest(people=frozenset({TWO}))
    with pytest.raises(VaultError, match="nothing was done"):
        world.opened().find(wish)
    with pytest.raises(VaultError, match="nothing was done"):
        Opened(world.output, world.vault, None).find(wish)  # as a revocation does, without a key
    count, failures = erase(world.opened(), wish, str(tmp_path / "back"))
    codes = {f.code for f in failures}
    assert codes == ({"another_picture"} if honest else {"output_damaged"})
    given = {n for n, d in _given(world, wish)}
    assert count.given == len(given) and not given & theirs


def test_who_is_hidden_in_a_shard_is_not_passed_over(world: World, tmp_path: Path) -> None:
    swap(world, "u000000", honest=True, two="nobody")
    wish = RestoreRequest(people=frozenset({ONE}))
    for opened in (world.opened(), Opened(world.output, world.vault, None)):
        with pytest.raises(VaultError, match="nothing was done"):
            opened.find(wish)


def other_secret(world: World) -> None:
    file = Path(world.output, *LEDGER, "secret.json")
    file.write_text(json.dumps({"secret": "ab" * 32}))


def without(table: pa.Table, who: str | None) -> pa.Table:
    """The records of everybody else; None: of nobody."""
    return table.filter(pc.not_equal(table["identity"], who)) if who else table.slice(0, 0)


FORGED: dict[str, Callable[[World], Any]] = {
    "a person's records are gone": lambda w: rewrite(
        w, "u000001", "data", lambda t: without(t, ONE)
    ),
    "all records are gone": lambda w: rewrite(w, "u000001", "data", lambda t: without(t, None)),
    "the unit is gone": lambda w: Path(w.output, *LEDGER, "units", "u000001.json").unlink(),
    "another secret of the ids": other_secret,
    "a record twice": lambda w: rewrite(
        w, "u000001", "data", lambda t: pa.concat_tables([t, t.slice(0, 1)])
    ),
}


@pytest.mark.parametrize("forged", FORGED)
def test_nobody_is_hidden_from_a_revocation_by_what_is_taken_away(
    world: World, tmp_path: Path, forged: str
) -> None:
    """It was said that no key was left, of a person whose originals opened later."""
    FORGED[forged](world)
    wish = RestoreRequest(people=frozenset({ONE}))
    with pytest.raises(VaultError, match="nothing was done"):
        Opened(world.output, world.vault, None).find(wish)
    everything = Opened(world.output, world.vault, None).find(RestoreRequest())
    assert everything.issuperset(world.records)


def test_keys_that_come_back_after_their_revocation_are_destroyed(
    world: World, tmp_path: Path
) -> None:
    (keys,) = Path(world.url, "keys").glob("*/u000001.*")
    data = keys.read_bytes()
    keys.write_bytes(b"nothing that can be read")
    command = ["revoke", world.output, "--vault", world.url, "--person", ONE]
    done = CliRunner().invoke(vault, command, standalone_mode=False)
    assert done.return_value == 1 and "20 keys destroyed" in done.output
    assert "of 10 the vault has no key" in done.output
    keys.write_bytes(data)
    world.vault.recover()
    found = [d for u in world.opened().units for _, d in world.opened().originals(u, EVERYTHING)]
    assert sum(isinstance(d, Failure) and d.code == "revoked" for d in found) == 30


@pytest.fixture
def crops(tmp_path: Path) -> World:
    """Two photographs of one unit, with two faces each, which are published one by one."""
    world = World(str(tmp_path / "out"), str(tmp_path / "vault"))
    access = world.vault.access(FileKey(MASTER))
    world.vault.establish(access)
    ledger = Ledger(world.output)
    ledger.open({"--vault": access.release}, seed=1)
    published, read = tables("u000000")
    sources = [f"u000000-{row // 2:06d}" for row in range(4)]
    names = [f"{source}-f{row % 2:03d}" for row, source in enumerate(sources)]
    fields = {field.name: pa.nulls(4, field.type) for field in detections_schema()}
    fields |= {"record_id": pa.array(names), "source_id": pa.array(sources)}
    records = published.records.slice(0, 4).drop_columns("record_id")
    records = records.append_column("record_id", pa.array(names))
    records = records.append_column("source_id", pa.array(sources))
    both = Tables(
        records.drop_columns("source_id").select(["record_id", "image", "identity"]),
        published.metrics.slice(0, 4).set_column(0, "record_id", pa.array(names)),
        published.dead_letters,
        pa.table(fields, schema=detections_schema()),
    )
    entry = ledger.commit("u000000", both, 2, method_digest="", settings_digest="")
    found = originals_of(records, read)
    world.vault.commit(access, "u000000", entry.copy_id, found)
    return world


@pytest.mark.parametrize("by", ["records", "people"])
def test_a_face_that_is_said_to_be_of_another_photograph_destroys_and_opens_nothing(
    crops: World, by: str
) -> None:
    """By a table of detections that anybody can write to, the first face was of the other photo."""
    face = crops.outside("u000000-000000-f000")
    asked = {"records": face, "people": "person 0"}[by]
    wish = RestoreRequest(**{by: frozenset({asked})})
    assert Opened(crops.output, crops.vault, None).find(wish) == {"u000000-000000"}

    def moved(table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        for row in rows:
            row["source_id"] = f"u000000-{row['source_id'] == 'u000000-000000':06d}"
        return pa.Table.from_pylist(rows, table.schema)

    rewrite(crops, "u000000", "detections", moved)
    with pytest.raises(VaultError, match="nothing was done"):
        Opened(crops.output, crops.vault, None).find(wish)
    found = list(crops.opened().originals("u000000", wish))
    assert found and all(isinstance(each, Failure) for _, each in found)


def _given(world: World, wish: RestoreRequest) -> list[tuple[str, Any]]:
    opened = world.opened()
    found = [item for unit in opened.units for item in opened.originals(unit, wish)]
    return [(name, data) for name, data in found if not isinstance(data, Failure)]


def test_the_pseudonym_is_part_of_what_was_sealed(world: World) -> None:
    """Even somebody who can rewrite ledger, shard and the vault's list of digests."""
    opened = world.opened()
    wish = RestoreRequest(people=frozenset({ONE}))
    before = len(_given(world, wish))
    assert before == 30
    swap(world, "u000001", honest=True)
    opened = world.opened()
    found = [d for _, d in opened.originals("u000001", RestoreRequest()) if isinstance(d, Failure)]
    assert len(found) == 20 and {f.code for f in found} == {"another_picture"}


def test_what_was_sealed_without_pseudonyms_comes_back(world: World, tmp_path: Path) -> None:
    """As before pseudonyms were part of it."""
    access = world.vault.access(FileKey(MASTER))
    opened = world.opened()
    unit = "u000000"
    records = opened.published(unit)
    assert records is not None

    old = entries_of(records["entry"].to_pylist(), records["image"])
    copy = opened.copy(unit)
    world.vault.discard(unit, copy)
    world.vault.commit(access, unit, copy, ((e, original(e), d) for e, d in old.items()))
    assert len(_given(world, RestoreRequest())) == len(world.records)


def test_a_ledger_that_is_not_what_was_signed_says_nothing_about_people(
    world: World, tmp_path: Path
) -> None:
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    ledger = Ledger(world.output)
    ledger.entries()
    seal(ledger, 1, key)
    wish = RestoreRequest(people=frozenset({ONE}))
    service = FileKey(MASTER)
    assert Opened(world.output, world.vault, service, key.public_key()).find(wish)
    with pytest.raises(VaultError, match="not signed by this key"):
        Opened(world.output, world.vault, service, other.public_key())
    swap(world, "u000002", honest=True)
    for opened in (
        Opened(world.output, world.vault, service),
        Opened(world.output, world.vault, service, key.public_key()),
    ):
        assert opened.unsigned == {"u000002"}
        with pytest.raises(VaultError, match="signed; nothing was done"):
            opened.find(wish)
    pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (tmp_path / "pub").write_bytes(pem)
    (tmp_path / "key").write_text(MASTER.hex())
    (tmp_path / "key").chmod(0o600)
    base = [world.output, "--vault", world.url, "--public-key", str(tmp_path / "pub")]
    for command in (
        ["erase", *base, "--key", str(tmp_path / "key"), "--out", str(tmp_path / "back")],
        ["vault", "revoke", *base],
    ):
        done = CliRunner().invoke(program, [*command, "--person", ONE])
        assert done.exit_code == 2 or "nothing was done" in str(done.exception), done.output
    assert not (tmp_path / "back").exists()
    assert len(_given(world, RestoreRequest(records=frozenset(world.records[:3])))) == 3


def test_keys_in_each_others_place_are_found_before_any_is_destroyed(
    world: World, tmp_path: Path
) -> None:
    """Somebody swaps the keys of two records: revoking one would destroy the other's, and the first
    would open for whoever swaps them back."""
    (path,) = Path(world.url, "keys").glob("*/u000001.*")
    keys = Keys.from_bytes(path.read_bytes())
    one, other = list(keys.entries)[:2]
    command = ["revoke", world.output, "--vault", world.url, "--record", one]
    key = tmp_path / "master"
    key.write_text(MASTER.hex())
    key.chmod(0o600)
    swapped = dict(keys.entries) | {one: keys.entries[other], other: keys.entries[one]}
    path.write_bytes(replace(keys, entries=swapped).to_bytes())
    done = CliRunner().invoke(vault, [*command, "--key", str(key)])
    assert done.exit_code == 2 and "changed by somebody; nothing was done" in done.output
    path.write_bytes(keys.to_bytes())
    done = CliRunner().invoke(vault, [*command, "--key", str(key)], standalone_mode=False)
    assert done.return_value == 0 and "1 keys destroyed" in done.output
    assert "vault's word" not in done.output
    done = CliRunner().invoke(vault, command, standalone_mode=False)
    assert "vault's word: --key" in " ".join(done.output.split())
