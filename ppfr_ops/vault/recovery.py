"""Originals back from the vault, or the proof that they can be had.

What was published says which record's original may be given back, and to whom it belongs. It is
believed about people only as far as it is what was committed (and signed, where it was), and an
original opens only where the output still holds the very picture and pseudonym that it was sealed
with; of a shard that is damaged in one place, those of all other places can be had.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ppfr_ops.contracts.ledger import Shard
from ppfr_ops.release.attestation import PublicKey
from ppfr_ops.release.listing import Unlisted
from ppfr_ops.release.signing import read_seal, sealed_entries, unlike_seal
from ppfr_ops.source.units import record_id
from ppfr_ops.store.ledger import LEDGER, Ledger, read_table
from ppfr_ops.vault.keys import KeyService
from ppfr_ops.vault.sealing import Place, Refused, Sealed, picture_digest, unit_key, unseal, unwrap
from ppfr_ops.vault.shards import Damaged, Entry, Keys
from ppfr_ops.vault.store import Vault, VaultError
from ppfr_ops.vault.wrapped import unwrapped

SETTING = "--vault"
"""Under this name an output's ledger has the release that its vault belongs to."""

REASONS = {
    "revoked": "its key was revoked; nobody can have it back",
    "not_in_vault": "the vault has no entry for it",
    "another_picture": "the published picture or pseudonym is not the one that was sealed with it",
    "not_authentic": "what the vault holds of it was changed, or is of another record or release",
    "vault_damaged": "a file of the vault is missing, cut off or damaged",
    "output_damaged": "the published shard is missing, damaged, or not what was committed",
    "not_signed": "the ledger says something else of its unit than what was signed",
}
"""Why an original is not given back, by code."""


@dataclass(frozen=True)
class RestoreRequest:
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


def entries_of(
    names: Sequence[str], images: Iterable[Any], people: Sequence[str | None] = ()
) -> dict[str, bytes]:
    """What the vault has to hold for published records: entry to digest of its pictures.

    Args:
        names: the entry of every record: the record itself, or where records are faces cut out of
            photographs the photograph, with the digest over all faces that were published of it.
        images: of the same records, Arrow scalars of ``{bytes, path}``.
        people: their pseudonyms; empty: the release has none.
    """
    pictures: dict[str, list[bytes]] = {}
    persons: dict[str, list[str | None]] = {}
    for place, (name, image) in enumerate(zip(names, images, strict=True)):
        pictures.setdefault(name, []).append(image["bytes"].as_py())
        persons.setdefault(name, []).append(people[place] if people else None)
    return {name: picture_digest(found, persons[name]) for name, found in pictures.items()}


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
    published = entries_of(names, records["image"], _people(records))
    left = set(published)
    for batch in table.select(["record_id", "image"]).to_batches(64):
        for name, original in zip(*batch.columns, strict=True):
            if (entry := name.as_py()) in left:
                left.discard(entry)
                yield entry, original.as_py(), published[entry]
    if left:
        raise ValueError("a published record has no original")


def _people(records: pa.Table) -> Sequence[str | None]:
    return records["identity"].to_pylist() if "identity" in records.column_names else ()


