"""What is written when all units are done: the owner's manifest, the release's, and the seal."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from ppfr_ops.contracts.ledger import LedgerEntry, Shard
from ppfr_ops.contracts.manifest import (
    FILES,
    File,
    Listing,
    Manifest,
    ReleaseManifest,
    Requirement,
    coarse_mean,
    withheld_percent,
)
from ppfr_ops.errors import UserError
from ppfr_ops.release import standalone
from ppfr_ops.release.attestation import SIGNATURE, PrivateKey
from ppfr_ops.release.listing import write_rows
from ppfr_ops.release.signing import read_seal, seal, sign_release
from ppfr_ops.store.entries import HashSet
from ppfr_ops.store.folder import EVIDENCE, RELEASE, Folder
from ppfr_ops.store.ledger import DOCUMENTS, Ledger

_THREADS = 4
_WAITING = 64
"""Entries whose shards are read, or wait for it."""
_CHUNK = 1 << 20
_AT_ONCE = 64 << 20
"""Bytes of a shard that is fetched in one piece, at most."""

_TOLD_OPTIONS = (
    *("keep_columns", "coarsen", "identity", "reads_faces", "size_anonymity", "size_rounding"),
    *("output_format", "quality", "mark", "c2pa", "c2pa_training", "invisible_mark", "metrics"),
    *("output_faces", "no_face", "background", "cover", "output_form", "names", "max_disclosure"),
    "draws",
)
"""Options that a release tells; the others name columns of the input, or tell how it was cut."""


def looked_at(
    ledger: Ledger, entries: Iterable[LedgerEntry], read_all: bool = True
) -> Iterator[tuple[LedgerEntry, bool]]:
    """Every entry, and whether its shards are what was committed: all are read and hashed, for what
    is signed has been looked at. That costs less than a thousandth of the time that making them
    took (``bench/finish_check.py``).

    Args:
        read_all: also what a store lists with the digest that was noted when it was written: then
            the store has read it, to the same end, as it arrived.
    """
    listed = () if read_all or ledger.local else ledger.shards_there()
    there = HashSet((path, file.size, file.md5) for path, file in listed if file.md5 is not None)

    def sound(shard: Shard) -> bool:
        path = ledger.path(shard.path)
        try:
            if not ledger.local and shard.bytes <= _AT_ONCE:  # one request
                data = ledger.fs.cat_file(path)
                return len(data) == shard.bytes and hashlib.sha256(data).hexdigest() == shard.sha256
            digest, size = hashlib.sha256(), 0
            with ledger.fs.open(path, "rb") as file:
                while block := file.read(_CHUNK):
                    digest.update(block)
                    size += len(block)
            return size == shard.bytes and digest.hexdigest() == shard.sha256
        except OSError:
            return False

    def all_sound(entry: LedgerEntry) -> bool:
        return all(
            (shard.md5 is not None and (shard.path, shard.bytes, shard.md5) in there)
            or sound(shard)
            for shard in entry.shards.values()
        )

    waiting: deque[tuple[LedgerEntry, Future[bool]]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        for entry in entries:
            waiting.append((entry, pool.submit(all_sound, entry)))
            if len(waiting) == _WAITING:
                first, holds = waiting.popleft()
                yield first, holds.result()
        yield from ((entry, holds.result()) for entry, holds in waiting)


def rotten(ledger: Ledger, entries: Iterable[LedgerEntry], read_all: bool = True) -> list[str]:
    """Units of which a shard is not what was committed, as ``looked_at`` finds them."""
    return [entry.unit for entry, holds in looked_at(ledger, entries, read_all) if not holds]


def read_release(folder: Folder, *place: str) -> ReleaseManifest | None:
    """A release's manifest; None if there is none, or none that can be read."""
    return folder.model(ReleaseManifest, *(place or (RELEASE,)), "manifest.json")


def owners_manifest(folder: Folder) -> Manifest:
    """The manifest in the evidence.

    Raises:
        UserError: there is none, or it is damaged.
    """
    if not folder.exists(EVIDENCE, "manifest.json"):
        raise UserError("no evidence/manifest.json: not an output, or its run has not finished")
    found = folder.model(Manifest, EVIDENCE, "manifest.json")
    if found is None:
        raise UserError("evidence/manifest.json is damaged; see ppfr verify")
    return found


