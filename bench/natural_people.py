"""Fit which people ``natural`` passes over, and how it reads glasses and sex: ``natural.looks``.

    python bench/natural_people.py ../shared WORK [--chunks 10]

Everything is fitted on drawn faces, in files of 256 in WORK, so that it can be gone on with.
Glasses and sex are labelled by eye: the first run writes sheets of the first 480 faces and stops;
``WORK/glasses.txt`` then holds two lines, the numbers of faces with and of those without, and
``WORK/sex.txt`` those of women and of men (who is unsure is left out). Recognisers: sface,
mobileface, dlib, mfn128; faceres and LFW stay out. Who is passed over, and where traits lie, is
fitted on 3,600 people, half of them women, drawn with the looks that are in the package then. Of
those that the package was fitted on, 1,600 were of the better half by the score before, so another
run gives about the same and not the same bytes.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
import torch
from PIL import Image

from ppfr_ops.methods.natural import camera, files, traits
from ppfr_ops.methods.natural.generator import STILL, Generator, load
from ppfr_ops.methods.natural.looks import ATTRIBUTES, OTHERS
from ppfr_ops.methods.natural.network import LAYERS, STYLE

A_FILE, LABELLED = 256, 480
THRESHOLDS = {"sface": 0.363, "mobileface": 0.367, "dlib": 0.922, "mfn128": 0.35}
"""Near those of FAR 1e-3 as the recognisers are commonly used; of dlib and mfn128 a little below
those on CFP's people. For the score of crowds: ``NEAR``."""
STRICT = {"sface": 0.4102, "mobileface": 0.4819, "dlib": 0.9289, "mfn128": 0.3768}
"""Those of FAR 1e-3 on four frontal photos of each of CFP's people and eight of each of
``ids_aligned`` together; held-out strangers are read at them."""
NEAR = {"sface": 0.363, "mobileface": 0.40, "dlib": 0.922, "mfn128": 0.35}
"""From where on somebody is nearly taken for another: lower, so that more pairs tell."""
SOFT = {"sface": 0.03, "mobileface": 0.04, "dlib": 0.004, "mfn128": 0.03}
WEIGHTS = {"sface": 1.5, "mobileface": 0.7, "dlib": 1.3, "mfn128": 1.0}
CANDIDATES, FILES, PENALTY, SHARE, AWAY = 200, 18, 100.0, 0.2, 0.8
"""In a file, and files; of ridges; the share of people that the method takes; by how much a
person's traits are shifted, in deviations of a number."""
LENS = np.full(camera.DRAW, 1e-6)
"""A camera straight ahead, with a lens and no more."""


def ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    return x.T @ np.linalg.solve(x @ x.T + penalty * np.eye(len(x)), y)


