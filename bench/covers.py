"""Can a network bring back what a cover hides?

    python bench/covers.py ../shared/data --steps 1500 --out covers.json

For each cover a U-Net is taught, from other people's faces (``ids_aligned``), to go from the
covered face back to the original, and tried on LFW. What it gives back is held against the original
beside two things: the mean face, which anybody has, and a cover that is known to be weak. The
surroundings of the aligned faces are not there, so their edges are mirrored: the cover's mean
colours know a little more of the face than in a photograph.
"""

import argparse
import json
from collections.abc import Callable

import numpy as np
import pyarrow.parquet as pq
import torch

from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.imaging.decoding import decode
from ppfr_ops.imaging.measures import disclosure, psnr, ssim
from ppfr_ops.lab.evaluate.attacks.recovery import RecoveryAttack, mean_face, to_tensor
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
        alike = np.einsum("nd,nd->n", model.embed(originals), model.embed(found))
        return {
            "ssim": round(float(ssim(x, y).mean()), 4),
            "psnr": round(float(psnr(x, y).mean()), 2),
            "disclosure": round(float(disclosure(x, y).mean()), 4),
            "sface_cosine": round(float(alike.mean()), 4),
            "sface_recognised": round(float((alike > 0.363).mean()), 4),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--models", default="../shared/models")
    parser.add_argument("--covers", nargs="*", default=list(COVERS))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--out", default="covers.json")
    chosen = parser.parse_args()
    taught, tried = (
        faces(f"{chosen.data}/ids_aligned", 6000),
        faces(f"{chosen.data}/lfw_aligned", 500),
    )
    model = Recognizer(RecognizerSpec.parse(f"sface={chosen.models}/sface.onnx"))
    mean = np.broadcast_to(mean_face(taught), tried.shape)
    report = {"mean face": against(tried, np.ascontiguousarray(mean), model)}
    for name in chosen.covers:
        cover, attack = COVERS[name], RecoveryAttack("unet", seed=0)
        curve = attack.train(taught, lambda some, index, rng: cover(some), chosen.steps, points=5)  # noqa: B023
        hidden = cover(tried)
        report[name] = {
            "covered": against(tried, hidden, model),
            "brought back": against(tried, attack.recover(hidden), model),
            "curve": [point.val_ssim for point in curve],
        }
        print(name, json.dumps(report[name]), flush=True)
        with open(chosen.out, "w") as file:
            json.dump(report, file, indent=1)


if __name__ == "__main__":
    main()
