"""Make weights of version 2 from those of version 1: adapt the generator to turned codes, train it.

    python bench/turned.py --faces DATA/ids_aligned --encoder MODELS/sface.ts.pt \\
        --fr mobileface=MODELS/mobileface.ts.pt --fr sface=MODELS/sface.ts.pt \\
        --minutes 0 --out runs/turned

``--minutes 0`` only adapts (``docs/experiments.md`` tells what training added); ``--begin FILE``
goes on from weights of version 2 instead, and keeps all but their generator. ``--faces`` needs an
identity column; the last eighth of the identities is not looked at. OUT gets log.jsonl, a
checkpoint that the same command goes on from, and ``best.safetensors`` with its head beside it.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import torch
import yaml

from ppfr_ops import torchscript
from ppfr_ops.memory import keep_freed_memory
from ppfr_ops.methods.stochastic_local import SHIPPED, Features, Model, save_weights
from ppfr_ops.methods.stochastic_local.files import read_weights
from ppfr_ops.methods.stochastic_local.networks import Generator
from ppfr_ops.methods.stochastic_local.sface import SFaceEncoder, sface_from_torchscript
from ppfr_ops.methods.stochastic_local.turned import (
    Judge,
    TurnedConfig,
    TurnedTrainer,
    adapt,
    evenly,
    knows,
    load_judge,
)

EACH = 16
"""Photos of a person that are looked at."""
PICTURES = 1100
"""Drawn to learn which directions of the code show faintly."""


def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Some photos of all but the last eighth of the identities, and whose they are."""
    by_person: dict[str, list[bytes]] = {}
    for file in sorted(folder.glob("*.parquet")):
        for row in pq.read_table(file, columns=["image", "identity"]).to_pylist():
            by_person.setdefault(row["identity"], []).append(row["image"]["bytes"])
    faces, people = [], []
    for person in sorted(by_person)[: len(by_person) * 7 // 8]:
        photos = by_person[person]
        for data in photos[:: max(1, len(photos) // EACH)][:EACH]:
            faces.append(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1])
            people.append(person)
    return np.stack(faces), np.array(people)


def adapted(faces: np.ndarray, judges: list[Judge], config: TurnedConfig) -> Generator:
    """Version 1's generator, its input made isotropic."""
    first = Model(SHIPPED)
    with torch.inference_mode():
        codes = torch.cat([first.encode(faces[i : i + 64]) for i in range(0, len(faces), 64)])
    basis = evenly(first.generator, knows(codes.clone()), judges, PICTURES, config.seed)
    return adapt(first.generator, basis, config.code_size, config.seed)


def encoding(path: Path, faces: np.ndarray) -> tuple[SFaceEncoder, Features]:
    """SFace, and the mean of what it makes of faces."""
    encoder = sface_from_torchscript(torchscript.load(path).eval())
    features = Features()
    with torch.inference_mode():
        pixels = torch.from_numpy(faces).permute(0, 3, 1, 2)
        parts = [encoder(pixels[i : i + 32].float()) for i in range(0, len(pixels), 32)]
    features.mean.copy_(torch.cat(parts).mean(0))
    return encoder, features


def begun(path: Path) -> tuple[Generator, SFaceEncoder, Features]:
    """What a file of version 2 holds."""
    found = read_weights(path)
    parts = Generator(**found.generator), SFaceEncoder(), Features()
    for part, name in zip(parts, ("generator", "encoder", "codes"), strict=True):
        part.load_state_dict(found.states[name])
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=Path, required=True)
    first = parser.add_mutually_exclusive_group(required=True)
    first.add_argument("--encoder", type=Path, help="TorchScript file of SFace")
    first.add_argument("--begin", type=Path, help="weights of version 2 to go on from")
    parser.add_argument("--fr", action="append", required=True, metavar="NAME=PATH")
    parser.add_argument("--slow", action="append", default=[], help="surrogate that sees a part")
    parser.add_argument("--minutes", type=float, help="instead of the configuration's")
    parser.add_argument("--seed", type=int, help="instead of the configuration's")
    parser.add_argument("--config", type=Path, help="YAML; fields of TurnedConfig")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    arguments.out.mkdir(parents=True, exist_ok=True)
    settings = yaml.safe_load(arguments.config.read_text()) if arguments.config else {}
    for name in ("seed", "minutes"):
        if getattr(arguments, name) is not None:
            settings[name] = getattr(arguments, name)
    config = TurnedConfig(**settings)
    faces, people = read(arguments.faces)
    judges = []
    for text in arguments.fr:
        name, _, path = text.partition("=")
        judges.append(load_judge(name, Path(path), faces[::2], people[::2], name in arguments.slow))
    if arguments.begin:
        generator, encoder, features = begun(arguments.begin)
    else:
        generator = adapted(faces, judges, config)
        encoder, features = encoding(arguments.encoder, faces)
    trainer = TurnedTrainer(config, generator, judges, faces)

    def log(entry: dict[str, Any]) -> None:
        with (arguments.out / "log.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")

    trainer.run(arguments.out, log)
    about = {"version": 2, "config": config.model_dump(mode="json"), "step": trainer.step}
    save_weights(arguments.out / "best.safetensors", encoder, features, trainer.average, about)


if __name__ == "__main__":
    main()
