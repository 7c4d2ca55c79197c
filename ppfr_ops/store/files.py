"""A folder of files that are written whole or not at all, locally or in an object store."""

import contextlib
import io
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from ppfr_ops.store.storage import open_store


class Files:
    """A folder.

    Args:
        url: any fsspec URL or local path.
    """

    def __init__(self, url: str) -> None:
        self.fs, root = open_store(url)
        self.root = root.rstrip("/")
        self.local = isinstance(self.fs, LocalFileSystem)

    def path(self, *parts: str) -> str:
        return "/".join((self.root, *parts))

    # -- documents --------------------------------------------------------------------------

    def read(self, *parts: str) -> dict[str, Any] | None:
        """A JSON document; None if it is not there, or not whole."""
        try:
            value = json.loads(self.fs.cat_file(self.path(*parts)))
        except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
            return None
        return value if isinstance(value, dict) else None

    def write(self, document: Mapping[str, Any], *parts: str) -> None:
        """A JSON document, over what was there."""
        self.put_bytes(json.dumps(dict(document), indent=1).encode(), *parts)

    def create(self, document: Mapping[str, Any], *parts: str) -> bool:
        """Write a document that must not exist yet; False if it does."""
        return self.create_bytes(json.dumps(dict(document), indent=1).encode(), *parts)

    # -- bytes ------------------------------------------------------------------------------

    def put_bytes(self, data: bytes, *parts: str) -> None:
        """Write a file so that no reader ever sees half of it."""
        with self.writing(*parts) as file:
            file.write(data)

    @contextlib.contextmanager
    def writing(self, *parts: str) -> Iterator[Any]:
        """A file to write to, front to back; it is there once the block is left, not before, and
        not at all if the block raises. Local ones are mode 0600."""
        target = self.path(*parts)
        if not self.local:
            # An object is put in one piece, so that it can be put again.
            held = io.BytesIO()
            yield held
            self.fs.pipe_file(target, held.getvalue())
            return
        folder = os.path.dirname(target)
        os.makedirs(folder, exist_ok=True)
        temporary, file = self._temporary(folder)
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        sync_folder(folder)

    def create_bytes(self, data: bytes, *parts: str) -> bool:
        """Write a file that must not exist yet; False if it does. One of several callers wins."""
        target = self.path(*parts)
        if not self.local:
            try:
                self.fs.pipe_file(target, data, mode="create")
            except FileExistsError:
                return False
            return True
        os.makedirs(os.path.dirname(target), exist_ok=True)
        temporary, file = self._temporary(os.path.dirname(target))
        try:
            with file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, target)
        except FileExistsError:
            return False
        finally:
            os.unlink(temporary)
        sync_folder(os.path.dirname(target))
        return True

    def _temporary(self, folder: str) -> tuple[str, Any]:
        temporary = os.path.join(folder, f".{secrets.token_hex(8)}.tmp")
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        return temporary, os.fdopen(descriptor, "wb")

    # -- the folder -------------------------------------------------------------------------

    def paths(self, *parts: str) -> list[str]:
        """Paths of what a folder holds, sorted."""
        try:
            listing: Iterable[str] = self.fs.ls(self.path(*parts), detail=False, refresh=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        here = self.path(*parts).rstrip("/")
        return sorted(path for path in listing if path.rstrip("/") != here)

    def names(self, *parts: str) -> list[str]:
        """Names of what a folder holds, sorted; without what a death left half-written."""
        found = (os.path.basename(path.rstrip("/")) for path in self.paths(*parts))
        return [name for name in found if not name.startswith(".")]

    def remove(self, *parts: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(self.path(*parts))

    def remove_half_written(self, *parts: str) -> None:
        """Remove what a death left half-written in a folder."""
        for path in self.paths(*parts):
            if os.path.basename(path).startswith(".") and path.endswith(".tmp"):
                with contextlib.suppress(FileNotFoundError):
                    self.fs.rm_file(path)


def inside(url: str, folder: str) -> bool:
    """Whether a place is a folder, or lies in it, however either is written."""
    place, root = _absolute(url), _absolute(folder)
    return place == root or place.startswith(root.rstrip("/") + "/")


def _absolute(url: str) -> str:
    fs, path = open_store(url)
    protocol = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
    return f"{protocol}:{os.path.realpath(path) if protocol == 'file' else path}"


def sync_folder(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
