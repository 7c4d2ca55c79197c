"""The vault's files, and what may be done to them.

    VAULT/vault.json                             release, and the first generation of the keys
    VAULT/generations/NUMBER.json                a later one; the highest counts (``generations``)
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
old in one step); rotating writes all keys anew into a folder of their own, reads them back, and
creates the document that names that folder. Neither touches what is sealed, and killed at any
moment either leaves the old state or the new one, or (``pending.json``, keys of an older
generation) something that anyone who opens the vault next brings to an end.

Anyone who changes a vault holds its lease, and looks before every change whether it still does. A
process that was stopped for so long that another took over changes nothing when it wakes; and the
one change that it might be in the midst of does no harm: a generation is named by a document that
only one can create, and old keys are destroyed only where the new ones were read back.
"""

import contextlib
import os
import secrets
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from ppfr_ops.store.files import Files
from ppfr_ops.store.lease import newest
from ppfr_ops.vault.generations import FORMAT, Generation, Generations, VaultError
from ppfr_ops.vault.keys import KeyService, WrongKey
from ppfr_ops.vault.sealing import Place, Sealed, seal, unit_key, wrap
from ppfr_ops.vault.shards import Damaged, Entry, Keys, read_sealed, write_sealed
from ppfr_ops.vault.wrapped import SUFFIX, WrappedKeys, parts_of

_DOCUMENT = "vault.json"
_PENDING = "pending.json"


@dataclass(frozen=True)
class Access:
    """What it takes to seal: goes to every worker, and holds the vault's key, never the master."""

    url: str = field(repr=False)
    generation: Generation = field(repr=False)
    key: bytes = field(repr=False)
    fence: int | None = None
    """Of the lease on the vault; nothing is sealed once there is a higher one. None: none is
    held."""

    @property
    def release(self) -> str:
        """Whose originals are sealed."""
        return self.generation.release


