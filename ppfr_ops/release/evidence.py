"""Does the owner's evidence fit the release, and is it what the owner sealed?"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ppfr_ops.contracts.dead_letters import DEAD_LETTERS_SCHEMA
from ppfr_ops.contracts.detections import detections_schema
from ppfr_ops.contracts.ledger import ALL_KINDS, KINDS, Kind, LedgerEntry, Shard
from ppfr_ops.contracts.manifest import Manifest, ReleaseManifest
from ppfr_ops.contracts.metrics import metrics_schema
from ppfr_ops.release.attestation import PublicKey
from ppfr_ops.release.files import check_shards
from ppfr_ops.release.findings import Finding
from ppfr_ops.release.listing import Unlisted, files_of, packed, unpacked
from ppfr_ops.release.looking import looked_at, read_shard, table_faults
from ppfr_ops.release.signing import read_seal, unlike_seal
from ppfr_ops.store.folder import EVIDENCE, RELEASE, Folder
from ppfr_ops.store.ledger import LEDGER, Ledger

_MANIFEST = f"{EVIDENCE}/manifest.json"
_SEAL = f"{EVIDENCE}/seal.json"
_UNITS = f"{EVIDENCE}/ledger/units/"


def check(
    ledger: Ledger,
    release: ReleaseManifest,
    shards: pa.Table,
    published: Mapping[str, bytes],
    public_key: PublicKey | None,
    photographs: Mapping[str, str] | None = None,
) -> Iterator[Finding]:
    """Hold the evidence against the release and against itself.

    Args:
        shards: of the release, as ``read_files`` gives them.
        published: record ids, packed, by shard, of the shards that can be read.
        public_key: whose seal the evidence must bear; None: do not look.
        photographs: of a release of files: sha256 by path.
    """
    faults = list(_check_seal(ledger, release, public_key))
    yield from faults
    trusted = public_key is not None and not faults
    ledger.trusts_copies = trusted
    manifest = ledger.model(Manifest, EVIDENCE, "manifest.json")
    if manifest is None:
        yield Finding(_MANIFEST, "does not have the form of a manifest")
        return
    entries = ledger.entries()
    yield from _check_counts(ledger, manifest, entries)
    listed = _sorted(file.path for file in files_of(release, shards) if file.rows is not None)
    there = [entry.shards["data"].path for entry in entries.values() if "data" in entry.shards]
    if photographs is not None:
        kept = str(manifest.options.get("names"))
        yield from check_shards(ledger, entries.values(), photographs, kept, trusted)
        there = [path for path in there if path.startswith(f"{RELEASE}/")]
    if not np.array_equal(_sorted(path.removeprefix(f"{RELEASE}/") for path in there), listed):
        yield Finding(_UNITS, "names other shards than the manifest of the release")
    kinds = ALL_KINDS if "output_faces" in manifest.options else KINDS
    kinds = tuple(kind for kind in kinds if kind != "look")
    yield from _check_orphans(ledger, entries, kinds)
    dead: set[str] = set()
    total = 0
    for entry in entries.values():
        ids: dict[Kind, list[str]] = {}
        for kind in kinds[1:]:
            shard = entry.shards.get(kind)
            if shard is None and (kind == "dead_letters" or entry.stage != "whole"):
                continue  # it has none; all dead letters are counted below
            if shard is None:
                yield Finding(_UNITS, f"unit {entry.unit} has no shard in {kind}")
                continue
            rows, findings = _check_shard(ledger, manifest, kind, shard, trusted)
            yield from findings
            if rows is not None:
                ids[kind] = rows
        yield from _check_ids(entry, ids, published)
        for letter in ids.get("dead_letters", []):
            if letter in dead:
                yield Finding(entry.shards["dead_letters"].path, f"{letter} is there twice")
            dead.add(letter)
        total += len(ids.get("dead_letters", []))
    if total != manifest.counts.dead_letters:
        found = f"{total} rows, the manifest counts {manifest.counts.dead_letters}"
        yield Finding(f"{EVIDENCE}/dead_letters/", found)


def _sorted(paths: Iterable[str]) -> NDArray[np.bytes_]:
    """Paths of shards below the release, in a few bytes more than they have."""
    return np.sort(np.fromiter((path.encode() for path in paths), "S64"))


def _check_seal(
    ledger: Ledger, release: ReleaseManifest, public_key: PublicKey | None
) -> Iterator[Finding]:
    found = read_seal(ledger)
    if found is None:
        if public_key is not None:
            yield Finding(_SEAL, "is missing or damaged")
        return
    if public_key is not None and not found.is_by(public_key):
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
    try:
        for unit in unlike_seal(ledger, found):
            yield Finding(f"{_UNITS}{unit}.json", "is not what was sealed")
    except Unlisted as fault:
        yield Finding(f"{EVIDENCE}/{found.listing.path}", str(fault))


def _check_counts(
    ledger: Ledger, manifest: Manifest, entries: Mapping[str, LedgerEntry]
) -> Iterator[Finding]:
    counts = manifest.counts
    if counts.units != len(entries):
        yield Finding(_MANIFEST, f"counts {counts.units} units, the ledger has {len(entries)}")
    if sum(counts.dead_letters_by_code.values()) != counts.dead_letters:
        yield Finding(_MANIFEST, "its dead letters by code do not add up")
    there = counts.rows_in + counts.extra_faces + counts.drawn_besides
    if there != counts.records + counts.dead_letters + counts.left_out:
        yield Finding(_MANIFEST, "its rows, records and dead letters do not add up")
    for name in ledger.names(*LEDGER, "units"):
        if name.removesuffix(".json") not in entries:
            yield Finding(f"{_UNITS}{name}", "is damaged")


def _check_orphans(
    folder: Folder, entries: Mapping[str, LedgerEntry], kinds: tuple[Kind, ...]
) -> Iterator[Finding]:
    for kind in kinds[1:]:
        for name in folder.names(EVIDENCE, kind):
            path = f"{EVIDENCE}/{kind}/{name}"
            entry = entries.get(name.partition(".")[0])
            shard = None if entry is None else entry.shards.get(kind)
            if shard is None or shard.path != path:
                yield Finding(path, "is in no ledger entry")


def _check_shard(
    folder: Folder, manifest: Manifest, kind: Kind, shard: Shard, trusted: bool
) -> tuple[list[str] | None, list[Finding]]:
    names = [model.name for model in manifest.recognizers]
    expected = {
        "dead_letters": DEAD_LETTERS_SCHEMA,
        "metrics": metrics_schema(names, manifest.options.get("output_faces") == "in-place"),
        "detections": detections_schema(names),
    }[kind]
    try:
        data = read_shard(folder, shard, shard.path, trusted=trusted)
        ids, faults = looked_at(table_faults, data, expected, kind, shard.rows, trusted=trusted)
    except Unlisted as fault:
        ids, faults = None, [str(fault)]
    return ids, [Finding(shard.path, fault) for fault in faults]


def _check_ids(
    entry: LedgerEntry, ids: Mapping[Kind, list[str]], published: Mapping[str, bytes]
) -> Iterator[Finding]:
    if "data" not in entry.shards:
        return
    there = published.get(entry.shards["data"].path.removeprefix(f"{RELEASE}/"))
    if there is None:
        return
    if "metrics" in ids and packed(ids["metrics"]) != there:
        yield Finding(entry.shards["metrics"].path, "its record ids are not those in data/")
    if "detections" in ids and not set(ids["detections"]) <= set(unpacked(there)):
        yield Finding(entry.shards["detections"].path, "tells of records that are not in data/")
