"""From masked scores to one bit, between two parties, by BFV alone.

The client knows u = score + mask modulo 2^26, the server the mask; whether the score reaches the
threshold is the sign of u - r with r = mask + threshold. Neither may learn it for a single record.

1. The client encrypts the bits of u, one bit of N records a ciphertext.
2. Comparison after Damgard, Geisler and Kroigaard (2007): with a, b the bit strings, sigma = +1 or
   -1 at random for every record, the numbers c_i = a_i - b_i + sigma + 3 sum_{j > i} (a_j xor b_j)
   hold a zero exactly if a < b (sigma = +1) or a > b (sigma = -1). They are linear in the a_i, so
   the server computes them under encryption, multiplies each by a random unit and shuffles them,
   record by record. What the client decrypts is, for every record, random units, and a zero at a
   random place or none: a fair coin to it.
3. So client and server hold xor shares of "it matches", for every record. The client encrypts its
   shares, the server turns them into the bits under encryption, weighs each with a random unit
   and returns the sum, which is zero if nothing matched and as good as uniform if something did.

The sum needs no rotation: the sum over all slots is N times the constant coefficient, and the other
coefficients are overwritten by a mask. All of it holds against parties that follow the protocol and
look on. A client that sends something else than bits in step 1 can learn more: docs/match.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tenseal.sealapi as seal
from numpy.typing import NDArray

from .bfv import (
    DEGREE,
    SCORE_BITS,
    Buffer,
    ParameterError,
    choices_ring,
    result_bytes,
    seeded_bytes,
    uniform,
)
from .packing import Layout
from .scores import decrypt_results, sanitise

Bits = NDArray[np.int64]
"""int64, 0 or 1."""

DROPPED_BITS = 12
"""The lowest bits of u and r are left out: a score within 2^11 / 2^24 = 0.00012 of the threshold
may fall to either side, and the comparison costs a quarter."""
LOW_BITS = SCORE_BITS - 1 - DROPPED_BITS
LENGTH = LOW_BITS + 1
"""Bits compared: the low ones, and one below them so that there is never a tie."""
REPEATS = 3
"""Sums returned; two matches or more are overlooked if all are zero by chance, 2^-60."""


def _split(values: NDArray[np.int64]) -> tuple[Bits, NDArray[np.int64]]:
    """The highest bit, and the low bits, of numbers modulo 2^26."""
    return values >> (SCORE_BITS - 1), (values >> DROPPED_BITS) & ((1 << LOW_BITS) - 1)


def _by_groups(values: NDArray[np.int64], layout: Layout) -> NDArray[np.int64]:
    """``n`` to ``groups x N``, filled up with zeros."""
    padded = np.zeros(layout.groups * DEGREE, np.int64)
    padded[: len(values)] = values
    return padded.reshape(layout.groups, DEGREE)


# -- client ------------------------------------------------------------------------------------


def encrypt_bits(key: seal.SecretKey, masked: NDArray[np.int64], layout: Layout) -> bytes:
    """Step 1: ``groups x LENGTH`` seeded ciphertexts of the bits of 2 low(u) + 1."""
    ring = choices_ring()
    encryptor = seal.Encryptor(ring.context, key)
    parts = []
    for low in _by_groups(_split(masked)[1], layout):
        for index in range(LENGTH):
            bit = ((2 * low + 1) >> index) & 1
            parts.append(ring.encrypt_seeded(encryptor, ring.slots(bit)))
    return b"".join(parts)


def client_shares(
    key: seal.SecretKey, blinded: Buffer, masked: NDArray[np.int64], layout: Layout
) -> Bits:
    """The client's xor shares of "it matches", ``n``."""
    ring = choices_ring()
    plains = decrypt_results(ring, key, blinded, layout.groups * LENGTH)
    slots = np.stack([ring.read_slots(plain) for plain in plains])
    zero = (slots.reshape(layout.groups, LENGTH, DEGREE) == 0).any(axis=1)
    return zero.reshape(-1)[: layout.records].astype(np.int64) ^ _split(masked)[0]


