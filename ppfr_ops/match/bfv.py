"""BFV (Fan and Vercauteren 2012) by Microsoft SEAL, through TenSEAL's ``sealapi``.

One ring, t = 2^26, values in coefficients. Nothing rotates or relinearizes, so there are no
evaluation keys; a secret key lives for one query and is never written anywhere.

SEAL's objects cross this module as plain ``uint64`` arrays. A peer's bytes never reach SEAL's own
parser: lengths are fixed by the parameters, every word is checked against its modulus here, and the
header that SEAL reads is written by us.
"""

import hashlib
import os
import struct
import threading
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa
import tenseal.sealapi as seal
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Buffer = bytes | bytearray | memoryview

DEGREE = 8192
"""Coefficients of a polynomial, N."""
PRIME_BITS = (60, 60, 60)
"""Two primes for ciphertexts and the one that SEAL keeps for keys: 180 of the 218 bits that 128-bit
security allows at N = 8192 (Homomorphic Encryption Standard, 2018, table 1)."""
SCORE_BITS = 26
SEED_BYTES = 64
SEEDED_BYTES = 2 * DEGREE * 8 + SEED_BYTES
"""Of a fresh ciphertext on the wire."""
RESULT_BYTES = 2 * DEGREE * 8
"""Of a result on the wire: two polynomials modulo one prime."""

_MAGIC, _VERSION = 0xA15E, (16, 4, 3)
_HEADER = struct.Struct("<HBBBBHQ")
_CIPHERTEXT = struct.Struct("<4QBQQQdQ")
_PLAINTEXT = struct.Struct("<4QQd")
_COUNT = struct.Struct("<Q")
_BLAKE2XB = 1


class ParameterError(ValueError):
    """Words, lengths or parameters that are not what this scheme uses."""


_local = threading.local()


def _memory() -> int:
    """A file in memory, one a thread: ``sealapi`` saves and loads by path only."""
    if not hasattr(_local, "file"):
        _local.file = os.memfd_create("bfv", os.MFD_CLOEXEC)
    return int(_local.file)


def _pack(body: bytes) -> bytes:
    return _HEADER.pack(_MAGIC, *_VERSION, 0, 0, _HEADER.size + len(body)) + body


def _save(thing: object, size: int) -> bytes:
    """What SEAL writes of ``thing``, decompressed, without the outer header; ``size`` bytes."""
    file = _memory()
    os.ftruncate(file, 0)
    thing.save(f"/proc/self/fd/{file}")  # type: ignore[attr-defined]
    raw = os.pread(file, os.fstat(file).st_size, 0)
    os.ftruncate(file, 0)
    if raw[5] == 0:
        return raw[_HEADER.size :]
    return pa.Codec("zstd").decompress(raw[_HEADER.size :], size).to_pybytes()