def templates(models: Path, faces: np.ndarray, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    pixels, found = faces.transpose(0, 3, 1, 2).astype(np.float32), {}
    for name in names:
        run = ort.InferenceSession(str(models / f"{name}.onnx"))
        parts = [
            run.run(None, {"face_rgb_0_255": pixels[i : i + 32]})[0]
            for i in range(0, len(pixels), 32)
        ]
        rows = np.concatenate(parts).astype(np.float32)
        found[name] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return found


@torch.inference_mode()
def draw(generator: Generator, models: Path, path: Path, seed: int) -> None:
    """People by the present looks, nobody passed over, a photo of each, every third one plain."""
    rng = torch.Generator().manual_seed(seed)
    styles = generator.mapping(torch.randn((1 + OTHERS) * A_FILE, STYLE, generator=rng))
    who, *others = (styles - generator.looks.mean).view(1 + OTHERS, A_FILE, STYLE)
    shown, crops, scores = [], [], []
    for i in range(A_FILE):
        far = 0.0 if i % 3 == 0 else 0.4 + float(torch.rand(1, generator=rng))
        look = torch.randn(ATTRIBUTES, generator=rng)
        person = generator.looks.person(who[i])
        given = generator.looks.styles(person, torch.stack([o[i] for o in others]), look, far)
        seen = generator.looked_at(given)
        shown.append(given - generator.looks.mean)
        crops.append(seen.aligned(STILL))
        scores.append(seen.sound)
    faces = np.stack(crops)
    np.savez(
        path,
        styles=torch.stack(shown).numpy().astype(np.float16),
        crops=faces,
        scores=np.array(scores),
        **templates(models, faces, tuple(THRESHOLDS)),
    )


@torch.inference_mode()
def candidates(models: Path, path: Path, seed: int) -> None:
    """People of whom half are women and whom only the crowd's rule might pass over, and a plain
    picture of each at 128 px, through a lens, with traits that have no shift."""
    generator, rng = load("cpu"), np.random.default_rng(70_000 + seed)
    people, own, faces = [], [], []
    while len(faces) < CANDIDATES:
        person = generator.looks.person(generator.style(rng.standard_normal(STYLE, np.float32)))
        if not generator.looks.is_of(person, {"women": len(faces) % 2 == 0}):
            continue
        if generator.fit(person, 1.0) < 1:
            continue
        still = torch.zeros(OTHERS, STYLE), torch.zeros(ATTRIBUTES)
        sight = generator._sight(generator.drawn(generator.looks.styles(person, *still, 0.0))[0])
        numbers = rng.standard_normal(traits.NUMBERS)
        own.append(numbers * np.sqrt(traits.NUMBERS) / np.linalg.norm(numbers))
        sight.face = traits.field(own[-1])
        people.append(person.numpy())
        faces.append(sight.aligned(LENS))
    found = templates(models, np.stack(faces), tuple(NEAR))
    np.savez(path, people=np.stack(people), traits=np.stack(own), **found)


def near(found: dict[str, np.ndarray]) -> np.ndarray:
    """How nearly recognisers take one for the other, ``N x N``; 1 in the mean."""
    alike = np.zeros((len(found["people"]),) * 2, np.float32)
    for name, weight in WEIGHTS.items():
        cosines = found[name] @ found[name].T
        each = np.logaddexp(0, (cosines - NEAR[name]) / SOFT[name])
        np.fill_diagonal(each, 0)
        alike += weight * each / each.mean()
    return alike / sum(WEIGHTS.values())


def crowd(
    people: np.ndarray, own: np.ndarray, alike: np.ndarray, seen: np.ndarray, dark: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What tells off the style how nearly a man and a woman are taken for others: a line, ``2 x
    512``, and what is quadratic in the directions that recognisers see, ``2 x 40 x 40``, freed of
    dark skin, or it would pass over more of the light; and the same of traits, a line, ``20``."""
    women = np.arange(len(people)) % 2 == 0
    rows = np.stack([~women, women])
    y, z = np.log(alike.mean(1) + 0.05 * alike.mean()), people.astype(float)
    for each in rows:
        y[each] = (y[each] - y[each].mean()) / y[each].std()
        z[each] -= z[each].mean(0)
    o = z @ seen
    unit = o.std()
    o /= unit
    straight, bent = z @ z.T, o @ o.T / o.shape[1]
    scales = 0.6 / np.diag(straight).mean(), 0.4 / np.diag(bent + 3 * bent**2).mean()
    of_style = scales[0] * straight + scales[1] * (bent + 3 * bent**2)
    of_style *= 0.5 + 0.5 * (women[:, None] == women)
    both = 0.7 * of_style + 0.3 * own @ own.T / own.shape[1]
    told = np.linalg.solve(both + 0.3 * np.eye(len(y)), y)
    lines, squares = [], []
    for each in rows:
        part = 0.7 * told * (0.5 + 0.5 * each)
        square = scales[1] * 3 * (o.T * part) @ o / (o.shape[1] * unit) ** 2
        line = scales[0] * part @ z + scales[1] / (o.shape[1] * unit) * seen @ (part @ o)
        middle = people[each].mean(0)
        line -= 2 * seen @ square @ (middle @ seen)
        skin = z[each] @ dark
        score = people[each] @ line + squared(people[each] @ seen, square)
        back = ridge(z[each], skin, PENALTY)
        line -= np.cov(score, skin)[0, 1] / np.cov(z[each] @ back, skin)[0, 1] * back
        lines.append(line)
        squares.append(square)
    return np.stack(lines), np.stack(squares), told @ own


def squared(own: np.ndarray, square: np.ndarray) -> np.ndarray:
    return np.einsum("na,ab,nb->n", own, square, own)


def twice(
    people: np.ndarray, own: np.ndarray, alike: np.ndarray, seen: np.ndarray, dark: np.ndarray
) -> list[np.ndarray]:
    """``crowd`` of all, and half as much of it by how nearly one is taken for those who stay then,
    for who is passed over need not be kept apart from anybody."""
    first = crowd(people, own, alike, seen, dark)
    (_, men), (_, women) = stay(people, seen, *first[:2], 0.5)
    weights, rows = np.zeros(len(people)), np.r_[men, women]
    weights[rows] = shifted(own[rows], first[2])
    weights += 0.05 * weights.mean()
    then = crowd(people, own, alike * (weights / weights.mean()), seen, dark)
    return [each + 0.5 * more for each, more in zip(first, then, strict=True)]


def shifted(own: np.ndarray, way: np.ndarray) -> np.ndarray:
    """How often traits are drawn with the shift, by how often without."""
    return np.exp(-AWAY * own @ way / np.linalg.norm(way))


def stay(
    people: np.ndarray,
    seen: np.ndarray,
    lines: np.ndarray,
    squares: np.ndarray,
    share: float = SHARE,
) -> list[tuple[float, np.ndarray]]:
    """The bounds of men and of women that a share of them stay below, and who does."""
    women, found = np.arange(len(people)) % 2, []
    for sex in (1, 0):
        rows = np.flatnonzero(women == sex)
        score = people[rows] @ lines[1 - sex] + squared(people[rows] @ seen, squares[1 - sex])
        bound = np.quantile(score, share)
        found.append((bound, rows[score <= bound]))
    return found


def held_out(found: dict[str, np.ndarray], seen: np.ndarray, dark: np.ndarray) -> None:
    """Strangers above the threshold, fitted on one half and read on the other."""
    people, own, alike = found["people"], found["traits"], near(found)
    pairs = np.random.default_rng(0).permutation(len(people) // 2)
    halves = [np.sort(np.r_[2 * part, 2 * part + 1]) for part in np.array_split(pairs, 2)]
    for fit, other in (halves, halves[::-1]):
        lines, squares, way = twice(people[fit], own[fit], alike[np.ix_(fit, fit)], seen, dark)
        (_, men), (_, women) = stay(people[other], seen, lines, squares)
        kept = other[np.r_[men, women]]
        among = {"all": (other, np.ones(len(other))), "who stay": (kept, np.ones(len(kept)))}
        among["who stay, traits shifted"] = kept, shifted(own[kept], way)
        for name, (rows, weights) in among.items():
            shares = np.outer(weights, weights)
            np.fill_diagonal(shares, 0)
            told = []
            for model, bound in [*STRICT.items(), *NEAR.items()]:
                taken = found[model][rows] @ found[model][rows].T > bound
                told.append(f"{model} {(shares * taken).sum() / shares.sum():.5f}")
            print(f"{name}, {len(rows)}: {', '.join(told)}")


def edges(faces: np.ndarray) -> np.ndarray:
    """Histograms of gradients around the eyes, by blocks."""
    found = []
    for face in faces:
        grey = cv2.resize(face[36:76, 16:96], (80, 40)).astype(np.float32).mean(2)
        down, across = np.gradient(grey)
        length, angle = np.hypot(across, down), np.arctan2(down, across) % np.pi / np.pi * 9
        low, share = np.floor(angle).astype(int) % 9, angle - np.floor(angle)
        bins = np.zeros((9, *grey.shape), np.float32)
        for k in range(9):
            bins[k] += np.where(low == k, length * (1 - share), 0)
            bins[k] += np.where((low + 1) % 9 == k, length * share, 0)
        cells = bins.reshape(9, 10, 4, 20, 4).sum((2, 4))
        blocks = np.stack([cells[:, i : 9 + i, j : 19 + j] for i in (0, 1) for j in (0, 1)])
        norm = np.sqrt(np.square(blocks).sum((0, 1), keepdims=True) + 400)
        found.append(np.minimum(blocks / norm, 0.3).ravel())
    return np.stack(found)


def small(faces: dict[str, np.ndarray]) -> np.ndarray:
    """Templates and the picture at 14 px, what sex is told by."""
    crops = [cv2.resize(c, (14, 14), interpolation=cv2.INTER_AREA).ravel() for c in faces["crops"]]
    parts = [6 * faces["sface"], 6 * faces["mobileface"], 20 * faces["dlib"]]
    return np.concatenate([*parts, np.stack(crops) * (0.3 / 64)], 1)


def held(
    faces: dict[str, np.ndarray], x: np.ndarray, labels: Path, bands: list[int], penalty: float
) -> tuple[np.ndarray, np.ndarray]:
    """What reads a kind off the styles, and what moves it, ``5 x 512`` each; faces that nobody
    labelled are told by ``x``."""
    yes, no = (np.array(line.split(), int) for line in labels.read_text().splitlines())
    known, sides = np.r_[yes, no], np.r_[np.ones(len(yes)), -np.ones(len(no))]
    even = np.where(sides > 0, 0.5 / len(yes), 0.5 / len(no)) ** 0.5 * len(known) ** 0.5
    wide = np.c_[x - x[known].mean(0), np.ones(len(x))]
    y = wide @ ridge(wide[known] * even[:, None], sides * even, penalty)
    y[known] = sides
    y = y.clip(-1.2, 1.2)
    y = (y - y.mean()) / y.std()
    starts = np.array([start for start, _ in LAYERS.values()])[bands]
    styles = faces["styles"][:, starts].reshape(len(y), -1)
    read, move = np.zeros((2, 5, STYLE))
    read[bands] = ridge(styles, y, 450.0).reshape(-1, STYLE)
    move[bands] = (styles.T @ y / len(y)).reshape(-1, STYLE)
    move /= (read * move).sum()
    return read.astype(np.float32), move.astype(np.float32)


def sheets(crops: np.ndarray, work: Path) -> None:
    for first in range(0, LABELLED, 120):
        rows = crops[first : first + 120].reshape(10, 12, 112, 112, 3).transpose(0, 2, 1, 3, 4)
        Image.fromarray(rows.reshape(1120, 1344, 3)).save(work / f"faces-{first:03d}.png")


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("shared", type=Path)
    asked.add_argument("work", type=Path)
    asked.add_argument("--chunks", type=int, default=10)
    given = asked.parse_args()
    torch.set_num_threads(1)
    generator = Generator("cpu")
    paths = [given.work / f"people-{seed:03d}.npz" for seed in range(given.chunks)]
    for seed, path in enumerate(paths):
        if not path.is_file():
            draw(generator, given.shared / "models", path, seed)
    parts = [np.load(path) for path in paths]
    faces = {name: np.concatenate([p[name] for p in parts]) for name in parts[0].files}
    faces = {n: v.astype(np.float32) if v.dtype == np.float16 else v for n, v in faces.items()}
    if not (given.work / "glasses.txt").is_file():
        sheets(faces["crops"], given.work)
        raise SystemExit(f"look at the sheets in {given.work}; write glasses.txt and sex.txt")
    tensors = files.read("natural.looks")
    for name, x, bands, penalty in (
        ("glasses", edges(faces["crops"]), [0, 1], 3.0),
        ("sex", small(faces), [0, 1, 2, 3], 30.0),
    ):
        reads = held(faces, x, given.work / f"{name}.txt", bands, penalty)
        tensors[f"read.{name}"], tensors[f"move.{name}"] = (torch.from_numpy(v) for v in reads)
    files.save("natural.looks", tensors, exact=True)
    paths = [given.work / f"candidates-{seed}.npz" for seed in range(FILES)]
    for seed, path in enumerate(paths):
        if not path.is_file():
            candidates(given.shared / "models", path, seed)
    parts = [np.load(path) for path in paths]
    names = ("people", "traits", *NEAR)
    found = {name: np.concatenate([p[name] for p in parts]) for name in names}
    dark, seen = tensors["kind.dark"][:STYLE].double().numpy(), tensors["seen"].double().numpy()
    held_out(found, seen, dark)
    lines, squares, way = twice(found["people"], found["traits"], near(found), seen, dark)
    bounds = [[bound] for bound, _ in stay(found["people"], seen, lines, squares)]
    tensors["crowd"] = torch.from_numpy(np.c_[lines, bounds])
    tensors["bent"] = torch.from_numpy(squares)
    shift = {"shift": torch.from_numpy(-AWAY * way / np.linalg.norm(way))}
    files.save(files.TRAITS, files.read(files.TRAITS) | shift, exact=True)
    files.save("natural.looks", tensors, exact=True)


if __name__ == "__main__":
    main()
