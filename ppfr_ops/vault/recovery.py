"""Originals back from the vault, or the proof that they can be had.

What was published says which record's original may be given back: an original opens only where the
output still holds the very picture that it was sealed with.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ppfr_ops.contracts.records import IMAGE_TYPE
from ppfr_ops.contracts.vault import FAILURES_SCHEMA, ORIGINALS_SCHEMA
from ppfr_ops.store.files import Files
from ppfr_ops.store.ledger import Ledger, read_table
from ppfr_ops.vault.keys import KeyService
from ppfr_ops.vault.sealing import Place, Refused, Sealed, picture_digest, unit_key, unseal, unwrap
from ppfr_ops.vault.shards import Damaged, Keys
from ppfr_ops.vault.store import Vault, VaultError

SETTING = "vault"
"""Under this name an output's ledger has the release that its vault belongs to."""

REASONS = {
    "revoked": "its key was revoked; nobody can have it back",
    "not_in_vault": "the vault has no entry for it",
    "another_picture": "the published picture is not the one that was sealed with it",
    "not_authentic": "what the vault holds of it was changed, or is of another record or release",
    "vault_damaged": "a file of the vault is missing, cut off or damaged",
    "output_damaged": "the published shard is missing or damaged",
}
"""Why an original is not given back, by code."""


@dataclass(frozen=True)
class Wish:
    """Which originals: all, or those of some records (or photographs), or of some people."""

    records: frozenset[str] = frozenset()
    people: frozenset[str] = frozenset()
    """Pseudonyms."""

    @property
    def all(self) -> bool:
        return not (self.records or self.people)

    def __str__(self) -> str:
        return "all" if self.all else ", ".join(sorted(self.records | self.people))


@dataclass(frozen=True)
class Failure:
    """An original that is not given back."""

    entry: str
    unit: str
    code: str

    def __str__(self) -> str:
        return f"{self.entry}: {REASONS[self.code]}"


@dataclass
class Count:
    """What came of it."""

    given: int = 0
    size: int = 0
    """Bytes given."""
    failures: int = 0
    revoked: int = 0

    def add(self, found: "bytes | Failure") -> None:
        if isinstance(found, Failure):
            self.failures += found.code != "revoked"
            self.revoked += found.code == "revoked"
        else:
            self.given += 1
            self.size += len(found)


Progress = Callable[[str, Count], None]
"""Called after every unit."""


def entries_of(records: pa.Table) -> dict[str, bytes]:
    """What the vault has to hold for published records: entry to digest of its pictures.

    An entry is a record, or where records are faces cut out of photographs the photograph, with
    the digest over all faces that were published of it.

    Args:
        records: ``record_id``, ``image``, and ``source_id`` where there is one.
    """
    pictures: dict[str, list[bytes]] = {}
    names = records["source_id" if "source_id" in records.column_names else "record_id"]
    for batch in pa.table([names, records["image"]], ["entry", "image"]).to_batches(256):
        for entry, image in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            pictures.setdefault(entry, []).append(image["bytes"])
    return {entry: picture_digest(found) for entry, found in pictures.items()}


def originals_of(records: pa.Table, table: pa.Table) -> Iterator[tuple[str, bytes, bytes]]:
    """What is to be sealed of a unit: entry, original, digest of its pictures.

    Args:
        records: what is published of the unit.
        table: the unit as it was read: ``record_id``, ``image``.

    Raises:
        ValueError: the unit lacks the original of something that is published.
    """
    published = entries_of(records)
    left = set(published)
    for batch in table.select(["record_id", "image"]).to_batches(64):
        for name, original in zip(*batch.columns, strict=True):
            if (entry := name.as_py()) in published:
                left.discard(entry)
                yield entry, original.as_py(), published[entry]
    if left:
        raise ValueError("a published record has no original")


def wished(records: pa.Table, wish: Wish) -> set[str]:
    """The entries of a published shard that a wish is for."""
    by_source = "source_id" in records.column_names
    entries = records["source_id" if by_source else "record_id"].to_pylist()
    if wish.all:
        return set(entries)
    names = records["record_id"].to_pylist()
    found = {e for e, name in zip(entries, names, strict=True) if {e, name} & wish.records}
    if wish.people and "identity" in records.column_names:
        people = records["identity"].to_pylist()
        found |= {e for e, who in zip(entries, people, strict=True) if who in wish.people}
    return found


