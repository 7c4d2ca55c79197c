"""A gallery encrypted under its owner's key, asked with a probe in the clear."""

import numpy as np
import pytest
import tenseal.sealapi as seal

from ppfr_ops.match.bfv import ParameterError, scores_ring
from ppfr_ops.match.comparison import (
    answer,
    any_match,
    blind,
    client_shares,
    encrypt_bits,
    encrypt_shares,
)
from ppfr_ops.match.keys import ClientKeys, PublicKeys
from ppfr_ops.match.packing import UNIT, Layout, quantise
from ppfr_ops.match.scores import decrypt_masked, mask
from ppfr_ops.match.sealed import SealedGallery, seal_gallery, sealed_products


def test_a_sealed_gallery_gives_the_bit_and_another_key_opens_nothing(keys):
    rows = quantise(np.random.default_rng(0).normal(size=(700, 128)))
    layout = Layout.smallest(700, 128)
    data = seal_gallery(keys.scores, rows, layout)
    gallery = SealedGallery.read(data, layout)
    public, licensee = PublicKeys.read(keys.public), ClientKeys.generate()
    for number, expected in ((5, True), (None, False)):
        probe = np.random.default_rng(9).integers(-500, 500, 128).astype(np.int16)
        probe = probe if number is None else rows[number]
        sent, masks = mask(sealed_products(probe, gallery), public.scores, layout)
        seen = decrypt_masked(keys.scores, sent, layout)
        scores = (seen - masks + (1 << 25)) % (1 << 26) - (1 << 25)
        assert np.array_equal(scores, rows.astype(np.int64) @ probe.astype(np.int64))
        bits = encrypt_bits(keys.choices, seen, layout)
        blinded, shares = blind(public.choices, bits, masks, UNIT * 3 // 4, layout)
        mine = encrypt_shares(
            keys.choices, client_shares(keys.choices, blinded, seen, layout), layout
        )
        final = answer(public.choices, mine, shares, layout, np.ones(700, bool))
        assert any_match(keys.choices, final) is expected
    ring = scores_ring()
    ciphertext = gallery.blocks[0][0]
    ring.evaluator.transform_from_ntt_inplace(ciphertext)
    owner, other = (seal.Decryptor(ring.context, k.scores) for k in (keys, licensee))
    assert owner.invariant_noise_budget(ciphertext) > 60
    assert other.invariant_noise_budget(ciphertext) == 0
    plain = seal.Plaintext()
    other.decrypt(ciphertext, plain)
    block = np.mod(layout.block(rows[: layout.per_block])[0], ring.modulus)
    assert (ring.read(plain) == block).mean() < 0.01
    owner.decrypt(ciphertext, plain)
    assert np.array_equal(ring.read(plain), block)
    with pytest.raises(ParameterError):
        SealedGallery.read(data[:-1], layout)
