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
    choices_ring,
    scores_ring,
    uniform,
)
from ppfr_ops.match.keys import ClientKeys, PublicKeys
from ppfr_ops.match.packing import UNIT, Layout, quantise, threshold_integer
from ppfr_ops.match.scores import (
    PackedGallery,
    decrypt_masked,
    encrypt_probe,
    flood,
    mask,
    products,
    read_probe,
)

MODULUS = 1 << 26


def signed(values):
    return (values + MODULUS // 2) % MODULUS - MODULUS // 2


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
def test_encrypted_scores_are_the_plain_ones_once_unmasked(keys, records, dimensions, width):
    rng = np.random.default_rng(records)
    rows = quantise(rng.normal(size=(records, dimensions)))
    rows[: records // 2, 0] = 0  # a coefficient that is zero now and then
    probe = quantise(rng.normal(size=(1, dimensions)))[0]
    layout = Layout(records, dimensions, width)
    encrypted = read_probe(encrypt_probe(keys.scores, layout, probe), layout)
    results = products(encrypted, PackedGallery.pack(rows, layout))
    sent, masks = mask(results, PublicKeys.read(keys.public).scores, layout)
    seen = decrypt_masked(keys.scores, sent, layout)
    expected = rows.astype(np.int64) @ probe.astype(np.int64)
    assert np.array_equal(signed(seen - masks), expected)
    assert not np.array_equal(signed(seen), expected)


def test_a_dimension_that_is_zero_everywhere_does_not_stop_a_query(keys):
    rows = np.zeros((10, 16), np.int16)
    rows[:, 3] = 4096
    layout = Layout(10, 16, 2)
    encrypted = read_probe(encrypt_probe(keys.scores, layout, rows[0]), layout)
    results = products(encrypted, PackedGallery.pack(rows, layout))
    sent, masks = mask(results, PublicKeys.read(keys.public).scores, layout)
    assert (signed(decrypt_masked(keys.scores, sent, layout) - masks) == UNIT).all()


def test_every_coefficient_that_leaves_is_masked(keys):
    """Those between the records' hold sums over parts of two records."""
    rows = quantise(np.random.default_rng(0).normal(size=(64, 128)))
    layout = Layout(64, 128, 128)
    encrypted = read_probe(encrypt_probe(keys.scores, layout, rows[0]), layout)
    public = PublicKeys.read(keys.public)
    ring = scores_ring()
    plains = []
    for _ in range(2):
        sent, _ = mask(products(encrypted, PackedGallery.pack(rows, layout)), public.scores, layout)
        plain = seal.Plaintext()
        words = np.frombuffer(sent, "<u8")
        seal.Decryptor(ring.context, keys.scores).decrypt(ring.ciphertext(words, 1), plain)
        plains.append(ring.read(plain))
    # uniform modulo 2^26: two draws agree in 8192 / 2^26 places on average
    assert (plains[0] == plains[1]).sum() < 5
    assert abs(plains[0].mean() / MODULUS - 0.5) < 0.02


def test_flooding_noise_is_as_large_as_promised_and_decrypts_to_zero(keys):
    ring = scores_ring()
    ciphertext = seal.Ciphertext()
    seal.Encryptor(ring.context, PublicKeys.read(keys.public).scores).encrypt_zero(ciphertext)
    decryptor = seal.Decryptor(ring.context, keys.scores)
    before = decryptor.invariant_noise_budget(ciphertext)
    ring.evaluator.add_inplace(ciphertext, flood(ring))
    after = decryptor.invariant_noise_budget(ciphertext)
    assert before > 75 and 5 <= after <= 12  # log2(q / 2t) is 93; 2^85 was added
    plain = seal.Plaintext()
    decryptor.decrypt(ciphertext, plain)
    assert not ring.read(plain).any()
    first, second = ring.primes[:2]
    words = ring.words(flood(ring))[0].astype(object)
    # Chinese remainders: what was added, as one integer
    inverse = pow(int(second), -1, int(first))
    whole = words[1] + second * (((words[0] - words[1]) * inverse) % first)
    assert max(whole) < second << 25 and max(whole) > second << 24


def test_results_look_alike_whatever_the_gallery_is(keys):
    """The second polynomial is rerandomised: else it is a known linear function of the gallery."""
    layout = Layout(64, 128, 128)
    rows = quantise(np.random.default_rng(3).normal(size=(64, 128)))
    encrypted = read_probe(encrypt_probe(keys.scores, layout, rows[0]), layout)
    public = PublicKeys.read(keys.public)
    gallery = PackedGallery.pack(rows, layout)
    first, second = (mask(products(encrypted, gallery), public.scores, layout)[0] for _ in "ab")
    words = np.frombuffer(first, "<u8"), np.frombuffer(second, "<u8")
    assert not (words[0] == words[1]).any()


def test_parameters_are_128_bit_secure():
    allowed = seal.CoeffModulus.MaxBitCount(DEGREE, seal.SEC_LEVEL_TYPE.TC128)
    for ring in (scores_ring(), choices_ring()):
        total = np.prod([int(prime) for prime in ring.primes], dtype=object)
        assert int(total).bit_length() <= sum(PRIME_BITS) <= allowed == 218
        assert all(prime % (2 * DEGREE) == 1 for prime in ring.primes)


def test_words_out_of_range_and_wrong_lengths_are_refused(keys):
    layout = Layout(64, 128, 128)
    good = encrypt_probe(keys.scores, layout, np.ones(128, np.int16))
    read_probe(good, layout)
    bad = bytearray(good)
    bad[8:16] = b"\xff" * 8
    for data in (good[:-1], good + b"\0", b"", bytes(bad)):
        with pytest.raises(ParameterError):
            read_probe(data, layout)
    public = bytearray(keys.public)
    public[: len(public) // 4] = bytes(len(public) // 4)  # half of a key that is zero
    for data in (keys.public[:-8], bytes(public), b"\xff" * len(public)):
        with pytest.raises(ParameterError):
            PublicKeys.read(data)


def test_keys_survive_a_file_and_are_not_shown(keys, tmp_path):
    path = tmp_path / "bfv.key"
    keys.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    again = ClientKeys.load(path)
    layout = Layout(64, 128, 128)
    assert again.public == keys.public
    assert scores_ring().save_secret(again.scores) == scores_ring().save_secret(keys.scores)
    assert encrypt_probe(again.scores, layout, np.ones(128, np.int16))
    assert "public" not in repr(keys) and "SecretKey" not in repr(keys)


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