class Opened:
    """An output and its vault, together.

    Args:
        output: what was published.
        vault: where its originals are.
        service: the owner's key; None: only to find out what is where.

    Raises:
        VaultError: no output, no vault, or not of one release.
        WrongKey: the vault is another key's.
    """

    def __init__(self, output: str, vault: Vault, service: KeyService | None) -> None:
        self.ledger, self.vault = Ledger(output), vault
        settings = self.ledger.read("_ledger", "run.json")
        if settings is None:
            raise VaultError("there is no output here")
        if SETTING not in settings:
            raise VaultError("the output was made without a vault")
        self.release, generation = vault.require()
        if settings[SETTING] != self.release:
            raise VaultError("output and vault are of different releases")
        self.key = b"" if service is None else generation.key(service)
        self.units = {e.unit: e.copy_id for e in self.ledger.entries().values()}

    def records(self, unit: str, columns: Sequence[str]) -> pa.Table | None:
        """Columns of a published shard, those that are there; None if it cannot be read."""
        try:
            data = self.ledger.fs.cat_file(self.ledger.path("data", f"{unit}.parquet"))
            table = read_table(data)
        except (OSError, pa.ArrowException):
            return None
        return table.select([name for name in columns if name in table.column_names])

    def find(self, wish: Wish) -> set[str]:
        """Entries that a wish is for, in the whole output."""
        found: set[str] = set()
        for unit in sorted(self.units):
            records = self.records(unit, ("record_id", "source_id", "identity"))
            if records is None:
                raise VaultError(f"data/{unit}.parquet cannot be read; see ppfr verify")
            found |= wished(records, wish)
        return found

    def originals(self, unit: str, wish: Wish) -> Iterator[tuple[str, bytes | Failure]]:
        """Entry and original, or why there is none; of one unit."""
        records = self.records(unit, ("record_id", "source_id", "identity", "image"))
        if records is None:
            yield unit, Failure(unit, unit, "output_damaged")
            return
        chosen = wished(records, wish)
        published = {e: d for e, d in entries_of(records).items() if e in chosen}
        if not published:
            return
        copy = self.units[unit]
        try:
            keys = self.vault.keys(unit, copy)
        except Damaged:
            for entry in published:
                yield entry, Failure(entry, unit, "vault_damaged")
            return
        left, under = dict(published), unit_key(self.key, keys.salt, unit)
        with_keys = {}
        for entry, digest in published.items():
            code = _why_not(keys, entry, digest)
            if code is None:
                with_keys[entry] = digest
            else:
                yield entry, Failure(entry, unit, code)
                del left[entry]
        try:
            for entry, sealed in self.vault.sealed(unit, copy, set(with_keys)):
                if left.pop(entry, None) is not None:
                    yield entry, self._open(sealed, keys, entry, under, unit)
        except Damaged:
            pass
        for entry in left:
            yield entry, Failure(entry, unit, "vault_damaged")

    def _open(
        self, sealed: Sealed, keys: Keys, entry: str, under: bytes, unit: str
    ) -> bytes | Failure:
        known = keys.entries[entry]
        place = Place(self.release, entry, known.picture)
        assert known.key is not None
        try:
            return unseal(sealed, unwrap(known.key, under, place), place)
        except Refused:
            return Failure(entry, unit, "not_authentic")


def _why_not(keys: Keys, entry: str, digest: bytes) -> str | None:
    known = keys.entries.get(entry)
    if known is None:
        return "not_in_vault"
    if known.key is None:
        return "revoked"
    return None if known.picture == digest else "another_picture"


def erase(
    opened: Opened,
    wish: Wish,
    target: str,
    *,
    as_files: bool = False,
    progress: Progress = lambda unit, count: None,
) -> tuple[Count, list[Failure]]:
    """Take protection off: write originals, whole units at a time, mode 0600.

    Args:
        target: folder for ``UNIT.parquet`` (``ORIGINALS_SCHEMA``), and ``dead_letters.parquet`` if
            an original could not be had.
        as_files: a file for every original instead, named after its record.
    """
    files, count, failures = Files(target), Count(), []
    for unit in sorted(opened.units):
        rows: list[tuple[str, bytes]] = []
        for entry, found in opened.originals(unit, wish):
            count.add(found)
            if isinstance(found, Failure):
                failures.append(found)
            elif as_files:
                files.put_bytes(found, f"{entry}{_suffix(found)}")
            else:
                rows.append((entry, found))
        if rows:
            with files.writing(f"{unit}.parquet") as file:
                _write_originals(file, rows)
        progress(unit, count)
    if failures:
        with files.writing("dead_letters.parquet") as file:
            _write(file, _failures(failures))
    return count, failures


def check(
    opened: Opened, progress: Progress = lambda unit, count: None
) -> tuple[Count, list[Failure]]:
    """Open every published record's original, in memory, and show none."""
    count, failures = Count(), []
    for unit in sorted(opened.units):
        for _, found in opened.originals(unit, Wish()):
            count.add(found)
            if isinstance(found, Failure):
                failures.append(found)
        progress(unit, count)
    return count, failures


def _write_originals(file: Any, rows: Sequence[tuple[str, bytes]]) -> None:
    names = [name for name, _ in rows]
    images = pa.StructArray.from_arrays(
        [
            pa.array([data for _, data in rows], pa.binary()),
            pa.array([f"{name}{_suffix(data)}" for name, data in rows]),
        ],
        fields=list(IMAGE_TYPE),
    )
    _write(file, pa.table([names, images], schema=ORIGINALS_SCHEMA))


def _failures(failures: Collection[Failure]) -> pa.Table:
    rows = [
        {"record_id": f.entry, "unit": f.unit, "code": f.code, "message": REASONS[f.code]}
        for f in failures
    ]
    return pa.Table.from_pylist(rows, FAILURES_SCHEMA)


def _write(file: Any, table: pa.Table) -> None:
    pq.write_table(table, file, compression="zstd", use_dictionary=False, row_group_size=256)


_MAGIC: Mapping[bytes, str] = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG": ".png",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}


def _suffix(data: bytes) -> str:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    return next((s for magic, s in _MAGIC.items() if data.startswith(magic)), ".bin")
