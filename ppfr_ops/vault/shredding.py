"""Destroy what a local file held, and nothing else."""

import os
import stat


def to_overwrite(path: str) -> int | None:
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


def overwrite(descriptor: int) -> None:
    """Zeros over a file that has no name any more, and close it: the best that can be done. A file
    system that copies on write, a flash disk, a snapshot or a backup may keep the old bytes;
    against that helps rotating to a new master and destroying the old one (``docs/vault.md``)."""
    try:
        os.pwrite(descriptor, bytes(os.fstat(descriptor).st_size), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
