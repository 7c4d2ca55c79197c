"""Processor time a face of stochastic-local, version 1 and version 2 side by side, one thread.

Rounds alternate between the variants, so that a busy machine slows all alike; the median of the
rounds counts. Every variant gets faces of its own, for what faces just seen gave is kept.

    python bench/versions.py --count 64 --rounds 7
"""

import argparse
import os
import time

import numpy as np
import torch

from ppfr_ops.draws import system_draws
from ppfr_ops.methods.base import Context
from ppfr_ops.methods.stochastic_local import StochasticLocal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    key, rng = os.urandom(32), np.random.default_rng(0)
    variants = {
        "version 1, original": StochasticLocal(),
        "version 2, virtual": StochasticLocal(identity="virtual", variation=0.5).with_secrets(
            {"identity-key": key}
        ),
        "version 2, virtual, no variation": StochasticLocal(
            identity="virtual", variation=0.0
        ).with_secrets({"identity-key": key}),
    }
    spent: dict[str, list[float]] = {name: [] for name in variants}
    labels = Context({"identity": [str(index // 4) for index in range(arguments.count)]})
    for turn in range(arguments.rounds + 1):
        for name, method in variants.items():
            faces = rng.integers(0, 256, (arguments.count, 112, 112, 3), dtype=np.uint8)
            draws = system_draws([""] * len(faces), method.draw_size)
            began = time.process_time()
            method(faces, draws, labels)
            if turn:  # the first warms up
                spent[name].append(1000 * (time.process_time() - began) / len(faces))
    base = float(np.median(spent["version 1, original"]))
    for name, values in spent.items():
        middle = float(np.median(values))
        print(f"{name:34s} {middle:6.1f} ms a face, {middle / base:.2f} of version 1")


if __name__ == "__main__":
    main()
