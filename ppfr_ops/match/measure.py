"""Time and sizes of a query, step by step, in this process."""

import secrets
import time
from dataclasses import dataclass

import numpy as np

from .comparison import LENGTH, client_bits, evaluate, garble
from .packing import Integers, Layout, quantise, threshold_integer
from .scores import PackedGallery, QueryKey, mask, products, read_probe, read_public
from .transfer import TransferReceiver, TransferSender
from .wire import session_digest


@dataclass(frozen=True)
class Step:
    """One step of a query."""

    side: str
    name: str
    seconds: float
    """Processor time of this process: BFV here uses one core."""
    sent: int
    """Bytes that go to the other side."""


def random_templates(records: int, dimensions: int, seed: int = 0) -> Integers:
    """Quantised templates of nobody, int16 ``n x D``."""
    draws = np.random.default_rng(seed).normal(size=(records, dimensions))
    return quantise(draws)


def measure(
    templates: Integers, probe: Integers, threshold: float, layout: Layout | None = None
) -> tuple[list[Step], bool, float]:
    """Run one identification.

    Returns:
        Its steps, the bit, and the seconds that packing the gallery took (once, when serving).
    """
    layout = layout or Layout.smallest(*templates.shape)
    start = time.process_time()
    gallery = PackedGallery.pack(templates, layout)
    packing = time.process_time() - start
    steps: list[Step] = []
    mark = time.process_time()

    def done(side: str, name: str, sent: int) -> None:
        nonlocal mark
        steps.append(Step(side, name, time.process_time() - mark, sent))
        mark = time.process_time()

    key, nonce = QueryKey(), secrets.token_bytes(16)
    half, chooser = key.public_half(nonce), TransferReceiver(nonce)
    encrypted = key.encrypt_probe(layout, probe)
    done("client", "keys, encrypt the probe", len(encrypted) + len(half) + len(chooser.point))
    ciphertexts, public = read_probe(encrypted, layout), read_public(half, nonce)
    dealer = TransferSender(nonce, chooser.point)
    session = session_digest(nonce, chooser.point, dealer.points)
    done("server", "read the probe, base transfers", 0)
    results = list(products(ciphertexts, gallery))
    done("server", "inner products", 0)
    masked, masks = mask(results, public, layout)
    done("server", "mask", len(masked) + len(dealer.points))
    del results
    bits = client_bits(key.decrypt_masked(masked, layout))
    done("client", "decrypt score + mask", 0)
    message, labels = chooser.choose(dealer.points, bits)
    done("client", "ask for labels", len(message))
    theirs = dealer.labels(message, LENGTH * layout.records)
    done("server", "check, deal labels", 0)
    counted, limit = np.ones(layout.records, np.bool_), threshold_integer(threshold)
    final = garble(session, dealer.difference, theirs, masks, limit, counted)
    done("server", "garble", len(final))
    match = bool(evaluate(session, labels, final, layout.records))
    done("client", "evaluate", 0)
    return steps, match, packing
