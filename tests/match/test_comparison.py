"""From masked scores to the bit: right for every record, and nothing else in what leaves."""

import secrets

import numpy as np
import pytest

from ppfr_ops.match.bfv import ParameterError, uniform
from ppfr_ops.match.comparison import (
    DROPPED_BITS,
    LENGTH,
    answer_bytes,
    client_bits,
    evaluate,
    garble,
)
from ppfr_ops.match.packing import UNIT
from ppfr_ops.match.transfer import (
    CHECK_BYTES,
    POINT_BYTES,
    WIDTH,
    TransferReceiver,
    TransferSender,
    message_bytes,
)

MODULUS = 1 << 26
EDGE = 1 << (DROPPED_BITS - 1)


def run(scores, threshold, counted=None, which=False):
    """What the client reads."""
    count, session = len(scores), secrets.token_bytes(32)
    masks = uniform(count, MODULUS)
    chooser = TransferReceiver(session)
    dealer = TransferSender(session, chooser.point)
    bits = client_bits((scores + masks) % MODULUS)
    message, labels = chooser.choose(dealer.points, bits)
    theirs = dealer.labels(message, LENGTH * count)
    counted = np.ones(count, bool) if counted is None else counted
    sent = garble(session, dealer.difference, theirs, masks, threshold, counted, which)
    return evaluate(session, labels, sent, count, which)


def test_every_record_is_compared_rightly_outside_the_band():
    rng = np.random.default_rng(0)
    for threshold in (0, UNIT // 2, -UNIT // 3):
        far = rng.integers(-UNIT, UNIT + 1, 3000)
        near = threshold + np.concatenate(
            [EDGE + np.arange(200), -EDGE - 1 - np.arange(200)]  # just outside, on either side
        )
        scores = np.concatenate([far, near])
        outside = (scores - threshold >= EDGE) | (scores - threshold < -EDGE)
        told = np.isin(np.arange(len(scores)), run(scores, threshold, which=True))
        assert np.array_equal(told[outside], (scores >= threshold)[outside])
        assert outside.sum() > len(scores) * 0.98


@pytest.mark.parametrize("count", [1, 2, 3, 300, 1025])
def test_the_bit(count):
    scores = np.full(count, UNIT // 10)
    assert run(scores, UNIT // 2) == []
    for place in {0, count // 2, count - 1}:
        one = scores.copy()
        one[place] = UNIT
        assert run(one, UNIT // 2) == [0]
    assert run(np.full(count, UNIT), UNIT // 2) == [0]


def test_records_that_do_not_count_do_not_match():
    scores = np.full(300, UNIT)
    assert run(scores, 0, np.zeros(300, bool)) == []
    assert run(scores, 0, np.arange(300) == 7, which=True) == [7]


def test_the_client_gets_one_label_of_each_two_and_the_server_no_bit():
    session, bits = bytes(32), np.random.default_rng(0).integers(0, 2, 5000)
    chooser = TransferReceiver(session)
    dealer = TransferSender(session, chooser.point)
    message, labels = chooser.choose(dealer.points, bits)
    no = dealer.labels(message, 5000)
    yes = no ^ dealer.difference
    assert np.array_equal(labels, np.where(bits[:, None].astype(bool), yes, no))
    assert dealer.difference[0] & np.uint64(1)
    again, _ = TransferReceiver(session).choose(dealer.points, bits)
    same = np.frombuffer(message, np.uint8) == np.frombuffer(again, np.uint8)
    assert same.mean() < 0.01  # 1 of 256


def test_a_client_that_uses_two_answers_at_once_is_refused():
    """Other bits in some columns would give it sums of labels, and so the bits of the difference.

    One column alone passes every second time, by guessing one bit of the secret: so it is tried
    with as many as an attacker needs.
    """
    refused = 0
    for _ in range(20):
        session, bits = secrets.token_bytes(32), np.zeros(200, int)
        chooser = TransferReceiver(session)
        dealer = TransferSender(session, chooser.point)
        message, _ = chooser.choose(dealer.points, bits)
        size = (message_bytes(200) - CHECK_BYTES) // WIDTH
        changed = bytearray(message)
        for column in range(WIDTH // 2):
            changed[column * size] ^= 1  # the first bit is yes in half of the columns
        with pytest.raises(ParameterError):
            dealer.labels(bytes(changed), 200)
        for place in (0, len(message) - 1, len(message) - CHECK_BYTES):
            changed = bytearray(message)
            changed[place] ^= 1
            try:
                dealer.labels(bytes(changed), 200)
            except ParameterError:
                refused += 1
    assert refused >= 40


def test_points_outside_the_group_are_refused():
    chooser = TransferReceiver(bytes(32))
    small_order = bytes([1] + [0] * 31)
    for point in (bytes(POINT_BYTES), small_order, b"\xff" * POINT_BYTES):
        with pytest.raises(ParameterError):
            TransferSender(bytes(32), point)
        with pytest.raises(ParameterError):
            chooser.choose(point * WIDTH, np.zeros(8, int))
    with pytest.raises(ParameterError):
        chooser.choose(b"", np.zeros(8, int))


def test_tables_look_alike_whatever_is_compared():
    """Every byte of them uniform, the same records or others."""
    count, session = 500, bytes(32)
    chooser = TransferReceiver(session)
    dealer = TransferSender(session, chooser.point)
    message, _ = chooser.choose(dealer.points, client_bits(np.zeros(count, np.int64)))
    labels = dealer.labels(message, LENGTH * count)
    for masks in (np.zeros(count, np.int64), np.full(count, MODULUS // 2)):
        sent = garble(session, dealer.difference, labels, masks, 0, np.ones(count, bool))
        assert len(sent) == answer_bytes(count, False)
        counts = np.bincount(np.frombuffer(sent, np.uint8), minlength=256)
        assert abs(counts / len(sent) * 256 - 1).max() < 0.2  # 6 sigma


def test_wrong_lengths_are_refused():
    chooser = TransferReceiver(bytes(32))
    dealer = TransferSender(bytes(32), chooser.point)
    with pytest.raises(ParameterError):
        dealer.labels(bytes(10), 8)
    with pytest.raises(ParameterError):
        evaluate(bytes(32), np.zeros((LENGTH, 2), np.uint64), b"", 1)
