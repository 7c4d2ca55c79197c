"""A command that was stopped while another took over its vault: it changes nothing when it wakes,
and nothing is lost if it wakes in the midst of a change."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sealed_world import MASTER, UNITS, World, all_bytes, original

from ppfr_ops.store.files import Files
from ppfr_ops.store.lease import Lease
from ppfr_ops.vault import FileKey, Vault, VaultError, WrongKey
from ppfr_ops.vault.recovery import RestoreRequest
from ppfr_ops.vault.sealing import Refused
from ppfr_ops.vault.wrapped import WrappedKeys

NEW = bytes(reversed(range(32)))
OTHER = b"o" * 32


def back(world: World, master: bytes) -> set[str]:
    opened, inside = world.opened(master), world.inside()
    found = set()
    for unit in opened.units:
        for name, data in opened.originals(unit, RestoreRequest()):
            if isinstance(data, bytes):
                assert data == original(inside[name])
                found.add(inside[name])
    return found


def take_over(vault: Vault) -> Vault:
    """As another machine does once the lease has run out."""
    with Lease(vault.files, expiry=0, beat=60) as lease:
        other = Vault(vault.url, lease.fence)
        other.recover()
    return other


def held(world: World) -> Vault:
    lease = Lease(world.vault.files, beat=60)
    lease._stop.set()  # a process that is stopped does not beat
    # another machine's: nobody here can say whether it lives
    name = f"{lease.fence:08d}.json"
    place = ("evidence", "ledger", "lease", name)
    document = world.vault.files.read(*place)
    assert document is not None
    world.vault.files.write({**document, "machine": "another"}, *place)
    return Vault(world.url, lease.fence)


def changes(vault: Vault) -> dict[str, Callable[[], Any]]:
    """Every way to change a vault."""
    access = vault.access(FileKey(MASTER))
    unit, copy = sorted(vault.copies())[0]
    return {
        "commit": lambda: vault.commit(access, "u9", "c" * 16, [("u9-0", b"x", b"p" * 32)]),
        "discard": lambda: vault.discard(unit, copy),
        "sweep": lambda: vault.sweep(set()),
        "recover": vault.recover,
        "revoke": lambda: vault.revoke({"u000000-000000"}),
        "rotate": lambda: vault.rotate(FileKey(MASTER), FileKey(NEW)),
        "complete_rotation": lambda: vault.complete_rotation(FileKey(OTHER), FileKey(MASTER)),
    }


def content(world: World) -> dict[str, bytes]:
    files = all_bytes(world.url)
    return {name: data for name, data in files.items() if "lease" not in name}


@pytest.mark.parametrize("name", ["commit", "discard", "sweep", "recover", "revoke", "rotate"])
def test_with_a_lost_fence_nothing_changes(world: World, name: str) -> None:
    vault = held(world)
    take_over(vault)
    before = content(world)
    with pytest.raises(VaultError, match="another command has taken over"):
        changes(vault)[name]()
    assert content(world) == before


def test_the_list_of_changes_is_whole(world: World) -> None:
    reading = {"describe", "require", "access", "copies", "keys", "sealed", "current", "establish"}
    public = {name for name in vars(Vault) if not name.startswith("_")}
    assert public - reading == set(changes(world.vault))


def wrapped_calls(monkeypatch: pytest.MonkeyPatch, moment: int, wake: Callable[[], None]) -> None:
    """Between looking whether the vault is still one's own and the change itself: another takes
    over at that very moment."""
    real, seen = Vault._still_mine, []

    def looking(self: Vault) -> None:
        real(self)
        if self.fence is not None:
            seen.append(True)
            if len(seen) == moment:
                wake()

    monkeypatch.setattr(Vault, "_still_mine", looking)


def test_a_rotation_that_wakes_in_the_midst_of_any_change_loses_nothing(
    build: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped right before each of its changes, for so long that another took over and cleared
    away; then it goes on with that change."""
    moment, ended = 0, set()
    while True:
        moment += 1
        world = build(f"{moment}")
        vault, awake = held(world), []

        def another(vault: Vault = vault, awake: list[bool] = awake) -> None:
            awake.append(True)
            with monkeypatch.context() as patch:
                patch.setattr(Vault, "_still_mine", lambda self: None)
                take_over(vault)

        with monkeypatch.context() as patch:
            wrapped_calls(patch, moment, another)
            try:
                vault.rotate(FileKey(MASTER), FileKey(NEW))
                refused = False
            except VaultError:
                refused = True
        rotated = not _opens(world, MASTER)
        ended.add((refused, rotated))
        if rotated:  # what it had no time for is made up for by the same command
            again = Vault(world.url)
            again.complete_rotation(FileKey(MASTER), FileKey(NEW))
        assert back(world, NEW if rotated else MASTER) == set(world.records), moment
        if not awake:
            break
        assert refused or rotated
    assert moment > UNITS and (True, False) in ended and (False, True) in ended