def encrypt_shares(key: seal.SecretKey, shares: Bits, layout: Layout) -> bytes:
    """Step 3: ``groups`` seeded ciphertexts of the client's shares."""
    ring = choices_ring()
    encryptor = seal.Encryptor(ring.context, key)
    return b"".join(
        ring.encrypt_seeded(encryptor, ring.slots(group)) for group in _by_groups(shares, layout)
    )


def any_match(key: seal.SecretKey, answer: Buffer) -> bool:
    """The bit, of the server's REPEATS sums."""
    ring = choices_ring()
    plains = decrypt_results(ring, key, answer, REPEATS)
    return any(ring.read(plain)[0] != 0 for plain in plains)


def which_match(key: seal.SecretKey, answer: Buffer, layout: Layout) -> list[int]:
    """The numbers of the records that match, where the policy allows it."""
    ring = choices_ring()
    plains = decrypt_results(ring, key, answer, REPEATS * layout.groups)
    slots = np.stack([ring.read_slots(plain) for plain in plains])
    found = (slots.reshape(layout.groups, REPEATS, DEGREE) != 0).any(axis=1).reshape(-1)
    return [int(i) for i in np.flatnonzero(found[: layout.records])]


# -- server ------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class ServerShares:
    """What the server keeps between its two steps: xor shares, ``groups x N``."""

    bits: Bits


def _coefficients(low: NDArray[np.int64], sign: NDArray[np.int64]) -> NDArray[np.int64]:
    """The c_i as linear functions of the client's bits.

    Returns:
        int64 ``LENGTH x (LENGTH + 1) x N``: row i holds the factors of a_0, a_1, … and, last, the
        constant of c_i.
    """
    bits = np.stack([((2 * low) >> j) & 1 for j in range(LENGTH)])
    result = np.zeros((LENGTH, LENGTH + 1, DEGREE), np.int64)
    for i in range(LENGTH):
        result[i, i] = 1
        result[i, i + 1 : LENGTH] = 3 * (1 - 2 * bits[i + 1 :])
        result[i, LENGTH] = sign - bits[i] + 3 * bits[i + 1 :].sum(axis=0)
    return result


def _blind_group(
    encryptor: seal.Encryptor, client: Sequence[seal.Ciphertext], low: NDArray[np.int64]
) -> tuple[list[bytes], Bits]:
    """The blinded, shuffled c_i of N records, and the coins that turned the comparison round."""
    ring = choices_ring()
    evaluator = ring.evaluator
    coins = uniform(DEGREE, 2)
    linear = _coefficients(low, 1 - 2 * coins)
    # sorting random keys shuffles; 62 bits make equal keys, and so a bias, improbable: 2^-55
    places = np.argsort(uniform(LENGTH * DEGREE, 1 << 62).reshape(LENGTH, DEGREE), axis=0)
    units = 1 + uniform(LENGTH * DEGREE, ring.modulus - 1).reshape(LENGTH, 1, DEGREE)
    linear = np.take_along_axis(linear, places[:, None, :], axis=0) * units % ring.modulus
    sent, term = [], seal.Ciphertext()
    for row in linear:
        total = seal.Ciphertext()
        evaluator.multiply_plain(client[0], ring.to_ntt(ring.slots(row[0])), total)
        for ciphertext, factors in zip(client[1:], row[1:-1], strict=True):
            evaluator.multiply_plain(ciphertext, ring.to_ntt(ring.slots(factors)), term)
            evaluator.add_inplace(total, term)
        evaluator.transform_from_ntt_inplace(total)
        evaluator.add_plain_inplace(total, ring.slots(row[-1]))
        sent.append(sanitise(ring, encryptor, total))
    return sent, coins


