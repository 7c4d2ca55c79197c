"""The mask: bounded, deterministic, trained by what it says it is trained by."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from ppfr_ops import sample
from ppfr_ops.cli.train import main as train
from ppfr_ops.contracts.records import IMAGE_TYPE
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.lab.training.erasable_mask import (
    MaskConfig,
    MaskTrainer,
    masked,
    to_pixels,
    views,
)
from ppfr_ops.methods.erasable_mask import ErasableMask, load_weights, save_weights
from ppfr_ops.methods.erasable_mask.network import MaskGenerator

BOUND = 0.1


class Toy(nn.Module):
    """Something that looks like an FR model from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.AvgPool2d(4), nn.Conv2d(3, 8, 5, stride=2), nn.Tanh(), nn.Flatten()
        )
        self.head = nn.Linear(8 * 12 * 12, 16)

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(faces / 255))


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Networks as small as these lose by more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def surrogates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("surrogates")
    paths = {}
    for number, name in enumerate(("one", "two", "three")):
        torch.manual_seed(number)
        paths[name] = folder / f"{name}.ts.pt"
        torch.jit.script(Toy().eval()).save(str(paths[name]))
    return paths


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a network that was trained on nothing, and changes a lot."""
    torch.manual_seed(0)
    generator = MaskGenerator(BOUND, 16)
    nn.init.normal_(generator.universal, std=3)
    nn.init.normal_(generator.out.weight, std=0.5)
    path = tmp_path_factory.mktemp("weights") / "mask.safetensors"
    save_weights(path, generator, {"step": 0})
    return path


def test_no_pixel_changes_by_more_than_the_bound(weights: Path) -> None:
    faces = sample.faces(5)
    for strength in (0.5, 1.0, 2.0):
        out = ErasableMask(weights=weights, strength=strength)(faces, np.zeros((5, 0), np.float32))
        change = np.abs(out.astype(int) - faces.astype(int)).max()
        most = 255 * BOUND * (1 + MaskGenerator.COLOUR) * strength
        assert 0.5 * 255 * BOUND * strength < change <= most + 1
    assert out.dtype == np.uint8 and out.shape == faces.shape


def test_batches_do_not_matter_and_each_face_has_its_own_mask(weights: Path) -> None:
    faces, none = sample.faces(5), np.zeros((5, 0), np.float32)
    whole, parts = (ErasableMask(weights=weights, batch=b)(faces, none) for b in (64, 2))
    assert np.abs(whole.astype(int) - parts.astype(int)).max() <= 1
    masks = whole.astype(int) - faces.astype(int)
    assert all(np.abs(masks[0] - other).mean() > 0.5 for other in masks[1:])


def test_the_manifest_may_show_its_options(weights: Path) -> None:
    method = ErasableMask(weights=weights)
    assert method.options() == {"strength": 1.15}
    assert method.disclosure_limit is None  # that it shows who it is, is what it is for
    assert method.digest() != ErasableMask(weights=weights, strength=1.5).digest()


def test_what_is_no_weights_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"not weights")
    with pytest.raises(ValueError, match="holds no weights of it") as error:
        load_weights(tmp_path / "bad.safetensors")
    assert "\n" not in str(error.value) and str(tmp_path) not in str(error.value)
    with pytest.raises(FileNotFoundError, match="no weights at none"):
        load_weights(tmp_path / "none")


def test_views_leave_a_gradient_and_at_no_strength_only_mirror() -> None:
    pictures = to_pixels(sample.faces(4)).requires_grad_()
    for seed in range(8):
        random = torch.Generator().manual_seed(seed)
        seen = views(pictures, random, 1.0)
        (gradient,) = torch.autograd.grad(seen.square().sum(), pictures)
        assert seen.shape == pictures.shape and gradient.abs().mean() > 0.01
        plain = views(pictures, torch.Generator().manual_seed(seed), 0.0)
        off = min((plain - p).abs().max().item() for p in (pictures, pictures.flip(3)))
        assert off < 1e-3


def config(**changes: object) -> MaskConfig:
    given = {"batch": 4, "steps": 30, "faces": 60, "width": 8, "lr": 0.01, "inner_lr": 0.01}
    given |= {"universal_steps": 20, "validate_every": 40, "validate_faces": 8, "ssim_end": 0.85}
    return MaskConfig.model_validate(given | changes)


def test_training_moves_faces_away_and_keeps_the_picture(surrogates: dict[str, Path]) -> None:
    settings = config(
        steps=24, universal_steps=22, universal_lr=0.5, bound=0.3, ssim_start=0.5, ssim_end=0.6
    )
    trainer = MaskTrainer(settings, sample.faces(60), surrogates)
    assert trainer.validate()["cosine_one"] > 0.999  # nothing learned, nothing changed
    while trainer.step < 24:
        log = trainer.advance()
        assert np.isfinite(log["loss"])
    found = trainer.validate()
    assert found["ssim"] > 0.5
    faces = to_pixels(trainer.faces[trainer.validation])
    with torch.no_grad():
        mask = trainer.average(faces)
        for surrogate in trainer.surrogates:
            known = surrogate.known[trainer.validation]
            # the same amount of change in another place is no mask
            learned, moved = (
                (surrogate(masked(faces, each)) * known).sum(1).mean()
                for each in (mask, mask.roll((40, 40), (2, 3)))
            )
            assert learned < moved - 0.02


def test_a_stopped_training_goes_on_as_if_it_had_not_been(
    surrogates: dict[str, Path], tmp_path: Path
) -> None:
    faces = sample.faces(60)
    settings = config(steps=6, universal_steps=2, validate_every=3)
    logs: list[list[dict[str, object]]] = [[], []]
    MaskTrainer(settings, faces, surrogates).run(tmp_path / "whole", logs[0].append)
    first = MaskTrainer(settings, faces, surrogates)
    while first.step < 3:
        first.advance()
    (tmp_path / "parts").mkdir()
    first.save(tmp_path / "parts" / "checkpoint.pt")
    MaskTrainer(settings, faces, surrogates).run(tmp_path / "parts", logs[1].append)
    whole, parts = (load_weights(tmp_path / n / "best.safetensors") for n in ("whole", "parts"))
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-3)
    with pytest.raises(ValueError, match="another configuration"):
        MaskTrainer(config(), faces, surrogates).load(tmp_path / "parts" / "checkpoint.pt")


def test_too_little_to_train_with_is_refused(surrogates: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="too few"):
        MaskTrainer(config(), sample.faces(10), surrogates)
    with pytest.raises(ValueError, match="two surrogates at least"):
        MaskTrainer(config(), sample.faces(60), {"one": surrogates["one"]})


def test_the_command(surrogates: dict[str, Path], tmp_path: Path) -> None:
    jpeg = Encoding("jpeg", 95)
    rows = [{"image": {"bytes": jpeg.encode(face), "path": "x"}} for face in sample.faces(50)]
    schema = pa.schema([("image", IMAGE_TYPE)])
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "faces.parquet")
    args = ["--method", "erasable-mask", "--faces", str(tmp_path / "faces.parquet")]
    args += ["--out", str(tmp_path / "run"), "--threads", "1"]
    for name in ("one", "two"):
        args += ["--fr", f"{name}={surrogates[name]}"]
    for setting in ("steps=2", "batch=4", "validate_faces=8", "width=8", "odds={}"):
        args += ["--set", setting]
    done = CliRunner().invoke(train, args, standalone_mode=False)
    assert done.exception is None, done.exception
    about = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert about["validation"]["step"] == 2
    mask = ErasableMask(weights=tmp_path / "run" / "best.safetensors")
    assert mask(sample.faces(2), np.zeros((2, 0), np.float32)).shape == (2, 112, 112, 3)
