"""A folder of files that are the owner's alone: mode 0600, written whole or not at all."""

import contextlib
import os
import secrets

from ppfr_ops.store.folder import Folder
from ppfr_ops.store.storage import open_store

_TEMPORARY = ".tmp"


class Files(Folder):
    """A folder.

    Args:
        output: any fsspec URL or local path.
    """

    mode = 0o600

    def names(self, *parts: str) -> list[str]:
        """What a folder holds, sorted; without what a death left half-written."""
        return [name for name in super().names(*parts) if not name.startswith(".")]

    def make_folder(self, path: str) -> None:
        os.makedirs(path, mode=0o700, exist_ok=True)

    def _draft(self) -> str:
        return self.path(_TEMPORARY, secrets.token_hex(8))

    def remove_half_written(self) -> None:
        """Remove what a death left."""
        for path in self.paths(_TEMPORARY):
            with contextlib.suppress(FileNotFoundError):
                self.fs.rm_file(path)

    def remove_draft_folder(self) -> None:
        """Remove the folder where files are written before they are whole, if it is empty."""
        if self.local:
            with contextlib.suppress(OSError):  # it was never there, or somebody writes
                os.rmdir(self.path(_TEMPORARY))


def inside(url: str, folder: str) -> bool:
    """Whether a place is a folder, or lies in it, however either is written."""
    place, root = _absolute(url), _absolute(folder)
    return place == root or place.startswith(root.rstrip("/") + "/")


def _absolute(url: str) -> str:
    fs, path = open_store(url)
    protocol = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
    return f"{protocol}:{os.path.realpath(path) if protocol == 'file' else path}"
