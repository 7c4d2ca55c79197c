"""Oblivious transfer: the client gets one label for each of its bits, the server learns no bit.

The server ends up with a row q for every bit b of the client's and one secret D; the client with
q + b D (sums are xor). So q and q + D are the labels of "no" and "yes" in :mod:`.comparison`.

* 128 base transfers over edwards25519 (Chou and Orlandi 2015; libsodium's group), the server
  choosing: the bits of D.
* Extended to as many as needed by IKNP (Ishai et al. 2003) with a check that the client used the
  same bits in all 128 columns: both sides hash their matrices by the same random binary matrix,
  which comes from a hash of what the client sent (Keller, Orsini and Scholl 2015 as mended by Roy,
  CRYPTO 2022). 128 more rows hide what the hash would tell of the client's bits.

A client that does not keep to it learns no more of D than it dares to guess, a bit for every second
time that it is not refused. A server that does not keep to it learns nothing: it sees one of two
seeds of each column, and the other hides the bits.
"""

import hashlib
import os

import nacl.bindings as sodium
import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from nacl.exceptions import CryptoError
from numpy.typing import NDArray

from .bfv import Buffer, ParameterError, uniform

WIDTH = 128
"""Bits of a label, and base transfers."""
POINT_BYTES = 32
POINTS_BYTES = WIDTH * POINT_BYTES
_CHECK_ROWS = 128
_ROW = WIDTH // 8
CHECK_BYTES = _ROW * (1 + _CHECK_ROWS)
_CHUNK = 1 << 15
"""Rows hashed at a time; a count of so many bits is exact in float32."""

Labels = NDArray[np.uint64]
"""uint64 ``… x 2``, 128 bits."""
Bits = NDArray[np.uint8]


def message_bytes(count: int) -> int:
    """Bytes that the client sends for ``count`` bits."""
    return WIDTH * _column_bytes(count) + CHECK_BYTES