def write_release(
    ledger: Ledger,
    manifest: Manifest,
    shards: pa.Table,
    key: PrivateKey | None,
    listing: Listing | None = None,
) -> ReleaseManifest:
    """Write both manifests and the list of shards, sign the release's if there is a key, seal the
    evidence.

    README and Croissant of an earlier report stay if the shards are the same as then.

    Args:
        shards: ``FILES_SCHEMA``, sorted by path.
        listing: of the photographs, where the release holds those as files, and no shards.
    """
    ledger.still_mine()
    before = read_release(ledger)
    if listing is None:
        listing = Listing(**write_rows(ledger, shards, RELEASE, FILES))
    files = [_put(ledger, standalone.text(), VERIFIER)]
    if before is not None and before.listing == listing:
        files = [*_documents(ledger, before), *files]
    else:
        for name in DOCUMENTS:
            ledger.remove(RELEASE, name)
    counts = manifest.counts
    verdict = manifest.verdict
    # Figures of originals, and how many there were, are no part of a release that depends on none.
    independent = manifest.options.get("reads_faces") is False
    private = manifest.method.private or independent
    told = {} if private else manifest.metrics
    means = {name: coarse_mean(name, value) for name, value in told.items()}
    made = ReleaseManifest(
        release=ledger.release(),
        version=_next_version(ledger, before),
        finished_on=datetime.now(UTC).date(),
        versions=manifest.versions,
        engine="" if independent else manifest.engine,
        method=manifest.method,
        recognizers=manifest.recognizers,
        options=_told(manifest),
        records=counts.records,
        withheld_percent=None if independent else withheld_percent(counts.records, counts.rows_in),
        metrics={name: mean for name, mean in means.items() if mean is not None},
        passed=None if verdict is None or private else verdict.passed,
        requirements=[
            Requirement(name=check.name, bound=check.bound, holds=check.holds)
            for check in (verdict.checks if verdict is not None and not private else ())
        ],
        files=files,
        listing=listing,
    )
    ledger.still_mine()
    ledger.put(manifest.text(), EVIDENCE, "manifest.json")
    put_manifest(ledger, made, key)
    return made


def _told(manifest: Manifest) -> dict[str, Any]:
    """The options that a release tells."""
    names = [name for name in _TOLD_OPTIONS if name in manifest.options]
    if manifest.options.get("output_form") != "files":
        names = [name for name in names if name not in ("output_form", "names")]
    return {name: manifest.options[name] for name in names}


def write_documents(
    ledger: Ledger, documents: Mapping[str, str], key: PrivateKey | None
) -> ReleaseManifest:
    """Write some of ``DOCUMENTS`` into the release, and the manifest that names them.

    Raises:
        UserError: there is no manifest.
    """
    before = read_release(ledger)
    if before is None:
        raise UserError("release/manifest.json is missing or damaged; see ppfr verify")
    written = []
    for name, text in documents.items():
        ledger.still_mine()
        written.append(_put(ledger, text, name))
    kept = [file for file in before.files if file.path not in documents]
    files = sorted([*kept, *written], key=lambda file: (file.rows is None, file.path))
    made = before.model_copy(update={"version": _next_version(ledger, before), "files": files})
    put_manifest(ledger, made, key)
    return made


def put_manifest(ledger: Ledger, made: ReleaseManifest, key: PrivateKey | None) -> None:
    """The manifest of a release, its signature, and the seal of the evidence."""
    data = made.text()
    ledger.still_mine()
    ledger.remove(RELEASE, SIGNATURE)  # of an earlier manifest
    ledger.put(data, RELEASE, "manifest.json")
    if key is not None:
        ledger.still_mine()
        sign_release(ledger, made, key)
    seal(ledger, made.version, key)


VERIFIER = "verify.py"
"""In every release: checks it with Python's standard library alone (``release.standalone``)."""


def _put(ledger: Ledger, text: str, name: str) -> File:
    """A document of the release, as its manifest lists it."""
    data = text.encode()
    ledger.put(data, RELEASE, name)
    digest = hashlib.sha256(data).hexdigest()
    return File(path=name, bytes=len(data), sha256=digest, rows=None)


def _next_version(ledger: Ledger, before: ReleaseManifest | None) -> int:
    sealed = read_seal(ledger)
    return max(before.version if before else 0, sealed.version if sealed else 0) + 1


def _documents(ledger: Ledger, before: ReleaseManifest) -> list[File]:
    """Those that are still what they were; the others are removed."""
    kept = []
    listed = {file.path: file for file in before.files}
    for name in DOCUMENTS:
        data = ledger.read_bytes(RELEASE, name)
        if data is None:
            continue
        file = listed.get(name)
        if file is not None and hashlib.sha256(data).hexdigest() == file.sha256:
            kept.append(file)
        else:
            ledger.remove(RELEASE, name)
    return kept