class Vault:
    """A vault, locked: without a key one can sweep and revoke; ``Access`` or a key service seals,
    opens and rotates.

    Args:
        url: any fsspec URL or local path of a folder.
        fence: of the lease that is held on it; nothing is changed once there is a higher one.
            None: do not look.
    """

    def __init__(self, url: str, fence: int | None = None) -> None:
        self.url = url
        self.files = Files(url)
        self.fence = fence
        self.generations = Generations(self.files)
        self._wrapped = WrappedKeys(self.files, self._still_mine)

    def _still_mine(self) -> None:
        """Before every change."""
        if self.fence is not None and newest(self.files) != self.fence:
            raise VaultError(
                "another command has taken over this vault, and this one changes nothing more; "
                "run it again when that one is done"
            )

    # -- which vault this is ------------------------------------------------------------------

    def describe(self) -> Generation | None:
        """The latest generation; None if there is no vault yet.

        Raises:
            VaultError: there is something else.
        """
        self._refuse_links()
        raw = self.files.read(_DOCUMENT)
        if raw is None:
            if self.files.fs.exists(self.files.path(_DOCUMENT)):
                raise VaultError("vault.json is damaged")
            return None
        first = Generation.parse(raw)
        latest = self.generations.latest() or first
        if latest.release != first.release:
            raise VaultError("the vault's generations are of different releases")
        return latest

    def _refuse_links(self) -> None:
        """What is destroyed here must lie here."""
        if not self.files.local:
            return
        there = os.listdir(self.files.path()) if self.files.exists() else []
        places: list[tuple[str, ...]] = [(name,) for name in sorted(there)]
        places += [("keys", name) for name in self.files.names("keys")]
        places += [("generations", name) for name in self.files.names("generations")]
        for place in places:
            if os.path.islink(self.files.path(*place)):
                raise VaultError(f"{'/'.join(place)!a} in the vault is a symbolic link")

    def require(self) -> Generation:
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
            return Access(self.url, found, found.key(service), self.fence)
        if self.files.names():
            raise VaultError("the vault's folder is not empty, and no vault")
        generation, key = Generation.new(service, secrets.token_hex(16), 0)
        return Access(self.url, generation, key, self.fence)

    def establish(self, access: Access) -> None:
        """Make the vault, unless it is there.

        Raises:
            VaultError: another was made meanwhile.
        """
        if self.describe() is None:
            self.files.create(access.generation.document(), _DOCUMENT)
        if self.require().release != access.release:
            raise VaultError("another run has made a vault here")

    def current(self, access: Access) -> Access:
        """What seals from now on, under the lease that is held.

        Raises:
            VaultError: the vault's key was changed since.
        """
        generation, known = self.require(), access.generation
        if (generation.release, generation.name) != (known.release, known.name):
            raise VaultError("the keys of the vault were rotated meanwhile; run again")
        return replace(access, generation=generation, fence=self.fence)

    # -- units --------------------------------------------------------------------------------

    def copies(self) -> set[tuple[str, str]]:
        """Unit and copy of what is committed."""
        return {parts_of(name) for name in self.files.names("keys", self.require().name)}

    def commit(
        self, access: Access, unit: str, copy: str, originals: Iterable[tuple[str, bytes, bytes]]
    ) -> None:
        """Seal a unit's originals; they count once its keys are written, which is done last.

        Args:
            copy: which copy of the work on the unit.
            originals: entry, original, digest of what is published of it (``Place``).

        Raises:
            VaultError: somebody else holds the vault now, or its keys were rotated: nothing may be
                published of the unit.
        """
        self._check(access)
        salt = os.urandom(32)
        under = unit_key(access.key, salt, unit)
        entries: dict[str, Entry] = {}

        def rows() -> Iterator[tuple[str, Sealed]]:
            for entry, original, picture in originals:
                place = Place(access.release, entry, picture)
                sealed, key = seal(original, place)
                entries[entry] = Entry(picture, wrap(key, under, place))
                yield entry, sealed

        with self.files.writing("sealed", f"{unit}.{copy}{SUFFIX}") as file:
            write_sealed(file, rows())
        self._wrapped.put(access.generation.name, Keys(unit, copy, salt, entries))
        # Anyone who rotates from now on finds these keys; anyone who did before is found out here.
        self._check(access)

    def _check(self, access: Access) -> None:
        self._still_mine()
        if self.generations.number() != access.generation.number:
            raise VaultError("the keys of the vault were rotated meanwhile; run again")

    def discard(self, unit: str, copy: str) -> None:
        """Remove a copy; its keys first."""
        for generation in self._wrapped.folders():
            self._wrapped.shred(generation, f"{unit}.{copy}{SUFFIX}")
        self._still_mine()
        self.files.remove("sealed", f"{unit}.{copy}{SUFFIX}")

    def sweep(self, published: Container[tuple[str, str]]) -> int:
        """Remove what was sealed and is not published, or no longer; returns how many copies.

        Args:
            published: unit and copy of every entry in the output's ledger.
        """
        self.recover()
        names = self.files.names("sealed") + self.files.names("keys", self.require().name)
        gone = {parts for parts in map(parts_of, names) if parts not in published}
        for unit, copy in sorted(gone):
            self.discard(unit, copy)
        return len(gone)

    def keys(self, unit: str, copy: str) -> Keys:
        """A unit's wrapped keys.

        Raises:
            Damaged: they are missing or not readable.
        """
        return self._wrapped.read(self.require().name, unit, copy)

    def sealed(self, unit: str, copy: str, wanted: set[str]) -> Iterator[tuple[str, Sealed]]:
        """A unit's sealed originals, those of the entries that are wanted.

        Raises:
            Damaged: the file is missing or not readable.
        """
        try:
            file = self.files.fs.open(self.files.path("sealed", f"{unit}.{copy}{SUFFIX}"), "rb")
        except OSError:
            raise Damaged from None
        with file:
            yield from read_sealed(file, wanted)

    # -- keys ---------------------------------------------------------------------------------

    def recover(self) -> None:
        """Bring to an end what a death interrupted. Needs no key.

        A folder of keys that no generation names is what a rotation did not finish; before it goes,
        the next number is taken, so that anyone who began it cannot finish it any more. Keys of an
        older generation go where the latest has them too; whatever holds a key must not outlive a
        revocation.
        """
        self._still_mine()
        generation = self.require()
        self.files.remove_half_written()
        known = {each.name for each in self._all()}
        if unfinished := [name for name in self._wrapped.folders() if name not in known]:
            generation = replace(generation, number=generation.number + 1)
            self._begin(generation)
            for folder in unfinished:
                self._wrapped.clear(folder)
        for folder in known - {generation.name}:
            self._wrapped.clear(folder, needed_in=generation.name)
        pending = self.files.read(_PENDING)
        if pending is not None or self.files.exists(_PENDING):
            self._revoke(_pending(pending))

    def _all(self) -> list[Generation]:
        """Every generation that there was."""
        raw = self.files.read(_DOCUMENT)
        first = [] if raw is None else [Generation.parse(raw)]
        return first + self.generations.all()

    def _begin(self, generation: Generation) -> None:
        """Make this the latest; refused where its number is taken."""
        self._still_mine()
        if not self.generations.create(generation):
            raise VaultError("another command has rotated the keys of this vault; nothing was lost")

    def revoke(self, entries: Collection[str]) -> int:
        """Destroy the keys of some records, for good; returns how many there were.

        What is to be revoked is written down first: from then on it is gone, for anyone who opens
        the vault next finishes the work before doing anything else.
        """
        self.recover()
        self._still_mine()
        self.files.write({"revoke": True, "entries": sorted(entries)}, _PENDING)
        return self._revoke(set(entries))

    def rotate(self, old: KeyService, new: KeyService) -> int:
        """Wrap every key anew, under a new master; returns how many. What is sealed stays as it is.

        Raises:
            WrongKey: the old key is not this vault's (the new one is, where it was rotated before).
            Refused, Damaged: a key does not unwrap; nothing was changed.
        """
        self.recover()
        generation = self.require()
        before = generation.key(old)
        first = self.files.read(_DOCUMENT) or {}
        if first.get("format") != FORMAT:  # a tool that knows vault.json alone must refuse it now
            self._still_mine()
            self.files.write({**first, "format": FORMAT}, _DOCUMENT)
        after, key = Generation.new(new, generation.release, generation.number + 1)
        count = 0
        for unit, copy in sorted(self.copies()):
            count += self._wrapped.rewrap(unit, copy, (generation, before), (after, key))
        self._begin(after)
        self._complete(old, after, key)
        self.recover()
        return count

    def complete_rotation(self, old: KeyService, new: KeyService) -> int:
        """Wrap what a rotation that died on its last steps left under the old master; returns how
        many keys."""
        self.recover()
        generation = self.require()
        count = self._complete(old, generation, generation.key(new))
        self.recover()
        return count

    def _complete(self, old: KeyService, after: Generation, key: bytes) -> int:
        """Keys that a worker wrote into an older generation while it was rotated."""
        count = 0
        for older in self._all():
            if older.name == after.name or not self.files.names("keys", older.name):
                continue
            with contextlib.suppress(WrongKey):
                before = older.key(old)
                names = set(self.files.names("keys", older.name))
                for name in sorted(names - set(self.files.names("keys", after.name))):
                    count += self._wrapped.rewrap(*parts_of(name), (older, before), (after, key))
        return count

    def _revoke(self, entries: set[str]) -> int:
        """In every generation; of what the latest has, returns how many there were."""
        latest, unreadable, count = self.require().name, False, 0
        for generation in self._wrapped.folders():
            for unit, copy in sorted(map(parts_of, self.files.names("keys", generation))):
                try:
                    keys = self._wrapped.read(generation, unit, copy)
                except Damaged:  # and so opens nothing; should it come back, it is seen to then
                    unreadable = True
                    continue
                there = {e for e, each in keys.entries.items() if each.key} & entries
                if there:
                    left = {
                        name: Entry(each.picture, None) if name in there else each
                        for name, each in keys.entries.items()
                    }
                    self._wrapped.put(generation, Keys(unit, copy, keys.salt, left))
                    count += len(there) if generation == latest else 0
        if not unreadable:
            self._still_mine()
            self.files.remove(_PENDING)
        return count


def _pending(document: Mapping[str, object] | None) -> set[str]:
    entries = None if document is None else document.get("entries")
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise VaultError(
            f"{_PENDING} in the vault is damaged: revoke once more whatever was being revoked, "
            "after removing the file"
        )
    return set(entries)
