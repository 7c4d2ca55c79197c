"""Fit what ``natural`` reads off styles: ``natural.looks``.

    python bench/natural_fit.py ../shared/models WORK

Everything is fitted on drawn pictures, in three steps with files in WORK, so that it can be gone on
with: faces (styles, landmarks, measures), gradients of templates by the styles, the fit.
Recognisers: sface and mobileface; dlib, faceres and all real faces stay out. Glasses, and who is
passed over, come after it: ``bench/natural_people.py``.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from ppfr_ops.imaging.geometry import similarity
from ppfr_ops.methods.natural import files
from ppfr_ops.methods.natural.generator import BORDER, STILL, Generator
from ppfr_ops.methods.natural.looks import GRID, LARGEST, LAWS, by_layer
from ppfr_ops.methods.natural.network import LAYERS, STYLE, Mapping

FACES, GRADIENTS, A_FILE, SEEN = 1024, 200, 256, 40
RECOGNISERS = ("sface", "mobileface")
BANDS = {
    "yaw": (4, 8),
    "pitch": (4, 8),
    "mouth": (8, 16),
    "light": (32, 64),
    "red_green": (32, 64),
    "yellow_blue": (32, 64),
}
"""Where an attribute is read and moved."""
PENALTY = 150
"""Of ridge regression."""


def styles(generator: Generator, count: int, seed: int) -> torch.Tensor:
    z = torch.randn(count, STYLE, generator=torch.Generator().manual_seed(seed))
    return generator.mapping(z) - generator.looks.mean


@torch.inference_mode()
def draw(generator: Generator, path: Path, seed: int) -> None:
    """Faces whose bands are a person's style and some of another's, each band's another's."""
    rng = torch.Generator().manual_seed(seed)
    person, *others = styles(generator, 6 * A_FILE, seed).view(6, A_FILE, STYLE)
    far = 0.7 * torch.rand(5, A_FILE, 1, generator=rng)
    far *= torch.rand(1, A_FILE, 1, generator=rng) < 0.6
    own = [1 - far[k] if k in (0, 4) else 1 for k in range(5)]
    bands = torch.stack([own[k] * person + far[k] * others[k] for k in range(5)], 1)
    crops, marks = np.zeros((A_FILE, 112, 112, 3), np.uint8), np.zeros((A_FILE, 5, 2), np.float32)
    for row, each in enumerate(bands):
        given = by_layer(each) + generator.looks.mean
        seen = generator.looked_at(given)
        marks[row], crops[row] = seen.landmarks - BORDER, seen.aligned(STILL)
    np.savez(path, groups=bands.numpy(), marks=marks, crops=crops)


def gradients(generator: Generator, models: Path, path: Path) -> None:
    """Of random projections of templates by the bands' styles."""
    networks = [
        torch.jit.freeze(torch.jit.load(str(models / f"{name}.ts.pt")).eval())
        for name in RECOGNISERS
    ]
    rng, rows = torch.Generator().manual_seed(1), []
    for style in styles(generator, GRADIENTS, 1):
        bands = style.repeat(5, 1).requires_grad_()
        given = (by_layer(bands) + generator.looks.mean)[None]
        centred = (given[:, 11] - generator.looks.mean) / 0.5
        y = generator.head(generator.synthesis.features(given, 64), centred)
        shown = ((y[0].detach() + 1) * 127.5).clamp(0, 255).byte().permute(1, 2, 0)
        points, score = generator.landmarks(np.ascontiguousarray(shown.numpy()))
        if not score:
            continue
        back = torch.from_numpy(cv2.invertAffineTransform(similarity(points))).float()
        place = torch.stack(torch.meshgrid(*[torch.arange(112.0)] * 2, indexing="xy"), -1)
        grid = (place @ back[:, :2].T + back[:, 2] + 0.5) / 64 - 1
        pixels = (y.clamp(-1, 1) + 1) * 127.5
        crop = F.grid_sample(pixels, grid[None], padding_mode="border", align_corners=False)
        total = torch.zeros(())
        for network in networks:
            template = network(crop)[0]
            total = total + template @ torch.randn(template.shape, generator=rng)
        total.backward()
        rows.append(bands.grad)
    torch.save(torch.stack(rows), path)


def measures(marks: np.ndarray, crops: np.ndarray) -> dict[str, np.ndarray]:
    left, right, nose, *mouth = marks.transpose(1, 0, 2)
    eyes, lips = (left + right) / 2, (mouth[0] + mouth[1]) / 2
    height = np.linalg.norm(lips - eyes, axis=1)
    pixels = crops.astype(np.float32)
    cheek = np.concatenate([pixels[:, 66:82, 28:42], pixels[:, 66:82, 71:85]], 2)
    red, green, blue = np.median(cheek.reshape(len(crops), -1, 3), 1).T
    return {
        "yaw": (nose[:, 0] - (eyes[:, 0] + lips[:, 0]) / 2) / height,
        "pitch": (nose[:, 1] - eyes[:, 1]) / height,
        "mouth": np.linalg.norm(mouth[1] - mouth[0], axis=1) / height,
        "light": pixels[:, 30:100, 25:87].mean((1, 2, 3)),
        "red_green": red - green,
        "yellow_blue": (red + green) / 2 - blue,
    }


def ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """In its dual form; the mean of x is left where it is."""
    return x.T @ np.linalg.solve(x @ x.T + penalty * np.eye(len(x)), y)


def fit(generator: Generator, work: Path) -> dict[str, torch.Tensor]:
    parts = [np.load(path) for path in sorted(work.glob("faces-*.npz"))]
    bands, marks, crops = (
        np.concatenate([part[name] for part in parts]) for name in ("groups", "marks", "crops")
    )
    middle = np.linalg.norm(marks.mean(1) - [64, 77], axis=1)
    good = np.nan_to_num(middle, nan=99) < 14
    bands, marks, crops = bands[good].astype(np.float32), marks[good], crops[good]
    asked = measures(marks, crops)
    held_back = np.arange(len(bands)) % 8 == 0
    tensors = blank() | {"mean": generator.looks.mean}
    for name in BANDS:
        y = (asked[name] - asked[name].mean()) / asked[name].std()
        chosen = [resolution in BANDS[name] for resolution in LAYERS]
        x = bands[:, chosen].reshape(len(bands), -1)
        told = x[held_back] @ ridge(x[~held_back], y[~held_back], PENALTY)
        read, move = np.zeros((2, 5, STYLE))
        read[chosen] = ridge(x, y, PENALTY).reshape(-1, STYLE)
        move[chosen] = (x.T @ y / len(y)).reshape(-1, STYLE)
        move /= (read * move).sum()
        tensors[f"read.{name}"] = torch.from_numpy(read.astype(np.float32))
        tensors[f"move.{name}"] = torch.from_numpy(move.astype(np.float32))
        print(name, "held back, r", round(float(np.corrcoef(told, y[held_back])[0, 1]), 2))
        print("  a step of 1 is", round(float(np.linalg.norm(move, axis=1).max()), 2), "long")
    many = styles(generator, 20000, 5)
    values, vectors = torch.linalg.eigh(many.T @ many / len(many))
    values = values.clamp_min(1e-6)
    wide, narrow = ((vectors * v) @ vectors.T for v in (values.sqrt(), values.rsqrt()))
    slopes = torch.load(work / "gradients.pt")[:, :4].sum(1)
    slopes = slopes / slopes.norm(dim=1, keepdim=True)
    power, directions = torch.linalg.eigh(wide @ (slopes.T @ slopes) @ wide)
    directions = directions.flip(1)[:, :SEEN]
    print("of what recognisers see", round(float(power.flip(0)[:SEEN].sum() / power.sum()), 3))
    tensors["seen"], tensors["back"] = narrow @ directions, directions.T @ wide
    tensors["radius"] = (many @ tensors["seen"]).clamp(-LARGEST, LARGEST).norm(dim=1).mean()
    return tensors


def blank() -> dict[str, torch.Tensor]:
    """Looks that move nothing, to draw the first pictures with."""
    z = torch.randn(20000, STYLE, generator=torch.Generator().manual_seed(0))
    tensors = {
        f"{kind}.{name}": torch.zeros(5, STYLE) for kind in ("read", "move") for name in LAWS
    }
    tensors |= {
        "mean": Mapping(files.read("natural.mapping"))(z).mean(0),
        "crowd": torch.zeros(2, STYLE + 1),
        "bent": torch.zeros(2, SEEN, SEEN),
        "damage": torch.zeros(STYLE * GRID**2),
        "flaws": torch.zeros(STYLE * GRID**2),
    }
    tensors |= {"seen": torch.zeros(STYLE, SEEN), "back": torch.zeros(SEEN, STYLE)}
    bounds = {name: torch.tensor(torch.inf) for name in ("most", "fair")}
    return tensors | bounds | {"radius": torch.ones(())}


def main() -> None:
    models, work = map(Path, sys.argv[1:3])
    torch.set_num_threads(1)
    files.save("natural.looks", blank(), exact=True)
    generator = Generator("cpu")
    for seed in range(FACES // A_FILE):
        if not (work / f"faces-{seed:03d}.npz").is_file():
            draw(generator, work / f"faces-{seed:03d}.npz", seed)
    if not (work / "gradients.pt").is_file():
        gradients(generator, models, work / "gradients.pt")
    files.save("natural.looks", fit(generator, work), exact=True)


if __name__ == "__main__":
    main()