def _column_bytes(count: int) -> int:
    return -(-count // 8) + _CHECK_ROWS // 8


def _stream(key: bytes, size: int) -> NDArray[np.uint8]:
    cipher = Cipher(algorithms.AES(key[:16]), modes.CTR(bytes(16))).encryptor()
    return np.frombuffer(cipher.update(bytes(size)), np.uint8)


def _rows(columns: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``128 x k`` bytes of columns as ``8 k x 16`` bytes of rows."""
    parts = []
    for start in range(0, columns.shape[1], _CHUNK // 8):
        bits = np.unpackbits(columns[:, start : start + _CHUNK // 8], axis=1, bitorder="little")
        parts.append(np.packbits(bits.T, axis=1, bitorder="little"))
    return np.concatenate(parts)


def _labels(rows: NDArray[np.uint8], count: int) -> Labels:
    return np.ascontiguousarray(rows[:count]).view("<u8")


def _hashed(seed: bytes, rows: NDArray[np.uint8]) -> Bits:
    """A random binary matrix, drawn from ``seed``, times the rows: ``128 x 8 b`` from ``n x b``.

    The last 128 rows are added as they are, so that they hide the others.
    """
    most = len(rows) - _CHECK_ROWS
    draws = _stream(seed, most * (_CHECK_ROWS // 8)).reshape(most, -1)
    total = np.unpackbits(rows[most:], axis=1, bitorder="little").astype(np.int64)
    for start in range(0, most, _CHUNK):
        piece = slice(start, min(start + _CHUNK, most))
        factors = np.unpackbits(draws[piece], axis=1, bitorder="little").astype(np.float32)
        bits = np.unpackbits(rows[piece], axis=1, bitorder="little").astype(np.float32)
        total += (factors.T @ bits).astype(np.int64)
    return (total % 2).astype(np.uint8)


def _seed(session: bytes, index: int, *points: bytes) -> bytes:
    return hashlib.sha256(b"".join([session, index.to_bytes(4, "little"), *points])).digest()[:16]


def _scalar() -> bytes:
    return sodium.crypto_core_ed25519_scalar_reduce(os.urandom(64))


class TransferReceiver:
    """The client: it has the bits. Good for one session.

    Args:
        session: what both sides know of the session, different in each.
    """

    def __init__(self, session: bytes) -> None:
        self._session, self._scalar = session, _scalar()
        self.point: bytes = sodium.crypto_scalarmult_ed25519_base_noclamp(self._scalar)

    def choose(self, points: Buffer, bits: NDArray[np.integer]) -> tuple[bytes, Labels]:
        """What to send for ``n`` bits, and their labels, ``n x 2``.

        Args:
            points: what :attr:`TransferSender.points` sent.

        Raises:
            ParameterError: not points of the group.
        """
        count = len(bits)
        size = _column_bytes(count)
        body = size - _CHECK_ROWS // 8
        chosen = np.zeros(size, np.uint8)
        chosen[:body] = np.packbits(bits.astype(np.uint8), bitorder="little")
        chosen[body:] = np.frombuffer(os.urandom(size - body), np.uint8)
        ours, sent = np.empty((WIDTH, size), np.uint8), np.empty((WIDTH, size), np.uint8)
        for index, seeds in enumerate(self._seeds(bytes(points))):
            ours[index], other = (_stream(seed, size) for seed in seeds)
            sent[index] = ours[index] ^ other ^ chosen
        rows, message = _rows(ours), sent.tobytes()
        seed = hashlib.sha256(self._session + message).digest()
        bits_of = np.unpackbits(chosen, bitorder="little")[:, None]
        sums = _hashed(seed, bits_of)[:, 0], _hashed(seed, rows)
        check = b"".join(np.packbits(part, axis=-1, bitorder="little").tobytes() for part in sums)
        return message + check, _labels(rows, count)

    def _seeds(self, points: bytes) -> list[tuple[bytes, bytes]]:
        if len(points) != POINTS_BYTES:
            raise ParameterError("points of a wrong size")
        multiply, found = sodium.crypto_scalarmult_ed25519_noclamp, []
        for index in range(WIDTH):
            point = points[index * POINT_BYTES : (index + 1) * POINT_BYTES]
            try:
                if not sodium.crypto_core_ed25519_is_valid_point(point):
                    raise ParameterError("not a point of the group")
                shifted = sodium.crypto_core_ed25519_sub(point, self.point)
                shared = multiply(self._scalar, point), multiply(self._scalar, shifted)
            except (CryptoError, ValueError):
                raise ParameterError("not a point of the group") from None
            first, second = (_seed(self._session, index, self.point, point, s) for s in shared)
            found.append((first, second))
        return found


class TransferSender:
    """The server: it has the labels. Good for one session.

    Args:
        session: as the client's.
        point: the client's.

    Raises:
        ParameterError: not a point of the group.
    """

    def __init__(self, session: bytes, point: Buffer) -> None:
        point = bytes(point)
        self._session = session
        drawn = uniform(WIDTH, 2).astype(np.uint8)
        drawn[0] = 1  # the lowest bits of two labels differ
        self._drawn = drawn
        self.difference: Labels = np.packbits(drawn, bitorder="little").view("<u8")
        self._chosen, sent = [], []
        try:
            if not sodium.crypto_core_ed25519_is_valid_point(point):
                raise ParameterError("not a point of the group")
            for index in range(WIDTH):
                scalar = _scalar()
                ours = sodium.crypto_scalarmult_ed25519_base_noclamp(scalar)
                if drawn[index]:
                    ours = sodium.crypto_core_ed25519_add(ours, point)
                shared = sodium.crypto_scalarmult_ed25519_noclamp(scalar, point)
                self._chosen.append(_seed(session, index, point, ours, shared))
                sent.append(ours)
        except (CryptoError, ValueError):
            raise ParameterError("not a point of the group") from None
        self.points = b"".join(sent)

    def labels(self, data: Buffer, count: int) -> Labels:
        """The labels of "no" for the client's ``count`` bits, ``n x 2``.

        Raises:
            ParameterError: wrong length, or the client used other bits in some columns.
        """
        size = _column_bytes(count)
        if len(data) != message_bytes(count):
            raise ParameterError("choices of a wrong size")
        message, check = bytes(data[: WIDTH * size]), data[WIDTH * size :]
        columns = np.frombuffer(message, np.uint8).reshape(WIDTH, size)
        ours = np.empty_like(columns)
        for index, seed in enumerate(self._chosen):
            ours[index] = _stream(seed, size)
            if self._drawn[index]:
                ours[index] ^= columns[index]
        rows = _rows(ours)
        bits = np.unpackbits(np.frombuffer(check, np.uint8), bitorder="little")
        chosen, sums = bits[:_CHECK_ROWS, None], bits[_CHECK_ROWS:].reshape(_CHECK_ROWS, WIDTH)
        seed = hashlib.sha256(self._session + message).digest()
        if not np.array_equal(_hashed(seed, rows), sums ^ (chosen & self._drawn)):
            raise ParameterError("a client that chose two things at once")
        return _labels(rows, count)
