"""A folder of files that are the owner's alone: mode 0600, written whole or not at all."""

import contextlib
import io
import os
import secrets
from collections.abc import Iterator
from typing import Any

from ppfr_ops.store.folder import Folder, sync_folder
from ppfr_ops.store.storage import open_store

_TEMPORARY = ".tmp"


class Files(Folder):
    """A folder.

    Args:
        output: any fsspec URL or local path.
    """

    def names(self, *parts: str) -> list[str]:
        """What a folder holds, sorted; without what a death left half-written."""
        return [name for name in super().names(*parts) if not name.startswith(".")]

    def make_folder(self, path: str) -> None:
        os.makedirs(path, mode=0o700, exist_ok=True)

    def _write_temporary(self, data: bytes) -> str:
        temporary, file = self._temporary()
        with file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return temporary

    @contextlib.contextmanager
    def writing(self, *parts: str) -> Iterator[Any]:
        """A file to write to, front to back; it is there once the block is left, not before, and
        not at all if the block raises."""
        target = self.path(*parts)
        if not self.local:
            # An object is put in one piece, so that it can be put again.
            held = io.BytesIO()
            yield held
            self.fs.pipe_file(target, held.getvalue())
            return
        temporary, file = self._temporary()
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            self.make_folder(os.path.dirname(target))
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        sync_folder(os.path.dirname(target))

    def _temporary(self) -> tuple[str, Any]:
        temporary = self.path(_TEMPORARY, secrets.token_hex(8))
        self.make_folder(os.path.dirname(temporary))
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        return temporary, os.fdopen(descriptor, "wb")

    def remove_half_written(self) -> None:
        """Remove what a death left."""
        for path in self.paths(_TEMPORARY):
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
