"""Files that hold a secret: read them only if nobody else can; and what to do about weak ones."""

import hashlib
import os
import stat

from ppfr_ops.errors import UserError

_LARGEST = 1 << 20


def read_private(path: str, what: str, unreadable: str = "cannot be read") -> bytes:
    """The bytes of a secret's file.

    Args:
        what: how it is called in the error.
        unreadable: what is said of one that is not there.

    Raises:
        UserError: it is not there, is no plain file, or others can read or change it. The group
            may read what belongs to another user, as secrets do that Kubernetes mounts.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise UserError(f"{what} {unreadable} ({os.strerror(error.errno or 0)})") from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise UserError(f"{what} {unreadable} (not a file)")
    with os.fdopen(descriptor, "rb") as file:
        mine = found.st_uid == os.geteuid()
        if found.st_mode & (0o077 if mine else 0o027):
            raise UserError(f"{what} is open to others; chmod 600 it")
        return file.read(_LARGEST)


def stretched(secret: bytes, purpose: str) -> bytes:
    """A key from a secret of the owner, slowly: scrypt with 32 MiB, a tenth of a second. Whatever
    is derived from it, a pseudonym or an id, tells whether a guess of the secret is right; so a
    guess costs that much, and not a millionth of it.

    Args:
        purpose: keys of different purposes are independent of each other.

    Returns:
        32 bytes.
    """
    salt = f"ppfr|{purpose}".encode()
    return hashlib.scrypt(secret, salt=salt, n=2**15, r=8, p=1, maxmem=2**26, dklen=32)


def read_long(path: str, what: str, least: int) -> bytes:
    """A key, without the white space around it.

    Args:
        path: as of ``read_private``.
        what: the key, as a message names it.
        least: bytes that it has to have.

    Raises:
        UserError: no readable file, one that others can read, or too short.
    """
    key = read_private(path, what).strip()
    if len(key) < least:
        raise UserError(
            f"{what} has {len(key)} bytes, needed: {least} or more "
            "(make one with: umask 077; openssl rand -hex 32 > FILE)"
        )
    return key