@dataclass(frozen=True)
class Ring:
    """A SEAL context and what is fixed by it; :func:`ring` has the one of this process."""

    context: seal.SEALContext
    evaluator: seal.Evaluator
    primes: tuple[int, ...]
    """The primes of fresh ciphertexts, then the one kept for keys."""

    @property
    def fresh(self) -> list[int]:
        return list(self.context.first_parms_id())

    @property
    def last(self) -> list[int]:
        return list(self.context.last_parms_id())

    def _level(self, count: int) -> list[int]:
        return {1: self.last, 2: self.fresh}[count]

    def _check(self, words: Words, primes: int) -> None:
        shaped = words.reshape(-1, primes, DEGREE)
        limits = np.array(self.primes[:primes], np.uint64)[None, :, None]
        if not (shaped < limits).all():
            raise ParameterError("a ciphertext word is not below its modulus")

    def _load(self, thing: object, body: bytes) -> None:
        file = _memory()
        os.ftruncate(file, 0)
        os.pwrite(file, _pack(body), 0)
        try:
            thing.load(self.context, f"/proc/self/fd/{file}")  # type: ignore[attr-defined]
        except (ValueError, RuntimeError, IndexError):
            raise ParameterError("SEAL refused a ciphertext, a plaintext or a key") from None
        finally:
            os.ftruncate(file, 0)

    # -- ciphertexts ---------------------------------------------------------------------------

    def ciphertext(self, words: Words, primes: int = 2, ntt: bool = False) -> seal.Ciphertext:
        """A ciphertext of its words, ``2 x primes x N``.

        Raises:
            ParameterError: wrong size, or a word that is not below its modulus.
        """
        if words.size != 2 * primes * DEGREE:
            raise ParameterError("a ciphertext of a wrong size")
        self._check(words, primes)
        head = _CIPHERTEXT.pack(*self._level(primes), ntt, 2, DEGREE, primes, 1.0, 1)
        data = np.ascontiguousarray(words, "<u8").tobytes()
        result = seal.Ciphertext()
        self._load(result, head + _pack(_COUNT.pack(len(data) // 8) + data))
        return result

    def words(self, ciphertext: seal.Ciphertext) -> Words:
        """The words of a ciphertext of two polynomials, ``2 x primes x N``."""
        primes, size = ciphertext.coeff_modulus_size(), ciphertext.size()
        count = size * primes * DEGREE
        head = _CIPHERTEXT.size + _HEADER.size + _COUNT.size
        body = _save(ciphertext, head + 8 * count)
        return np.frombuffer(body, "<u8", count, head).reshape(size, primes, DEGREE)

    def encrypt_seeded(self, encryptor: seal.Encryptor, plain: seal.Plaintext) -> bytes:
        """Encrypt under the secret key; the second polynomial travels as its seed.

        Returns:
            ``SEEDED_BYTES`` bytes: 2 N words of the first polynomial, then the seed.
        """
        head = _CIPHERTEXT.size + _HEADER.size + _COUNT.size
        count = 2 * DEGREE
        tail = _HEADER.size + 1 + SEED_BYTES
        body = _save(encryptor.encrypt_symmetric(plain), head + 8 * count + tail)
        return body[head : head + 8 * count] + body[-SEED_BYTES:]

    def expand(self, data: Buffer) -> seal.Ciphertext:
        """The ciphertext that :meth:`encrypt_seeded` made.

        Raises:
            ParameterError: as :meth:`ciphertext`.
        """
        if len(data) != SEEDED_BYTES:
            raise ParameterError("a seeded ciphertext of a wrong size")
        words = np.frombuffer(data, "<u8", 2 * DEGREE)
        self._check(words, 2)
        seed = bytes([_BLAKE2XB]) + bytes(data[-SEED_BYTES:])
        head = _CIPHERTEXT.pack(*self.fresh, False, 2, DEGREE, 2, 1.0, 1)
        first = _pack(_COUNT.pack(2 * DEGREE) + words.tobytes())
        result = seal.Ciphertext()
        self._load(result, head + first + _pack(seed))
        return result

    # -- plaintexts ----------------------------------------------------------------------------

    def coefficients(self, values: NDArray[np.integer]) -> seal.Plaintext:
        """A plaintext of its coefficients: at most N integers, taken modulo t."""
        reduced = np.mod(values, 1 << SCORE_BITS).astype("<u8")
        head = _PLAINTEXT.pack(0, 0, 0, 0, len(reduced), 1.0)
        result = seal.Plaintext()
        self._load(result, head + _pack(_COUNT.pack(len(reduced)) + reduced.tobytes()))
        return result

    def read(self, plain: seal.Plaintext) -> NDArray[np.int64]:
        """The N coefficients of a plaintext, in [0, t)."""
        count = plain.coeff_count()
        head = _PLAINTEXT.size + _HEADER.size + _COUNT.size
        body = _save(plain, head + 8 * count)
        result = np.zeros(DEGREE, np.int64)
        result[:count] = np.frombuffer(body, "<u8", count, head)
        return result

    def to_ntt(self, plain: seal.Plaintext) -> seal.Plaintext:
        """The same plaintext, changed in place, ready to multiply fresh ciphertexts."""
        self.evaluator.transform_to_ntt_inplace(plain, self.fresh)
        return plain

    # -- keys ----------------------------------------------------------------------------------

    def times_secret(self, key: seal.SecretKey, words: Words) -> Words:
        """Products with the secret key of polynomials in NTT form, ``primes x N``."""
        primes = len(words)
        head = _PLAINTEXT.size + _HEADER.size + _COUNT.size
        data = _save(key, head + 8 * len(PRIME_BITS) * DEGREE)[head:][: 8 * primes * DEGREE]
        plain = seal.Plaintext()
        form = _PLAINTEXT.pack(*self._level(primes), primes * DEGREE, 1.0)
        self._load(plain, form + _pack(_COUNT.pack(primes * DEGREE) + data))
        # twice the same polynomial: SEAL refuses ciphertexts whose second one is zero
        both = self.ciphertext(np.stack([words, words]), primes, ntt=True)
        self.evaluator.multiply_plain_inplace(both, plain)
        return self.words(both)[0]


@cache
def ring() -> Ring:
    """Raises ParameterError: the parameters are not 128-bit secure, or SEAL refuses them."""
    parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.BFV)
    parameters.set_poly_modulus_degree(DEGREE)
    chain = seal.CoeffModulus.Create(DEGREE, list(PRIME_BITS))
    parameters.set_coeff_modulus(chain)
    parameters.set_plain_modulus(1 << SCORE_BITS)
    context = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)
    allowed = seal.CoeffModulus.MaxBitCount(DEGREE, seal.SEC_LEVEL_TYPE.TC128)
    if not context.parameters_set() or sum(PRIME_BITS) > allowed:
        raise ParameterError("the parameters do not give 128-bit security")
    return Ring(context, seal.Evaluator(context), tuple(prime.value() for prime in chain))


def uniform(count: int, bound: int) -> NDArray[np.int64]:
    """Integers from the operating system's generator, uniform in [0, bound), bound <= 2^62."""
    bits = (bound - 1).bit_length()
    result = np.zeros(0, np.int64)
    while len(result) < count:  # rejection: fewer than half of the draws are thrown away
        need = 2 * (count - len(result)) + 64
        drawn = np.frombuffer(os.urandom(8 * need), "<u8") >> np.uint64(64 - bits)
        result = np.concatenate([result, drawn[drawn < bound].astype(np.int64)])
    return result[:count]


def small_noise(count: int) -> NDArray[np.int64]:
    """Centred binomial noise of standard deviation 3.24, as SEAL's own."""
    bits = np.unpackbits(np.frombuffer(os.urandom(6 * count), np.uint8)).reshape(count, 48)
    return bits[:, :21].sum(1, dtype=np.int64) - bits[:, 24:45].sum(1, dtype=np.int64)


def public_randomness(seed: bytes) -> Words:
    """The half of a public key that both sides know, ``2 x N`` words, uniform, in NTT form.

    It comes from a hash of what the server drew for this session, so neither side can choose it.
    """
    rows = []
    for index, prime in enumerate(ring().primes[:2]):
        stream = hashlib.shake_256(b"ppfr match public half %d" % index + seed)
        drawn = np.frombuffer(stream.digest(9 * DEGREE), "<u8") >> np.uint64(64 - PRIME_BITS[index])
        rows.append(drawn[drawn < prime][:DEGREE])
    return np.stack(rows)
