"""Who did what to the vault, when, to which records: append-only, a hash chain.

An entry is a file of its own, made by an exclusive creation, so that two who write at a time both
get in. Its digest is over its content and the digest of the one before: a changed, removed or
inserted entry breaks the chain. Cutting off the end does not; against that, write down the digest
of the last entry (``ppfr vault verify`` shows it) where the vault's keeper cannot reach it.
"""

import getpass
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from ppfr_ops.errors import UserError
from ppfr_ops.store.files import Files

_FOLDER = "audit"
_START = "0" * 64


class AuditError(UserError):
    """The log is not as it was written; one line that says where."""


def login() -> str:
    """Who is at work, as the operating system has it."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def _digest(entry: dict[str, Any]) -> str:
    text = json.dumps({k: v for k, v in entry.items() if k != "digest"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def append(
    files: Files, who: str, what: str, which: Sequence[str] | str, outcome: str = ""
) -> dict[str, Any]:
    """Add an entry; returns it.

    Args:
        files: of the vault.
        who: a person or service, as the owner names them.
        what: ``erase``, ``revoke``, ….
        which: record ids, or in a word.
        outcome: what came of it, in counts.
    """
    while True:
        last = _last(files)
        entry: dict[str, Any] = {
            "number": last["number"] + 1 if last else 1,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "who": who,
            "what": what,
            "which": which if isinstance(which, str) else sorted(which),
            "outcome": outcome,
            "before": last["digest"] if last else _START,
        }
        entry["digest"] = _digest(entry)
        text = json.dumps(entry, indent=1).encode()
        if files.create_bytes(text, _FOLDER, f"{entry['number']:09d}.json"):
            return entry


def _last(files: Files) -> dict[str, Any] | None:
    names = [name for name in files.names(_FOLDER) if name.endswith(".json")]
    if not names:
        return None
    entry = files.read(_FOLDER, names[-1])
    named = entry is not None and names[-1] == f"{entry.get('number')!s:0>9}.json"
    if entry is None or not named or entry.get("digest") != _digest(entry):
        raise AuditError(f"the audit log was changed: {names[-1]}")
    return entry


def read(files: Files) -> list[dict[str, Any]]:
    """All entries, the chain checked.

    Raises:
        AuditError: an entry was changed, removed or inserted.
    """
    entries, before = [], _START
    for number, name in enumerate(sorted(files.names(_FOLDER)), 1):
        entry = files.read(_FOLDER, name)
        if (
            entry is None
            or entry.get("number") != number
            or entry.get("before") != before
            or entry.get("digest") != _digest(entry)
        ):
            raise AuditError(f"the audit log was changed: {name}")
        before = entry["digest"]
        entries.append(entry)
    return entries
