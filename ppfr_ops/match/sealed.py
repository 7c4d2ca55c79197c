"""The other way round: the gallery encrypted under its owner's key, the probe in the clear.

Whoever holds the sealed gallery and a probe computes the scores and masks them; the owner's key
holder decrypts score plus mask, and compares with the roles of :mod:`.comparison` exchanged. So the
probe stays where it is, the gallery can lie with a party that cannot read it, and the key holder
sees neither. What comes out is the key holder's to tell.

This is a library form, not one of ``ppfr match``: there the server computes, and a probe in the
clear would be shown to it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import tenseal.sealapi as seal

from .bfv import Buffer, ParameterError, scores_ring, seeded_bytes
from .packing import Integers, Layout


def seal_gallery(key: seal.SecretKey, templates: Integers, layout: Layout) -> bytes:
    """A gallery, int16 ``n x D``, as ``blocks x K`` seeded ciphertexts."""
    ring, step = scores_ring(), layout.per_block
    encryptor = seal.Encryptor(ring.context, key)
    return b"".join(
        ring.encrypt_seeded(encryptor, ring.coefficients(polynomial))
        for start in range(0, len(templates), step)
        for polynomial in layout.block(templates[start : start + step])
    )


@dataclass(frozen=True, repr=False)
class SealedGallery:
    """Ciphertexts in NTT form, ``blocks x K``; 32 bytes a number."""

    layout: Layout
    blocks: Sequence[Sequence[seal.Ciphertext]]

    @classmethod
    def read(cls, data: Buffer, layout: Layout) -> "SealedGallery":
        """Raises ParameterError: wrong length, a word out of range."""
        ring, size = scores_ring(), seeded_bytes()
        if len(data) != layout.blocks * layout.slices * size:
            raise ParameterError("a sealed gallery of a wrong size")
        view, ciphertexts = memoryview(data), []
        for start in range(0, len(data), size):
            ciphertext = ring.expand(view[start : start + size])
            ring.evaluator.transform_to_ntt_inplace(ciphertext)
            ciphertexts.append(ciphertext)
        width = layout.slices
        rows = range(0, len(ciphertexts), width)
        return cls(layout, [ciphertexts[row : row + width] for row in rows])


def sealed_products(probe: Integers, gallery: SealedGallery) -> Iterator[seal.Ciphertext]:
    """Encrypted inner products with a probe in the clear, int16 ``D``; a ciphertext a block.

    They go through :func:`.scores.mask` under the owner's public key before they leave.
    """
    ring = scores_ring()
    plains = [
        ring.to_ntt(ring.coefficients(polynomial)) if polynomial.any() else None
        for polynomial in gallery.layout.probe(probe)
    ]
    term = seal.Ciphertext()
    for block in gallery.blocks:
        total: seal.Ciphertext | None = None
        for plain, ciphertext in zip(plains, block, strict=True):
            if plain is None:
                continue
            ring.evaluator.multiply_plain(ciphertext, plain, term)
            if total is None:
                total, term = term, seal.Ciphertext()
            else:
                ring.evaluator.add_inplace(total, term)
        if total is None:
            raise ValueError("a probe of zeros")
        ring.evaluator.transform_from_ntt_inplace(total)
        yield total
