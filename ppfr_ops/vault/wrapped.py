"""The wrapped keys of a vault: a folder a generation, a file for every unit that was sealed."""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator

from ppfr_ops.store.files import Files
from ppfr_ops.vault.generations import NAME, Generation
from ppfr_ops.vault.sealing import Place, Refused, unit_key, unwrap, wrap
from ppfr_ops.vault.shards import Damaged, Entry, Keys

SUFFIX = ".parquet"
_FOLDER = "keys"

Key = tuple[Generation, bytes]
"""A generation with its key."""


class WrappedKeys:
    """The folder ``keys/`` of a vault.

    Args:
        still_mine: called before every change; raises if somebody else holds the vault now.
    """

    def __init__(self, files: Files, still_mine: Callable[[], None]) -> None:
        self._files = files
        self._still_mine = still_mine

    def folders(self) -> list[str]:
        """Of generations."""
        return [name for name in self._files.names(_FOLDER) if NAME.fullmatch(name)]

    def read(self, generation: str, unit: str, copy: str) -> Keys:
        """A unit's keys.

        Raises:
            Damaged: they are missing, or not readable.
        """
        path = self._files.path(_FOLDER, generation, f"{unit}.{copy}{SUFFIX}")
        try:
            keys = Keys.from_bytes(self._files.fs.cat_file(path))
        except OSError:
            raise Damaged from None
        if (keys.unit, keys.copy) != (unit, copy):
            raise Damaged
        return keys

    def put(self, generation: str, keys: Keys) -> None:
        """Write a unit's keys; what they were before is overwritten."""
        place = (_FOLDER, generation, f"{keys.unit}.{keys.copy}{SUFFIX}")
        data = keys.to_bytes()
        with self._overwriting(*place):
            self._files.put(data, *place)

    def shred(self, generation: str, name: str) -> None:
        """Destroy a file."""
        with (
            self._overwriting(_FOLDER, generation, name),
            contextlib.suppress(IsADirectoryError),  # nothing of ours
        ):
            self._files.remove(_FOLDER, generation, name)

    @contextlib.contextmanager
    def _overwriting(self, *place: str) -> Iterator[None]:
        """The block takes a file from its place; then what it held is destroyed."""
        self._still_mine()
        old = _to_overwrite(self._files.path(*place)) if self._files.local else None
        yield
        if old is not None:
            _overwrite(old)

    def clear(self, generation: str, needed_in: str | None = None) -> None:
        """Destroy all keys of a generation.

        Args:
            needed_in: a later one; what it has not is kept.
        """
        for name in self._files.names(_FOLDER, generation):
            if needed_in is None or self._has(needed_in, generation, name):
                self.shred(generation, name)
        if self._files.local:
            with contextlib.suppress(OSError):  # something lies in it
                os.rmdir(self._files.path(_FOLDER, generation))

    def _has(self, later: str, older: str, name: str) -> bool:
        """Whether a generation has all keys that a file of an older one has, as read back."""
        try:
            new = self.read(later, *parts_of(name))
        except Damaged:
            return False
        try:
            old = self.read(older, *parts_of(name))
        except Damaged:
            return True
        needed = {entry: each.picture for entry, each in old.entries.items() if each.key}
        return needed.items() <= {entry: e.picture for entry, e in new.entries.items()}.items()

    def rewrap(self, unit: str, copy: str, before: Key, after: Key) -> int:
        """Wrap a unit's keys anew, and read them back; returns how many.

        Raises:
            Refused, Damaged: one does not unwrap, before or after.
        """
        keys = self.read(before[0].name, unit, copy)
        release, salt = before[0].release, os.urandom(32)
        known = unwrapped(keys, release, before[1])
        under = unit_key(after[1], salt, unit)
        renewed = {}
        for name, key in known.items():
            picture = keys.entries[name].picture
            wrapped = None if key is None else wrap(key, under, Place(release, name, picture))
            renewed[name] = Entry(picture, wrapped)
        self.put(after[0].name, Keys(unit, copy, salt, renewed))
        if unwrapped(self.read(after[0].name, unit, copy), release, after[1]) != known:
            raise Refused
        return sum(key is not None for key in known.values())


def parts_of(name: str) -> tuple[str, str]:
    """Unit and copy of a file's name."""
    unit, _, copy = name.removesuffix(SUFFIX).rpartition(".")
    return unit, copy


def unwrapped(keys: Keys, release: str, key: bytes) -> dict[str, bytes | None]:
    """The data keys of a unit; None: revoked.

    Raises:
        Refused: one does not unwrap.
    """
    under = unit_key(key, keys.salt, keys.unit)
    found: dict[str, bytes | None] = {}
    for name, each in keys.entries.items():
        place = Place(release, name, each.picture)
        found[name] = None if each.key is None else unwrap(each.key, under, place)
    return found


def _to_overwrite(path: str) -> int | None:
    """A file that is about to go, open for writing; None if there is none, or it is not the vault's
    alone: a link, or a file of several names, is somebody else's too."""
    try:
        old = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    found = os.fstat(old)
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
        return old
    os.close(old)
    return None


def _overwrite(descriptor: int) -> None:
    """Zeros over a file that has no name any more, and close it: the best that can be done. A file
    system that copies on write, a flash disk, a snapshot or a backup may keep the old bytes;
    against that helps rotating to a new master and destroying the old one (``docs/vault.md``)."""
    try:
        os.pwrite(descriptor, bytes(os.fstat(descriptor).st_size), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
