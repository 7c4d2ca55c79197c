"""Commit, revoke, rotate, sweep; killed at any moment."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sealed_world import MASTER, UNITS, World, all_bytes, original

from ppfr_ops.store.files import Files
from ppfr_ops.vault import Access, FileKey, Vault, VaultError, WrongKey, audit
from ppfr_ops.vault.erasing import check
from ppfr_ops.vault.recovery import Failure, RestoreRequest

NEW = bytes(reversed(range(32)))


class Killed(BaseException):
    """Stands in for SIGKILL: nothing in the code may catch it."""


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Callable[[], int]]:
    """Die at the n-th time that a file is about to change its state on disk, before or after; who
    is dead changes nothing more, whatever the code would clear away on an error."""

    def arm(moment: int) -> Callable[[], int]:
        seen = 0

        def around(name: str) -> None:
            real = getattr(os, name)

            def dying(*args: Any, **named: Any) -> Any:
                nonlocal seen
                seen += 1
                if seen >= moment:
                    raise Killed
                result = real(*args, **named)
                seen += 1
                if seen >= moment:
                    raise Killed
                return result

            monkeypatch.setattr(os, name, dying)

        for name in ("replace", "link", "unlink", "pwrite", "rmdir", "remove"):
            around(name)
        return lambda: seen

    yield arm
    monkeypatch.undo()


def given(world: World, master: bytes) -> tuple[set[str], set[str]]:
    """Records whose originals come back whole, and those that are revoked; no other."""
    opened, back, revoked = world.opened(master), set(), set()
    inside = world.inside()
    for unit in opened.units:
        for name, found in opened.originals(unit, RestoreRequest()):
            entry = inside[name]
            if isinstance(found, Failure):
                assert found.code == "revoked", found
                revoked.add(entry)
            else:
                assert found == original(entry)
                back.add(entry)
    return back, revoked


def test_every_original_comes_back(world: World) -> None:
    assert given(world, MASTER) == (set(world.records), set())


def test_a_wrong_key_is_refused_at_once(world: World) -> None:
    with pytest.raises(WrongKey, match="not the one of this vault"):
        world.opened(NEW)


def test_another_releases_vault_is_refused(build: Callable[..., World]) -> None:
    one, two = build("one"), build("two")
    with pytest.raises(VaultError, match="different releases"):
        World(one.output, two.url).opened()
    # nor does it help to give the other vault this one's name
    document = Files(one.url).read("vault.json")
    theirs = Files(two.url).read("vault.json")
    assert document is not None and theirs is not None
    Files(two.url).write({**theirs, "release": document["release"]}, "vault.json")
    for unit, copy in ((e.unit, e.copy_id) for e in one.opened().units.values()):
        for folder in ("sealed", f"keys/{theirs['generation']['name']}"):
            old = next(Path(two.url, folder).glob(f"{unit}.*"))
            old.rename(old.with_name(f"{unit}.{copy}.parquet"))
    count, failures = check(World(one.output, two.url).opened())
    assert count.given == 0 and {f.code for f in failures} == {"vault_damaged"}


def test_nothing_of_an_original_is_in_the_vault(world: World) -> None:
    everything = b"".join(all_bytes(world.url).values())
    assert b"JFIF" not in everything and b"\xff\xd8\xff\xe0" not in everything
    assert original(world.records[0])[20:52] not in everything
    assert MASTER not in everything and MASTER.hex().encode() not in everything


def test_files_are_for_the_owner_alone(world: World) -> None:
    modes = {p.stat().st_mode & 0o777 for p in Path(world.url).rglob("*") if p.is_file()}
    assert modes == {0o600}


def test_two_runs_share_no_nonce_no_key_no_ciphertext(build: Callable[..., World]) -> None:
    seen: list[bytes] = []
    for world in (build("one"), build("two")):
        for unit, copy in world.vault.copies():
            keys = world.vault.keys(unit, copy)
            seen += [part for e in keys.entries.values() if e.key for part in vars(e.key).values()]
            wanted = set(keys.entries)
            for _, sealed in world.vault.sealed(unit, copy, wanted):
                seen += [sealed.nonce, sealed.commitment, sealed.text]
    assert len(set(seen)) == len(seen) == 2 * len(world.records) * 5


def test_what_was_not_published_is_swept_up_and_nothing_else(world: World) -> None:
    access = world.vault.access(FileKey(MASTER))
    world.vault.commit(access, "u000000", "f" * 16, [("u000000-000000", b"x", b"p" * 32)])
    published = {(e.unit, e.copy_id) for e in world.opened().units.values()}
    assert len(world.vault.copies()) == UNITS + 1
    assert world.vault.sweep(published) == 1
    assert world.vault.copies() == published
    assert given(world, MASTER) == (set(world.records), set())


def test_a_unit_counts_once_its_keys_are_there(
    world: World, kill: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    access, published = world.vault.access(FileKey(MASTER)), world.vault.copies()
    for moment in range(1, 6):
        kill(moment)
        with pytest.raises(Killed):
            world.vault.commit(access, "u9", "c" * 16, [("u9-000000", b"x", b"p" * 32)])
            raise Killed
        monkeypatch.undo()
        assert world.vault.copies() <= published | {("u9", "c" * 16)}
        world.vault.sweep(published)
        assert world.vault.copies() == published
        assert not [name for name in all_bytes(world.url) if "u9" in name or ".tmp" in name]


def test_killed_at_every_moment_of_a_revocation(
    build: Callable[..., World], kill: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either nothing is revoked yet, or all of it is for whoever opens the vault next."""
    moment, states = 0, set()
    while True:
        moment += 1
        world = build(f"{moment}")
        gone = set(random.Random(moment).sample(world.records, 20))
        kill(moment)
        try:
            world.vault.revoke(gone)
            done = True
        except Killed:
            done = False
        monkeypatch.undo()
        world.vault.recover()
        back, revoked = given(world, MASTER)
        assert back | revoked == set(world.records)
        assert revoked in (set(), gone)
        states.add(bool(revoked))
        world.vault.revoke(gone)
        assert given(world, MASTER) == (set(world.records) - gone, gone)
        if done:
            break
    assert moment > 4 * UNITS and states == {True, False}