class Opened:
    """An output and its vault, together.

    Args:
        output: what was published.
        vault: where its originals are.
        service: the owner's key; None: only to find out what is where.
        public_key: whose signature the evidence must bear; None: as far as it is signed at all, it
            must be what was signed.

    Raises:
        VaultError: no output, no vault, not of one release, or not signed by this key.
        WrongKey: the vault is another key's.
    """

    def __init__(
        self,
        output: str,
        vault: Vault,
        service: KeyService | None,
        public_key: PublicKey | None = None,
    ) -> None:
        self.ledger, self.vault = Ledger(output), vault
        settings = self.ledger.read(*LEDGER, "run.json")
        if settings is None:
            raise VaultError("there is no output here")
        if SETTING not in settings:
            raise VaultError("the output was made without a vault")
        generation = vault.require()
        self.release = generation.release
        if settings[SETTING] != self.release:
            raise VaultError("output and vault are of different releases")
        self.key = b"" if service is None else generation.key(service)
        self.units = self.ledger.entries()
        self._asked = public_key is not None
        self.unsigned = frozenset(_unlike(self.ledger, public_key))
        """Units of which the ledger says something else than what was signed."""
        self.not_held: set[str] = set()
        """Entries that ``find`` found and the vault does not have, or not readable."""

    def published(self, unit: str, wish: RestoreRequest | None = None) -> pa.Table | None:
        """A unit's published records, with the ``entry`` of each; None if they cannot be read, or,
        where a wish goes by people, are not what was committed.

        The entry of a face that was cut out of a photograph is in the owner's ``detections``; any
        other record's is its own id inside.
        """
        shards = self.units[unit].shards
        strict = self._asked or (wish is not None and bool(wish.people))
        try:
            records = self._read(shards["data"], strict)
            sources: dict[str, str] = {}
            if "detections" in shards:
                found = self._read(shards["detections"], strict)
                names = (found[name].to_pylist() for name in ("record_id", "source_id"))
                sources = dict(zip(*names, strict=True))
            rows = range(self.units[unit].rows_in)
            inside = self.ledger.ids.rows(record_id(unit, row) for row in rows)
            outside = records["record_id"].to_pylist()
            entries = [inside.get(name) or sources.get(name) or name for name in outside]
            wanted = ("record_id", "image", "identity")
            kept = records.select([name for name in wanted if name in records.column_names])
            return kept.append_column("entry", pa.array(entries, pa.string()))
        except (OSError, KeyError, pa.ArrowException):
            return None

    def _read(self, shard: Shard, strict: bool) -> pa.Table:
        data = self.ledger.fs.cat_file(self.ledger.path(shard.path))
        if strict and hashlib.sha256(data).hexdigest() != shard.sha256:
            raise OSError("not what was committed")
        return read_table(data)

    def copy(self, unit: str) -> str:
        """Which copy of the work on a unit was published."""
        return self.units[unit].copy_id

    def wished(self, records: pa.Table, wish: RestoreRequest) -> set[str]:
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

    def find(self, wish: RestoreRequest) -> set[str]:
        """Entries that a wish is for, in the whole output; all: and in the vault.

        Raises:
            VaultError: what is published may not say which they are.
        """
        found: set[str] = set()
        strays = self.vault.copies() - {(unit, self.copy(unit)) for unit in self.units}
        if strays and wish.people:
            raise VaultError(
                f"the vault has originals of {len(strays)} units that the output does not have, or "
                "not any more, and nobody can say whose they are; nothing was done (ppfr sanitize, "
                "run once more, sweeps them)"
            )
        for unit, copy in strays if wish.all else ():
            with suppress(Damaged):
                found |= set(self.vault.keys(unit, copy).entries)
        for unit in sorted(self.units):
            records = self.published(unit, wish)
            if records is None:
                raise VaultError(
                    f"the records of unit {unit} are missing, or not what was committed; nothing "
                    "was done (see ppfr verify)"
                )
            chosen = self.wished(records, wish)
            try:
                sealed = self.vault.keys(unit, self.copy(unit)).entries
            except Damaged:
                sealed = {}
            if code := self._contradicts(unit, records, chosen, wish, sealed):
                raise VaultError(f"unit {unit}: {REASONS[code]}; nothing was done")
            found |= chosen | (set(sealed) if wish.all else set())
            self.not_held |= chosen - set(sealed)
        return found

    def _contradicts(
        self,
        unit: str,
        records: pa.Table,
        chosen: Collection[str],
        wish: RestoreRequest,
        sealed: Mapping[str, Entry],
    ) -> str | None:
        """Why what is published of a unit may not say what is to be erased; None: it may."""
        if unit in self.unsigned and (wish.people or (self._asked and chosen)):
            return "not_signed"
        there = set(records["entry"].to_pylist())
        if wish.people:
            # Who is hidden in a unit is not chosen from it: all of it has to be as it was sealed.
            if not there.issuperset(sealed):
                return "output_damaged"
            doubtful = there
        else:
            # A record's own id says which it is; of which photograph a face was, a table says.
            named, outside = wish.records, self.ledger.ids.record
            doubtful = {e for e in chosen if named and not {e, outside(e)} & named}
        for entry, digests in _digests(records).items() if doubtful else ():
            if entry in doubtful and entry in sealed and sealed[entry].picture not in digests:
                return "another_picture"
        return None

    def refuse_foreign(self) -> None:
        """Needs the key.

        Raises:
            VaultError: keys in the vault are not those that were wrapped for what they stand for:
                whose would be destroyed?
        """
        for unit, copy in sorted(self.vault.copies()):
            try:
                unwrapped(self.vault.keys(unit, copy), self.release, self.key)
            except Damaged:  # and so opens nothing
                continue
            except Refused:
                raise VaultError(
                    f"the keys of unit {unit} in the vault were changed by somebody; nothing was "
                    "done (ppfr vault verify says which open)"
                ) from None

    def originals(self, unit: str, wish: RestoreRequest) -> Iterator[tuple[str, bytes | Failure]]:
        """Name and original, or why there is none; of one unit. The name is the published record's
        id; of faces cut out of a photograph, the photograph's."""
        records = self.published(unit, wish)
        if records is None:
            yield unit, Failure(unit, unit, "output_damaged")
            return
        if unit in self.unsigned and (wish.people or self._asked):
            yield unit, Failure(unit, unit, "not_signed")
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
        left = {entry: found for entry, found in _digests(records).items() if entry in chosen}
        if not left:
            return
        try:
            keys = self.vault.keys(unit, self.copy(unit))
        except Damaged:
            for entry in left:
                yield entry, Failure(entry, unit, "vault_damaged")
            return
        under = unit_key(self.key, keys.salt, unit)
        for entry, digests in list(left.items()):
            code = _why_not(keys, entry, digests)
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


def _digests(records: pa.Table) -> dict[str, tuple[bytes, ...]]:
    """By entry, what the vault may have sealed it with: with its pseudonym, or, before there was
    such a thing, without. One does not pass for the other, for the vault holds one of them only."""
    names, images = records["entry"].to_pylist(), records["image"]
    without = entries_of(names, images)
    bound = entries_of(names, images, _people(records))
    return {name: (digest, without[name]) for name, digest in bound.items()}


def _why_not(keys: Keys, entry: str, digests: Collection[bytes]) -> str | None:
    known = keys.entries.get(entry)
    if known is None:
        return "not_in_vault"
    if known.key is None:
        return "revoked"
    return None if known.picture in digests else "another_picture"


def _unlike(ledger: Ledger, key: PublicKey | None) -> list[str]:
    """Units whose entries are not those that were sealed (``release.signing``). Units committed
    since the last seal are taken as they are, unless a key is asked for."""
    found = read_seal(ledger)
    if key is not None and (found is None or not found.is_by(key)):
        raise VaultError("the evidence of the output is not signed by this key")
    if found is None:
        return []
    try:
        unlike = unlike_seal(ledger, found)
    except Unlisted as fault:
        raise VaultError(f"the list of what was signed {fault}; see ppfr verify") from None
    if key is not None:
        unlike += sorted(set(ledger.entries()) - sealed_entries(ledger, found).keys())
    return unlike
