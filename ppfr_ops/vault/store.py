"""The vault's files, and what may be done to them.

    VAULT/vault.json                             release, and which key opens it (``Generation``)
    VAULT/sealed/UNIT.COPY.parquet               originals, encrypted; written once
    VAULT/keys/GENERATION/UNIT.COPY.parquet      their keys, wrapped; their presence is the commit
    VAULT/pending.json                           a revocation that must be brought to an end
    VAULT/audit/NUMBER.json                      who did what (``audit``)
    VAULT/evidence/ledger/lease/                 one at a time

UNIT and COPY are those of the output's ledger: a unit may be sealed by several copies of the work
on it, and the one counts that the ledger names. A unit is published after its originals are
committed here, so every published record has an entry; what was sealed and never published is
swept up.

Revoking rewrites a unit's keys without those of the records (the new file takes the place of the
old in one step); rotating writes all keys anew into a folder of their own, and one step later
``vault.json`` names that folder. Neither touches what is sealed, and killed at any moment either
leaves the old state or the new one, or (``pending.json``) something that whoever opens the vault
next brings to an end.
"""

import contextlib
import os
import re
import secrets
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ppfr_ops.errors import UserError
from ppfr_ops.store.files import Files
from ppfr_ops.vault.keys import KeyService, WrongKey
from ppfr_ops.vault.sealing import Place, Sealed, key_check, seal, unit_key, unwrap, wrap
from ppfr_ops.vault.shards import FORMAT, Damaged, Entry, Keys, read_sealed, write_sealed
from ppfr_ops.vault.shredding import overwrite, to_overwrite

_DOCUMENT = "vault.json"
_PENDING = "pending.json"
_SUFFIX = ".parquet"
_PURPOSE = b"ppfr vault 1 wrap"
_NAME = re.compile(r"[0-9a-f]{8}")
"""Of a generation, which is a folder's too."""


class VaultError(UserError):
    """The vault cannot be used like this; one line for the user."""


@dataclass(frozen=True)
class Generation:
    """Under which key the data keys are wrapped; a rotation makes a new one."""

    name: str
    salt: str
    """32 bytes, hex."""
    check: str
    """``sealing.key_check``."""

    @classmethod
    def new(cls, service: KeyService) -> "tuple[Generation, bytes]":
        """A generation, and the key that is the vault's while it lasts."""
        salt = os.urandom(32)
        key = service.derive(salt, _PURPOSE)
        return cls(secrets.token_hex(4), salt.hex(), key_check(key)), key

    def key(self, service: KeyService) -> bytes:
        """The key.

        Raises:
            WrongKey: the service has another master.
        """
        key = service.derive(bytes.fromhex(self.salt), _PURPOSE)
        if not secrets.compare_digest(key_check(key), self.check):
            raise WrongKey("the key is not the one of this vault")
        return key


@dataclass(frozen=True)
class Access:
    """What it takes to seal: goes to every worker, and holds the vault's key, never the master."""

    url: str = field(repr=False)
    release: str
    generation: Generation = field(repr=False)
    key: bytes = field(repr=False)


