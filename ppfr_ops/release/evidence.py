"""Does the owner's evidence fit the release, and is it what the owner sealed?"""

import hashlib
from collections.abc import Iterator, Mapping

import pyarrow as pa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import ValidationError

from ppfr_ops.contracts.dead_letters import DEAD_LETTERS_SCHEMA
from ppfr_ops.contracts.detections import detections_schema
from ppfr_ops.contracts.ledger import ALL_KINDS, KINDS, Kind, Shard, is_placed
from ppfr_ops.contracts.manifest import Manifest, ReleaseManifest, UnitShards
from ppfr_ops.contracts.metrics import metrics_schema
from ppfr_ops.release.findings import Finding
from ppfr_ops.release.signing import read_seal, seal_holds, unlike_seal
from ppfr_ops.store.folder import EVIDENCE, RELEASE, Folder
from ppfr_ops.store.ledger import LEDGER, Ledger
from ppfr_ops.store.shards import read_table

_MANIFEST = f"{EVIDENCE}/manifest.json"
_SEAL = f"{EVIDENCE}/seal.json"


def check(
    ledger: Ledger,
    release: ReleaseManifest,
    published: Mapping[str, list[str]],
    public_key: Ed25519PublicKey | None,
) -> Iterator[Finding]:
    """Hold the evidence against the release and against itself.

    Args:
        published: record ids by shard, of the shards that can be read.
        public_key: whose seal the evidence must bear; None: do not look.
    """
    yield from _check_seal(ledger, release, public_key)
    try:
        manifest = Manifest.model_validate_json(ledger.read_bytes(EVIDENCE, "manifest.json") or b"")
    except (ValidationError, RecursionError):
        yield Finding(_MANIFEST, "does not have the form of a manifest")
        return
    yield from _check_counts(ledger, manifest)
    listed = {unit.shards["data"].path for unit in manifest.shards if "data" in unit.shards}
    if listed != {f"{RELEASE}/{file.path}" for file in release.data}:
        yield Finding(_MANIFEST, "names other shards than the manifest of the release")
    kinds = ALL_KINDS if "output_faces" in manifest.options else KINDS
    yield from _check_orphans(ledger, manifest, kinds)
    buried: set[str] = set()
    total = 0
    for unit in manifest.shards:
        ids: dict[Kind, list[str]] = {}
        for kind in kinds[1:]:
            shard = unit.shards.get(kind)
            if shard is None and kind == "dead_letters":
                continue  # it has none; all are counted below
            if shard is None or not is_placed(kind, unit.unit, shard.path):
                yield Finding(_MANIFEST, f"unit {unit.unit} has no shard in {kind}")
                continue
            table, findings = _check_shard(ledger, manifest, kind, shard)
            yield from findings
            if table is not None:
                ids[kind] = table["record_id"].to_pylist()
        yield from _check_ids(unit, ids, published)
        for letter in ids.get("dead_letters", []):
            if letter in buried:
                yield Finding(unit.shards["dead_letters"].path, f"{letter} is there twice")
            buried.add(letter)
        total += len(ids.get("dead_letters", []))
    if total != manifest.counts.dead_letters:
        found = f"{total} rows, the manifest counts {manifest.counts.dead_letters}"
        yield Finding(f"{EVIDENCE}/dead_letters/", found)


def _check_seal(
    ledger: Ledger, release: ReleaseManifest, public_key: Ed25519PublicKey | None
) -> Iterator[Finding]:
    found = read_seal(ledger)
    if found is None:
        if public_key is not None:
            yield Finding(_SEAL, "is missing or damaged")
        return
    if public_key is not None and not seal_holds(found, public_key):
        yield Finding(_SEAL, "is not what was sealed, or another key sealed it")
    if found.version != release.version:
        yield Finding(_SEAL, f"is of version {found.version}, the release is {release.version}")
    for place, digest in (
        ((RELEASE, "manifest.json"), found.release),
        ((EVIDENCE, "manifest.json"), found.evidence),
        ((*LEDGER, "run.json"), found.run),
    ):
        data = ledger.read_bytes(*place) or b""
        if hashlib.sha256(data).hexdigest() != digest:
            yield Finding("/".join(place), "is not what was sealed")
    for unit in unlike_seal(ledger, found):
        yield Finding(f"{EVIDENCE}/ledger/units/{unit}.json", "is not what was sealed")


def _check_counts(ledger: Ledger, manifest: Manifest) -> Iterator[Finding]:
    counts = manifest.counts
    if counts.units != len(manifest.shards):
        yield Finding(_MANIFEST, f"counts {counts.units} units, lists {len(manifest.shards)}")
    if sum(counts.dead_letters_by_code.values()) != counts.dead_letters:
        yield Finding(_MANIFEST, "its dead letters by code do not add up")
    if counts.rows_in + counts.extra_faces != counts.records + counts.dead_letters:
        yield Finding(_MANIFEST, "its rows, records and dead letters do not add up")
    entries = ledger.entries()
    listed = {unit.unit: unit.shards for unit in manifest.shards}
    for name in sorted(entries.keys() - listed.keys()):
        yield Finding(f"{EVIDENCE}/ledger/units/{name}.json", "is not in the manifest")
    for name in sorted(listed.keys() - entries.keys()):
        yield Finding(f"{EVIDENCE}/ledger/units/{name}.json", "is missing or damaged")
    for name in sorted(listed.keys() & entries.keys()):
        if entries[name].shards != listed[name]:
            reason = "names other shards than the manifest"
            yield Finding(f"{EVIDENCE}/ledger/units/{name}.json", reason)


def _check_orphans(
    folder: Folder, manifest: Manifest, kinds: tuple[Kind, ...]
) -> Iterator[Finding]:
    expected = {shard.path for unit in manifest.shards for shard in unit.shards.values()}
    for kind in kinds[1:]:
        for name in folder.names(EVIDENCE, kind):
            if f"{EVIDENCE}/{kind}/{name}" not in expected:
                yield Finding(f"{EVIDENCE}/{kind}/{name}", "is not in the manifest")


def _check_shard(
    folder: Folder, manifest: Manifest, kind: Kind, shard: Shard
) -> tuple[pa.Table | None, list[Finding]]:
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
    names = [model.name for model in manifest.recognizers]
    expected = {
        "dead_letters": DEAD_LETTERS_SCHEMA,
        "metrics": metrics_schema(names, manifest.options.get("output_faces") == "in-place"),
        "detections": detections_schema(names),
    }[kind]
    if not table.schema.equals(expected):
        findings.append(Finding(shard.path, f"does not have the schema of {kind}"))
    if table.num_rows != shard.rows:
        reason = f"{table.num_rows} rows, the manifest says {shard.rows}"
        findings.append(Finding(shard.path, reason))
    return (table if "record_id" in table.column_names else None), findings


def _check_ids(
    unit: UnitShards, ids: Mapping[Kind, list[str]], published: Mapping[str, list[str]]
) -> Iterator[Finding]:
    if "data" not in unit.shards:
        return
    there = published.get(unit.shards["data"].path.removeprefix(f"{RELEASE}/"))
    if there is None:
        return
    if "metrics" in ids and ids["metrics"] != there:
        yield Finding(unit.shards["metrics"].path, "its record ids are not those in data/")
    if not set(ids.get("detections", ())) <= set(there):
        yield Finding(unit.shards["detections"].path, "tells of records that are not in data/")
