"""Originals back from the vault, or the proof that they can be had.

What was published says which record's original may be given back: an original opens only where the
output still holds the very picture that it was sealed with.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ppfr_ops.contracts.records import IMAGE_TYPE
from ppfr_ops.contracts.vault import FAILURES_SCHEMA, ORIGINALS_SCHEMA
from ppfr_ops.store.files import Files
from ppfr_ops.store.ledger import LEDGER, Ledger, read_table
from ppfr_ops.vault.keys import KeyService
from ppfr_ops.vault.sealing import Place, Refused, Sealed, picture_digest, unit_key, unseal, unwrap
from ppfr_ops.vault.shards import Damaged, Keys
from ppfr_ops.vault.store import Vault, VaultError

SETTING = "--vault"
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


def entries_of(names: Sequence[str], images: Iterable[Any]) -> dict[str, bytes]:
    """What the vault has to hold for published records: entry to digest of its pictures.

    Args:
        names: the entry of every record: the record itself, or where records are faces cut out of
            photographs the photograph, with the digest over all faces that were published of it.
        images: of the same records, Arrow scalars of ``{bytes, path}``.
    """
    pictures: dict[str, list[bytes]] = {}
    for name, image in zip(names, images, strict=True):
        pictures.setdefault(name, []).append(image["bytes"].as_py())
    return {name: picture_digest(found) for name, found in pictures.items()}


def originals_of(records: pa.Table, table: pa.Table) -> Iterator[tuple[str, bytes, bytes]]:
    """What is to be sealed of a unit: entry, original, digest of its pictures.

    Args:
        records: what is to be published of the unit, under the ids of the inside.
        table: the unit as it was read: ``record_id``, ``image``.

    Raises:
        ValueError: the unit lacks the original of something that is published.
    """
    by_source = "source_id" in records.column_names
    names = records["source_id" if by_source else "record_id"].to_pylist()
    published = entries_of(names, records["image"])
    left = set(published)
    for batch in table.select(["record_id", "image"]).to_batches(64):
        for name, original in zip(*batch.columns, strict=True):
            if (entry := name.as_py()) in left:
                left.discard(entry)
                yield entry, original.as_py(), published[entry]
    if left:
        raise ValueError("a published record has no original")


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
        settings = self.ledger.read(*LEDGER, "run.json")
        if settings is None:
            raise VaultError("there is no output here")
        if SETTING not in settings:
            raise VaultError("the output was made without a vault")
        self.release, generation = vault.require()
        if settings[SETTING] != self.release:
            raise VaultError("output and vault are of different releases")
        self.key = b"" if service is None else generation.key(service)
        self.units = self.ledger.entries()

    def published(self, unit: str) -> pa.Table | None:
        """A unit's published records, with the ``entry`` of each; None if they cannot be read.

        The entry of a face that was cut out of a photograph is in the owner's ``detections``; any
        other record's is its own id inside.
        """
        shards = self.units[unit].shards
        try:
            records = self._read(shards["data"].path)
            sources: dict[str, str] = {}
            if "detections" in shards:
                found = self._read(shards["detections"].path)
                names = (found[name].to_pylist() for name in ("record_id", "source_id"))
                sources = dict(zip(*names, strict=True))
            try:
                inside = self.ledger.ids.rows(self.vault.keys(unit, self.copy(unit)).entries)
            except Damaged:
                inside = {}
            outside = records["record_id"].to_pylist()
            entries = [inside.get(name) or sources.get(name) or name for name in outside]
            wanted = ("record_id", "image", "identity")
            kept = records.select([name for name in wanted if name in records.column_names])
            return kept.append_column("entry", pa.array(entries, pa.string()))
        except (OSError, KeyError, pa.ArrowException):
            return None

    def _read(self, path: str) -> pa.Table:
        return read_table(self.ledger.fs.cat_file(self.ledger.path(path)))

    def copy(self, unit: str) -> str:
        """Which copy of the work on a unit was published."""
        return self.units[unit].copy_id

    def wished(self, records: pa.Table, wish: Wish) -> set[str]:
        """The entries that a wish is for, of a table as ``published`` gives it."""
        entries = records["entry"].to_pylist()
        if wish.all:
            return set(entries)
        names = records["record_id"].to_pylist()
        found = {e for e, name in zip(entries, names, strict=True) if {e, name} & wish.records}
        if wish.people and "identity" in records.column_names:
            people = records["identity"].to_pylist()
            found |= {e for e, who in zip(entries, people, strict=True) if who in wish.people}
        return found

    def find(self, wish: Wish) -> set[str]:
        """Entries that a wish is for, in the whole output."""
        found: set[str] = set()
        for unit in sorted(self.units):
            records = self.published(unit)
            if records is None:
                raise VaultError(f"the records of unit {unit} cannot be read; see ppfr verify")
            found |= self.wished(records, wish)
        return found

    def originals(self, unit: str, wish: Wish) -> Iterator[tuple[str, bytes | Failure]]:
        """Name and original, or why there is none; of one unit. The name is the published record's
        id; of faces cut out of a photograph, the photograph's."""
        records = self.published(unit)
        if records is None:
            yield unit, Failure(unit, unit, "output_damaged")
            return
        chosen = self.wished(records, wish)
        entries = records["entry"].to_pylist()
        outside = {e: n for e, n in zip(entries, records["record_id"].to_pylist(), strict=True)}
        alone = {e for e, count in Counter(entries).items() if count == 1}
        alone -= {e for e in alone if self.ledger.ids.record(e) != outside[e]}
        names = {e: outside[e] if e in alone else e for e in outside}
        for entry, found in self._originals(unit, records, chosen):
            if isinstance(found, Failure):
                yield names[entry], Failure(names[entry], unit, found.code)
            else:
                yield names[entry], found

    def _originals(
        self, unit: str, records: pa.Table, chosen: Collection[str]
    ) -> Iterator[tuple[str, bytes | Failure]]:
        digests = entries_of(records["entry"].to_pylist(), records["image"])
        left = {entry: digest for entry, digest in digests.items() if entry in chosen}
        if not left:
            return
        try:
            keys = self.vault.keys(unit, self.copy(unit))
        except Damaged:
            for entry in left:
                yield entry, Failure(entry, unit, "vault_damaged")
            return
        under = unit_key(self.key, keys.salt, unit)
        for entry, digest in list(left.items()):
            code = _why_not(keys, entry, digest)
            if code is not None:
                yield entry, Failure(entry, unit, code)
                del left[entry]
        try:
            for entry, sealed in self.vault.sealed(unit, self.copy(unit), set(left)):
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
                files.put(found, f"{entry}{_suffix(found)}")
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
