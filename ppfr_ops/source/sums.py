"""Whether a picture is still the one that it was: digests of its bytes, each under a key of its
own, so that it is found in no list of known pictures."""

import hashlib
import hmac
import secrets
from contextlib import suppress

import pyarrow as pa

from ppfr_ops.source.plan import Plan, Unit, read_unit

Sum = bytes | None
"""sha256 of a picture's bytes as they are stored; None: there is none."""


def sum_of(data: bytes | None) -> Sum:
    return None if data is None else hashlib.sha256(data).digest()


def sums_of(plan: Plan, unit: Unit) -> list[Sum]:
    """Of every row of a unit; None for all where it cannot be read."""
    with suppress(OSError, RuntimeError, pa.ArrowException):
        return [sum_of(value.as_py()) for value in read_unit(plan, unit)["image"]]
    return [None] * unit.rows


def keyed(key: str, picture: Sum) -> str | None:
    """128 bits of an HMAC-SHA-256, hex.

    Args:
        key: a text that is random.
    """
    if picture is None:
        return None
    return hmac.new(key.encode(), picture, hashlib.sha256).hexdigest()[:32]


def marked(picture: Sum) -> str:
    """``KEY:DIGEST`` with a new key; empty where there is no picture."""
    key = secrets.token_hex(16)
    return "" if picture is None else f"{key}:{keyed(key, picture)}"


def is_of(mark: str, picture: Sum) -> bool:
    """Whether a mark is of a picture: as ``marked`` gives it, or the plain sha256 of its file, as
    ``sha256sum`` prints it."""
    key, _, digest = mark.strip().lower().rpartition(":")
    if picture is None or not digest:
        return False
    return digest == (keyed(key, picture) if key else picture.hex())
