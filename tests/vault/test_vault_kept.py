"""What a run cannot do again it keeps, whatever is wrong with it, and its exit code says so."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from test_vault_sanitize import back, ppfr, write

from ppfr_ops.errors import UserError
from ppfr_ops.sanitize.increments import allowed_deletions
from ppfr_ops.store.ledger import LEDGER, Ledger
from ppfr_ops.vault import Vault


def more(folder: Path, signed: bool = False) -> list[str]:
    (folder / "idkey").write_bytes(b"k" * 32)
    (folder / "idkey").chmod(0o600)
    given = ["--incremental", "--identity-key-file", str(folder / "idkey")]
    if signed:
        if not (folder / "pem").exists():
            pem = Ed25519PrivateKey.generate().private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            (folder / "pem").write_bytes(pem)
            (folder / "pem").chmod(0o600)
        given += ["--signing-key", str(folder / "pem")]
    return given


def unit_of_leaving(folder: Path, before: set[str]) -> str:
    (unit,) = set(Ledger(str(folder / "out")).entries()) - before
    return unit


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


HARMS = ("bit in data", "data gone", "bit in metrics", "metrics cut", "bit in entry", "other entry")


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("signed", [False, True])
def test_a_damaged_unit_whose_source_is_gone_is_kept(
    tmp_path: Path, harm: str, signed: bool
) -> None:
    options = more(tmp_path, signed)
    write(tmp_path / "in", name="kept")
    assert ppfr(tmp_path, *options).return_value == 0
    others = set(Ledger(str(tmp_path / "out")).entries())
    leaving = write(tmp_path / "in", seed=1, name="leaving")
    assert ppfr(tmp_path, *options).return_value == 0
    unit = unit_of_leaving(tmp_path, others)
    (tmp_path / "in" / "leaving.parquet").unlink()
    vault, ledger = Vault(str(tmp_path / "vault")), Ledger(str(tmp_path / "out"))
    before, originals, entry = vault.copies(), back(tmp_path), ledger.entries()[unit]
    assert set(leaving) - {b"no picture"} <= set(originals.values())
    shards = {kind: tmp_path / "out" / shard.path for kind, shard in entry.shards.items()}
    place = tmp_path / "out" / Path(*LEDGER, "units", f"{unit}.json")
    whole = {path: path.read_bytes() for path in (*shards.values(), place)}
    if harm == "bit in data":
        flip(shards["data"])
    elif harm == "data gone":
        shards["data"].unlink()
    elif harm == "bit in metrics":
        flip(shards["metrics"])
    elif harm == "metrics cut":
        shards["metrics"].write_bytes(whole[shards["metrics"]][:-9])
    elif harm == "bit in entry":
        place.write_bytes(b"\0" + whole[place][1:])
    else:
        changed = json.loads(whole[place])
        place.write_text(json.dumps({**changed, "rows_in": 5}))
    if harm == "other entry" and not signed:
        return  # nobody can tell
    code = ppfr(tmp_path, *options).return_value
    assert vault.copies() == before
    assert set(ledger.entries()) == {*others, unit}
    if harm == "bit in entry":  # the last run that ended kept a copy of it
        assert code == 0 and place.read_bytes() == whole[place]
    else:
        assert code == 1
        assert ppfr(tmp_path, *options).return_value == 1  # and again: it is not settled
        for path, data in whole.items():
            path.write_bytes(data)
        assert ppfr(tmp_path, *options).return_value == 0
    assert back(tmp_path) == originals
    # withdrawn by the owner, it goes
    gone = [*options, "--propagate-deletions", "--allow-deletions", "12"]
    assert ppfr(tmp_path, *gone).return_value == 0
    assert len(vault.copies()) == len(before) - 1 and set(ledger.entries()) == others


def test_a_damaged_unit_can_be_let_go(tmp_path: Path) -> None:
    options = more(tmp_path)
    write(tmp_path / "in", name="kept")
    write(tmp_path / "in", seed=1, name="leaving")
    assert ppfr(tmp_path, *options).return_value == 0
    (tmp_path / "in" / "leaving.parquet").unlink()
    ledger, vault = Ledger(str(tmp_path / "out")), Vault(str(tmp_path / "vault"))
    for entry in ledger.entries().values():
        flip(tmp_path / "out" / entry.shards["data"].path)
    assert ppfr(tmp_path, *options).return_value == 1
    assert len(vault.copies()) == 2  # the other one was done again
    options += ["--propagate-deletions", "--allow-deletions", "0.5"]
    assert ppfr(tmp_path, *options).return_value == 0
    assert len(vault.copies()) == 1 and len(ledger.entries()) == 1


@pytest.mark.parametrize("name", ["secret.json", "run.json"])
def test_documents_of_what_cannot_be_made_again_are_asked_for(tmp_path: Path, name: str) -> None:
    options = more(tmp_path)
    write(tmp_path / "in", name="kept")
    write(tmp_path / "in", seed=1, name="leaving")
    assert ppfr(tmp_path, *options).return_value == 0
    (tmp_path / "in" / "leaving.parquet").unlink()
    place = tmp_path / "out" / Path(*LEDGER, name)
    data, vault = place.read_bytes(), Vault(str(tmp_path / "vault"))
    entries = {n: e.settings_digest for n, e in Ledger(str(tmp_path / "out")).entries().items()}
    place.write_bytes(b"{")
    again = [*options, "--quality", "80"] if name == "run.json" else options
    refused = ppfr(tmp_path, *again).exception
    word = "secret.json is missing or damaged" if name == "secret.json" else "earlier run"
    assert refused is not None and word in str(refused)
    assert len(vault.copies()) == 2
    place.write_bytes(data)
    assert ppfr(tmp_path, *options).return_value == 0
    after = Ledger(str(tmp_path / "out")).entries()
    assert {n: e.settings_digest for n, e in after.items()} == entries


def test_originals_of_what_is_not_published_and_not_planned_are_kept(tmp_path: Path) -> None:
    """Whether a unit was never published or its entry got lost, nobody can say."""
    options = more(tmp_path)
    write(tmp_path / "in", name="kept")
    assert ppfr(tmp_path, *options).return_value == 0
    others = set(Ledger(str(tmp_path / "out")).entries())
    write(tmp_path / "in", seed=1, name="leaving")
    assert ppfr(tmp_path, *options).return_value == 0
    unit = unit_of_leaving(tmp_path, others)
    (tmp_path / "in" / "leaving.parquet").unlink()
    (tmp_path / "out" / Path(*LEDGER, "units", f"{unit}.json")).unlink()
    vault = Vault(str(tmp_path / "vault"))
    for _ in range(2):
        assert ppfr(tmp_path, *options).return_value == 1
        assert len(vault.copies()) == 2
    assert ppfr(tmp_path, *options, "--propagate-deletions").return_value == 0
    assert len(vault.copies()) == 1


def test_a_unit_in_whose_place_there_are_others_goes_when_they_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = more(tmp_path)
    pictures = write(tmp_path / "in", 30, name="grows")
    assert ppfr(tmp_path, *options).return_value == 0
    vault = Vault(str(tmp_path / "vault"))
    before = vault.copies()
    pictures = write(tmp_path / "in", 40, name="grows")
    real = Vault.commit

    def full(*args: Any, **named: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Vault, "commit", full)
    assert ppfr(tmp_path, *options).return_value == 1
    assert vault.copies() == before and len(Ledger(str(tmp_path / "out")).entries()) == 1
    monkeypatch.setattr(Vault, "commit", real)
    assert ppfr(tmp_path, *options).return_value == 0
    assert set(back(tmp_path).values()) == set(pictures) - {b"no picture"}
    assert len(vault.copies()) == len(Ledger(str(tmp_path / "out")).entries())


@pytest.mark.parametrize("propagate", [False, True])
def test_half_an_input_destroys_nothing(tmp_path: Path, propagate: bool) -> None:
    options = more(tmp_path)
    for number in range(8):
        write(tmp_path / "in", 10, seed=number, name=f"p{number}")
    assert ppfr(tmp_path, *options).return_value == 0
    vault, originals = Vault(str(tmp_path / "vault")), back(tmp_path)
    held = {path: path.read_bytes() for path in sorted((tmp_path / "in").iterdir())[1:]}
    if propagate:
        options += ["--propagate-deletions"]
        for path in held:
            path.unlink()
    else:  # cut short, not gone
        for number in range(1, 8):
            write(tmp_path / "in", 3, seed=number, name=f"p{number}")
    refused = ppfr(tmp_path, *options).exception
    assert refused is not None and "Is the input whole?" in str(refused)
    assert len(vault.copies()) == 8 and back(tmp_path) == originals
    lost = 70 if propagate else 49
    assert f"--allow-deletions {lost}" in str(refused)
    for number in (lost - 1, "30%"):
        assert ppfr(tmp_path, *options, "--allow-deletions", str(number)).exception is not None
    assert back(tmp_path) == originals
    for path, data in held.items():
        path.write_bytes(data)
    assert ppfr(tmp_path, *options).return_value == 0 and back(tmp_path) == originals


def test_what_may_be_let_go_is_a_number_or_a_share() -> None:
    found = [allowed_deletions(text, 400) for text in (None, "0", "7", "0.5", "50%", "1.0", "100%")]
    assert found == [40, 0, 7, 200, 200, 400, 400]
    assert allowed_deletions(None, 1_000_000) == 1000 and allowed_deletions(None, 9) == 0
    for text in ("-1", "1.5", "101%", "many", "nan", "", "%"):
        with pytest.raises(UserError, match="--allow-deletions"):
            allowed_deletions(text, 400)
