"""What each part of the learned anonymizer is for: the same short training with one part off.

Parts: (a) ``disrupt``, (b) ``local``, (c) ``stochastic``, (d) ``bottleneck``, (e) ``diversity``.
Every variant gets the same steps from the same seed, then a fresh U-Net attacker; all figures are
on training faces kept back (a face against its mirror image stands for two photos of a person).
``black_box`` is an FR model that no variant saw.

    python bench/ablation.py --faces DATA/utk_aligned --fr dlib=MODELS/dlib.ts.pt \\
        --fr mobileface=MODELS/mobileface.ts.pt --black-box MODELS/faceres.onnx --out runs/ablation
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from ppfr_ops.cli.train import read_faces
from ppfr_ops.imaging.measures import ssim
from ppfr_ops.lab.evaluate.attacks.recovery import RecoveryAttack, View, to_tensor, to_uint8
from ppfr_ops.lab.training.stochastic_local import TrainConfig, Trainer, balanced_accuracy
from ppfr_ops.methods.stochastic_local.networks import DrawLayout
from ppfr_ops.recognizers import Recognizer, RecognizerSpec

VARIANTS = ("none", "disrupt", "local", "stochastic", "bottleneck", "diversity")


def measure(trainer: Trainer, black_box: Recognizer, steps: int) -> dict[str, float]:
    """Validation of the trainer's averaged generator, a black box and a fresh attacker."""
    result = trainer.validate()

    def publish(faces: np.ndarray, index: np.ndarray, random: np.random.Generator) -> View:
        draws = random.standard_normal((len(faces), DrawLayout.SIZE), dtype=np.float32)
        with torch.no_grad():
            pixels = to_tensor(faces)
            codes = trainer.code(trainer.surrogates[0].embed(pixels * 255))
            drawn = trainer.generate(trainer.average, codes, torch.from_numpy(draws), 1.0, pixels)
        return to_uint8(drawn)

    kept = trainer.faces[trainer.validation.numpy()][:400]
    mirror = np.ascontiguousarray(kept[:, :, ::-1])
    first, second = (
        black_box.embed(publish(faces, np.arange(len(faces)), np.random.default_rng(seed)))
        for seed, faces in enumerate((kept, mirror))
    )
    result["accuracy_black_box"] = balanced_accuracy(torch.from_numpy(first @ second.T))
    attack = RecoveryAttack("unet", seed=0)
    attack.train(trainer.faces[trainer.train.numpy()], publish, steps)
    recovered = attack.recover(publish(kept, np.arange(len(kept)), np.random.default_rng(9)))
    result["rec_ssim"] = ssim(to_tensor(recovered), to_tensor(kept)).mean().item()
    return {key: round(value, 4) for key, value in result.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--fr", action="append", required=True, metavar="NAME=PATH")
    parser.add_argument("--black-box", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--sketch-steps", type=int, default=200)
    parser.add_argument("--match-steps", type=int, default=250)
    parser.add_argument("--attack-steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    import yaml

    if args.threads:
        torch.set_num_threads(args.threads)
    base = yaml.safe_load(args.config.read_text()) if args.config else {}
    base |= {"sketch_steps": args.sketch_steps, "match_steps": args.match_steps}
    faces = read_faces(args.faces, "image")
    surrogates = {name: Path(path) for name, _, path in (text.partition("=") for text in args.fr)}
    black_box = Recognizer(RecognizerSpec("black_box", str(args.black_box)), args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    for variant in VARIANTS:
        file = args.out / f"{variant}.json"
        if file.exists():
            continue
        off = {} if variant == "none" else {variant: False}
        if variant == "bottleneck":
            off["adversary_weight"] = 1.0  # what the literature does in its stead
        if variant == "local":
            off["match_steps"] = args.sketch_steps + args.match_steps
        trainer = Trainer(TrainConfig.model_validate(base | off), faces, surrogates)
        while trainer.step < trainer.steps:
            trainer.advance()
        row = measure(trainer, black_box, args.attack_steps)
        file.write_text(json.dumps({"off": variant, **row}) + "\n")
        print(json.dumps({"off": variant, **row}), flush=True)


if __name__ == "__main__":
    main()
