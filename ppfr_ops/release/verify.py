"""Does a release hold what its manifest says, and nothing else?

Anyone who receives a release has ``release/`` alone, and verifies that. Every byte in it is hashed
once, in the same pass in which its rows are read, so the time is that of reading. Anyone who can
write the files can also recompute their digests; only the signature finds that. Where the owner's
``evidence/`` lies beside it, that is looked at as well (``release.evidence``).

Nothing in the folder is believed: no name in it leads outside of it, no link is followed, no file
is read that is larger than the manifest says, and nothing is imported. The signature is looked at
first; what does not bear one that was asked for is unfolded in a child process, within limits
(``looking``).
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
from cryptography.exceptions import InvalidSignature
from pydantic import ValidationError

from ppfr_ops.contracts.manifest import FILES, File, ReleaseManifest
from ppfr_ops.errors import UserError
from ppfr_ops.release import evidence
from ppfr_ops.release.attestation import (
    SIGNATURE,
    PublicKey,
    read_bundle,
    signature_fault,
    statement,
)
from ppfr_ops.release.files import PHOTOGRAPHS, check_files, read_lists
from ppfr_ops.release.findings import Finding
from ppfr_ops.release.foreign import mark_of
from ppfr_ops.release.listing import LARGEST, Unlisted, files_of, twice
from ppfr_ops.release.looking import BEYOND, looked_at, read_shard, shard_faults
from ppfr_ops.release.standalone.folder import odd, room, walk
from ppfr_ops.store.entries import HashSet
from ppfr_ops.store.folder import EVIDENCE, RELEASE, Folder
from ppfr_ops.store.ledger import Ledger

_FOLDERS = ("data", PHOTOGRAPHS)


@dataclass
class Release:
    """What was read of a release on the way."""

    folder: Folder
    place: tuple[str, ...]
    """Of the release in the folder."""
    manifest: ReleaseManifest
    shards: pa.Table
    """As ``read_files`` gives them."""
    trusted: bool = False
    """Whether the manifest bears the signature that was asked for."""
    ids: dict[str, bytes] = field(default_factory=dict)
    """Record ids, packed, by shard; of shards that can be read."""
    photographs: dict[str, str] | None = None
    """Of a release of files: sha256 by path."""

    def files(self) -> Iterator[File]:
        """Everything that is listed."""
        return files_of(self.manifest, self.shards)

    def listed(self) -> Iterator[str]:
        """The path of everything that is listed."""
        yield from (file.path for file in self.files())
        yield from self.photographs or ()


def verify(
    output: str, public_key: PublicKey | None = None, min_version: int = 0
) -> Iterator[Finding]:
    """Check a release, or an output with its release and its evidence; changes nothing.

    Args:
        output: fsspec URL or path of an output or of a release.
        public_key: whose signature the manifest must bear; None: do not look.
        min_version: of the release, at least: an older one is told, however well it is signed.

    Yields:
        What is wrong; nothing if all holds.

    Raises:
        UserError: there is no readable manifest, so nothing to check against.
    """
    folder = Ledger(output)
    place: tuple[str, ...] = (RELEASE,) if folder.exists(RELEASE, "manifest.json") else ()
    if not folder.exists(*place, "manifest.json"):
        raise UserError("no manifest.json: not an output, or its run has not finished")
    strange = list(_odd(folder, place))
    bad = {finding.file for finding in strange}
    if "manifest.json" in bad:
        yield from strange
        return
    size = folder.size(*place, "manifest.json") or 0
    raw = folder.read_bytes(*place, "manifest.json") or b""
    trusted = public_key is not None and SIGNATURE not in bad  # else it is a link, say; told below
    if public_key is not None and trusted:
        faults = list(_check_signature(folder, place, raw, public_key))
        yield from faults
        trusted = not faults
    if not trusted and size > LARGEST_UNSIGNED:
        yield Finding("manifest.json", "is larger than one that nobody vouches for may be")
        return
    manifest = _parse(raw)
    if isinstance(manifest, Finding):
        yield manifest
        return
    if manifest.version < min_version:
        found = f"is version {manifest.version}, expected: {min_version} or later"
        yield Finding("manifest.json", found)
    yield from strange
    listing = manifest.listing.path
    try:
        if listing in bad:
            return
        # Anybody's word is worth a list of the files that are there, and no larger one.
        most = LARGEST if trusted else min(LARGEST, room(_names(folder, place)))
        shards, photographs = read_lists(folder, manifest, *place, most=most)
    except Unlisted as fault:
        yield Finding(listing, str(fault))
        return
    folder.trusts_copies = trusted
    seen = Release(folder, place, manifest, shards, trusted, photographs=photographs)
    yield from _check_names(seen, bad)
    yield from _check_list(seen)
    yield from _check_statement(seen, bad)
    if len({file.path for file in manifest.files}) < len(manifest.files):
        return  # one file listed a million times would be read as often
    yield from _check_files(seen, bad)
    if photographs is not None:
        mark = mark_of(manifest.options, manifest.method.draws_faces)
        yield from check_files(folder, place, photographs, bad, mark)
    if place and folder.exists(EVIDENCE):
        yield from evidence.check(folder, manifest, shards, seen.ids, public_key, photographs)


def manifest_of(output: str) -> ReleaseManifest | None:
    """Of the release in an output or release folder, unchecked; None: it cannot be read."""
    folder = Folder(output)
    found = folder.model(ReleaseManifest, RELEASE, "manifest.json")
    return found or folder.model(ReleaseManifest, "manifest.json")


_UNKNOWN = "is not in the manifest"
LARGEST_UNSIGNED = 16 << 20
"""Bytes of a manifest that nobody vouches for."""


def _odd(folder: Folder, place: tuple[str, ...]) -> Iterator[Finding]:
    """What is no plain file where files may lie."""
    if not folder.local:
        return
    root = folder.path(*place)
    if os.path.islink(root):
        yield Finding("manifest.json", "lies in a folder that is a symbolic link")
        return
    for name, item in walk(root):
        is_ours = name in _FOLDERS or name.startswith(f"{PHOTOGRAPHS}/")
        if (reason := odd(item, is_ours)) is not None:
            yield Finding(name, reason)


def _names(folder: Folder, place: tuple[str, ...]) -> Iterator[str]:
    """Every file in a release, by its name from there, links and the like too."""
    if folder.local:
        for name, item in walk(folder.path(*place)):
            if not item.is_dir(follow_symlinks=False):
                yield name
        return
    for here in ("", *_FOLDERS):
        inside = (*place, here) if here else place
        for name, file in folder.listing(*inside):
            name = f"{here}/{name}" if here else name
            if file.plain:
                yield name
            elif name not in _FOLDERS:
                root = folder.path(*place)
                yield from (path[len(root) + 1 :] for path in folder.fs.find(f"{root}/{name}"))


def _check_names(seen: Release, bad: set[str]) -> Iterator[Finding]:
    """Nothing lies there that is not listed."""
    own = {"manifest.json", SIGNATURE, seen.manifest.listing.path}
    listed = HashSet(seen.listed())
    for name in sorted(
        name
        for name in _names(seen.folder, seen.place)
        if name not in own and name not in bad and name not in listed
    ):
        yield Finding(name, _UNKNOWN)


def _parse(raw: bytes) -> ReleaseManifest | Finding:
    try:
        manifest = ReleaseManifest.model_validate_json(raw)
    except (ValidationError, RecursionError) as error:
        place = ""
        if isinstance(error, ValidationError):
            place = ".".join(map(str, error.errors()[0]["loc"]))
        return Finding(
            "manifest.json", f"does not have the form of a manifest (at {place or 'top'})"
        )
    if manifest.text() != raw:
        # Two readers could read two things: a key twice, say.
        return Finding("manifest.json", "is not written as manifests are")
    return manifest


def _check_signature(
    folder: Folder, place: tuple[str, ...], raw: bytes, key: PublicKey
) -> Iterator[Finding]:
    try:
        fault = signature_fault(folder.read_bytes(*place, SIGNATURE), raw, key)
    except InvalidSignature:
        yield Finding("manifest.json", "is not what was signed, or another key signed it")
        return
    if fault is not None:
        yield Finding(SIGNATURE, fault)


def _check_statement(seen: Release, bad: set[str]) -> Iterator[Finding]:
    """What was signed is about this release; its signature is another question."""
    if SIGNATURE in bad:
        return
    bundle = read_bundle(seen.folder.read_bytes(*seen.place, SIGNATURE))
    expected = statement(seen.manifest, seen.shards, seen.photographs)
    if bundle is not None and bundle.payload != expected:
        yield Finding(SIGNATURE, "its statement is not that of this release")


def _check_list(seen: Release) -> Iterator[Finding]:
    manifest = seen.manifest
    paths = [file.path for file in manifest.files]
    for path, count in sorted(Counter(paths).items()):
        if count > 1:
            yield Finding("manifest.json", f"lists {path} twice")
    if any(file.rows is not None for file in manifest.files):
        yield Finding("manifest.json", f"lists shards, which are in {FILES}")
    if manifest.method.claims_epsilon:
        aggregates = {
            "metrics": manifest.metrics,
            "passed": manifest.passed is not None,
            "requirements": manifest.requirements,
        }
        told = ", ".join(name for name, value in aggregates.items() if value)
        if told:
            yield Finding("manifest.json", f"{BEYOND}: {told}")
    total = sum(file.rows or 0 for file in seen.files()) + len(seen.photographs or ())
    if total != manifest.records:
        yield Finding("manifest.json", f"counts {manifest.records} records, lists {total}")


def _check_files(seen: Release, bad: set[str]) -> Iterator[Finding]:
    for file in seen.files():
        if file.path in bad:
            continue
        try:
            data = read_shard(seen.folder, file, *seen.place, file.path, trusted=seen.trusted)
            if not file.path.startswith("data/"):
                continue
            ids, faults = looked_at(
                shard_faults, data, seen.manifest, file.rows, trusted=seen.trusted
            )
        except Unlisted as fault:
            ids, faults = None, [str(fault)]
        yield from (Finding(file.path, fault) for fault in faults)
        if ids is not None:
            seen.ids[file.path] = ids
    for record, path, before in twice(seen.ids):
        yield Finding(path, f"record {record} is in {before} too")
