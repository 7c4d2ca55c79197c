"""From masked scores to the bit: right for every record, and nothing else in what leaves."""

import numpy as np
import pytest
import tenseal.sealapi as seal

from ppfr_ops.match.bfv import DEGREE, ParameterError, choices_ring, uniform
from ppfr_ops.match.comparison import (
    DROPPED_BITS,
    LENGTH,
    answer,
    any_match,
    blind,
    client_shares,
    encrypt_bits,
    encrypt_shares,
    which_match,
)
from ppfr_ops.match.keys import PublicKeys
from ppfr_ops.match.packing import UNIT, Layout
from ppfr_ops.match.scores import decrypt_results

MODULUS = 1 << 26
EDGE = 1 << (DROPPED_BITS - 1)


def run(keys, scores, threshold, counted=None, which=False):
    """Shares of both sides put together, and what the client reads."""
    layout = Layout(len(scores), 1, 1)
    public = PublicKeys.read(keys.public).choices
    masks = uniform(len(scores), MODULUS)
    seen = (scores + masks) % MODULUS
    blinded, server = blind(
        public, encrypt_bits(keys.choices, seen, layout), masks, threshold, layout
    )
    client = client_shares(keys.choices, blinded, seen, layout)
    sent = encrypt_shares(keys.choices, client, layout)
    counted = np.ones(len(scores), bool) if counted is None else counted
    final = answer(public, sent, server, layout, counted, which)
    read = which_match(keys.choices, final, layout) if which else any_match(keys.choices, final)
    return client ^ server.bits.reshape(-1)[: len(scores)], read, client


def test_every_record_is_compared_rightly_outside_the_band(keys):
    rng = np.random.default_rng(0)
    for threshold in (0, UNIT // 2, -UNIT // 3):
        far = rng.integers(-UNIT, UNIT + 1, DEGREE - 400)
        near = threshold + np.concatenate(
            [EDGE + np.arange(200), -EDGE - 1 - np.arange(200)]  # just outside, on either side
        )
        scores = np.concatenate([far, near])
        outside = (scores - threshold >= EDGE) | (scores - threshold < -EDGE)
        together, _, _ = run(keys, scores, threshold)
        assert np.array_equal(together[outside], (scores >= threshold)[outside])
        assert outside.sum() > DEGREE * 0.98


def test_more_records_than_slots(keys):
    scores = np.full(DEGREE + 10, -UNIT // 2)
    scores[[3, DEGREE + 9]] = UNIT // 2
    together, read, _ = run(keys, scores, 0, which=True)
    assert list(np.flatnonzero(together)) == read == [3, DEGREE + 9]


@pytest.mark.parametrize(("matches", "bit"), [([], False), ([5], True), ([0, 1, 299], True)])
def test_the_bit(keys, matches, bit):
    scores = np.full(300, UNIT // 10)
    scores[matches] = UNIT
    assert run(keys, scores, UNIT // 2)[1] is bit


def test_records_that_do_not_count_do_not_match(keys):
    scores = np.full(300, UNIT)
    assert run(keys, scores, 0, np.zeros(300, bool))[1] is False
    assert run(keys, scores, 0, np.arange(300) == 7, which=True)[1] == [7]


def test_a_client_share_is_a_fair_coin(keys):
    """Whatever the scores are: of all that match, and of none."""
    for scores in (np.full(DEGREE, UNIT), np.full(DEGREE, -UNIT)):
        _, _, client = run(keys, scores, 0)
        assert abs(client.mean() - 0.5) < 0.03  # 5 sigma


def test_what_the_client_decrypts_is_units_and_a_zero_at_a_random_place(keys):
    """The place of the zero would tell the mask's leading bits, and so the score."""
    layout = Layout(DEGREE, 1, 1)
    seen = np.full(DEGREE, 123456)
    masks = np.full(DEGREE, 123456 - UNIT // 2) % MODULUS  # all scores, and first bits, the same
    public = PublicKeys.read(keys.public).choices
    blinded, _ = blind(public, encrypt_bits(keys.choices, seen, layout), masks, 0, layout)
    ring = choices_ring()
    plains = decrypt_results(ring, keys.choices, blinded, LENGTH)
    slots = np.stack([ring.read_slots(plain) for plain in plains])
    zeros = slots == 0
    assert zeros.sum(axis=0).max() == 1
    places = zeros.sum(axis=1)
    expected = zeros.sum() / LENGTH
    assert (np.abs(places - expected) < 6 * np.sqrt(expected)).all()
    others = slots[~zeros]
    assert abs(others.mean() / ring.modulus - 0.5) < 0.01
    assert np.bincount(others * 16 // ring.modulus).min() > len(others) / 16 * 0.95


def test_a_sum_tells_nothing_but_whether_it_is_zero(keys):
    """The other coefficients are masked; with a match the constant one is uniform."""
    layout = Layout(100, 1, 1)
    public = PublicKeys.read(keys.public).choices
    ring = choices_ring()
    masks = uniform(100, MODULUS)
    seen = (np.full(100, UNIT) + masks) % MODULUS
    blinded, server = blind(public, encrypt_bits(keys.choices, seen, layout), masks, 0, layout)
    client = client_shares(keys.choices, blinded, seen, layout)
    sent = encrypt_shares(keys.choices, client, layout)
    firsts, rest = [], []
    for _ in range(10):
        final = answer(public, sent, server, layout, np.ones(100, bool))
        for plain in decrypt_results(ring, keys.choices, final, 3):
            values = ring.read(plain)
            firsts.append(values[0])
            rest.append(values[1:])
    assert len(set(firsts)) > 28
    assert abs(np.mean(rest) / ring.modulus - 0.5) < 0.01


def test_wrong_lengths_are_refused(keys):
    layout = Layout(10, 1, 1)
    public = PublicKeys.read(keys.public).choices
    bits = encrypt_bits(keys.choices, np.zeros(10, np.int64), layout)
    with pytest.raises(ParameterError):
        blind(public, bits[:-1], np.zeros(10, np.int64), 0, layout)
    with pytest.raises(ParameterError):
        client_shares(keys.choices, b"\0" * 16, np.zeros(10, np.int64), layout)


def test_another_key_decrypts_to_noise(keys):
    from ppfr_ops.match.keys import ClientKeys

    ring = choices_ring()
    other = ClientKeys.generate()
    ciphertext = ring.expand(
        ring.encrypt_seeded(
            seal.Encryptor(ring.context, keys.choices), ring.slots(np.ones(DEGREE, np.int64))
        )
    )
    assert seal.Decryptor(ring.context, other.choices).invariant_noise_budget(ciphertext) == 0
    assert seal.Decryptor(ring.context, keys.choices).invariant_noise_budget(ciphertext) > 90
