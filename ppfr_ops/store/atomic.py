"""Write a local file in one step: anyone who reads it sees all of it or the one before, whatever
dies in between."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO


@contextmanager
def in_one_step(
    path: str, *, beside: str | None = None, mode: int = 0o666, new: bool = False
) -> Iterator[IO[bytes]]:
    """A file to write to, which becomes ``path`` when the block is left without an error.

    Args:
        beside: where it is written; the default is a hidden name in the same folder.
        mode: of the file, less the umask.
        new: ``path`` must not exist; one of several writers wins.

    Raises:
        FileExistsError: it exists, and was to be new.
    """
    folder, name = os.path.split(os.path.abspath(path))
    draft = beside or os.path.join(folder, f".{name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if new:
            os.link(draft, path)
        else:
            os.replace(draft, path)
            draft = ""
    finally:
        if draft:
            os.unlink(draft)
    sync_folder(folder)


def sync_folder(path: str) -> None:
    """Names that were given in a folder survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
