"""Training of the learned anonymizer: resumable to the bit, refuses nonsense, writes weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from safetensors import safe_open

from ppfr_ops.cli.train import DEFAULT, main
from ppfr_ops.lab.training.stochastic_local import (
    TrainConfig,
    Trainer,
    balanced_accuracy,
    diversify,
)
from ppfr_ops.methods.stochastic_local import SHIPPED
from ppfr_ops.sample import faces as make

TINY = TrainConfig(
    batch=4,
    sketch_steps=2,
    match_steps=2,
    validate_every=1,
    adversary_weight=0.5,
    refine=True,
    rivals=6,
    harsh=True,
)


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return make(48, seed=0)


@pytest.fixture(scope="module")
def surrogates(shared) -> dict[str, Path]:
    names = ("dlib", "mobileface")
    return {name: shared / "models" / f"{name}.ts.pt" for name in names}


def test_a_killed_run_goes_on_as_if_nothing_had_happened(faces, surrogates, tmp_path) -> None:
    config = TINY.model_copy(update={"sketch_steps": 1})
    straight = Trainer(config, faces, surrogates)
    for _ in range(3):
        straight.advance()
    first = Trainer(config, faces, surrogates)
    for _ in range(2):
        first.advance()
    first.save(tmp_path / "checkpoint.pt")
    second = Trainer(config, faces, surrogates)
    second.load(tmp_path / "checkpoint.pt")
    second.advance()
    for a, b in zip(straight.generator.parameters(), second.generator.parameters(), strict=True):
        assert torch.equal(a, b)


def test_checkpoint_of_another_configuration_is_refused(faces, surrogates, tmp_path) -> None:
    trainer = Trainer(TINY, faces, surrogates)
    trainer.save(tmp_path / "checkpoint.pt")
    other = Trainer(TINY.model_copy(update={"sigma": 3.0}), faces, surrogates)
    with pytest.raises(ValueError, match="another configuration"):
        other.load(tmp_path / "checkpoint.pt")


@pytest.mark.parametrize("part", ["disrupt", "local", "stochastic", "bottleneck", "diversity"])
def test_every_part_can_be_turned_off(part, faces, surrogates) -> None:
    config = TrainConfig.model_validate(TINY.model_dump() | {part: False, "sketch_steps": 0})
    trainer = Trainer(config, faces, surrogates)
    entry = trainer.advance()
    assert np.isfinite(entry["loss"])
    assert ("disclosure" in entry) == (part != "disrupt")
    assert ("draw_similarity" in entry) == (part != "stochastic")
    assert (trainer.generator.face is not None) == (part == "bottleneck")
    assert len(trainer.surrogates) == (1 if part == "diversity" else 2)


def test_the_sketch_learns(faces, surrogates) -> None:
    config = TINY.model_copy(update={"sketch_steps": 20, "seed": 1})
    trainer = Trainer(config, faces, surrogates)
    losses = [trainer.advance()["loss"] for _ in range(20)]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


def test_command_writes_log_curves_and_weights(shared, surrogates, tmp_path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ppfr_ops.imaging.codec import Encoding

    cells = [{"bytes": Encoding().encode(face), "path": ""} for face in make(48, seed=0)]
    pq.write_table(pa.table({"image": cells}), tmp_path / "faces.parquet")
    config = tmp_path / "tiny.yaml"
    config.write_text(json.dumps(TINY.model_dump()))
    fr = [arg for name, path in surrogates.items() for arg in ("--fr", f"{name}={path}")]
    base = ["--faces", str(tmp_path / "faces.parquet"), *fr, "--config", str(config)]
    out = tmp_path / "out"
    result = CliRunner().invoke(main, [*base, "--out", str(out)])
    assert result.exit_code == 0, result.output
    names = {path.name for path in out.iterdir()}
    assert names >= {"log.jsonl", "losses.png", "checkpoint.pt", "best.safetensors"}
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["validation"]["step"] == 4
    refused = CliRunner().invoke(main, [*base, "--out", str(out), "--set", "sigma=-1"])
    assert refused.exit_code == 2 and "sigma" in refused.output


def test_harsh_views_cover_parts_and_let_gradients_through() -> None:
    random = torch.Generator().manual_seed(0)
    white = torch.ones(4, 3, 112, 112, requires_grad=True)
    covered = {}
    for harsh in (False, True):
        covered[harsh] = 0
        for _ in range(20):
            seen = diversify(white, random, harsh)
            assert seen.shape == white.shape and bool(torch.isfinite(seen).all())
            # the background is the contrast's own grey; what is covered is at a half
            plain = (seen - 0.5).abs().amax(1) < 0.12
            covered[harsh] += int((plain.float().mean((1, 2)) > 0.03).sum())
        (gradient,) = torch.autograd.grad(seen.sum(), white)
        assert gradient.abs().sum() > 0
    assert covered[False] == 0 and covered[True] > 20


def test_balanced_accuracy() -> None:
    assert balanced_accuracy(torch.eye(50)) == 1.0
    random = torch.Generator().manual_seed(0)
    assert balanced_accuracy(torch.rand(200, 200, generator=random)) < 0.6


def test_help_says_truly_where_the_shipped_weights_come_from() -> None:
    weights = SHIPPED.parent
    with safe_open(SHIPPED, "pt") as file:
        told = json.loads(file.metadata()["about"])["config"]

    def settings(name: str) -> dict[str, object]:
        text = (weights / name).read_text()
        return TrainConfig.model_validate(yaml.safe_load(text)).model_dump(mode="json")

    (config,) = (item for item in main.params if item.name == "config")
    assert DEFAULT.name == "small.yaml"
    assert settings("small-4.yaml") == told != settings("small.yaml")
    said = " ".join(str(config.help).split())
    assert "first of the four runs that the shipped weights come from" in said
    assert len(list(weights.glob("small*.yaml"))) == 4
