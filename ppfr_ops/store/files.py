"""A folder of files that are the owner's alone: mode 0600, written whole or not at all."""

import contextlib
import io
import os
import secrets
from collections.abc import Iterator
from typing import Any

from ppfr_ops.store.atomic import in_one_step
from ppfr_ops.store.folder import Folder
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

    @contextlib.contextmanager
    def writing(self, *parts: str, new: bool = False) -> Iterator[Any]:
        """A file to write to, front to back; it is there once the block is left, not before, and
        not at all if the block raises.

        Args:
            new: of a local file: it must not exist yet.

        Raises:
            FileExistsError: it exists, and was to be new.
        """
        target = self.path(*parts)
        if not self.local:
            # An object is put in one piece, so that it can be put again.
            held = io.BytesIO()
            yield held
            self.fs.pipe_file(target, held.getvalue())
            return
        draft = self.path(_TEMPORARY, secrets.token_hex(8))
        self.make_folder(os.path.dirname(draft))
        self.make_folder(os.path.dirname(target))
        with in_one_step(target, beside=draft, mode=0o600, new=new) as file:
            yield file

    def _write(self, data: bytes, target: str, new: bool) -> None:
        with self.writing(target[len(self.root) + 1 :], new=new) as file:
            file.write(data)

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
