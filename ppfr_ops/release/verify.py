"""Does a release hold what its manifest says, and nothing else?

Whoever receives a release has ``release/`` alone, and verifies that. Every byte in it is hashed
once, in the same pass in which its rows are read, so the time is that of reading. Whoever can write
the files can also recompute their digests; only the signature finds that. Where the owner's
``evidence/`` lies beside it, that is looked at as well (``release.evidence``).

Nothing in the folder is believed: no name in it leads outside of it, no link is followed, no file
is read that is larger than the manifest says, and nothing is imported.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import ValidationError

from ppfr_ops.contracts.ledger import RELEASED
from ppfr_ops.contracts.manifest import File, ReleaseManifest
from ppfr_ops.contracts.metrics import is_measure
from ppfr_ops.contracts.records import FACE_COLUMNS, RESERVED_COLUMNS, records_schema, released
from ppfr_ops.errors import UserError
from ppfr_ops.release import evidence, version1
from ppfr_ops.release.findings import Finding
from ppfr_ops.release.foreign import foreign_part
from ppfr_ops.release.signing import SIGNATURE, signature_fault
from ppfr_ops.store.folder import EVIDENCE, RELEASE, Folder
from ppfr_ops.store.ledger import Ledger
from ppfr_ops.store.shards import read_table

_FOLDERS = ("data",)


@dataclass
class Release:
    """What was read of a release on the way."""

    folder: Folder
    place: tuple[str, ...]
    """Of the release in the folder."""
    manifest: ReleaseManifest
    ids: dict[str, list[str]] = field(default_factory=dict)
    """Record ids by shard; of shards that can be read."""


def verify(
    output: str, public_key: Ed25519PublicKey | None = None, min_version: int = 0
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
    if not place and version1.is_one(folder):
        yield from version1.verify(folder, public_key)
        return
    if not folder.exists(*place, "manifest.json"):
        raise UserError("no manifest.json: not an output, or its run has not finished")
    strays = list(_strays(folder, place))
    if any(f.file == "manifest.json" and f.reason != _UNKNOWN for f in strays):
        yield from (f for f in strays if f.reason != _UNKNOWN)
        return
    raw = folder.read_bytes(*place, "manifest.json") or b""
    if public_key is not None:
        yield from _check_signature(folder, place, raw, public_key, strays)
    manifest = _parse(raw)
    if isinstance(manifest, Finding):
        yield manifest
        return
    if manifest.version < min_version:
        found = f"is version {manifest.version}, expected: {min_version} or later"
        yield Finding("manifest.json", found)
    known = {"manifest.json", SIGNATURE, *(file.path for file in manifest.files)}
    yield from (f for f in strays if f.file not in known or f.reason != _UNKNOWN)
    bad = {finding.file for finding in strays if finding.reason != _UNKNOWN}
    seen = Release(folder, place, manifest)
    yield from _check_list(manifest)
    yield from _check_files(seen, bad)
    if place and folder.exists(EVIDENCE):
        yield from evidence.check(folder, manifest, seen.ids, public_key)


def current_version(output: str) -> int | None:
    """Version of the release in an output or release folder; None if it cannot be told."""
    folder = Folder(output)
    for place in ((RELEASE,), ()):
        manifest = _parse(folder.read_bytes(*place, "manifest.json") or b"")
        if isinstance(manifest, ReleaseManifest):
            return manifest.version
    return None


_UNKNOWN = "is not in the manifest"
_BEYOND = "holds figures of originals, which the epsilon that is claimed does not cover"


def _strays(folder: Folder, place: tuple[str, ...]) -> Iterator[Finding]:
    """Everything in a release: what is no plain file where files may lie gets its own reason."""
    root = folder.path(*place)
    if not folder.local:
        for path in sorted(folder.fs.find(root)):
            yield Finding(path[len(root) + 1 :], _UNKNOWN)
        return
    if os.path.islink(root):
        yield Finding("manifest.json", "lies in a folder that is a symbolic link")
        return
    todo = [""]
    while todo:
        here = todo.pop()
        for item in sorted(os.scandir(os.path.join(root, here)), key=lambda item: item.name):
            name = f"{here}/{item.name}" if here else item.name
            if item.is_symlink():
                yield Finding(name, "is a symbolic link")
            elif item.is_dir():
                if name not in _FOLDERS:
                    yield Finding(name, "is a folder that does not belong there")
                todo.append(name)
            elif not stat.S_ISREG(item.stat(follow_symlinks=False).st_mode):
                yield Finding(name, "is no plain file")
            else:
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
    if manifest.model_dump_json(indent=1).encode() != raw:
        # Two readers could read two things: a key twice, say.
        return Finding("manifest.json", "is not written as manifests are")
    return manifest


def _check_signature(
    folder: Folder,
    place: tuple[str, ...],
    raw: bytes,
    key: Ed25519PublicKey,
    strays: list[Finding],
) -> Iterator[Finding]:
    if any(f.file == SIGNATURE and f.reason != _UNKNOWN for f in strays):
        return  # a link, say; told already
    try:
        fault = signature_fault(folder.read_bytes(*place, SIGNATURE), raw, key)
    except InvalidSignature:
        yield Finding("manifest.json", "is not what was signed, or another key signed it")
        return
    if fault is not None:
        yield Finding(SIGNATURE, fault)


def _check_list(manifest: ReleaseManifest) -> Iterator[Finding]:
    paths = [file.path for file in manifest.files]
    for path in sorted({path for path in paths if paths.count(path) > 1} if _twice(paths) else ()):
        yield Finding("manifest.json", f"lists {path} twice")
    shards = [file.path for file in manifest.data]
    if shards != sorted(shards):
        yield Finding("manifest.json", "lists shards in another order than that of their names")
    if any(file.rows is not None and not file.path.startswith("data/") for file in manifest.files):
        yield Finding("manifest.json", "gives rows of what is no shard")
    if manifest.method.claims_epsilon:
        aggregates = {
            "metrics": manifest.metrics,
            "passed": manifest.passed is not None,
            "requirements": manifest.requirements,
        }
        told = ", ".join(name for name, value in aggregates.items() if value)
        if told:
            yield Finding("manifest.json", f"{_BEYOND}: {told}")
    total = sum(file.rows or 0 for file in manifest.files)
    if total != manifest.records:
        yield Finding("manifest.json", f"counts {manifest.records} records, lists {total}")


def _twice(paths: list[str]) -> bool:
    return len(set(paths)) < len(paths)


def _check_files(seen: Release, bad: set[str]) -> Iterator[Finding]:
    found: dict[str, str] = {}
    for file in seen.manifest.files:
        if file.path in bad:
            continue
        data, fault = _read(seen, file)
        if fault is not None:
            yield Finding(file.path, fault)
        if data is None or not file.path.startswith("data/"):
            continue
        table, findings = _check_shard(seen.manifest, file, data)
        yield from findings
        if table is None:
            continue
        ids = seen.ids[file.path] = table["record_id"].to_pylist()
        for record in ids:
            if record in found:
                yield Finding(file.path, f"record {record} is in {found[record]} too")
            found[record] = file.path
        yield from _check_pictures(file.path, table)


def _read(seen: Release, file: File) -> tuple[bytes | None, str | None]:
    """The bytes of a file, and what is wrong with it: one of the two."""
    size = seen.folder.size(*seen.place, file.path)
    if size is None:
        return None, "is missing"
    if size != file.bytes:
        return None, f"{size} bytes, the manifest says {file.bytes}"
    data = bytes(seen.folder.fs.cat_file(seen.folder.path(*seen.place, file.path)))
    if hashlib.sha256(data).hexdigest() != file.sha256:
        # Whatever it is, it is not what was made: a reader may crash on it.
        return None, "its sha256 is not that in the manifest"
    return data, None


def _check_shard(
    manifest: ReleaseManifest, file: File, data: bytes
) -> tuple[pa.Table | None, list[Finding]]:
    findings = []
    try:
        table = read_table(data)
    except (pa.ArrowException, OSError):
        return None, [Finding(file.path, "is no readable Parquet file")]
    expected = _expected_schema(manifest, table.schema)
    extra = [name for name in table.column_names if name not in expected.names]
    measured = [name for name in table.column_names if is_measure(name)]
    if measured and manifest.method.claims_epsilon:
        findings.append(Finding(file.path, f"{_BEYOND}: column {', '.join(measured)}"))
    elif extra:
        allowed = "reserved" if extra[0] in RESERVED_COLUMNS else "not on the allow-list"
        findings.append(Finding(file.path, f"column {extra[0]!r} is {allowed}"))
    elif not table.schema.equals(expected, check_metadata=True):
        findings.append(Finding(file.path, "does not have the schema of a release"))
    if table.num_rows != file.rows:
        findings.append(Finding(file.path, f"{table.num_rows} rows, the manifest says {file.rows}"))
    if "record_id" not in table.column_names:
        return None, findings
    ids = table["record_id"].to_pylist()
    if any(record is None or not RELEASED.fullmatch(record) for record in ids):
        findings.append(Finding(file.path, "a record id is not made of 128 bits"))
        return None, findings
    if ids != sorted(ids):
        findings.append(Finding(file.path, "its rows do not stand in the order of their ids"))
    return table, findings


def _expected_schema(manifest: ReleaseManifest, found: pa.Schema) -> pa.Schema:
    allowed = [str(name) for name in manifest.options.get("keep_columns", [])]
    keep = [found.field(name) for name in allowed if name in found.names]
    crops = manifest.options.get("output_faces") == "crops"
    if crops:
        keep = [item for item in keep if item.name not in FACE_COLUMNS]
    figures = [found.field(name) for name in manifest.method.columns if name in found.names]
    made = records_schema(keep, manifest.options.get("identity") == "pseudonyms", crops, figures)
    return released(made)


def _check_pictures(path: str, table: pa.Table) -> Iterator[Finding]:
    if "image" not in table.column_names:
        return
    for record, cell in zip(table["record_id"], table["image"], strict=True):
        image = cell.as_py() or {}
        reason = foreign_part(image.get("bytes") or b"")
        name = (image.get("path") or "").rpartition(".")[0]
        if reason is None and name != record.as_py():
            reason = "its path is not made from the record id"
        if reason is not None:
            yield Finding(path, f"record {record.as_py()}: {reason}")
