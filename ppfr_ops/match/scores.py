"""Inner products of an encrypted probe and a gallery, masked before they leave.

The result goes to anyone who holds the secret key and may have chosen every word of its probe,
noise included, so that nothing in it may depend on the gallery but through a mask:

* the first polynomial gets a mask that is uniform modulo q, not modulo t: whatever the words of the
  probe were, and the scores and noise with them, what is sent is uniform;
* the second polynomial, a function of the gallery that the key holder knows, gets a u + e, where a
  comes from a hash of the session's nonce (:func:`.bfv.public_randomness`) and u and e are drawn
  anew for every ciphertext: pseudorandom by RLWE, and no choice of the client's key changes that;
* the modulus is switched down to one prime in between, which halves the result.

Both sides round their shares to integers modulo t, so that a score comes out of the two shares with
an error of one in 2^24 at most.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tenseal.sealapi as seal
from numpy.typing import NDArray

from .bfv import (
    DEGREE,
    RESULT_BYTES,
    SCORE_BITS,
    SEEDED_BYTES,
    Buffer,
    ParameterError,
    Words,
    public_randomness,
    ring,
    small_noise,
    uniform,
)
from .packing import Integers, Layout

PUBLIC_BYTES = 2 * DEGREE * 8
"""Bytes of the client's half of its public key."""


def _residues(values: NDArray[np.int64]) -> Words:
    """Small integers modulo both primes, ``2 x N``."""
    return np.stack([np.mod(values, prime).astype(np.uint64) for prime in ring().primes[:2]])


class QueryKey:
    """The client's key for one query: made for it, gone with it."""

    def __init__(self) -> None:
        self.secret: seal.SecretKey = seal.KeyGenerator(ring().context).secret_key()

    def public_half(self, seed: bytes) -> bytes:
        """e - a s with a from ``seed``, for the server to rerandomise by; ``PUBLIC_BYTES``."""
        bfv = ring()
        product = bfv.times_secret(self.secret, public_randomness(seed))
        noise = bfv.ciphertext(np.stack([_residues(small_noise(DEGREE))] * 2))
        bfv.evaluator.transform_to_ntt_inplace(noise)
        primes = np.array(bfv.primes[:2], np.uint64)[:, None]
        return ((bfv.words(noise)[0] + primes - product) % primes).astype("<u8").tobytes()

    def encrypt_probe(self, layout: Layout, template: Integers) -> bytes:
        """A probe, int16 ``D``, as ``K`` seeded ciphertexts."""
        encryptor = seal.Encryptor(ring().context, self.secret)
        return b"".join(
            ring().encrypt_seeded(encryptor, ring().coefficients(slice_))
            for slice_ in layout.probe(template)
        )

    def decrypt_masked(self, data: Buffer, layout: Layout) -> NDArray[np.int64]:
        """Score plus mask modulo t of every record, give or take one, ``n``.

        Raises:
            ParameterError: wrong length, a word out of range.
        """
        if len(data) != layout.blocks * RESULT_BYTES:
            raise ParameterError("results of a wrong size")
        decryptor = seal.Decryptor(ring().context, self.secret)
        rows = []
        for words in np.frombuffer(data, "<u8").reshape(layout.blocks, -1):
            plain = seal.Plaintext()
            decryptor.decrypt(ring().ciphertext(words, primes=1), plain)
            rows.append(ring().read(plain))
        return layout.pick(np.stack(rows))


def read_public(data: Buffer, seed: bytes) -> seal.Ciphertext:
    """The client's public key, as an encryption of zero in NTT form.

    Raises:
        ParameterError: wrong length, a word out of range.
    """
    if len(data) != PUBLIC_BYTES:
        raise ParameterError("a public key of a wrong size")
    half = np.frombuffer(data, "<u8").reshape(2, DEGREE)
    return ring().ciphertext(np.stack([half, public_randomness(seed)]), ntt=True)


def read_probe(data: Buffer, layout: Layout) -> list[seal.Ciphertext]:
    """The probe's ciphertexts in NTT form.

    Raises:
        ParameterError: wrong length, a word out of range.
    """
    bfv, size = ring(), SEEDED_BYTES
    if len(data) != layout.slices * size:
        raise ParameterError("a probe of a wrong size")
    view, probe = memoryview(data), []
    for start in range(0, len(data), size):
        ciphertext = bfv.expand(view[start : start + size])
        bfv.evaluator.transform_to_ntt_inplace(ciphertext)
        probe.append(ciphertext)
    return probe


@dataclass(frozen=True, repr=False)
class PackedGallery:
    """A gallery, or a partition of it, as plaintexts in NTT form: 16 bytes a number."""

    layout: Layout
    blocks: Sequence[Sequence[seal.Plaintext | None]]
    """``blocks x K``; None where every number is zero, which SEAL refuses to multiply by."""

    @classmethod
    def pack(cls, templates: Integers, layout: Layout) -> "PackedGallery":
        bfv = ring()
        step = layout.per_block
        return cls(
            layout,
            [
                [
                    bfv.to_ntt(bfv.coefficients(polynomial)) if polynomial.any() else None
                    for polynomial in layout.block(templates[start : start + step])
                ]
                for start in range(0, len(templates), step)
            ],
        )


def products(probe: Sequence[seal.Ciphertext], gallery: PackedGallery) -> Iterator[seal.Ciphertext]:
    """Encrypted inner products, a ciphertext a block, in coefficient form, not yet fit to leave."""
    evaluator = ring().evaluator
    term = seal.Ciphertext()
    for block in gallery.blocks:
        total: seal.Ciphertext | None = None
        for ciphertext, plain in zip(probe, block, strict=True):
            if plain is None:
                continue
            if total is None:
                total = seal.Ciphertext()
                evaluator.multiply_plain(ciphertext, plain, total)
                continue
            evaluator.multiply_plain(ciphertext, plain, term)
            evaluator.add_inplace(total, term)
        if total is None:
            raise ValueError("a block without a record")
        evaluator.transform_from_ntt_inplace(total)
        yield total


def mask(
    results: Iterable[seal.Ciphertext], public: seal.Ciphertext, layout: Layout
) -> tuple[bytes, NDArray[np.int64]]:
    """Masked results as they may leave, and the masks of the records' scores modulo t, ``n``.

    Args:
        public: of :func:`read_public`.
    """
    bfv, prime = ring(), ring().primes[0]
    sent, masks = [], []
    for result in results:
        fresh = seal.Ciphertext()
        ternary = bfv.to_ntt(bfv.coefficients(uniform(DEGREE, 3) - 1))
        bfv.evaluator.multiply_plain(public, ternary, fresh)
        bfv.evaluator.transform_from_ntt_inplace(fresh)
        bfv.evaluator.add_inplace(result, fresh)
        noise = np.stack([np.zeros((2, DEGREE), np.uint64), _residues(small_noise(DEGREE))])
        bfv.evaluator.add_inplace(result, bfv.ciphertext(noise))
        bfv.evaluator.mod_switch_to_inplace(result, bfv.last)
        words, drawn = bfv.words(result).copy(), uniform(DEGREE, prime)
        words[0, 0] = (words[0, 0] + drawn.astype(np.uint64)) % np.uint64(prime)
        sent.append(words.tobytes())
        masks.append(np.rint(drawn * ((1 << SCORE_BITS) / prime)).astype(np.int64))
    return b"".join(sent), layout.pick(np.stack(masks)) % (1 << SCORE_BITS)
