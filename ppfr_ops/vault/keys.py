"""Where the vault's key comes from: the owner's master in a file, or a key management service.

The master itself opens nothing: every vault, and every rotation of it, has a key that is derived
from the master. So a service that keeps the master (AWS KMS ``GenerateMac``, ``transit/hmac`` of
HashiCorp's Vault, an HSM's HMAC key) only has to give a keyed digest, and is asked once a run.
"""

import importlib
import os
from typing import Protocol

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ppfr_ops.errors import UserError
from ppfr_ops.store.private import read_private
from ppfr_ops.vault.sealing import KEY_BYTES

HOW_TO = "make a key with: umask 077; openssl rand -hex 32 > FILE"


class WrongKey(UserError):
    """A key that cannot be used; one line for the user."""


class KeyService(Protocol):
    """Holds a master; a class that has this method is a key service."""

    def derive(self, salt: bytes, purpose: bytes) -> bytes:
        """32 bytes, a pseudorandom function of both under the master, always the same."""
        ...


class FileKey:
    """The local key service: HKDF-SHA-256 (RFC 5869) of a master in memory.

    Args:
        master: 32 random bytes.

    Raises:
        WrongKey: of another length.
    """

    def __init__(self, master: bytes) -> None:
        if len(master) != KEY_BYTES:
            raise WrongKey(f"the vault's key has {len(master)} bytes, needed: 32 ({HOW_TO})")
        self._master = master

    def __repr__(self) -> str:
        return "FileKey()"

    def derive(self, salt: bytes, purpose: bytes) -> bytes:
        return HKDF(SHA256(), KEY_BYTES, salt, purpose).derive(self._master)


def read_master(path: str) -> bytes:
    """A master from a file of 64 hex digits, or of 32 bytes.

    Raises:
        UserError: no such file, or others can read it, or something else is in it.
    """
    text = read_private(path, "the vault's key")
    if len(text) == KEY_BYTES:
        return text
    try:
        master = bytes.fromhex(text.decode("ascii").strip())
    except ValueError:
        master = b""
    if len(master) != KEY_BYTES:
        raise WrongKey(f"the vault's key must be 64 hex digits or 32 bytes ({HOW_TO})")
    return master


def write_new(path: str, secret: str) -> None:
    """Write a key or a share into a new file, mode 0600.

    Raises:
        WrongKey: there is a file already, or none can be made.
    """
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        raise WrongKey("there is a file of that name already; keys are not written over") from None
    except OSError as error:
        raise WrongKey(f"the key cannot be written ({type(error).__name__})") from None
    with os.fdopen(descriptor, "w") as file:
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())


def load_key(where: str) -> KeyService:
    """A key service from what the command line says: a file, or ``MODULE:NAME`` of a class or
    function that, called without arguments, gives a service.

    Raises:
        WrongKey: neither.
    """
    module, colon, name = where.partition(":")
    if not colon or os.path.exists(where):
        return FileKey(read_master(where))
    try:
        service: KeyService = getattr(importlib.import_module(module), name)()
    except Exception as error:
        raise WrongKey(
            "the vault's key: expected a file, or MODULE:NAME of something that, called without "
            f"arguments, gives a key service ({type(error).__name__})"
        ) from None
    return service
