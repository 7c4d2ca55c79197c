"""What keeping freed memory gains: one step through the FR encoder, with and without.

python bench/allocator.py
"""

import subprocess
import sys

STEP = """
import sys, time, torch
from ppfr_ops.memory import keep_freed_memory
from ppfr_ops.methods.stochastic_local.networks import IdentityEncoder
if sys.argv[1] == "keep":
    keep_freed_memory()
net = IdentityEncoder().to(memory_format=torch.channels_last)
for layer in (net.stem, net.blocks, net.head):
    layer.bfloat16()
images = torch.rand(48, 3, 112, 112)
times = []
for _ in range(6):
    begin = time.perf_counter()
    net((images * 255).requires_grad_()).pow(3).sum().backward()
    times.append(time.perf_counter() - begin)
print(min(times[1:]))
"""


def main() -> None:
    seconds = {
        mode: float(subprocess.check_output([sys.executable, "-c", STEP, mode], text=True))
        for mode in ("plain", "keep")
    }
    print(f"plain {seconds['plain']:.3f} s a step, kept {seconds['keep']:.3f} s a step")
    print(f"ratio {seconds['plain'] / seconds['keep']:.1f}")


if __name__ == "__main__":
    main()
