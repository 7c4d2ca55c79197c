"""Time and sizes of a query, step by step, in this process."""

import time
from dataclasses import dataclass

import numpy as np

from .bfv import public_bytes
from .client import ask
from .comparison import answer, any_match, blind, client_shares, encrypt_bits, encrypt_shares
from .keys import ClientKeys, PublicKeys
from .packing import Integers, Layout, quantise, threshold_integer
from .scores import PackedGallery, decrypt_masked, encrypt_probe, mask, products, read_probe

__all__ = ["Step", "ask", "measure", "random_templates"]


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
    keys = ClientKeys.generate()
    public = PublicKeys.read(keys.public)
    steps: list[Step] = []
    mark = time.process_time()

    def done(side: str, name: str, sent: int) -> None:
        nonlocal mark
        steps.append(Step(side, name, time.process_time() - mark, sent))
        mark = time.process_time()

    encrypted = encrypt_probe(keys.scores, layout, probe)
    done("client", "encrypt the probe", len(encrypted) + 2 * public_bytes())
    ciphertexts = read_probe(encrypted, layout)
    done("server", "read the probe", 0)
    results = list(products(ciphertexts, gallery))
    done("server", "inner products", 0)
    masked, masks = mask(results, public.scores, layout)
    done("server", "mask, rerandomise, flood", len(masked))
    del results
    seen = decrypt_masked(keys.scores, masked, layout)
    done("client", "decrypt score + mask", 0)
    bits = encrypt_bits(keys.choices, seen, layout)
    done("client", "encrypt its bits", len(bits))
    blinded, shares = blind(public.choices, bits, masks, threshold_integer(threshold), layout)
    done("server", "compare", len(blinded))
    mine = client_shares(keys.choices, blinded, seen, layout)
    sent = encrypt_shares(keys.choices, mine, layout)
    done("client", "shares of the bits", len(sent))
    counted = np.ones(layout.records, np.bool_)
    final = answer(public.choices, sent, shares, layout, counted)
    done("server", "sum", len(final))
    match = any_match(keys.choices, final)
    done("client", "read the bit", 0)
    return steps, match, packing
