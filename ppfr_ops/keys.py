"""Keys from keys: one secret of the owner serves several purposes, and none tells another."""

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

IDENTITY = "identity map"
"""Purpose: whom the pictures of a release show (``methods.stochastic_local.identity``)."""


def derive(secret: bytes, purpose: str, size: int = 32) -> bytes:
    """A key for one purpose (HKDF with SHA-256, RFC 5869).

    Args:
        secret: of the owner, or of an output; of full entropy, 16 bytes or more.
        purpose: what the key is for. Keys of different purposes are independent of each other.
        size: bytes.

    Example:
        >>> a, b = derive(b"0" * 32, "identity map"), derive(b"0" * 32, "record ids")
        >>> len(a), a == b
        (32, False)
    """
    return HKDF(SHA256(), size, salt=None, info=f"ppfr|{purpose}".encode()).derive(secret)
