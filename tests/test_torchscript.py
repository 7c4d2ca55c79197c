"""TorchScript runs, and torch's words on its future reach nobody who runs a command."""

import re
import warnings
from pathlib import Path

import torch

from ppfr_ops import torchscript

ROOT = Path(__file__).parent.parent


class Halves(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / 2


def test_what_is_deprecated_is_not_told_and_other_warnings_are(tmp_path: Path) -> None:
    given = torch.ones(2, 3)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        compiled = torchscript.compiled(Halves(), given)
        with torchscript.quiet():
            torch.jit.script(Halves()).save(str(tmp_path / "halves.pt"))
            warnings.warn("something else", stacklevel=1)
        loaded = torchscript.load(tmp_path / "halves.pt").eval()
        frozen = torchscript.frozen(loaded)
    assert [str(warning.message) for warning in seen] == ["something else"]
    for network in (compiled, loaded, frozen):
        assert torch.equal(network(given), given / 2)


def test_nothing_else_calls_what_is_deprecated() -> None:
    """But the trace that distill exports, which is quiet by itself."""
    called = {
        (path.relative_to(ROOT / "ppfr_ops").as_posix(), name)
        for path in (ROOT / "ppfr_ops").rglob("*.py")
        for name in re.findall(r"torch\.jit\.([a-z_]+)\(", path.read_text("utf-8"))
        if path.name != "torchscript.py"
    }
    assert called == {("lab/distill/saving.py", "trace")}