def test_killed_at_every_moment_of_a_rotation(
    build: Callable[..., World], kill: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, the old master opens all and the new one nothing; after, the other way round; and
    what was revoked stays so."""
    moment, states = 0, set()
    while True:
        moment += 1
        world = build(f"{moment}")
        gone = set(world.records[3:8])
        world.vault.revoke(gone)
        before = {n: d for n, d in all_bytes(world.url).items() if n.startswith("sealed/")}
        kill(moment)
        try:
            world.vault.rotate(FileKey(MASTER), FileKey(NEW))
            done = True
        except Killed:
            done = False
        monkeypatch.undo()
        rotated = not _opens(world, MASTER)
        states.add(rotated)
        assert _opens(world, NEW) == rotated
        assert given(world, NEW if rotated else MASTER) == (set(world.records) - gone, gone)
        # a revocation now must reach what the rotation left lying about
        world.vault.revoke({world.records[0]})
        assert len(Files(world.url).names("keys")) == 1
        if not rotated:
            world.vault.rotate(FileKey(MASTER), FileKey(NEW))
        gone |= {world.records[0]}
        assert given(world, NEW) == (set(world.records) - gone, gone)
        after = {n: d for n, d in all_bytes(world.url).items() if n.startswith("sealed/")}
        assert after == before
        if done:
            break
    assert moment > 4 * UNITS and states == {True, False}


def _opens(world: World, master: bytes) -> bool:
    try:
        world.opened(master)
    except WrongKey:
        return False
    return True


def test_a_destroyed_key_is_nowhere_in_the_vault(world: World) -> None:
    unit, copy = sorted(world.vault.copies())[0]
    entry = world.records[0]
    key = world.vault.keys(unit, copy).entries[entry].key
    assert key is not None
    assert any(key.text in data for data in all_bytes(world.url).values())
    world.vault.revoke({entry})
    assert not any(key.text in data for data in all_bytes(world.url).values())


def test_a_vault_is_made_once(tmp_path: Path, world: World) -> None:
    url = str(tmp_path / "new")
    one, two = Vault(url).access(FileKey(MASTER)), Vault(url).access(FileKey(MASTER))
    Vault(url).establish(one)
    Vault(url).establish(one)
    with pytest.raises(VaultError, match="another run"):
        Vault(url).establish(two)
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "photo.jpg").write_bytes(b"x")
    with pytest.raises(VaultError, match="not empty"):
        Vault(str(tmp_path / "else")).access(FileKey(MASTER))
    Path(world.url, "vault.json").write_text("{")
    with pytest.raises(VaultError, match="damaged"):
        world.vault.access(FileKey(MASTER))


def test_what_goes_to_a_worker_shows_no_key(world: World) -> None:
    access = world.vault.access(FileKey(MASTER))
    assert isinstance(access, Access)
    shown = repr(access)
    assert access.key.hex() not in shown and str(access.key) not in shown
    assert world.url not in shown


# -- audit -------------------------------------------------------------------------------------


def test_the_log_is_a_chain(tmp_path: Path) -> None:
    files = Files(str(tmp_path))
    for number in range(4):
        audit.append(files, "owner", "erase", [f"r{number}"], "1 given back")
    entries = audit.read(files)
    assert [entry["number"] for entry in entries] == [1, 2, 3, 4]
    assert entries[2]["before"] == entries[1]["digest"]
    assert set(entries[0]) >= {"who", "time", "which", "what"}


@pytest.mark.parametrize("harm", ["change", "remove", "swap"])
def test_a_log_that_was_tampered_with_is_noticed(tmp_path: Path, harm: str) -> None:
    files = Files(str(tmp_path))
    for number in range(4):
        audit.append(files, "owner", "erase", [f"r{number}"])
    paths = sorted((tmp_path / "audit").iterdir())
    if harm == "change":
        paths[1].write_text(paths[1].read_text().replace("owner", "other"))
    elif harm == "remove":
        paths[1].unlink()
    else:
        first, second = paths[1].read_text(), paths[2].read_text()
        paths[1].write_text(second)
        paths[2].write_text(first)
    with pytest.raises(audit.AuditError, match="was changed: 0000000"):
        audit.read(files)


def test_two_who_write_at_a_time_both_get_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, real, raced = Files(str(tmp_path)), Files.create_bytes, []

    def create(self: Files, data: bytes, *parts: str) -> bool:
        if not raced:
            raced.append(True)
            audit.append(files, "the other", "verify", "all")
        return real(self, data, *parts)

    monkeypatch.setattr(Files, "create_bytes", create)
    audit.append(files, "owner", "erase", "all")
    assert [entry["who"] for entry in audit.read(files)] == ["the other", "owner"]