class Vault:
    """A vault, locked: without a key one can sweep and revoke; ``Access`` or a key service seals,
    opens and rotates.

    Args:
        url: any fsspec URL or local path of a folder.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.files = Files(url)

    # -- which vault this is ------------------------------------------------------------------

    def describe(self) -> tuple[str, Generation] | None:
        """Release and generation; None if there is no vault yet.

        Raises:
            VaultError: there is something else.
        """
        self._refuse_links()
        raw = self.files.read(_DOCUMENT)
        if raw is None:
            if self.files.fs.exists(self.files.path(_DOCUMENT)):
                raise VaultError("vault.json is damaged")
            return None
        try:
            if raw["format"] != FORMAT:
                raise VaultError(f"the vault has format {raw['format']}, needed: {FORMAT}")
            generation = Generation(**raw["generation"])
            if not _NAME.fullmatch(generation.name) or len(bytes.fromhex(generation.salt)) != 32:
                raise VaultError("vault.json is damaged")
            return str(raw["release"]), generation
        except VaultError:
            raise
        except (KeyError, TypeError, ValueError):
            raise VaultError("vault.json is damaged") from None

    def _refuse_links(self) -> None:
        """What is destroyed here must lie here."""
        if not self.files.local:
            return
        places: list[tuple[str, ...]] = [(os.path.basename(path),) for path in self.files.paths()]
        places += [("keys", name) for name in self.files.names("keys")]
        for place in places:
            if os.path.islink(self.files.path(*place)):
                raise VaultError(f"{'/'.join(place)!a} in the vault is a symbolic link")

    def require(self) -> tuple[str, Generation]:
        """As ``describe``.

        Raises:
            VaultError: there is no vault.
        """
        found = self.describe()
        if found is None:
            raise VaultError("there is no vault here")
        return found

    def access(self, service: KeyService) -> Access:
        """For the vault that is there, or for one that ``establish`` will make.

        Raises:
            WrongKey: the vault is another key's.
            VaultError: the folder holds something else.
        """
        found = self.describe()
        if found is not None:
            release, generation = found
            return Access(self.url, release, generation, generation.key(service))
        if self.files.names():
            raise VaultError("the vault's folder is not empty, and no vault")
        generation, key = Generation.new(service)
        return Access(self.url, secrets.token_hex(16), generation, key)

    def establish(self, access: Access) -> None:
        """Make the vault, unless it is there.

        Raises:
            VaultError: another was made meanwhile.
        """
        if self.describe() is None:
            self.files.create(_document(access.release, access.generation), _DOCUMENT)
        if self.require()[0] != access.release:
            raise VaultError("another run has made a vault here")

    # -- units --------------------------------------------------------------------------------

    def copies(self) -> set[tuple[str, str]]:
        """Unit and copy of what is committed."""
        _, generation = self.require()
        return {_parts(name) for name in self.files.names("keys", generation.name)}

    def commit(
        self,
        access: Access,
        unit: str,
        copy: str,
        originals: Iterable[tuple[str, bytes, bytes]],
    ) -> None:
        """Seal a unit's originals; they count once its keys are written, which is done last.

        Args:
            copy: which copy of the work on the unit.
            originals: entry, original, digest of what is published of it (``Place``).
        """
        salt = os.urandom(32)
        under = unit_key(access.key, salt, unit)
        entries: dict[str, Entry] = {}

        def rows() -> Iterator[tuple[str, Sealed]]:
            for entry, original, picture in originals:
                place = Place(access.release, entry, picture)
                sealed, key = seal(original, place)
                entries[entry] = Entry(picture, wrap(key, under, place))
                yield entry, sealed

        with self.files.writing("sealed", f"{unit}.{copy}{_SUFFIX}") as file:
            write_sealed(file, rows())
        self._put_keys(access.generation.name, Keys(unit, copy, salt, entries))

    def discard(self, unit: str, copy: str) -> None:
        """Remove a copy; its keys first."""
        for generation in self._generations():
            self._shred("keys", generation, f"{unit}.{copy}{_SUFFIX}")
        self.files.remove("sealed", f"{unit}.{copy}{_SUFFIX}")

    def sweep(self, published: Container[tuple[str, str]]) -> int:
        """Remove what was sealed and is not published, or no longer; returns how many copies.

        Args:
            published: unit and copy of every entry in the output's ledger.
        """
        self.recover()
        _, generation = self.require()
        names = self.files.names("sealed") + self.files.names("keys", generation.name)
        gone = {parts for parts in map(_parts, names) if parts not in published}
        for unit, copy in sorted(gone):
            self.discard(unit, copy)
        return len(gone)

    def keys(self, unit: str, copy: str) -> Keys:
        """A unit's wrapped keys.

        Raises:
            Damaged: they are missing or not readable.
        """
        _, generation = self.require()
        return self._keys(generation.name, unit, copy)

    def sealed(self, unit: str, copy: str, wanted: set[str]) -> Iterator[tuple[str, Sealed]]:
        """A unit's sealed originals, those of the entries that are wanted.

        Raises:
            Damaged: the file is missing or not readable.
        """
        try:
            file = self.files.fs.open(self.files.path("sealed", f"{unit}.{copy}{_SUFFIX}"), "rb")
        except OSError:
            raise Damaged from None
        with file:
            yield from read_sealed(file, wanted)

    # -- keys ---------------------------------------------------------------------------------

    def recover(self) -> None:
        """Bring to an end what a death interrupted. Needs no key.

        A generation that ``vault.json`` does not name is one that a rotation left behind, or did
        not finish; whatever it holds must not outlive a revocation.
        """
        _, generation = self.require()
        self.files.remove_half_written()
        for folder in self._generations():
            if folder != generation.name:
                for name in self.files.names("keys", folder):
                    self._shred("keys", folder, name)
                if self.files.local:
                    with contextlib.suppress(OSError):  # something else lies in it
                        os.rmdir(self.files.path("keys", folder))
        pending = self.files.read(_PENDING)
        if pending is not None or self.files.exists(_PENDING):
            self._revoke(generation.name, _pending(pending))

    def _generations(self) -> list[str]:
        return [name for name in self.files.names("keys") if _NAME.fullmatch(name)]

    def revoke(self, entries: Collection[str]) -> int:
        """Destroy the keys of some records, for good; returns how many there were.

        What is to be revoked is written down first: from then on it is gone, for whoever opens the
        vault next finishes the work before doing anything else.
        """
        self.recover()
        _, generation = self.require()
        self.files.write({"revoke": True, "entries": sorted(entries)}, _PENDING)
        return self._revoke(generation.name, set(entries))

    def rotate(self, old: KeyService, new: KeyService) -> int:
        """Wrap every key anew, under a new master; returns how many. What is sealed stays as it is.

        Raises:
            WrongKey: the old key is not this vault's (the new one is, where it was rotated before).
            Refused, Damaged: a key does not unwrap; nothing was changed.
        """
        self.recover()
        release, generation = self.require()
        before = generation.key(old)
        after, key = Generation.new(new)
        count = 0
        for unit, copy in sorted(self.copies()):
            keys = self._keys(generation.name, unit, copy)
            salt = os.urandom(32)
            renewed = _rewrapped(keys, release, before, key, salt)
            count += sum(each.key is not None for each in renewed.values())
            self._put_keys(after.name, Keys(unit, copy, salt, renewed))
        self.files.write(_document(release, after), _DOCUMENT)
        self.recover()
        return count

    def _revoke(self, generation: str, entries: set[str]) -> int:
        count, unreadable = 0, False
        for unit, copy in sorted(self.copies()):
            try:
                keys = self._keys(generation, unit, copy)
            except Damaged:
                unreadable = True  # and so opens nothing; should it come back, it is seen to then
                continue
            there = {e for e in entries if e in keys.entries and keys.entries[e].key is not None}
            if there:
                left = {
                    name: Entry(each.picture, None) if name in there else each
                    for name, each in keys.entries.items()
                }
                self._put_keys(generation, Keys(unit, copy, keys.salt, left))
                count += len(there)
        if not unreadable:
            self.files.remove(_PENDING)
        return count

    def _keys(self, generation: str, unit: str, copy: str) -> Keys:
        path = self.files.path("keys", generation, f"{unit}.{copy}{_SUFFIX}")
        try:
            keys = Keys.from_bytes(self.files.fs.cat_file(path))
        except OSError:
            raise Damaged from None
        if (keys.unit, keys.copy) != (unit, copy):
            raise Damaged
        return keys

    def _put_keys(self, generation: str, keys: Keys) -> None:
        place = ("keys", generation, f"{keys.unit}.{keys.copy}{_SUFFIX}")
        path = self.files.path(*place)
        old = to_overwrite(path) if self.files.local else None
        self.files.put(keys.to_bytes(), *place)
        if old is not None:
            overwrite(old)

    def _shred(self, *parts: str) -> None:
        path = self.files.path(*parts)
        old = to_overwrite(path) if self.files.local else None
        with contextlib.suppress(IsADirectoryError):  # nothing of ours
            self.files.remove(*parts)
        if old is not None:
            overwrite(old)


def _rewrapped(
    keys: Keys, release: str, before: bytes, after: bytes, salt: bytes
) -> dict[str, Entry]:
    old, new = unit_key(before, keys.salt, keys.unit), unit_key(after, salt, keys.unit)
    renewed = {}
    for name, entry in keys.entries.items():
        if entry.key is not None:
            place = Place(release, name, entry.picture)
            entry = Entry(entry.picture, wrap(unwrap(entry.key, old, place), new, place))
        renewed[name] = entry
    return renewed


def _document(release: str, generation: Generation) -> dict[str, object]:
    return {"format": FORMAT, "release": release, "generation": vars(generation)}


def _pending(document: Mapping[str, object] | None) -> set[str]:
    entries = None if document is None else document.get("entries")
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise VaultError(
            f"{_PENDING} in the vault is damaged: revoke once more whatever was being revoked, "
            "after removing the file"
        )
    return set(entries)


def _parts(name: str) -> tuple[str, str]:
    unit, _, copy = name.removesuffix(_SUFFIX).rpartition(".")
    return unit, copy
