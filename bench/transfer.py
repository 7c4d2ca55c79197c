"""Does a change to the training help FR models that it never sees? A stand-in without a black box.

Trains with the first surrogate alone, a few minutes' steps, and then asks another FR model, on
training faces kept back: are two pictures of a face, each from a code with noise of its own and a
draw of its own, told from pictures of others? Balanced accuracy and d' (distance of genuine and
impostor scores in standard deviations), with all randomness and without. Compare runs of this
script with each other only.

    python bench/transfer.py --faces DATA/utk_aligned --fr dlib=MODELS/dlib.ts.pt \\
        --unseen mobileface=MODELS/mobileface.ts.pt --set harsh=true
"""

import argparse
import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))

from ppfr_ops.cli.train import read_faces
from ppfr_ops.imaging.measures import disclosure
from ppfr_ops.lab.training.stochastic_local import (
    Surrogate,
    TrainConfig,
    Trainer,
    balanced_accuracy,
    load_surrogate,
)
from ppfr_ops.methods.stochastic_local.networks import CODE_SIZE, DrawLayout

CODE_NOISE = 0.9
PART = 50


def live(codes: Tensor) -> Tensor:
    """Projection onto the directions in which the codes of real faces differ at all; two photos of
    a person differ in none besides."""
    values, vectors = torch.linalg.eigh(torch.cov(codes.T))
    return (vectors * (values > 0.01)) @ vectors.T


@torch.no_grad()
def measure(trainer: Trainer, judges: list[Surrogate], count: int) -> dict[str, float]:
    index = trainer.validation[:count]
    inside = live(trainer.codes[trainer.train])
    parts = [slice(start, start + PART) for start in range(0, len(index), PART)]
    result: dict[str, float] = {}
    for ramp, kind in ((1.0, ""), (0.0, ", no randomness")):
        views = []
        for seed in (0, 1):
            random = torch.Generator().manual_seed(seed)
            noise = torch.randn(len(index), CODE_SIZE, generator=random) @ inside
            codes = trainer.codes[index] + CODE_NOISE * noise
            codes = F.normalize(codes, dim=1) * CODE_SIZE**0.5
            draws = torch.randn(len(index), DrawLayout.SIZE, generator=random)
            net = trainer.average
            pictures = [trainer.generate(net, codes[p], draws[p], ramp, codes[p]) for p in parts]
            views.append((torch.cat(pictures) * 255).round())
        for judge in judges:
            first, second = (
                judge.centred(torch.cat([judge.embed(view[p]) for p in parts])) for view in views
            )
            scores = first @ second.T
            genuine = scores.diag()
            impostor = scores[~torch.eye(len(scores), dtype=torch.bool)]
            gap = (genuine.mean() - impostor.mean()) / ((genuine.var() + impostor.var()) / 2).sqrt()
            result[f"{judge.name}{kind}"] = balanced_accuracy(scores)
            result[f"{judge.name}, d'{kind}"] = gap.item()
    some = index[:PART]
    one, other = (
        trainer.generate(
            trainer.average,
            trainer.codes[some],
            torch.randn(len(some), DrawLayout.SIZE, generator=torch.Generator().manual_seed(seed)),
            1.0,
            trainer.codes[some],
        )
        for seed in (2, 3)
    )
    result["draw_similarity"] = disclosure(one, other).mean().item()
    return {name: round(value, 4) for name, value in result.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--fr", required=True, help="NAME=PATH of the surrogate, dlib's network")
    parser.add_argument("--unseen", required=True, help="NAME=PATH of the model that is asked")
    parser.add_argument("--config", type=Path, help="YAML; default: that of small-3, shortened")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--sketch-steps", type=int, default=300)
    parser.add_argument("--match-steps", type=int, default=250)
    parser.add_argument("--count", type=int, default=600, help="faces kept back to measure on")
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    weights = Path(__file__).parent.parent / "ppfr_ops" / "methods" / "stochastic_local" / "weights"
    settings = yaml.safe_load((arguments.config or weights / "small-3.yaml").read_text())
    settings |= {"sketch_steps": arguments.sketch_steps, "match_steps": arguments.match_steps}
    settings |= {"match_lr": 0.002, "ramp_steps": 100, "draw_bound": 0.62}
    settings |= {k: yaml.safe_load(v) for k, _, v in (c.partition("=") for c in arguments.changes)}
    faces = read_faces(arguments.faces, "image")
    name, _, path = arguments.fr.partition("=")
    trainer = Trainer(TrainConfig.model_validate(settings), faces, {name: Path(path)})
    name, _, path = arguments.unseen.partition("=")
    unseen = load_surrogate(name, Path(path), faces, trainer.train, "cpu")
    while trainer.step < trainer.steps:
        entry = trainer.advance()
        if trainer.step % 50 == 0:
            print(json.dumps(entry), file=sys.stderr)
    found = measure(trainer, [*trainer.surrogates, unseen], arguments.count)
    print(json.dumps({"settings": arguments.changes, **found}, indent=1))


if __name__ == "__main__":
    main()
