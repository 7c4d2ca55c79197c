"""Inner products of an encrypted probe and a gallery, masked before they leave.

The result goes to whoever holds the secret key, so everything in it but score plus mask has to go:

* the mask, uniform modulo t, is added to every coefficient, also to those that mean nothing;
* a fresh encryption of zero hides the second polynomial, which otherwise is a linear function of
  the gallery with coefficients known to the key holder;
* noise, uniform below 2^85, drowns the noise of the product, which otherwise is another such
  function: statistical distance 2^-48 and less a ciphertext for probes encrypted as agreed
  (noise flooding, Gentry 2009, section 21.1);
* the modulus is switched down to one prime, which halves the result.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tenseal.sealapi as seal
from numpy.typing import NDArray

from .bfv import DEGREE, Buffer, ParameterError, Ring, scores_ring, seeded_bytes, uniform
from .packing import Integers, Layout

FLOOD_BITS = 25
"""Flooding noise is uniform in [0, 2^25 q) with q a prime of 60 bits."""


def flood(ring: Ring) -> seal.Ciphertext:
    """An encryption of zero, not random itself, whose noise is uniform in [0, 2^25 q)."""
    first, second = ring.primes[:2]
    high, low = uniform(DEGREE, 1 << FLOOD_BITS), uniform(DEGREE, second)
    words = np.zeros((2, 2, DEGREE), np.uint64)
    words[0, 1] = low  # high * second + low, modulo second and modulo first
    words[0, 0] = (high * (second - first) + low) % first
    return ring.ciphertext(words)


def sanitise(ring: Ring, encryptor: seal.Encryptor, ciphertext: seal.Ciphertext) -> bytes:
    """A result as it may leave: rerandomised under the peer's public key, flooded, switched down.

    Args:
        ciphertext: two polynomials, at the fresh level, coefficient form; changed in place.

    Returns:
        ``result_bytes`` bytes.
    """
    evaluator, zero = ring.evaluator, seal.Ciphertext()
    encryptor.encrypt_zero(zero)
    evaluator.add_inplace(ciphertext, zero)
    evaluator.add_inplace(ciphertext, flood(ring))
    evaluator.mod_switch_to_inplace(ciphertext, ring.last)
    return ring.words(ciphertext).tobytes()


def encrypt_probe(key: seal.SecretKey, layout: Layout, template: Integers) -> bytes:
    """A probe, int16 ``D``, as ``K`` seeded ciphertexts."""
    ring = scores_ring()
    encryptor = seal.Encryptor(ring.context, key)
    return b"".join(
        ring.encrypt_seeded(encryptor, ring.coefficients(slice_))
        for slice_ in layout.probe(template)
    )


def read_probe(data: Buffer, layout: Layout) -> list[seal.Ciphertext]:
    """The probe's ciphertexts in NTT form.

    Raises:
        ParameterError: wrong length, a word out of range.
    """
    ring, size = scores_ring(), seeded_bytes()
    if len(data) != layout.slices * size:
        raise ParameterError("a probe of a wrong size")
    view, probe = memoryview(data), []
    for start in range(0, len(data), size):
        ciphertext = ring.expand(view[start : start + size])
        ring.evaluator.transform_to_ntt_inplace(ciphertext)
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
        ring = scores_ring()
        step = layout.per_block
        return cls(
            layout,
            [
                [
                    ring.to_ntt(ring.coefficients(polynomial)) if polynomial.any() else None
                    for polynomial in layout.block(templates[start : start + step])
                ]
                for start in range(0, len(templates), step)
            ],
        )


def products(probe: Sequence[seal.Ciphertext], gallery: PackedGallery) -> Iterator[seal.Ciphertext]:
    """Encrypted inner products, a ciphertext a block, in coefficient form, not yet fit to leave."""
    evaluator = scores_ring().evaluator
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
    results: Iterable[seal.Ciphertext], public: seal.PublicKey, layout: Layout
) -> tuple[bytes, NDArray[np.int64]]:
    """Masked results as they may leave, and the masks of the records' scores, ``n``."""
    ring = scores_ring()
    encryptor = seal.Encryptor(ring.context, public)
    sent, masks = [], []
    for result in results:
        drawn = uniform(DEGREE, ring.modulus)
        ring.evaluator.add_plain_inplace(result, ring.coefficients(drawn))
        sent.append(sanitise(ring, encryptor, result))
        masks.append(drawn)
    return b"".join(sent), layout.pick(np.stack(masks))


def decrypt_masked(key: seal.SecretKey, data: Buffer, layout: Layout) -> NDArray[np.int64]:
    """Score plus mask modulo t of every record, ``n``.

    Raises:
        ParameterError: wrong length, a word out of range.
    """
    ring = scores_ring()
    plains = decrypt_results(ring, key, data, layout.blocks)
    return layout.pick(np.stack([ring.read(plain) for plain in plains]))


def decrypt_results(
    ring: Ring, key: seal.SecretKey, data: Buffer, count: int
) -> list[seal.Plaintext]:
    """Decrypt ``count`` results that :func:`sanitise` made. Raises ParameterError as above."""
    if len(data) != count * 2 * DEGREE * 8:
        raise ParameterError("results of a wrong size")
    decryptor = seal.Decryptor(ring.context, key)
    plains = []
    for words in np.frombuffer(data, "<u8").reshape(count, -1):
        plain = seal.Plaintext()
        decryptor.decrypt(ring.ciphertext(words, primes=1), plain)
        plains.append(plain)
    return plains
