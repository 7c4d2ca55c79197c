"""A vault that somebody else could write to: nothing outside of it is destroyed, nothing hangs."""

import json
import os
from pathlib import Path

import pytest
from sealed_world import World

from ppfr_ops.vault import VaultError, audit

PRECIOUS = b"an original" * 10


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / "u000000.aa.parquet").write_bytes(PRECIOUS)
    return folder


def test_a_planted_link_destroys_nothing_elsewhere(world: World, precious: Path) -> None:
    for place in ("keys/0badcafe", "sealed", ".tmp", "keys/lost+found"):
        link = Path(world.url, place)
        if link.exists():
            link.rename(link.with_name(f"moved {link.name}"))
        link.symlink_to(precious)
        for act in ("recover", "sweep", "revoke"):
            with pytest.raises(VaultError, match="symbolic link"):
                getattr(world.vault, act)(*([] if act == "recover" else [[]]))
        link.unlink()
    assert (precious / "u000000.aa.parquet").read_bytes() == PRECIOUS


def test_a_second_name_of_a_file_is_not_overwritten(world: World, precious: Path) -> None:
    folder = Path(world.url, "keys/0badcafe")
    folder.mkdir()
    os.link(precious / "u000000.aa.parquet", folder / "u000000.aa.parquet")
    os.mkfifo(folder / "u000001.aa.parquet")  # would block whoever opens it
    world.vault.recover()
    assert (precious / "u000000.aa.parquet").read_bytes() == PRECIOUS and not folder.exists()


def test_a_generation_is_no_path(world: World, precious: Path) -> None:
    document = Path(world.url, "vault.json")
    told = json.loads(document.read_text())
    for name in ("../../precious", "", "0BADCAFE", "keys"):
        told["generation"]["name"] = name
        document.write_text(json.dumps(told))
        with pytest.raises(VaultError, match="damaged"):
            world.vault.recover()
    assert (precious / "u000000.aa.parquet").read_bytes() == PRECIOUS


def test_a_damaged_revocation_is_one_line(world: World) -> None:
    for text in ("{}", "", '{"entries": "abc"}', '{"entries": [1]}'):
        Path(world.url, "pending.json").write_text(text)
        with pytest.raises(VaultError, match="revoke once more"):
            world.vault.recover()


def test_what_lies_among_the_keys_stops_nobody(world: World) -> None:
    Path(world.url, "keys/a file").write_text("")
    Path(world.url, "keys/0badcafe/folder").mkdir(parents=True)
    world.vault.recover()
    assert world.vault.copies()


def test_an_entry_of_the_log_under_another_number_ends_at_once(world: World) -> None:
    files = world.vault.files
    entry = audit.append(files, "me", "erase", "all")
    entry |= {"number": 0, "digest": ""}
    entry["digest"] = audit._digest(entry)
    Path(world.url, "audit/000000009.json").write_text(json.dumps(entry))
    with pytest.raises(audit.AuditError, match="changed"):
        audit.append(files, "me", "erase", "all")
