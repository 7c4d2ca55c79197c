"""Does an output hold what its manifest says, and nothing else?

Every byte under ``data/``, ``metrics/`` and ``dead_letters/`` is hashed once, in the same pass in
which its rows are read, so the time is that of reading. Whoever can write the output can also
recompute its digests; only the signature finds that.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import ValidationError

from ppfr_ops.contracts.dead_letters import DEAD_LETTERS_SCHEMA
from ppfr_ops.contracts.detections import detections_schema
from ppfr_ops.contracts.ledger import ALL_KINDS, KINDS, Kind, Shard
from ppfr_ops.contracts.manifest import Manifest
from ppfr_ops.contracts.metrics import metrics_schema
from ppfr_ops.contracts.records import RESERVED_COLUMNS, records_schema
from ppfr_ops.store.ledger import DOCUMENTS, Ledger, read_table

SIGNATURE = "manifest.sig"

_JPEG_ALLOWED = {0xD8, 0xDB, 0xC0, 0xC1, 0xC2, 0xC4, 0xDA, 0xDD}
_PNG_ALLOWED = {b"IHDR", b"IDAT", b"IEND", b"PLTE"}
_WEBP_ALLOWED = {b"VP8 ", b"VP8L"}


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    file: str
    """Relative to the output."""
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


def foreign_part(data: bytes) -> str | None:
    """What an encoded picture holds beside its pixels (EXIF, XMP, a comment, a thumbnail, an ICC
    profile, bytes after its end); None if nothing."""
    if data[:2] == b"\xff\xd8":
        return _foreign_in_jpeg(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _foreign_in_chunks(data, 8, _PNG_ALLOWED, png=True)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _foreign_in_chunks(data, 12, _WEBP_ALLOWED, png=False)
    return "not a JPEG, PNG or WebP picture"


def _foreign_in_jpeg(data: bytes) -> str | None:
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return "damaged JPEG"
        marker = data[position + 1]
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        body = data[position + 4 : position + 2 + length]
        if marker == 0xE0:
            if body[:5] != b"JFIF\0" or len(body) != 14:
                return "application data in segment APP0"
        elif marker not in _JPEG_ALLOWED:
            name = f"APP{marker - 0xE0}" if 0xE0 <= marker <= 0xEF else f"0x{marker:02X}"
            return f"metadata in segment {'COM' if marker == 0xFE else name}"
        position += 2 + length
        if marker == 0xDA:
            position = _end_of_scan(data, position)
            if data[position : position + 2] == b"\xff\xd9":
                return "bytes after the end" if position + 2 < len(data) else None
    return "truncated JPEG"


def _end_of_scan(data: bytes, position: int) -> int:
    """Where the next marker stands that is neither a stuffed byte nor a restart."""
    while True:
        position = data.find(b"\xff", position)
        if position < 0 or position + 1 >= len(data):
            return len(data)
        following = data[position + 1]
        if following != 0x00 and not 0xD0 <= following <= 0xD7:
            return position
        position += 2


def _foreign_in_chunks(data: bytes, start: int, allowed: set[bytes], png: bool) -> str | None:
    position = start
    while position + 8 <= len(data):
        if png:
            length, name = (
                int.from_bytes(data[position : position + 4], "big"),
                data[position + 4 :][:4],
            )
            position += 12 + length
        else:
            name, length = data[position:][:4], int.from_bytes(data[position + 4 :][:4], "little")
            position += 8 + length + length % 2
        if name not in allowed:
            return f"metadata in chunk {name.decode('latin-1')!r}"
        if name == b"IEND":
            break
    return None if position == len(data) else "bytes after the end"


# -- signature ------------------------------------------------------------------------------


def load_signing_key(path: str) -> Ed25519PrivateKey:
    """An Ed25519 private key, PEM, unencrypted (``openssl genpkey -algorithm ed25519``).

    Raises:
        ValueError: no such file, or another kind of key.
    """
    try:
        key = serialization.load_pem_private_key(Path(path).read_bytes(), None)
    except (OSError, ValueError, TypeError):
        raise ValueError("the signing key is no readable PEM file") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("the signing key is not of the kind Ed25519")
    return key


def load_public_key(path: str) -> Ed25519PublicKey:
    """An Ed25519 public key, PEM (``openssl pkey -in KEY -pubout``).

    Raises:
        ValueError: no such file, or another kind of key.
    """
    try:
        key = serialization.load_pem_public_key(Path(path).read_bytes())
    except (OSError, ValueError):
        raise ValueError("the public key is no readable PEM file") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("the public key is not of the kind Ed25519")
    return key


def sign(output: str, key: Ed25519PrivateKey) -> None:
    """Write ``manifest.sig`` beside ``manifest.json``: an Ed25519 signature of its bytes. As the
    manifest holds the digest of every shard, it covers every published byte.

    Raises:
        ValueError: there is no manifest.
    """
    ledger = Ledger(output)
    if not ledger.fs.exists(ledger.path("manifest.json")):
        raise ValueError("there is no manifest to sign: the run has not finished")
    signature = key.sign(ledger.fs.cat_file(ledger.path("manifest.json")))
    public = key.public_key().public_bytes_raw()
    document = {
        "algorithm": "Ed25519",
        "public_key": base64.b64encode(public).decode(),
        "signature": base64.b64encode(signature).decode(),
    }
    ledger.fs.pipe_file(ledger.path(SIGNATURE), (json.dumps(document, indent=1) + "\n").encode())


def _check_signature(ledger: Ledger, manifest: bytes, key: Ed25519PublicKey) -> Iterator[Finding]:
    path = ledger.path(SIGNATURE)
    if not ledger.fs.exists(path):
        yield Finding(SIGNATURE, "there is no signature")
        return
    try:
        document = json.loads(ledger.fs.cat_file(path))
        key.verify(base64.b64decode(document["signature"]), manifest)
    except InvalidSignature:
        yield Finding("manifest.json", "is not what was signed, or another key signed it")
    except (ValueError, KeyError, TypeError):
        yield Finding(SIGNATURE, "is no readable signature")


# -- the whole ------------------------------------------------------------------------------


def verify(output: str, public_key: Ed25519PublicKey | None = None) -> Iterator[Finding]:
    """Check an output against its manifest and ledger; changes nothing.

    Args:
        output: fsspec URL or path of the folder.
        public_key: whose signature the manifest must bear; None: do not look.

    Yields:
        What is wrong; nothing if all holds.

    Raises:
        ValueError: there is no readable manifest, so nothing to check against.
    """
    ledger = Ledger(output)
    path = ledger.path("manifest.json")
    if not ledger.fs.exists(path):
        raise ValueError("no manifest.json: not an output, or its run has not finished")
    raw = ledger.fs.cat_file(path)
    if public_key is not None:
        yield from _check_signature(ledger, raw, public_key)
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        yield Finding(
            "manifest.json", f"does not have the form of a manifest (at {place or 'top'})"
        )
        return
    yield from _check_counts(ledger, manifest)
    yield from _check_files(ledger, manifest)
    seen: dict[str, str] = {}
    totals = dict.fromkeys(ALL_KINDS, 0)
    kinds = ALL_KINDS if "output_faces" in manifest.options else KINDS
    for unit in manifest.shards:
        ids: dict[Kind, list[str]] = {}
        for kind in kinds:
            shard = unit.shards.get(kind)
            if shard is None:
                yield Finding("manifest.json", f"unit {unit.unit} has no shard in {kind}")
                continue
            table, findings = _check_shard(ledger, manifest, kind, shard)
            yield from findings
            if table is None:
                continue
            totals[kind] += table.num_rows
            ids[kind] = table["record_id"].to_pylist()
            if kind == "data":
                yield from _check_pictures(shard.path, table)
        if {"data", "metrics"} <= ids.keys() and ids["data"] != ids["metrics"]:
            yield Finding(unit.shards["metrics"].path, "its record ids are not those in data/")
        if not set(ids.get("detections", ())) <= set(ids.get("data", ())):
            yield Finding(unit.shards["detections"].path, "tells of records that are not in data/")
        for kind in ("data", "dead_letters"):
            for record in ids.get(kind, []):
                if record in seen:
                    yield Finding(
                        unit.shards[kind].path, f"record {record} is in {seen[record]} too"
                    )
                seen[record] = unit.shards[kind].path
    for kind, counted in (
        ("data", manifest.counts.records),
        ("dead_letters", manifest.counts.dead_letters),
    ):
        if totals[kind] != counted:
            yield Finding(f"{kind}/", f"{totals[kind]} rows, the manifest counts {counted}")


def _check_counts(ledger: Ledger, manifest: Manifest) -> Iterator[Finding]:
    counts = manifest.counts
    if counts.units != len(manifest.shards):
        yield Finding("manifest.json", f"counts {counts.units} units, lists {len(manifest.shards)}")
    if sum(counts.dead_letters_by_code.values()) != counts.dead_letters:
        yield Finding("manifest.json", "its dead letters by code do not add up")
    if counts.rows_in + counts.extra_faces != counts.records + counts.dead_letters:
        yield Finding("manifest.json", "its rows, records and dead letters do not add up")
    entries = ledger.entries()
    listed = {unit.unit: unit.shards for unit in manifest.shards}
    for name in sorted(entries.keys() - listed.keys()):
        yield Finding(f"_ledger/units/{name}.json", "is not in the manifest")
    for name in sorted(listed.keys() - entries.keys()):
        yield Finding(f"_ledger/units/{name}.json", "is missing or damaged")
    for name in sorted(listed.keys() & entries.keys()):
        if entries[name].shards != listed[name]:
            yield Finding(f"_ledger/units/{name}.json", "names other shards than the manifest")


def _check_files(ledger: Ledger, manifest: Manifest) -> Iterator[Finding]:
    expected = {shard.path for unit in manifest.shards for shard in unit.shards.values()}
    known = expected | {"manifest.json", SIGNATURE, *DOCUMENTS}
    for path in sorted(ledger.fs.find(ledger.root)):
        name = path.removeprefix(f"{ledger.root}/")
        if name not in known and not name.startswith("_ledger/"):
            yield Finding(name, "is not in the manifest")


def _expected_schema(manifest: Manifest, kind: Kind, found: pa.Schema) -> pa.Schema:
    if kind == "dead_letters":
        return DEAD_LETTERS_SCHEMA
    names = [model.name for model in manifest.recognizers]
    if kind == "metrics":
        return metrics_schema(names, manifest.options.get("output_faces") == "in-place")
    if kind == "detections":
        return detections_schema(names)
    allowed = list(manifest.options.get("keep_columns", []))
    keep = [found.field(name) for name in allowed if name in found.names]
    faces = manifest.options.get("output_faces") == "crops"
    return records_schema(keep, manifest.options.get("identity") == "pseudonyms", faces)


def _check_shard(
    ledger: Ledger, manifest: Manifest, kind: Kind, shard: Shard
) -> tuple[pa.Table | None, list[Finding]]:
    path = ledger.path(shard.path)
    if not ledger.fs.exists(path):
        return None, [Finding(shard.path, "is missing")]
    data = ledger.fs.cat_file(path)
    findings = []
    if len(data) != shard.bytes:
        findings.append(Finding(shard.path, f"{len(data)} bytes, the manifest says {shard.bytes}"))
    elif hashlib.sha256(data).hexdigest() != shard.sha256:
        findings.append(Finding(shard.path, "its sha256 is not that in the manifest"))
    try:
        table = read_table(data)
    except (pa.ArrowException, OSError):
        return None, [*findings, Finding(shard.path, "is no readable Parquet file")]
    expected = _expected_schema(manifest, kind, table.schema)
    extra = [name for name in table.column_names if name not in expected.names]
    if extra:
        allowed = "reserved" if extra[0] in RESERVED_COLUMNS else "not on the allow-list"
        findings.append(Finding(shard.path, f"column {extra[0]!r} is {allowed}"))
    elif not table.schema.equals(expected):
        findings.append(Finding(shard.path, f"does not have the schema of {kind}"))
    if table.num_rows != shard.rows:
        findings.append(
            Finding(shard.path, f"{table.num_rows} rows, the manifest says {shard.rows}")
        )
    return (table if "record_id" in table.column_names else None), findings


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
