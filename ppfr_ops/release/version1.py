"""Outputs made before version 2 of the contracts: one folder, ``_ledger/`` beside ``data/``. They
can be verified, and nothing else is done with them."""

import hashlib
import re
from collections.abc import Iterator

import pyarrow as pa
from cryptography.exceptions import InvalidSignature
from pydantic import ValidationError

from ppfr_ops.contracts.ledger import Kind, Shard
from ppfr_ops.contracts.manifest import Manifest
from ppfr_ops.release.attestation import SIGNATURE, PublicKey
from ppfr_ops.release.findings import Finding
from ppfr_ops.release.foreign import foreign_part
from ppfr_ops.release.signing import signature_fault
from ppfr_ops.store.folder import Folder
from ppfr_ops.store.shards import read_table

_SHARD = re.compile(r"(data|metrics|dead_letters|detections)/u[0-9a-f]+\.parquet")
_DOCUMENTS = ("manifest.json", SIGNATURE, "README.md", "croissant.json", "report.html")


def is_one(folder: Folder) -> bool:
    """Whether a folder holds such an output."""
    raw = folder.read("manifest.json")
    return raw is not None and raw.get("schema_version") == "1"


def verify(folder: Folder, public_key: PublicKey | None) -> Iterator[Finding]:
    """As ``ppfr_ops.release.verify.verify``."""
    raw = folder.read_bytes("manifest.json") or b""
    if public_key is not None:
        try:
            fault = signature_fault(folder.read_bytes(SIGNATURE), raw, public_key)
        except InvalidSignature:
            yield Finding("manifest.json", "is not what was signed, or another key signed it")
        else:
            yield from [Finding(SIGNATURE, fault)] if fault is not None else []
    try:
        manifest = Manifest.model_validate_json(raw)
    except (ValidationError, RecursionError):
        yield Finding("manifest.json", "does not have the form of a manifest")
        return
    counts = manifest.counts
    if counts.rows_in + counts.extra_faces != counts.records + counts.dead_letters:
        yield Finding("manifest.json", "its rows, records and dead letters do not add up")
    listed = {shard.path for unit in manifest.shards for shard in unit.shards.values()}
    for path in sorted(folder.fs.find(folder.root)):
        name = path[len(folder.root) + 1 :]
        if name not in listed | set(_DOCUMENTS) and not name.startswith("_ledger/"):
            yield Finding(name, "is not in the manifest")
    totals: dict[str, int] = {}
    seen: dict[str, str] = {}
    for unit in manifest.shards:
        entry = folder.read("_ledger", "units", f"{unit.unit}.json") or {}
        if entry.get("shards") != unit.model_dump(exclude_none=True)["shards"]:
            yield Finding("_ledger/units/", f"unit {unit.unit}: the entry is not as the manifest")
        ids: dict[Kind, list[str]] = {}
        for kind, shard in unit.shards.items():
            table, findings = _check_shard(folder, shard)
            yield from findings
            if table is not None:
                ids[kind] = table["record_id"].to_pylist()
                totals[kind] = totals.get(kind, 0) + table.num_rows
                yield from _check_pictures(shard.path, table) if kind == "data" else ()
        if "metrics" in unit.shards and ids.get("metrics") != ids.get("data"):
            yield Finding(unit.shards["metrics"].path, "its record ids are not those in data/")
        for record in ids.get("data", []) + ids.get("dead_letters", []):
            if record in seen:
                yield Finding(unit.unit, f"record {record} is in {seen[record]} too")
            seen[record] = unit.unit
    for name, counted in (("data", counts.records), ("dead_letters", counts.dead_letters)):
        if totals.get(name, 0) != counted:
            found = f"{totals.get(name, 0)} rows, the manifest counts {counted}"
            yield Finding(f"{name}/", found)


def _check_shard(folder: Folder, shard: Shard) -> tuple[pa.Table | None, list[Finding]]:
    if not _SHARD.fullmatch(shard.path):
        return None, [Finding("manifest.json", "names a shard where none may lie")]
    size = folder.size(shard.path)
    if size is None:
        return None, [Finding(shard.path, "is missing")]
    if size != shard.bytes:
        return None, [Finding(shard.path, f"{size} bytes, the manifest says {shard.bytes}")]
    data = bytes(folder.fs.cat_file(folder.path(shard.path)))
    findings = []
    if hashlib.sha256(data).hexdigest() != shard.sha256:
        findings.append(Finding(shard.path, "its sha256 is not that in the manifest"))
    try:
        table = read_table(data)
    except (pa.ArrowException, OSError):
        return None, [*findings, Finding(shard.path, "is no readable Parquet file")]
    if table.num_rows != shard.rows:
        findings.append(Finding(shard.path, f"{table.num_rows} rows, not {shard.rows}"))
    return (table if "record_id" in table.column_names else None), findings


def _check_pictures(path: str, table: pa.Table) -> Iterator[Finding]:
    for record, cell in zip(table["record_id"], table["image"], strict=True):
        reason = foreign_part((cell.as_py() or {}).get("bytes") or b"")
        if reason is not None:
            yield Finding(path, f"record {record.as_py()}: {reason}")
