"""Training of a generator for codes that no face has."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ppfr_ops.methods.stochastic_local.networks import Generator
from ppfr_ops.methods.stochastic_local.sface import SFaceEncoder, as_surrogate
from ppfr_ops.methods.stochastic_local.turned import Judge, TurnedConfig, TurnedTrainer


def test_a_surrogates_way_back_is_autograds() -> None:
    torch.manual_seed(0)
    encoder = SFaceEncoder().eval().requires_grad_(False)
    for layer in encoder.layers:
        if isinstance(layer, torch.nn.PReLU):
            layer.weight.uniform_(-0.5, 1.1)
    pixels, wanted = 255 * torch.rand(2, 3, 112, 112), torch.randn(2, 128)
    found = []
    for look in (encoder, as_surrogate(encoder, torch.float32)):
        given = pixels.clone().requires_grad_(True)
        seen = look(given)
        (seen * wanted).sum().backward()
        assert given.grad is not None
        found.append((seen.detach(), given.grad))
    (seen, grad), (quick, back) = found
    assert torch.allclose(seen, quick, atol=1e-5)
    assert torch.allclose(grad, back, rtol=1e-3, atol=1e-4 * float(grad.abs().max()))


def judge() -> Judge:
    """A recogniser that projects coarse pictures at random."""
    matrix = torch.randn(3 * 28 * 28, 16, generator=torch.Generator().manual_seed(1))

    def embed(pixels: torch.Tensor) -> torch.Tensor:
        coarse = F.avg_pool2d(pixels / 255 - 0.5, 4)
        return F.normalize(coarse.flatten(1) @ matrix, dim=1)

    return Judge("random", embed, False, torch.zeros(16), 0.3, 0.25, 0.25)


def trainer(**options: object) -> TurnedTrainer:
    config = TurnedConfig.model_validate(
        {"people": 4, "same_code": 2, "slow_people": 2, "code_size": 16, "minutes": 1, **options}
    )
    torch.manual_seed(0)
    return TurnedTrainer(config, Generator(code_size=16, refine=True), [judge()])


@pytest.mark.parametrize("whole", [False, True])
def test_what_is_trained(whole: bool) -> None:
    run = trainer(whole=whole)
    before = {name: weight.clone() for name, weight in run.generator.state_dict().items()}
    for _ in range(2):
        assert np.isfinite(run.advance()["loss"])
    moved = {n for n, weight in run.generator.state_dict().items() if (weight != before[n]).any()}
    assert "code.weight" in moved and ("out.weight" in moved) == whole


def test_impostors_above_the_threshold_are_what_is_weighed() -> None:
    run = trainer(even_weight=0, contrast_weight=0, genuine_weight=0, threshold_weight=1.0)
    codes = torch.randn(8, 16)
    look = run.judges[0]
    alike = F.normalize(torch.ones(8, 16), dim=1)
    apart = torch.linalg.qr(torch.randn(16, 16))[0][:8]
    worse, log = run._verify(look, alike, codes)
    better, other = run._verify(look, apart, codes)
    assert worse > 10 * better
    assert log[-1] == 1.0 and other[-1] == 0.0


def test_a_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    first = trainer()
    first.advance()
    first.save(tmp_path / "checkpoint.pt")
    second = trainer()
    second.load(tmp_path / "checkpoint.pt")
    assert second.step == 1
    assert first.advance()["loss"] == pytest.approx(second.advance()["loss"], rel=1e-4)
    with pytest.raises(ValueError, match="configuration"):
        trainer(people=5).load(tmp_path / "checkpoint.pt")


def test_pictures_are_held_beside_real_faces() -> None:
    config = TurnedConfig(
        people=4, same_code=2, slow_people=2, code_size=16, disclosure_weight=5, disclosure_faces=3
    )
    faces = np.random.default_rng(0).integers(0, 256, (6, 112, 112, 3), np.uint8)
    torch.manual_seed(0)
    run = TurnedTrainer(config, Generator(code_size=16, refine=True), [judge()], faces)
    found = run.advance()
    assert 0 < found["disclosure"][0] < 1 and "disclosure" not in trainer().advance()
