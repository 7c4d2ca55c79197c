"""A gallery at rest: AES-256-GCM in chunks.

File: ``PPFRGAL1``, 7 random bytes of nonce prefix, then chunks of ciphertext and tag. The nonce of
a chunk is prefix, 4 bytes of counter, 1 byte that is 1 in the last chunk: reordered, dropped,
foreign and missing chunks are noticed (Hoang et al. 2015, STREAM). Plaintext: 4 bytes of length,
JSON, int16 templates.
"""

import json
import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..imaging.arrays import chunks
from ..store.atomic import in_one_step
from .errors import MatchError
from .packing import MAX_RECORDS, Integers

_MAGIC = b"PPFRGAL1"
_PREFIX = 7
_CHUNK = 1 << 20
_TAG = 16


@dataclass(frozen=True, repr=False)
class Gallery:
    """Quantised templates and whose they are.

    Raises:
        MatchError: names and templates do not go together.
    """

    templates: Integers
    """int16 ``n x D``."""
    names: list[str]
    """``n`` names, pseudonyms or numbers; several records may share one."""
    recognizer: str
    """sha256 of the FR model, or what stands for it."""

    def __post_init__(self) -> None:
        if len(self.names) != len(self.templates) or not self.names:
            raise MatchError("a gallery needs a name for every template, and one template")
        if len(self.names) > MAX_RECORDS:
            raise MatchError(f"a gallery holds at most {MAX_RECORDS} records")

    def save(self, path: Path, key: bytes) -> None:
        """Encrypt to a file; visible in one step."""
        head = json.dumps(
            {
                "version": 1,
                "dimensions": int(self.templates.shape[1]),
                "recognizer": self.recognizer,
                "names": self.names,
            }
        ).encode()
        templates = self.templates.astype("<i2").tobytes()
        prefix = secrets.token_bytes(_PREFIX)
        with in_one_step(str(path), mode=0o600) as file:
            file.write(_MAGIC + prefix)
            for part in _seal(struct.pack("<I", len(head)) + head + templates, key, prefix):
                file.write(part)

    @classmethod
    def load(cls, path: Path, key: bytes) -> "Gallery":
        """Raises MatchError: no such file, another key, or a file that was changed."""
        if not path.is_file():
            raise MatchError(f"no gallery {path.name}")
        data = memoryview(path.read_bytes())
        head_size = len(_MAGIC) + _PREFIX
        if data[: len(_MAGIC)] != _MAGIC or len(data) < head_size:
            raise MatchError(f"{path.name} is not a gallery of this version")
        try:
            plain = b"".join(_open(data[head_size:], key, bytes(data[len(_MAGIC) : head_size])))
        except InvalidTag:
            raise MatchError(f"{path.name}: another key, or the file was changed") from None
        (length,) = struct.unpack_from("<I", plain)
        head = json.loads(plain[4 : 4 + length])
        numbers = np.frombuffer(plain, "<i2", offset=4 + length)
        templates = numbers.reshape(-1, head["dimensions"]).astype(np.int16)
        return cls(templates, head["names"], head["recognizer"])


def _seal(plain: bytes, key: bytes, prefix: bytes) -> Iterator[bytes]:
    cipher = AESGCM(key)
    for nonce, chunk in _chunks(memoryview(plain), _CHUNK, prefix):
        yield cipher.encrypt(nonce, bytes(chunk), _MAGIC)


def _open(sealed: memoryview, key: bytes, prefix: bytes) -> Iterator[bytes]:
    if not sealed:
        raise InvalidTag
    cipher = AESGCM(key)
    for nonce, chunk in _chunks(sealed, _CHUNK + _TAG, prefix):
        yield cipher.decrypt(nonce, bytes(chunk), _MAGIC)


def _chunks(data: memoryview, size: int, prefix: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Chunks and their nonces."""
    for index, part in enumerate(chunks(len(data), size)):
        yield prefix + struct.pack(">IB", index, part.stop == len(data)), data[part]
