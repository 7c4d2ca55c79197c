"""A client that keeps to no rule wants the gallery.

What it did to version 1: a probe of zeros whose noise is 2^80, multiplied by the gallery under
encryption, left the gallery's numbers in the bits below the plaintext, where neither the mask
(multiples of q / t) nor the flooding noise (2^85) covered them. As many queries as a probe has
ciphertexts read every number of every template: 16 for 7,701 x 128, cosines of 0.9995 and more; one
verification read that person's.
"""

import numpy as np
import pytest
import tenseal.sealapi as seal

from ppfr_ops.match.bfv import DEGREE, RESULT_BYTES, ring, uniform
from ppfr_ops.match.packing import Layout, quantise
from ppfr_ops.match.scores import (
    PackedGallery,
    QueryKey,
    mask,
    products,
    read_probe,
    read_public,
)

NOISE = 80
NONCE = bytes(range(16))


def noisy_zero(key):
    """An encryption of zero that carries 2^80 as noise, as it travels."""
    primes = ring().primes[:2]
    encryptor = seal.Encryptor(ring().context, key.secret)
    data = ring().encrypt_seeded(encryptor, ring().coefficients(np.zeros(1, np.int64)))
    words = np.frombuffer(data, "<u8", 2 * DEGREE).reshape(2, DEGREE).copy()
    for row, prime in zip(words, primes, strict=True):
        row[0] = (int(row[0]) + (1 << NOISE)) % prime
    return words.tobytes() + data[2 * DEGREE * 8 :]


def below_the_plaintext(key, words):
    """What decryption rounds away, in units of the noise."""
    bfv, prime = ring(), ring().primes[0]
    both = bfv.ciphertext(np.stack([words[1:], words[1:]]), 1)
    bfv.evaluator.transform_to_ntt_inplace(both)
    times = bfv.times_secret(key.secret, bfv.words(both)[0])
    both = bfv.ciphertext(np.stack([times, times]), 1, ntt=True)
    bfv.evaluator.transform_from_ntt_inplace(both)
    phase = (words[0].astype(object) + bfv.words(both)[0, 0].astype(object)) % prime
    rest = np.array([(int(value) << 26) % prime for value in phase], dtype=object)
    rest = np.where(rest > prime // 2, rest - prime, rest).astype(float)
    return rest / 2.0 ** (26 + NOISE - 60)


def read_gallery(rows, layout, masking):
    """The gallery, ``n x D``, as the attacker reads it in K queries."""
    key, packed = QueryKey(), PackedGallery.pack(rows, layout)
    public = read_public(key.public_half(NONCE), NONCE)
    width, parts = layout.slice_width, []
    for chosen in range(layout.slices):
        encryptor = seal.Encryptor(ring().context, key.secret)
        zero = ring().coefficients(np.zeros(1, np.int64))
        probe = b"".join(
            noisy_zero(key) if k == chosen else ring().encrypt_seeded(encryptor, zero)
            for k in range(layout.slices)
        )
        sent = masking(products(read_probe(probe, layout), packed), public, layout)
        blocks = np.frombuffer(sent, "<u8").reshape(layout.blocks, 2, DEGREE)
        numbers = np.concatenate([below_the_plaintext(key, words) for words in blocks])
        parts.append(numbers.reshape(-1, width)[: len(rows), ::-1])
    return np.concatenate(parts, axis=1)[:, : rows.shape[1]]


def mask_of_version_1(results, public, layout):
    """A mask uniform modulo t and noise below 2^85; rerandomising changed nothing here."""
    bfv, (first, second, _) = ring(), ring().primes
    sent = []
    for result in results:
        bfv.evaluator.add_plain_inplace(result, bfv.coefficients(uniform(DEGREE, 1 << 26)))
        high, low = uniform(DEGREE, 1 << 25), uniform(DEGREE, second)
        flood = np.zeros((2, 2, DEGREE), np.uint64)
        flood[0, 1], flood[0, 0] = low, (high * (second - first) + low) % first
        bfv.evaluator.add_inplace(result, bfv.ciphertext(flood))
        bfv.evaluator.mod_switch_to_inplace(result, bfv.last)
        sent.append(bfv.words(result).tobytes())
    return b"".join(sent)


@pytest.mark.parametrize("layout", [Layout(64, 128, 128), Layout(300, 128, 16)])
def test_chosen_noise_reads_nothing_of_the_gallery(layout):
    """A verification, and as many identifications as a probe has ciphertexts."""
    rows = quantise(np.random.default_rng(4).normal(size=(layout.records, layout.dimensions)))
    read = read_gallery(rows, layout, mask_of_version_1)
    assert np.corrcoef(read.ravel(), rows.ravel())[0, 1] > 0.999  # the attack is a good one
    read = read_gallery(rows, layout, lambda *given: mask(*given)[0])
    assert abs(np.corrcoef(read.ravel(), rows.ravel())[0, 1]) < 5 / np.sqrt(rows.size)


def test_no_key_of_the_clients_shows_what_the_second_polynomial_was_multiplied_by():
    """Its half all zero: what is added for it is the server's own, and as fresh as ever."""
    rows = quantise(np.random.default_rng(4).normal(size=(64, 128)))
    layout, key = Layout(64, 128, 128), QueryKey()
    public = read_public(bytes(2 * DEGREE * 8), NONCE)
    probe = key.encrypt_probe(layout, rows[0])
    packed = PackedGallery.pack(rows, layout)
    seen = []
    for _ in range(2):
        sent, _ = mask(products(read_probe(probe, layout), packed), public, layout)
        assert len(sent) == RESULT_BYTES
        seen.append(np.frombuffer(sent, "<u8").reshape(2, DEGREE))
    assert not (seen[0] == seen[1]).any()  # both polynomials differ from time to time
