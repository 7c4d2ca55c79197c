"""Published photographs as files: the tree that came in, or numbered, beside the manifest.

They are laid out of the committed shards when all units are done, by the one who holds the lease:
again and again the same, so that a run that is killed meanwhile lays out the rest the next time.
``SHA256SUMS`` lists them, in the form that ``sha256sum --check`` reads, and the manifest has its
digest.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Literal

import pyarrow as pa

from ppfr_ops.contracts.ledger import PHOTOGRAPHS as SHARDS
from ppfr_ops.contracts.ledger import LedgerEntry
from ppfr_ops.contracts.manifest import SUMS, Listing, ReleaseManifest
from ppfr_ops.release.findings import Finding
from ppfr_ops.release.foreign import Mark
from ppfr_ops.release.listing import LARGEST, Unlisted, read_files, read_told
from ppfr_ops.release.looking import looked_at, photographs_in, picture_fault, read_shard
from ppfr_ops.release.standalone.folder import lines_of
from ppfr_ops.store.folder import RELEASE, Folder, LedgerError
from ppfr_ops.store.ledger import NO_DATE, Ledger
from ppfr_ops.store.shards import read_table

PHOTOGRAPHS = "photographs"
"""The folder of a release that they lie in."""

Names = Literal["keep", "number"]

_ESCAPED = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}
_LONGEST = 255
"""Bytes of a file's name."""
_MOST_BYTES = 256 << 20
"""Of a photograph that is looked into."""


def named(paths: Mapping[str, str], names: Names) -> dict[str, str]:
    """What published photographs are called, below their folder.

    Args:
        paths: name of the original below the input's folder, with the suffix of what was made of
            it, by record id.
        names: ``keep``: as they came, one that is taken, or too long for a disk, with a part of its
            id; ``number``: 0001 and so on, in the order of the ids, which is random.

    Returns:
        By record id.
    """
    ids = sorted(paths)
    if names == "number":
        width = max(4, len(str(len(ids))))
        suffixes = (os.path.splitext(paths[name])[1].lower() for name in ids)
        numbered = enumerate(zip(ids, suffixes, strict=True), 1)
        return {name: f"{number:0{width}d}{suffix}" for number, (name, suffix) in numbered}
    taken: set[str] = set()
    found = {}
    for name in ids:
        path = paths[name]
        stem, suffix = os.path.splitext(path)
        while path in taken or len(os.fsencode(os.path.basename(path))) > _LONGEST:
            path = f"{stem}-{name[:12]}{suffix}"
            stem = stem[:-1]
        taken.add(path)
        found[name] = path
    return found


def lay_out(ledger: Ledger, entries: Iterable[LedgerEntry], names: Names) -> Listing:
    """Lay the photographs of a release out, remove what does not belong among them, and write
    ``SHA256SUMS``.

    Args:
        entries: all; their shards are sound.

    Raises:
        LedgerError: a folder of the release is a link.
    """
    shards = [e.shards["data"].path for e in entries if "data" in e.shards]
    paths: dict[str, str] = {}
    for shard in shards:
        table = read_table(ledger.fs.cat_file(ledger.path(shard)), ["record_id", "image.path"])
        column = (cell["path"] for cell in table["image"].to_pylist())
        paths.update(zip(table["record_id"].to_pylist(), column, strict=True))
    places = named(paths, names)
    there = {name: file.size for name, file in ledger.tree(RELEASE, PHOTOGRAPHS) if file.plain}
    sums: dict[str, str] = {}
    for shard in shards:
        for name, data in pictures(ledger, shard):
            place, digest = places[name], hashlib.sha256(data).hexdigest()
            sums[f"{PHOTOGRAPHS}/{place}"] = digest
            if there.get(place) != len(data) or _digest(ledger, place) != digest:
                _put(ledger, data, place)
    wanted = set(places.values())
    ledger.remove_all([ledger.path(RELEASE, PHOTOGRAPHS, x) for x in there if x not in wanted])
    if ledger.local:  # folders that are empty by now go
        for place in (PHOTOGRAPHS, "data"):
            for here, _, _ in os.walk(ledger.path(RELEASE, place), topdown=False):
                with suppress(OSError):  # something lies there
                    os.rmdir(here)
    text = sums_text(sums)
    ledger.put(text, RELEASE, SUMS)
    return Listing(
        path=SUMS, bytes=len(text), sha256=hashlib.sha256(text).hexdigest(), rows=len(sums)
    )


def pictures(folder: Folder, shard: str) -> Iterator[tuple[str, bytes]]:
    """Record id and encoded picture of every record of a shard."""
    table = read_table(folder.fs.cat_file(folder.path(shard)), ["record_id", "image"])
    for name, cell in zip(table["record_id"], table["image"], strict=True):
        yield name.as_py(), cell.as_py()["bytes"]


def _digest(ledger: Ledger, place: str) -> str:
    data = ledger.fs.cat_file(ledger.path(RELEASE, PHOTOGRAPHS, place))
    return hashlib.sha256(data).hexdigest()


