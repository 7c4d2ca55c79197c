"""What invented people are worth to learn from; what a release is worth as a benchmark, and whether
the people in it are anybody, say the stages ``benchmark`` and ``leak`` of ``ppfr evaluate``.

    python bench/natural_worth.py ../shared WORK [--people 700] [--photos 16] [--published]

The recogniser of the evaluation's training stage, taught by labels on invented people, by labels
and a public recogniser's templates (sface) of the same pictures, and by labels on the originals of
``ids_aligned``, each read on the originals of LFW's pairs; floors: raw pixels and histograms of
gradients. WORK keeps pictures and networks; a run goes on from what is there.
"""

import argparse
import hashlib
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from natural import faces_in, jpeg, table_of
from skimage.feature import hog as gradients

from ppfr_ops.draws import system_draws
from ppfr_ops.lab.evaluate.learning import as_tensor, augment, fit, new
from ppfr_ops.lab.evaluate.protocol import pair_scores, verify
from ppfr_ops.lab.evaluate.stages.look import pixels
from ppfr_ops.lab.evaluate.stages.training import SIZE, _Recogniser
from ppfr_ops.methods.base import Context
from ppfr_ops.methods.registry import create
from ppfr_ops.recognizers import Recognizer, RecognizerSpec

BLOCK, BATCH = 10, 64
TEACHER = "sface"


def rows_of(shared: Path, name: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Faces, labels and paths of a set."""
    table = table_of(shared, name)
    images = table["image"].to_pylist()
    who = np.array(table["identity"].to_pylist())
    return faces_in(images), who, [x["path"] for x in images]


def drawn(folder: Path, who: list[str]) -> np.ndarray:
    """One picture for each label, by one key; JPEG 95. In blocks on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(folder.name.encode()).digest()
    method, found = create("natural").with_secrets({"identity-key": key}), []
    for first in range(0, len(who), BLOCK * 16):
        part, path = who[first : first + BLOCK * 16], folder / f"{first:06d}.npz"
        if not path.is_file():
            blank = np.zeros((len(part), 112, 112, 3), np.uint8)
            draws = system_draws([""] * len(part), method.draw_size)
            np.savez(path, y=method(blank, draws, Context({"identity": part})))
        found.append(np.load(path)["y"])
    return np.stack([jpeg(face) for face in np.concatenate(found)])


class Taught(_Recogniser):
    """A recogniser that a teacher's templates help, where they are given."""

    def __init__(self, people: int) -> None:
        super().__init__(people)
        self.told = torch.nn.Linear(SIZE, 128)

    def both(self, faces: torch.Tensor, who: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        x = self.net(faces)
        near = 1 - (F.normalize(self.told(x), dim=1) * target).sum(1).mean()
        cosines = F.normalize(x, dim=1) @ F.normalize(self.centres, dim=1).T
        margin = F.one_hot(who, len(self.centres)) * 0.2
        return F.cross_entropy(24 * (cosines - margin), who) / 3 + 8 * near


def train(
    path: Path,
    x: np.ndarray,
    who: np.ndarray,
    steps: int,
    seed: int,
    teacher: np.ndarray | None = None,
) -> Taught:
    people, labels = np.unique(who, return_inverse=True)
    model = new(lambda: Taught(len(people)), seed)
    assert isinstance(model, Taught)

    def loss_of(rng: np.random.Generator) -> torch.Tensor:
        index = rng.choice(len(x), BATCH, replace=False)
        faces, told = augment(as_tensor(x[index]), rng), torch.from_numpy(labels[index])
        if teacher is None:
            return model(faces, told)
        return model.both(faces, told, torch.from_numpy(teacher[index]))

    fit(model, loss_of, steps, seed, path.stem, 2e-3, 0.05, path, print)
    return model


def hog(faces: np.ndarray) -> np.ndarray:
    shape = {"pixels_per_cell": (14, 14), "cells_per_block": (2, 2)}
    grey = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in faces]
    found = np.stack([gradients(face, **shape) for face in grey])
    found -= found.mean(0)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


class Pairs:
    """LFW's, and the pictures that they use."""

    def __init__(self, shared: Path) -> None:
        x, who, paths = rows_of(shared, "lfw_aligned")
        table = pq.read_table(shared / "data" / "lfw_pairs.parquet").to_pydict()
        used = np.isin(paths, table["a"] + table["b"])
        self.x, self.who = x[used], who[used]
        place = {path: row for row, path in enumerate(np.array(paths)[used])}
        self.a, self.b = (np.array([place[path] for path in table[side]]) for side in "ab")
        self.same, self.folds = np.array(table["same"]), np.array(table["fold"])

    def read(self, name: str, templates: np.ndarray) -> float:
        scores = pair_scores(templates[self.a], templates[self.b])
        found = verify(scores, self.same, self.folds)
        print(f"{name}: accuracy {found.accuracy:.4f}, TAR {found.tar}", flush=True)
        return found.accuracy


def training(shared: Path, work: Path, given: argparse.Namespace) -> None:
    pairs = Pairs(shared)
    pairs.read("raw pixels", pixels(pairs.x))
    pairs.read("histograms of gradients", hog(pairs.x))
    originals, labels, _ = rows_of(shared, "ids_aligned")
    invented = np.array([f"p{i}" for i in range(given.people) for _ in range(given.photos)])
    who = labels if given.published else invented
    y = drawn(work / given.set, list(who))
    spec = RecognizerSpec.parse(f"{TEACHER}={shared / 'models' / TEACHER}.onnx")
    seen = Recognizer(spec, 1).embed(y)
    sets = {
        "invented": (y, who, None),
        "invented, teacher": (y, who, seen),
        "originals": (originals, labels, None),
        "both": (np.concatenate([y, originals]), np.concatenate([who, labels]), None),
    }
    for seed in range(given.seeds):
        for name in given.learn:
            x, names, teacher = sets[name]
            path = work / f"{given.set}-{name.replace(', ', '-')}-{given.steps}-{seed}.pt"
            model = train(path, x, names, given.steps, seed, teacher)
            pairs.read(f"{name}, {given.steps} steps, seed {seed}", model.embed(pairs.x))


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("shared", type=Path)
    asked.add_argument("work", type=Path)
    asked.add_argument("--people", type=int, default=700)
    asked.add_argument("--photos", type=int, default=16)
    asked.add_argument(
        "--published", action="store_true", help="as many photos of as many as `ids_aligned` has"
    )
    asked.add_argument("--steps", type=int, default=1200)
    asked.add_argument("--seeds", type=int, default=1)
    asked.add_argument("--set", default="set", help="name of the drawn pictures in WORK")
    asked.add_argument("--learn", nargs="+", default=["invented", "invented, teacher", "originals"])
    given = asked.parse_args()
    torch.set_num_threads(1)
    training(given.shared, given.work, given)


if __name__ == "__main__":
    main()
