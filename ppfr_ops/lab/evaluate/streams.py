"""Random streams of an evaluation, each with a name of its own.

What is drawn for one purpose must not depend on, nor repeat, what is drawn for another: a stream is
named by words, and two places that use the same words can be found by searching for them.
"""

import hashlib

import numpy as np


def stream(seed: int, name: str, number: int = 0) -> np.random.Generator:
    """A generator that is a function of its arguments alone.

    Args:
        seed: of the evaluation.
        name: what it is for.
        number: tells apart streams of one purpose, such as the parts of a resumed training.
    """
    digest = hashlib.sha256(f"{name}|{number}".encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest, "<u4").tolist()])


def key(seed: int, name: str) -> bytes:
    """A key of 32 bytes for a release that exists only inside this evaluation."""
    return hashlib.sha256(f"ppfr evaluation key|{seed}|{name}|0".encode()).digest()
