"""How fast is the learned anonymizer, beside blur and beside what the machine can multiply?

Prints faces/s of the model alone on one core and on all of them, its ratio to ``blur`` in the same
run, and the share of the measured bf16 (fp32 without hardware for it) matmul peak that it reaches.

    python bench/anonymizer.py --faces 512
"""

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ppfr_ops.draws import system_draws
from ppfr_ops.memory import keep_freed_memory
from ppfr_ops.methods.registry import create
from ppfr_ops.methods.stochastic_local import SHIPPED, STRENGTHS, Model, StochasticLocal


def rate(run: Callable[[], object], count: int, repeats: int = 3) -> float:
    """Best of ``repeats``, per second."""
    run()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return count / min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=int, default=512)
    parser.add_argument("--batch", type=int, default=64)
    args = parser.parse_args()
    keep_freed_memory()
    faces = np.random.default_rng(0).integers(0, 256, (args.faces, 112, 112, 3), np.uint8)
    ids = [str(i) for i in range(len(faces))]
    blur = create("blur")
    learned = create("stochastic-local", {"batch": args.batch})
    assert isinstance(learned, StochasticLocal)
    draws = system_draws(ids, learned.draw_size)
    none = system_draws(ids, 0)
    model = learned.model()
    plain = Model(SHIPPED).float()  # the counter takes apart what autocast does not follow
    plain.bf16 = False
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        codes = plain.encode(faces[:1])
        plain.publish(codes, torch.from_numpy(draws[:1]), STRENGTHS["standard"])
    flops = counter.get_total_flops()
    half = torch.bfloat16 if model.bf16 else torch.float32
    result: dict[str, object] = {"flops_per_face": flops, "dtype": str(half)}

    def anonymize() -> None:
        model.forget()  # or the second round would find every code in memory
        learned(faces, draws)

    for threads in sorted({1, torch.get_num_threads()}):
        torch.set_num_threads(threads)
        matrix = torch.randn(2048, 2048).to(half)
        peak = rate(lambda a=matrix: a @ a, 2 * 2048**3)
        fast, slow = rate(anonymize, len(faces)), rate(lambda: blur(faces, none), len(faces))
        again = rate(lambda: learned(faces, draws), len(faces))
        result[f"threads_{threads}"] = {
            "faces_per_s": round(fast, 1),
            "second_draw_faces_per_s": round(again, 1),
            "blur_faces_per_s": round(slow, 1),
            "ratio_to_blur": round(fast / slow, 4),
            "matmul_peak_gflops": round(peak / 1e9, 1),
            "share_of_peak": round(fast * flops / peak, 4),
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
