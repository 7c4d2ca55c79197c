"""Can a network bring back what a cover hides?

    python bench/covers.py ../shared/data --steps 1500 --out covers.json

For each cover two attackers are taught, from other people's faces (``ids_aligned``), to go from the
covered face back to the original, and tried on LFW: a U-Net, and the best linear map (ridge
regression, in closed form), which for the few colours of a cover is near to all that can be had.
What they give back is held against the original beside two things: the mean face, which anybody
has, and a cover that is known to be weak. The surroundings of the aligned faces are not there, so
their edges are mirrored: the cover's mean colours know a little more of the face than in a
photograph.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.imaging.decoding import decode
from ppfr_ops.imaging.measures import disclosure, psnr, ssim
from ppfr_ops.lab.evaluate.attacks.networks import mean_face, to_tensor
from ppfr_ops.lab.evaluate.attacks.recovery import RecoveryAttack
from ppfr_ops.methods.registry import create
from ppfr_ops.recognizers import Recognizer, RecognizerSpec

Cover = Callable[[Faces], Faces]


def by_method(name: str, **options: str) -> Cover:
    method = create(name, options)
    return lambda faces: method(faces, np.zeros((len(faces), 0), np.float32))


COVERS = {
    "blur": by_method("cover", style="blur"),
    "mosaic": by_method("cover", style="mosaic"),
    "solid": by_method("cover", style="solid"),
    "method blur, sigma 6": by_method("blur"),
    "method pixelate, block 8": by_method("pixelate"),
}


def faces(place: str, most: int) -> Faces:
    cells = pq.read_table(place, columns=["image"])["image"]
    rows = np.linspace(0, len(cells) - 1, min(most, len(cells))).astype(int)
    return np.stack([decode(cells[int(row)].as_py()["bytes"]) for row in rows])


def against(originals: Faces, found: Faces, model: Recognizer) -> dict[str, float]:
    """What somebody has who was given ``found``."""
    x, y = to_tensor(originals), to_tensor(found)
    with torch.inference_mode():
        scores = model.embed(found) @ model.embed(originals).T
        alike = scores.diagonal()
        return {
            "ssim": round(float(ssim(x, y).mean()), 4),
            "psnr": round(float(psnr(x, y).mean()), 2),
            "disclosure": round(float(disclosure(x, y).mean()), 4),
            "sface_cosine": round(float(alike.mean()), 4),
            "sface_recognised": round(float((alike > 0.363).mean()), 4),
            "sface_rank1": round(float((scores.argmax(1) == np.arange(len(x))).mean()), 4),
        }


SEEN, DRAWN = 28, 56
"""Side of what the linear attacker sees and gives, px; covers have nothing finer."""


def shrunk(some: Faces, side: int) -> NDArray[np.float64]:
    small = [cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA) for face in some]
    return np.stack(small).reshape(len(some), -1) / 255


class Ridge:
    """The best linear map, by the penalty that does best on every fifth face."""

    def __init__(self, originals: Faces, hidden: Faces) -> None:
        x, y = shrunk(hidden, SEEN), shrunk(originals, DRAWN)
        self.mean_x, self.mean_y = x.mean(0), y.mean(0)
        x, y = x - self.mean_x, y - self.mean_y
        held = np.arange(len(x)) % 5 == 4
        left, value, right = np.linalg.svd(x[~held], full_matrices=False)
        wanted = left.T @ y[~held]
        seen = x[held] @ right.T
        tried = {}
        for penalty in 10.0 ** np.arange(-3, 5):
            tried[penalty] = (
                (seen * (value / (value**2 + penalty)) @ wanted - y[held]) ** 2
            ).mean()
        best = min(tried, key=lambda penalty: tried[penalty])
        self.map = right.T * (value / (value**2 + best)) @ wanted

    def recover(self, hidden: Faces) -> Faces:
        found = (shrunk(hidden, SEEN) - self.mean_x) @ self.map + self.mean_y
        small = np.clip(found * 255, 0, 255).astype(np.uint8).reshape(-1, DRAWN, DRAWN, 3)
        return np.stack([cv2.resize(face, (112, 112)) for face in small]).astype(np.uint8)


def _hidden(cover: Cover, some: Faces, index: NDArray[np.int64], rng: np.random.Generator) -> Faces:
    return cover(some)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--models", default="../shared/models")
    parser.add_argument("--covers", nargs="*", default=list(COVERS))
    parser.add_argument("--steps", type=int, default=1500, help="of the U-Net; 0: without it")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--taught", type=int, default=6000)
    parser.add_argument("--tried", type=int, default=500)
    parser.add_argument("--out", default="covers.json")
    chosen = parser.parse_args()
    taught, tried = (
        faces(f"{chosen.data}/ids_aligned", chosen.taught),
        faces(f"{chosen.data}/lfw_aligned", chosen.tried),
    )
    model = Recognizer(RecognizerSpec.parse(f"sface={chosen.models}/sface.onnx"))
    mean = np.broadcast_to(mean_face(taught), tried.shape).astype(np.float64)
    tinted = mean + (tried - mean).mean((1, 2), keepdims=True)
    report = {
        "mean face": against(tried, mean.astype(np.uint8), model),
        "mean face in the head's mean colour": against(
            tried, np.clip(tinted, 0, 255).astype(np.uint8), model
        ),
    }
    for name in chosen.covers:
        cover = COVERS[name]
        hidden = cover(tried)
        linear = Ridge(taught, cover(taught))
        report[name] = {
            "covered": against(tried, hidden, model),
            "brought back, linear": against(tried, linear.recover(hidden), model),
        }
        if chosen.steps:
            attack = RecoveryAttack("unet", seed=0, batch=chosen.batch)
            publish = partial(_hidden, cover)
            curve = attack.train(taught, publish, chosen.steps, points=5)
            report[name]["brought back, U-Net"] = against(tried, attack.recover(hidden), model)
            report[name]["curve"] = [point.val_ssim for point in curve]
        print(name, json.dumps(report[name]), flush=True)
        with open(chosen.out, "w") as file:
            json.dump(report, file, indent=1)


if __name__ == "__main__":
    main()
