"""TorchScript, without what newer releases of torch say of its future.

From 2.14 on every call of ``torch.jit`` prints that it is deprecated. FR models come as TorchScript
files and nothing of torch's reads or replaces them as fast, so to who runs a command that is noise.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn


@contextmanager
def quiet() -> Iterator[None]:
    """Within it torch does not say that TorchScript is deprecated; other warnings come through."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.")
        yield


def load(path: str | Path, device: str | torch.device = "cpu") -> torch.jit.ScriptModule:
    """The network of a TorchScript file.

    Raises:
        RuntimeError, ValueError: it is none.
    """
    with quiet():
        return torch.jit.load(str(path), map_location=device)


def frozen(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """The same with its weights as constants."""
    with quiet():
        return torch.jit.freeze(module)


def compiled(module: nn.Module, example: Tensor) -> torch.jit.ScriptModule:
    """A network traced and its layers fused, for a CPU; not to be pickled."""
    with quiet():
        traced = torch.jit.freeze(torch.jit.trace(module.eval(), example))
        return torch.jit.optimize_for_inference(traced)


def bf16_pays(device: str) -> bool:
    """Whether the device computes in bfloat16 faster than in float32."""
    if device != "cpu":
        return torch.cuda.is_bf16_supported()
    able = torch.cpu.get_capabilities()
    return bool(able.get("amx_bf16") or able.get("avx512_bf16"))
