"""Seal an original, wrap its key, and back. No files, no clock.

Every record has a data key of its own, random, used once:

* its original is padded and encrypted with AES-256-GCM under a key that is derived from the data
  key; a second value derived from it, the *commitment*, stands beside the ciphertext, for GCM alone
  does not bind a ciphertext to one key (Albertini et al., USENIX Security 2022);
* the data key is wrapped, AES-256-GCM again, under a key of the unit's, derived from the vault's
  (HKDF, RFC 5869), and kept in another place: who destroys it destroys the original.

Both are bound by their associated data to the release, the record, and what was published of it,
picture and pseudonym; moved to another place they do not open.
"""

import hashlib
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

KEY_BYTES = 32
NONCE_BYTES = 12
LEAST_BUCKET = 1024
_LENGTH_BYTES = 8
_DOMAIN = b"ppfr vault 1"


class Refused(Exception):
    """It does not open: another key, another place, or changed; nothing tells which."""


@dataclass(frozen=True)
class Sealed:
    """An original, encrypted."""

    nonce: bytes
    commitment: bytes
    """32 bytes; of the data key."""
    text: bytes
    """Ciphertext and tag; the bucket's length and 16 bytes."""


@dataclass(frozen=True)
class Wrapped:
    """A data key, encrypted."""

    nonce: bytes
    text: bytes


@dataclass(frozen=True)
class Place:
    """What a sealed original belongs to."""

    release: str
    record: str
    picture: bytes
    """``picture_digest`` of what is published of it."""

    def bound(self, purpose: bytes) -> bytes:
        """Associated data: each part with its length, so that no two places give the same."""
        parts = (_DOMAIN, purpose, self.release.encode(), self.record.encode(), self.picture)
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def picture_digest(pictures: Sequence[bytes], people: Sequence[str | None] = ()) -> bytes:
    """sha256 of what is published of an original: a picture, or with a pseudonym, picture and
    pseudonym; of several, sha256 over their digests, sorted.

    Args:
        people: pseudonym beside each picture; empty: none has one.

    Raises:
        ValueError: there is none.
    """
    digests = [hashlib.sha256(picture).digest() for picture in pictures]
    for place, person in enumerate(people):
        if person is not None:
            bound = _DOMAIN + b" person " + digests[place] + person.encode()
            digests[place] = hashlib.sha256(bound).digest()
    if not digests:
        raise ValueError("no picture was published")
    digests.sort()
    return digests[0] if len(digests) == 1 else hashlib.sha256(b"".join(digests)).digest()


def bucket(length: int) -> int:
    """The length that ``length`` bytes are padded to: eight buckets an octave, so that at most an
    eighth is added (a sixteenth on average) and a file is told by its size from few others."""
    if length <= LEAST_BUCKET:
        return LEAST_BUCKET
    step = 1 << max(0, (length - 1).bit_length() - 4)
    return -(-length // step) * step


def pad(original: bytes) -> bytes:
    """Length, original and zeros, a bucket long."""
    padded = len(original).to_bytes(_LENGTH_BYTES, "big") + original
    return padded.ljust(bucket(len(padded)), b"\0")


def unpad(padded: bytes) -> bytes:
    """What was padded.

    Raises:
        Refused: not of that form.
    """
    length = int.from_bytes(padded[:_LENGTH_BYTES], "big")
    end = _LENGTH_BYTES + length
    if end > len(padded) or any(padded[end:]):
        raise Refused
    return padded[_LENGTH_BYTES:end]


def _expand(key: bytes, purpose: bytes) -> bytes:
    return HKDFExpand(SHA256(), KEY_BYTES, _DOMAIN + b" " + purpose).derive(key)


def unit_key(vault_key: bytes, salt: bytes, unit: str) -> bytes:
    """The key that wraps the data keys of one file of them; 32 bytes."""
    info = _DOMAIN + b" unit " + unit.encode()
    return HKDF(SHA256(), KEY_BYTES, salt, info).derive(vault_key)


def key_check(vault_key: bytes) -> str:
    """By this a vault knows its key; tells nothing about it; 32 hex digits."""
    return _expand(vault_key, b"check")[:16].hex()


def seal(original: bytes, place: Place) -> tuple[Sealed, bytes]:
    """Encrypt an original; also returns its new data key."""
    key = os.urandom(KEY_BYTES)
    nonce = os.urandom(NONCE_BYTES)
    text = AESGCM(_expand(key, b"encrypt")).encrypt(nonce, pad(original), place.bound(b"seal"))
    return Sealed(nonce, _expand(key, b"commit"), text), key


def unseal(sealed: Sealed, key: bytes, place: Place) -> bytes:
    """The original.

    Raises:
        Refused: it is not this key's, not of this place, or was changed.
    """
    if not hmac.compare_digest(sealed.commitment, _expand(key, b"commit")):
        raise Refused
    cipher = AESGCM(_expand(key, b"encrypt"))
    try:
        return unpad(cipher.decrypt(sealed.nonce, sealed.text, place.bound(b"seal")))
    except (InvalidTag, ValueError):
        raise Refused from None


def wrap(key: bytes, under: bytes, place: Place) -> Wrapped:
    """Encrypt a data key under a unit's key."""
    nonce = os.urandom(NONCE_BYTES)
    return Wrapped(nonce, AESGCM(under).encrypt(nonce, key, place.bound(b"wrap")))


def unwrap(wrapped: Wrapped, under: bytes, place: Place) -> bytes:
    """The data key.

    Raises:
        Refused: it was wrapped under another key, for another place, or was changed.
    """
    try:
        return AESGCM(under).decrypt(wrapped.nonce, wrapped.text, place.bound(b"wrap"))
    except (InvalidTag, ValueError):
        raise Refused from None