def _expand(data: Buffer, count: int) -> list[seal.Ciphertext]:
    ring, size = choices_ring(), seeded_bytes()
    if len(data) != count * size:
        raise ParameterError("ciphertexts of a wrong size")
    view, result = memoryview(data), []
    for start in range(0, len(data), size):
        ciphertext = ring.expand(view[start : start + size])
        ring.evaluator.transform_to_ntt_inplace(ciphertext)
        result.append(ciphertext)
    return result


def blind(
    public: seal.PublicKey,
    data: Buffer,
    masks: NDArray[np.int64],
    threshold: int,
    layout: Layout,
) -> tuple[bytes, ServerShares]:
    """Step 2.

    Args:
        data: the client's encrypted bits.
        masks: of the records' scores, ``n``.
        threshold: an inner product of quantised templates.

    Raises:
        ParameterError: wrong length, a word out of range.
    """
    ring = choices_ring()
    encryptor = seal.Encryptor(ring.context, public)
    if len(data) != layout.groups * LENGTH * seeded_bytes():
        raise ParameterError("encrypted bits of a wrong size")
    centred = threshold + (1 << (DROPPED_BITS - 1))
    padded = uniform(layout.groups * DEGREE, 1 << SCORE_BITS)
    padded[: layout.records] = (masks + centred) % (1 << SCORE_BITS)
    high, low = _split(padded.reshape(layout.groups, DEGREE))
    view, size = memoryview(data), LENGTH * seeded_bytes()
    sent, bits = [], []
    for group in range(layout.groups):
        client = _expand(view[group * size : (group + 1) * size], LENGTH)
        parts, coins = _blind_group(encryptor, client, low[group])
        sent += parts
        bits.append(coins ^ high[group] ^ 1)
    return b"".join(sent), ServerShares(np.stack(bits))


def _weigh(
    encryptor: seal.Encryptor, client: seal.Ciphertext, bits: Bits, counted: Bits
) -> seal.Ciphertext:
    """The bits (client xor server) of N records that count, each times a random unit."""
    ring, term = choices_ring(), seal.Ciphertext()
    if not counted.any():  # SEAL refuses to multiply by zero
        encryptor.encrypt_zero(term)
        return term
    weights = counted * (1 + uniform(DEGREE, ring.modulus - 1))
    factors = np.mod(weights * (1 - 2 * bits), ring.modulus)
    ring.evaluator.multiply_plain(client, ring.to_ntt(ring.slots(factors)), term)
    ring.evaluator.transform_from_ntt_inplace(term)
    ring.evaluator.add_plain_inplace(term, ring.slots(weights * bits))
    return term


def answer(
    public: seal.PublicKey,
    data: Buffer,
    shares: ServerShares,
    layout: Layout,
    counted: NDArray[np.bool_],
    which: bool = False,
) -> bytes:
    """Step 3: REPEATS sums, or with ``which`` REPEATS ciphertexts a group that say who matches.

    Args:
        counted: the records that count, bool ``n``; the others are padding.

    Raises:
        ParameterError: wrong length, a word out of range.
    """
    ring = choices_ring()
    encryptor = seal.Encryptor(ring.context, public)
    client = _expand(data, layout.groups)
    real = _by_groups(counted.astype(np.int64), layout)
    terms = [
        [_weigh(encryptor, ciphertext, bits, records) for _ in range(REPEATS)]
        for ciphertext, bits, records in zip(client, shares.bits, real, strict=True)
    ]
    if which:
        return b"".join(sanitise(ring, encryptor, term) for group in terms for term in group)
    sent = []
    for repeat in range(REPEATS):
        total = terms[0][repeat]
        for group in terms[1:]:
            ring.evaluator.add_inplace(total, group[repeat])
        hidden = uniform(DEGREE, ring.modulus)
        hidden[0] = 0
        ring.evaluator.add_plain_inplace(total, ring.coefficients(hidden))
        sent.append(sanitise(ring, encryptor, total))
    return b"".join(sent)


def answer_bytes(layout: Layout, which: bool) -> int:
    """Bytes of an answer."""
    return result_bytes() * REPEATS * (layout.groups if which else 1)
