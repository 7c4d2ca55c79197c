"""What a run leaves when it ends, so that the next one that has nothing to do need not read it all.

``evidence/ledger/settled.json`` says what the command was, what came of it, and how every shard and
manifest lay there: name, size, and times or ETag, as a listing tells them for a thousand files a
request. A run that finds the same command and the same listing changes nothing and signs nothing:
the manifests, their signature and the seal stay as they are, so nothing is signed that was not
read. Where anything differs, or ``--check-shards all`` asks for it, all is read and hashed. Bytes
that turn without the file system's notice are for ``--check-shards all`` and ``ppfr verify``; so
are, in a store, which is asked once for a thousand files, shards of the evidence beyond the first
thousand.

The document is signed with the owner's key where there is one, and counts for that key only:
anyone who forges a shard cannot say that it lay there before. It goes before anything is changed.
"""

import hashlib
import re
from collections.abc import Iterable
from itertools import islice

from ppfr_ops.contracts.ledger import SHARD_PLACES
from ppfr_ops.contracts.manifest import Manifest
from ppfr_ops.release.attestation import PrivateKey
from ppfr_ops.release.signing import Signed
from ppfr_ops.store.folder import EVIDENCE, RELEASE, Folder, Listed
from ppfr_ops.store.ledger import LEDGER, Ledger

_PLACE = (*LEDGER, "settled.json")
_ALL = re.compile(r".*", re.DOTALL)
_DOCUMENTS = {
    RELEASE: _ALL,
    EVIDENCE: re.compile(r"manifest\.json|seal\..*"),
    "/".join(LEDGER): re.compile(r"run\.json|secret\.json"),
}
"""Folders with the files in them that count."""
_GLANCE = 1000
"""Files that a store lists at one request."""
_SWEPT = ((EVIDENCE, "staging"), (*LEDGER, "attempts"))
"""Folders that are empty, unless a worker outlived its run; a run that looks sweeps them."""


class UpToDate(Signed):
    """``evidence/ledger/settled.json``."""

    command: str
    """Digest of what the run was asked for, and of its input."""
    manifest: Manifest
    """The owner's."""
    shards: dict[str, str]
    """By folder, digest of the listing before the shards in it were read."""
    documents: dict[str, str]
    """By folder, digest of the listing of the manifests and what belongs to them."""


def shards_as_listed(folder: Folder) -> dict[str, str]:
    """Digest of the listing of every folder of shards; of the evidence in a store, of its beginning
    (``_GLANCE``)."""
    found = {}
    for place in SHARD_PLACES:
        whole = folder.local or place.startswith(f"{RELEASE}/")
        found[place] = _listed(folder, place, most=None if whole else _GLANCE)
    return found


def mark_up_to_date(
    folder: Ledger, command: str, manifest: Manifest, shards: dict[str, str], key: PrivateKey | None
) -> None:
    """Note how all lies there, at the end of a run that is complete.

    Args:
        shards: as they were listed before they were read.
        key: whose signature the release bears.
    """
    if _strays(folder):
        return
    made = UpToDate(command=command, manifest=manifest, shards=shards, documents=_documents(folder))
    folder.still_mine()
    folder.put(made.signed_by(key).model_dump_json(indent=1).encode(), *_PLACE)


def unmark_up_to_date(folder: Ledger) -> None:
    """Before anything is changed."""
    folder.still_mine()
    folder.remove(*_PLACE)


def up_to_date(folder: Folder, command: str, key: PrivateKey | None) -> Manifest | None:
    """What came of this command, if it was run to its end and all lies there as it did then.

    Args:
        key: of the run; what another key signed, or none, does not count.

    Returns:
        The owner's manifest. None: all has to be looked at.
    """
    found = folder.model(UpToDate, *_PLACE)
    if found is None or found.command != command or _strays(folder):
        return None
    if found.signature is not None if key is None else not found.is_by(key.public_key()):
        return None
    if found.documents != _documents(folder) or found.shards != shards_as_listed(folder):
        return None
    return found.manifest


def _strays(folder: Folder) -> bool:
    return any(True for place in _SWEPT for _ in folder.listing(*place))


def _documents(folder: Folder) -> dict[str, str]:
    found = {place: _listed(folder, place, names) for place, names in _DOCUMENTS.items()}
    return found | {"photographs": _digest(folder.tree(RELEASE, "photographs"))}


def _listed(
    folder: Folder, place: str, names: re.Pattern[str] = _ALL, most: int | None = None
) -> str:
    """Digest of the files of these names in a folder; ``most``: among so many, those first that a
    store lists."""
    found = islice(folder.listing(*place.split("/")), most)
    return _digest((name, file) for name, file in found if names.fullmatch(name))


def _digest(files: Iterable[tuple[str, Listed]]) -> str:
    lines = [f"{name}|{file.stamp}\n".encode(errors="surrogateescape") for name, file in files]
    digest = hashlib.sha256()
    for line in sorted(lines):
        digest.update(line)
    return digest.hexdigest()