def _opens(world: World, master: bytes) -> bool:
    try:
        world.opened(master)
    except WrongKey:
        return False
    return True


def test_a_worker_that_seals_while_the_keys_are_rotated_publishes_nothing(world: World) -> None:
    access = world.vault.access(FileKey(MASTER))
    world.vault.rotate(FileKey(MASTER), FileKey(NEW))
    with pytest.raises(VaultError, match="rotated meanwhile"):
        world.vault.commit(access, "u9", "c" * 16, [("u9-0", b"x", b"p" * 32)])
    assert back(world, NEW) == set(world.records)


def test_a_rotation_in_the_midst_of_a_sealing_is_noticed_or_takes_it_along(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keys lie there before the rotation's last step: wrapped anew; after: not published."""
    published, read = world.vault.copies(), [("u9-0", b"an original", b"p" * 32)]
    access, real = world.vault.access(FileKey(MASTER)), WrappedKeys.put
    begun = []

    def put(self: WrappedKeys, generation: str, keys: Any) -> None:
        if keys.unit != "u9" and not begun:  # the rotation has made its list, and goes on with it
            begun.append(True)
            world.vault.commit(access, "u9", "c" * 16, read)
        real(self, generation, keys)

    monkeypatch.setattr(WrappedKeys, "put", put)
    world.vault.rotate(FileKey(MASTER), FileKey(NEW))
    assert world.vault.copies() == published | {("u9", "c" * 16)}
    assert world.vault.keys("u9", "c" * 16).entries["u9-0"].key is not None
    assert len(Files(world.url).names("keys")) == 1


def test_old_keys_go_only_where_the_new_ones_were_read_back(world: World) -> None:
    vault = world.vault
    vault.rotate(FileKey(MASTER), FileKey(NEW))
    current = vault.require()
    # an older generation of which the latest lacks a unit, and has another one damaged
    older = Files(world.url)
    names = older.names("keys", current.name)
    first = replace(vault.generations.all()[0], number=0)
    folder = Path(world.url, "keys", Vault(world.url)._all()[0].name)
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(Path(world.url, "keys", current.name, name).read_bytes())
    Path(world.url, "keys", current.name, names[0]).unlink()
    Path(world.url, "keys", current.name, names[1]).write_bytes(b"PAR1")
    vault.recover()
    assert sorted(path.name for path in folder.iterdir()) == sorted(names[:2]) and first


def test_a_vault_of_the_first_format_is_read_and_rotated(world: World) -> None:
    document = world.vault.files.read("vault.json")
    assert document is not None
    del document["generation"]["number"]
    world.vault.files.write({**document, "format": 1}, "vault.json")
    assert back(world, MASTER) == set(world.records)
    world.vault.rotate(FileKey(MASTER), FileKey(NEW))
    assert (world.vault.files.read("vault.json") or {})["format"] == 2
    assert back(world, NEW) == set(world.records)


def test_a_rotation_that_ends_before_a_sealing_is_written_is_found_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has cleared away the old generation; the keys that come after lie where none is read."""
    access, real, begun = world.vault.access(FileKey(MASTER)), WrappedKeys.put, []

    def put(self: WrappedKeys, generation: str, keys: Any) -> None:
        if keys.unit == "u9" and not begun:
            begun.append(True)
            world.vault.rotate(FileKey(MASTER), FileKey(NEW))
        real(self, generation, keys)

    monkeypatch.setattr(WrappedKeys, "put", put)
    with pytest.raises(VaultError, match="rotated meanwhile"):
        world.vault.commit(access, "u9", "c" * 16, [("u9-0", b"x", b"p" * 32)])
    assert begun and back(world, NEW) == set(world.records)


def test_a_rotation_goes_by_what_it_reads_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that keeps a file less or another one: the old generation stays."""
    real = WrappedKeys.put

    def put(self: WrappedKeys, generation: str, keys: Any) -> None:
        some = dict(list(keys.entries.items())[1:])
        real(self, generation, replace(keys, entries=some))

    before = world.vault.copies()
    with monkeypatch.context() as patch:
        patch.setattr(WrappedKeys, "put", put)
        with pytest.raises(Refused):
            world.vault.rotate(FileKey(MASTER), FileKey(NEW))
    assert world.vault.copies() == before and back(world, MASTER) == set(world.records)


def test_a_revocation_is_not_over_while_a_file_of_keys_cannot_be_read(world: World) -> None:
    vault, latest = world.vault, world.vault.require().name
    unit, copy = sorted(vault.copies())[0]
    path = Path(world.url, "keys", latest, f"{unit}.{copy}.parquet")
    held, gone = path.read_bytes(), f"{unit}-000003"
    path.write_bytes(b"PAR1")
    assert vault.revoke({gone}) == 0
    path.write_bytes(held)  # it comes back, of a copy
    vault.recover()
    keys = vault.keys(unit, copy).entries
    assert keys[gone].key is None and sum(e.key is None for e in keys.values()) == 1
    assert not Path(world.url, "pending.json").exists()
