"""Fit how likely a drawn picture is damaged, by its features at 64 px: ``natural.looks``.

    python bench/natural_damage.py WORK [--people 1000]

The first run draws people as photographs get them, writes sheets of those that are otherwise sound,
and stops; ``WORK/damaged.txt`` then holds the numbers of those that are damaged (smears, holes,
spots, hands or wires before the face), by eye. The second run fits a line, frees it of sex, age and
dark skin as the styles tell them, says how well it tells pictures that were held out, and writes it
into the package.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from natural_people import ridge
from PIL import Image

from ppfr_ops.methods.natural import _OTHER, files
from ppfr_ops.methods.natural.generator import Generator
from ppfr_ops.methods.natural.looks import ATTRIBUTES, BANDS, LAWS, OTHERS, on_grid
from ppfr_ops.methods.natural.network import STYLE
from ppfr_ops.methods.portrait import _VARIATION

PENALTY, KIND_PENALTY, PASSED, A_SHEET = 1e4, 3e3, 0.7, 112
"""Of the two ridges; the share of pictures that pass; pictures on a sheet."""


@torch.inference_mode()
def draw(generator: Generator, count: int, path: Path) -> None:
    rng, looks = np.random.default_rng(10_100), generator.looks
    looks.most = np.inf  # whatever was taken for damaged before
    yaw = len(BANDS) + list(LAWS).index("yaw")
    features, people, shown = [], [], []
    for _ in range(count):
        z, *others = rng.standard_normal((1 + OTHERS, STYLE)).astype(np.float32)
        person = looks.person(generator.style(z))
        look = rng.standard_normal(ATTRIBUTES).astype(np.float32)
        look[yaw] = rng.normal(0, 0.5)
        mixed = torch.stack([_OTHER * generator.style(other) for other in others])
        styles = looks.styles(person, mixed, torch.from_numpy(look), _VARIATION)
        seen = generator.looked_at(styles)
        if seen.sound >= 1:
            features.append(on_grid(generator.drawn(styles)[1].float()).numpy())
            people.append(person.numpy())
            shown.append(seen.picture[16:-16, 16:-16])
    for first in range(0, len(shown) - A_SHEET + 1, A_SHEET):
        for number, picture in enumerate(shown[first : first + A_SHEET], first):
            cv2.putText(picture, str(number), (2, 124), 0, 0.42, (255, 255, 0), 1, cv2.LINE_AA)
        rows = np.stack(shown[first : first + A_SHEET]).reshape(8, 14, 128, 128, 3)
        sheet = rows.transpose(0, 2, 1, 3, 4).reshape(8 * 128, 14 * 128, 3)
        Image.fromarray(sheet).save(path.parent / f"sheet-{first:04d}.png")
    np.savez(path, features=np.stack(features), people=np.stack(people))


def area(scores: np.ndarray, damaged: np.ndarray) -> float:
    return float((scores[damaged][:, None] > scores[~damaged]).mean())


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("work", type=Path)
    asked.add_argument("--people", type=int, default=1000)
    given = asked.parse_args()
    torch.set_num_threads(1)
    generator, path = Generator("cpu"), given.work / "damage.npz"
    if not path.is_file():
        draw(generator, given.people, path)
        raise SystemExit(f"look at the sheets in {given.work}; write damaged.txt")
    with np.load(path) as kept:
        x, people = kept["features"], kept["people"]
    count = len(x) // A_SHEET * A_SHEET
    x, people, damaged = x[:count], people[:count], np.zeros(count, bool)
    damaged[np.array((given.work / "damaged.txt").read_text().split(), int)] = True
    spread = x.std(0)
    spread = spread + 0.3 * np.median(spread)
    z = (x - x.mean(0)) / spread
    told, held = np.zeros(count), np.arange(count) % 8
    for part in range(8):
        rows = held != part
        y = damaged[rows] - damaged[rows].mean()
        told[~rows] = z[~rows] @ ridge(z[rows], y, PENALTY)
    print(f"held out: area under the curve {area(told, damaged):.3f}")
    found = ridge(z, damaged - damaged.mean(), PENALTY)
    kinds = [people @ k[:STYLE].numpy() for k in generator.looks.kinds.values()]
    reads = [ridge(z, kind - kind.mean(), KIND_PENALTY) for kind in kinds]
    for _ in range(30):
        for read, kind in zip(reads, kinds, strict=True):
            both = (np.cov((z @ one)[~damaged], kind[~damaged])[0, 1] for one in (found, read))
            found = found - next(both) / next(both) * read
    weights = found / spread / (z @ found).std()
    tensors = files.read("natural.looks")
    tensors["damage"] = torch.from_numpy(weights.astype(np.float32))
    tensors["most"] = torch.tensor(float(np.quantile(x @ weights, PASSED)))
    files.save("natural.looks", tensors, exact=True)


if __name__ == "__main__":
    main()
