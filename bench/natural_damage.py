"""Fit how likely a drawn picture is damaged, by its features at 64 px: ``natural.looks``.

    python bench/natural_damage.py WORK [--people 1000]
    python bench/natural_damage.py WORK2 --plain [--people 1232]

The first run draws people as photographs get them, writes sheets of those that are otherwise sound,
and stops; ``WORK/damaged.txt`` then holds the numbers of those that are damaged (smears, holes,
spots, hands or wires before the face), by eye. The second run fits a line, frees it of sex, age and
dark skin as the styles tell them, says how well it tells pictures that were held out, and writes it
into the package.

``--plain``: plain pictures of people whom that line let pass, and ``damaged.txt`` those that catch
the eye: blind or shaded eyes, broken noses, torn glasses, hair or hands before the face. What tells
them is added to that line, for people and for heads in photographs; after a run without ``--plain``
it has to be done again. ``FAIR`` is a share of all who are sound at 256 px, passed or not.
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
from ppfr_ops.methods.natural.network import STYLE, pixels
from ppfr_ops.methods.natural.quality import plain
from ppfr_ops.methods.natural.steering import STILL
from ppfr_ops.methods.portrait import _VARIATION

PENALTY, KIND_PENALTY, PASSED, FAIR, A_SHEET = 1e4, 3e3, 0.7, 0.28, 112
"""Of the two ridges; the share of pictures that pass, and of people; pictures on a sheet."""


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
            shown.append(seen.aligned(STILL))
    np.savez(path, features=np.stack(features), people=np.stack(people))
    sheets(shown, path)


@torch.inference_mode()
def draw_plain(generator: Generator, count: int, path: Path) -> None:
    """People of whom half are women, and whether the line of before lets them pass."""
    still, shares = (torch.zeros(OTHERS, STYLE), torch.zeros(ATTRIBUTES), 0.0), (("women", 0.5),)
    features, people, shown, passed = [], [], [], []
    while sum(passed) < count:
        for person in generator.candidates(bytes(32), b"%d" % len(people), shares):
            styles = generator.looks.styles(person, *still)
            seen = generator._features(styles)
            sight = generator._sight(pixels(generator._sharp(styles, seen)))
            if sight.sound and min(sight.sound, plain(sight.aligned(STILL))) >= 1:
                break
        features.append(on_grid(seen.float()).numpy())
        people.append(person.numpy())
        passed.append(generator.looks.whole(seen) >= 1)
        if passed[-1]:
            shown.append(sight.aligned(STILL))
    np.savez(path, features=np.stack(features), people=np.stack(people), passed=passed)
    sheets(shown, path)


def sheets(shown: list[np.ndarray], path: Path) -> None:
    side = shown[0].shape[0]
    for first in range(0, len(shown) - A_SHEET + 1, A_SHEET):
        for number, picture in enumerate(shown[first : first + A_SHEET], first):
            cv2.putText(picture, str(number), (2, side - 4), 0, 0.42, (255, 255, 0), 1, cv2.LINE_AA)
        rows = np.stack(shown[first : first + A_SHEET]).reshape(8, 14, side, side, 3)
        sheet = rows.transpose(0, 2, 1, 3, 4).reshape(8 * side, 14 * side, 3)
        Image.fromarray(sheet).save(path.parent / f"sheet-{first:04d}.png")


def area(scores: np.ndarray, damaged: np.ndarray) -> float:
    return float((scores[damaged][:, None] > scores[~damaged]).mean())


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("work", type=Path)
    asked.add_argument("--people", type=int, default=1000)
    asked.add_argument("--plain", action="store_true")
    given = asked.parse_args()
    torch.set_num_threads(1)
    generator, path = Generator("cpu"), given.work / "damage.npz"
    if not path.is_file():
        (draw_plain if given.plain else draw)(generator, given.people, path)
        raise SystemExit(f"look at the sheets in {given.work}; write damaged.txt")
    with np.load(path) as kept:
        every, people = kept["features"], kept["people"]
        if ("passed" in kept) != given.plain:
            raise SystemExit(f"{given.work} holds pictures of the other kind")
        passed = kept["passed"] if given.plain else np.ones(len(every), bool)
    x, people = every[passed], people[passed]
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
    weights, tensors = found / spread, files.read("natural.looks")
    if given.plain:
        before = tensors["damage"].numpy()
        weights = weights / (every @ weights).std() + before / (every @ before).std()
    weights /= (x @ weights).std()
    most = np.quantile(every @ weights, FAIR if given.plain else PASSED)
    names = ("flaws", "fair") if given.plain else ("damage", "most")
    for name, value in zip(names, (weights, most), strict=True):
        tensors[name] = torch.tensor(np.float32(value))
    files.save("natural.looks", tensors, exact=True)


if __name__ == "__main__":
    main()