def _put(ledger: Ledger, data: bytes, place: str) -> None:
    target = ledger.path(RELEASE, PHOTOGRAPHS, place)
    if ledger.local:
        above = os.path.dirname(target)
        if os.path.realpath(above) != os.path.join(
            os.path.realpath(ledger.path()), os.path.relpath(above, ledger.path())
        ):
            raise LedgerError(f"a folder in release/{PHOTOGRAPHS} is a symbolic link")
    ledger.put(data, RELEASE, PHOTOGRAPHS, place)
    if ledger.local:
        os.utime(target, (NO_DATE, NO_DATE))


# -- the list -------------------------------------------------------------------------------


def sums_text(sums: Mapping[str, str]) -> bytes:
    """``SHA256SUMS`` of files, sorted by path.

    Args:
        sums: sha256, hex, by path relative to the folder of the list.
    """
    lines = []
    for path in sorted(sums):
        shown = "".join(_ESCAPED.get(sign, sign) for sign in path)
        lines.append(f"{'' if shown == path else chr(92)}{sums[path]}  {shown}\n")
    return "".join(lines).encode("utf-8")


def read_sums(folder: Folder, told: Listing, *place: str, most: int = LARGEST) -> dict[str, str]:
    """The photographs that a release lists: sha256 by path relative to the release.

    Args:
        place: of the release in the folder.
        most: as ``read_told`` has it.

    Raises:
        Unlisted: it is not what the manifest says, or lists what may not be there.
    """
    data = read_told(folder, told, *place, SUMS, most=most)
    try:
        sums = dict(lines_of(data))
    except ValueError:
        raise Unlisted("has a line that lists no photograph") from None
    for path in sums:
        above, *parts = path.split("/")
        if above != PHOTOGRAPHS or any(part in ("", ".", "..") for part in parts) or not parts:
            raise Unlisted("lists a path that leads elsewhere")
    if len(sums) != told.rows:
        raise Unlisted(f"lists {len(sums)} photographs, the manifest says {told.rows}")
    if sums_text(sums) != data:
        raise Unlisted("is not written as such lists are")
    return sums


def read_lists(
    folder: Folder, manifest: ReleaseManifest, *place: str, most: int = LARGEST
) -> tuple[pa.Table, dict[str, str] | None]:
    """What a release lists: its shards, as ``read_files`` gives them; and of a release of files the
    photographs, as ``read_sums`` does.

    Raises:
        Unlisted: as of these.
    """
    shards = read_files(folder, manifest, *place, most=most)
    if manifest.listing.path != SUMS:
        return shards, None
    return shards, read_sums(folder, manifest.listing, *place, most=most)


# -- verification ---------------------------------------------------------------------------


def check_files(
    folder: Folder,
    place: tuple[str, ...],
    sums: Mapping[str, str],
    bad: set[str],
    mark: Mark | None,
) -> Iterator[Finding]:
    """Is every photograph there, is it the one that is listed, and are there only pixels in it, and
    the mark of the release?"""
    for path, digest in sums.items():
        if path in bad:
            continue
        size = folder.size(*place, path)
        if size is None:
            yield Finding(path, "is missing")
        elif size > _MOST_BYTES:
            yield Finding(path, "is larger than any photograph")
        else:
            data = bytes(folder.fs.cat_file(folder.path(*place, path)))
            if hashlib.sha256(data).hexdigest() != digest:
                yield Finding(path, f"its sha256 is not that in {SUMS}")
            elif (reason := picture_fault(data, mark)) is not None:
                yield Finding(path, reason)


def check_shards(
    ledger: Ledger,
    entries: Iterable[LedgerEntry],
    sums: Mapping[str, str],
    names: str,
    trusted: bool,
) -> Iterator[Finding]:
    """Are the photographs of a release those of the ledger's shards, under their names?"""
    known = set()
    found: Counter[tuple[str, str]] = Counter()
    paths: dict[str, str] = {}
    digests: dict[str, str] = {}
    for entry in entries:
        if (shard := entry.shards.get("data")) is None:
            continue
        known.add(shard.path)
        try:
            data = read_shard(ledger, shard, shard.path, trusted=trusted, by="the ledger")
            for name, path, digest in looked_at(photographs_in, data, trusted=trusted):
                paths[name], digests[name] = path, digest
        except Unlisted as fault:
            yield Finding(shard.path, str(fault))
    for name in ledger.names(*SHARDS.split("/")):
        if f"{SHARDS}/{name}" not in known:
            yield Finding(f"{SHARDS}/{name}", "is in no ledger entry")
    places = named(paths, "number" if names == "number" else "keep")
    found.update((f"{PHOTOGRAPHS}/{places[name]}", digest) for name, digest in digests.items())
    if found != Counter(sums.items()):
        yield Finding(SUMS, "lists other photographs than the ledger has")
