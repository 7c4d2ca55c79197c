"""FR models: conventions, kinds of file, what they refuse."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ppfr_ops import sample
from ppfr_ops.errors import UserError
from ppfr_ops.recognizers import Recognizer, RecognizerSpec


class Means(torch.nn.Module):
    """Mean and spread of each channel, as they arrive."""

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        return torch.cat([faces.mean(dim=(2, 3)), faces.std(dim=(2, 3))], 1)


@pytest.fixture
def means(tmp_path: Path) -> str:
    torch.jit.script(Means()).save(str(tmp_path / "means.pt"))
    return str(tmp_path / "means.pt")


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.mark.parametrize("options", ["", ",convention=arcface", ",convention=arcface,channels=bgr"])
def test_conventions(means: str, options: str) -> None:
    faces = sample.faces(5, seed=0)
    pixels = faces.astype(np.float64)
    if "bgr" in options:
        pixels = pixels[..., ::-1]
    if "arcface" in options:
        pixels = (pixels - 127.5) / 127.5
    expected = unit(np.concatenate([pixels.mean((1, 2)), pixels.std((1, 2), ddof=1)], 1))
    found = Recognizer(RecognizerSpec.parse(f"m={means}{options}")).embed(faces, batch_size=2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    "text", ["", "name", "=path", "a b=path", "m=p,convention=none", "m=p,colour=red", "m="]
)
def test_wrong_specs(text: str) -> None:
    with pytest.raises(ValueError, match="FR model"):
        RecognizerSpec.parse(text)


def test_files_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        Recognizer(RecognizerSpec("m", str(tmp_path / "gone.onnx")))
    for name in ("m.onnx", "m.pt", "m.txt"):
        (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(ValueError, match="FR model 'm'"):
            Recognizer(RecognizerSpec("m", str(tmp_path / name)))


def test_onnx_and_torchscript_agree(shared: Path) -> None:
    faces = sample.faces(6, seed=1)
    a, b = (
        Recognizer(RecognizerSpec("m", str(shared / "models" / name))).embed(faces)
        for name in ("mobileface.onnx", "mobileface.ts.pt")
    )
    assert a.shape == (6, 256)
    np.testing.assert_allclose(a, b, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(a, axis=1), 1, atol=1e-5)


def test_no_faces(means: str) -> None:
    nothing = np.zeros((0, 112, 112, 3), np.uint8)
    assert len(Recognizer(RecognizerSpec("m", means)).embed(nothing)) == 0
