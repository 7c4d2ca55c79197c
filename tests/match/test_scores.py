"""Packing, encryption and masks: the encrypted inner products are the plain ones, exactly."""

import numpy as np
import pytest
import tenseal.sealapi as seal
from hypothesis import given, settings
from hypothesis import strategies as st

from ppfr_ops.match.bfv import (
    DEGREE,
    PRIME_BITS,
    ParameterError,
    public_randomness,
    ring,
    small_noise,
    uniform,
)
from ppfr_ops.match.packing import UNIT, Layout, quantise, threshold_integer
from ppfr_ops.match.scores import (
    PUBLIC_BYTES,
    PackedGallery,
    QueryKey,
    mask,
    products,
    read_probe,
    read_public,
)

MODULUS = 1 << 26


NONCE = bytes(range(16))


def signed(values):
    return (values + MODULUS // 2) % MODULUS - MODULUS // 2


def masked(rows, probe, layout):
    """What the client decrypts, and the masks."""
    key = QueryKey()
    encrypted = read_probe(key.encrypt_probe(layout, probe), layout)
    public = read_public(key.public_half(NONCE), NONCE)
    sent, masks = mask(products(encrypted, PackedGallery.pack(rows, layout)), public, layout)
    return key.decrypt_masked(sent, layout), masks, sent


@given(
    st.integers(1, 300), st.integers(1, 40), st.sampled_from([1, 2, 8, 32, 64]), st.integers(0, 99)
)
@settings(max_examples=40, deadline=None)
def test_a_polynomial_product_holds_the_inner_products(records, dimensions, width, seed):
    layout = Layout(records, dimensions, width)
    rng = np.random.default_rng(seed)
    rows = rng.integers(-4096, 4097, (records, dimensions)).astype(np.int16)
    probe = rng.integers(-4096, 4097, dimensions).astype(np.int16)
    results = []
    for start in range(0, records, layout.per_block):
        total = np.zeros(2 * DEGREE, np.int64)
        block = layout.block(rows[start : start + layout.per_block])
        for ours, theirs in zip(layout.probe(probe), block, strict=True):
            for index, value in enumerate(ours):
                total[index : index + DEGREE] += value * theirs
        results.append(total[:DEGREE] - total[DEGREE:])  # X^N = -1
    expected = rows.astype(np.int64) @ probe.astype(np.int64)
    assert np.array_equal(layout.pick(np.stack(results)), expected)


@pytest.mark.parametrize(
    ("records", "dimensions", "width"), [(70, 128, 128), (300, 100, 8), (9000, 3, 1), (5, 1024, 64)]
)
def test_encrypted_scores_are_the_plain_ones_once_unmasked(records, dimensions, width):
    rng = np.random.default_rng(records)
    rows = quantise(rng.normal(size=(records, dimensions)))
    rows[: records // 2, 0] = 0  # a coefficient that is zero now and then
    probe = quantise(rng.normal(size=(1, dimensions)))[0]
    layout = Layout(records, dimensions, width)
    seen, masks, _ = masked(rows, probe, layout)
    expected = rows.astype(np.int64) @ probe.astype(np.int64)
    assert np.abs(signed(seen - masks) - expected).max() <= 1
    assert np.abs(signed(seen) - expected).min() > 1 or records > 100
    assert np.abs(np.corrcoef(signed(seen), expected)[0, 1]) < 0.6 or records < 100


def test_a_dimension_that_is_zero_everywhere_does_not_stop_a_query():
    rows = np.zeros((10, 16), np.int16)
    rows[:, 3] = 4096
    seen, masks, _ = masked(rows, rows[0], Layout(10, 16, 2))
    assert (np.abs(signed(seen - masks) - UNIT) <= 1).all()


def test_both_polynomials_that_leave_are_fresh_and_uniform():
    rows = quantise(np.random.default_rng(0).normal(size=(64, 128)))
    layout = Layout(64, 128, 128)
    words = [
        np.frombuffer(masked(rows, rows[0], layout)[2], "<u8").reshape(2, DEGREE) for _ in range(2)
    ]
    assert not (words[0] == words[1]).any()
    for half in np.concatenate(words):
        share = half / ring().primes[0]
        assert abs(share.mean() - 0.5) < 0.016 and abs(share.std() - 12**-0.5) < 0.01  # 5 sigma
        assert np.abs(np.corrcoef(share[1:], share[:-1])[0, 1]) < 0.06


def test_the_public_half_comes_from_the_nonce_and_hides_the_key():
    first, second = public_randomness(NONCE), public_randomness(bytes(16))
    assert first.shape == (2, DEGREE) and not (first == second).any()
    assert np.array_equal(first, public_randomness(NONCE))
    key = QueryKey()
    assert key.public_half(NONCE) != key.public_half(NONCE)  # noise is drawn anew
    noise = small_noise(200_000)
    assert abs(noise.mean()) < 0.05 and abs(noise.std() - 10.5**0.5) < 0.05


def test_parameters_are_128_bit_secure():
    allowed = seal.CoeffModulus.MaxBitCount(DEGREE, seal.SEC_LEVEL_TYPE.TC128)
    total = np.prod([int(prime) for prime in ring().primes], dtype=object)
    assert int(total).bit_length() <= sum(PRIME_BITS) <= allowed == 218
    assert all(prime % (2 * DEGREE) == 1 for prime in ring().primes)


def test_words_out_of_range_and_wrong_lengths_are_refused():
    layout, key = Layout(64, 128, 128), QueryKey()
    good = key.encrypt_probe(layout, np.ones(128, np.int16))
    read_probe(good, layout)
    bad = bytearray(good)
    bad[8:16] = b"\xff" * 8
    for data in (good[:-1], good + b"\0", b"", bytes(bad)):
        with pytest.raises(ParameterError):
            read_probe(data, layout)
    for data in (bytes(8), b"\xff" * PUBLIC_BYTES):
        with pytest.raises(ParameterError):
            read_public(data, NONCE)
    with pytest.raises(ParameterError):
        key.decrypt_masked(bytes(8), layout)


def test_uniform_reaches_both_ends_and_no_further():
    drawn = uniform(20000, 5)
    assert set(drawn) == set(range(5))
    assert np.bincount(drawn).min() > 3700
    assert set(uniform(10, 1)) == {0}


def test_quantising_moves_a_cosine_by_less_than_the_band():
    rng = np.random.default_rng(1)
    for dimensions in (128, 256, 1024, 2048):
        rows = rng.normal(size=(400, dimensions))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        whole = quantise(rows).astype(np.int64)
        moved = np.abs((whole @ whole.T) / UNIT - rows @ rows.T).max()
        assert moved < 0.0008


@pytest.mark.parametrize("rows", [np.zeros((2, 3)), np.full((1, 4), np.nan), np.ones(5)])
def test_what_is_no_template_is_refused(rows):
    with pytest.raises(ValueError):
        quantise(rows)
    with pytest.raises(ValueError):
        threshold_integer(1.5)


def test_the_layout_balances_both_directions():
    layout = Layout.smallest(7701, 128)
    assert (layout.slices, layout.blocks) == (16, 8)
    assert Layout.smallest(1_000_000, 128).slice_width == 1
    with pytest.raises(ValueError):
        Layout(10, 128, 3)
