"""Whose original it is, is said by what was committed and sealed, not by whoever can write to the
release."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sealed_world import MASTER, World, original

from ppfr_ops.release.signing import seal
from ppfr_ops.store.ledger import LEDGER, Ledger
from ppfr_ops.vault import FileKey, VaultError
from ppfr_ops.vault.erasing import erase
from ppfr_ops.vault.recovery import Failure, Opened, RestoreRequest, entries_of

ONE, TWO = "person 1", "person 2"


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
        file = Path(world.output, *LEDGER, "units", f"{unit}.json")
        document = json.loads(file.read_text())
        data = path.read_bytes()
        document["shards"]["data"]["bytes"] = len(data)
        document["shards"]["data"]["sha256"] = hashlib.sha256(data).hexdigest()
        file.write_text(json.dumps(document))


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
    from click.testing import CliRunner

    from ppfr_ops.cli import program

    base = [world.output, "--vault", world.url, "--public-key", str(tmp_path / "pub")]
    for command in (
        ["erase", *base, "--key", str(tmp_path / "key"), "--out", str(tmp_path / "back")],
        ["vault", "revoke", *base],
    ):
        done = CliRunner().invoke(program, [*command, "--person", ONE])
        assert done.exit_code == 2 or "nothing was done" in str(done.exception), done.output
    assert not (tmp_path / "back").exists()
    assert len(_given(world, RestoreRequest(records=frozenset(world.records[:3])))) == 3
