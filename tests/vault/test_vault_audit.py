"""The log is a chain, and keys are changed by who has the vault."""

import json
from pathlib import Path

import pytest

from ppfr_ops.errors import UserError
from ppfr_ops.store.files import Files
from ppfr_ops.vault import audit
from ppfr_ops.vault.audit import AuditError, append, read
from ppfr_ops.vault.wrapped import WrappedKeys


def test_an_entry_that_was_written_anew_breaks_the_chain(tmp_path: Path) -> None:
    files = Files(str(tmp_path))
    for what in ("erase", "revoke", "rotate"):
        append(files, "an owner", what, ["r1"])
    assert [entry["what"] for entry in read(files)] == ["erase", "revoke", "rotate"]
    place = tmp_path / "audit" / "000000002.json"
    entry = json.loads(place.read_text()) | {"what": "erase"}
    place.write_text(json.dumps(entry | {"digest": audit._digest(entry)}))
    with pytest.raises(AuditError, match=r"000000003\.json"):
        read(files)


def test_no_key_is_written_or_destroyed_by_one_who_lost_the_vault(tmp_path: Path) -> None:
    def lost() -> None:
        raise UserError("another command has the vault")

    class Keys:
        unit, copy = "u1", "0123456789abcdef"

        def to_bytes(self) -> bytes:
            return b"keys"

    held = WrappedKeys(Files(str(tmp_path)), lambda: None)
    held.put("000001", Keys())  # type: ignore[arg-type]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    gone = WrappedKeys(Files(str(tmp_path)), lost)
    name = next(path.name for path in before)
    for change in (
        lambda: gone.put("000001", Keys()),  # type: ignore[arg-type]
        lambda: gone.shred("000001", name),
    ):
        with pytest.raises(UserError, match="another command"):
            change()
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
