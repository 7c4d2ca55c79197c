"""Pseudorandom numbers by key and label: what virtual people are drawn from.

Pure: the same key and label give the same numbers anywhere. The generator is SHAKE-256 over the
key, a purpose and a label, each with its length in front, so that no two inputs run together (NIST
FIPS 202 and SP 800-185's encoding).
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

KEY_SIZE = 32
"""Bytes of a release key."""


def check_key(key: bytes) -> bytes:
    """The key itself.

    Raises:
        ValueError: not ``KEY_SIZE`` bytes.
    """
    if not isinstance(key, bytes) or len(key) != KEY_SIZE:
        raise ValueError(f"a release key has {KEY_SIZE} bytes")
    return key


def _stream(key: bytes, purpose: str, label: bytes, size: int) -> bytes:
    parts = (b"ppfr-identity-1", key, purpose.encode(), label)
    return hashlib.shake_256(b"".join(len(p).to_bytes(8, "big") + p for p in parts)).digest(size)


def normals(key: bytes, purpose: str, label: bytes, *shape: int) -> NDArray[np.float32]:
    """Standard normals by the key, float32, of the given shape.

    Inverse transform of 32-bit uniforms at the middle of their cells, so that no value is infinite
    (the largest is about 6.3).
    """
    from scipy.special import ndtri  # half a second to import: covers draw nothing

    count = int(np.prod(shape))
    raw = np.frombuffer(_stream(key, purpose, label, 4 * count), dtype="<u4")
    return ndtri((raw + 0.5) / 2.0**32).astype(np.float32).reshape(shape)


def person(label: str | None, draw: NDArray[np.float32]) -> bytes:
    """What a person is known by: the label, or, where there is none, the record's draw, which makes
    somebody new of every record without looking at its face."""
    if label:
        return b"label:" + label.encode("utf-8", "surrogatepass")
    return b"draw:" + hashlib.sha256(draw.tobytes()).digest()
