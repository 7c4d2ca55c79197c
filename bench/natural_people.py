"""Fit which people ``natural`` passes over, and how it reads glasses and sex: ``natural.looks``.

    python bench/natural_people.py ../shared WORK [--chunks 10]

Everything is fitted on drawn faces, in files of 256 in WORK, so that it can be gone on with.
Glasses and sex are labelled by eye: the first run writes sheets of the first 480 faces and stops;
``WORK/glasses.txt`` then holds two lines, the numbers of faces with and of those without, and
``WORK/sex.txt`` those of women and of men (who is unsure is left out). Recognisers: sface,
mobileface, dlib, mfn128; faceres and LFW stay out. Who is passed over is fitted on 800 people, half
of them women, drawn with the looks that are in the package then.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
import torch
from natural import jpeg
from PIL import Image

from ppfr_ops.methods.natural import TRIES, Natural, camera, files, looks
from ppfr_ops.methods.natural.generator import STILL, Generator
from ppfr_ops.methods.natural.looks import ATTRIBUTES, OTHERS
from ppfr_ops.methods.natural.network import LAYERS, STYLE
from ppfr_ops.methods.registry import create

A_FILE, LABELLED = 256, 480
THRESHOLDS = {"sface": 0.363, "mobileface": 0.367, "dlib": 0.922, "mfn128": 0.35}
"""Near those of FAR 1e-3 as the recognisers are commonly used; of dlib and mfn128 a little below
those on CFP's people. For the score of crowds: ``STRICT``."""
STRICT = {"sface": 0.4102, "mobileface": 0.4819, "dlib": 0.9289, "mfn128": 0.3768}
"""Those of FAR 1e-3 on four frontal photos of each of CFP's people and eight of each of
``ids_aligned`` together."""
SOFT = {"sface": 0.025, "mobileface": 0.035, "dlib": 0.003, "mfn128": 0.025}
WEIGHTS = {"sface": 1.0, "mobileface": 1.0, "dlib": 1.5, "mfn128": 1.0}
CANDIDATES, PENALTY, SHARE = 400, 100.0, 0.2
"""In a file; of the ridges of the score; the share of people that the method takes."""


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
    """People of whom half are women and whom only the crowd's rule might pass over, and a photo of
    each as the method gives them."""
    method = create("natural").with_secrets({"identity-key": bytes(32)})
    assert isinstance(method, Natural)
    generator, rng = method.generator(), np.random.default_rng(70_000 + seed)
    people, faces = [], []
    while len(faces) < CANDIDATES:
        person = generator.looks.person(generator.style(rng.standard_normal(STYLE, np.float32)))
        if not generator.looks.is_of(person, {"women": len(faces) % 2 == 0}):
            continue
        if generator.fit(person, 1.0) < 1:
            continue
        draw = rng.standard_normal(method.draw_size, np.float32)
        tries = (generator.looked_at(method._styles(person, draw, n, {})) for n in range(TRIES))
        shown = next((sight for sight in tries if sight.sound >= 1), None)
        if shown is not None:
            people.append(person.numpy())
            faces.append(jpeg(shown.aligned(camera.wide(draw[looks.DRAW :], 1.0))))
    found = templates(models, np.stack(faces), tuple(THRESHOLDS))
    np.savez(path, people=np.stack(people), **found)


def crowd(found: dict[str, np.ndarray], dark: np.ndarray) -> np.ndarray:
    """Of men and of women, ``2 x 513``: what tells off the style how many of their sex somebody is
    taken for, and the bound that ``SHARE`` of them stay below. Half of it is told by both sexes
    together; it is freed of dark skin, or it would pass over more of the light."""
    people, sexes = found["people"].astype(float), [np.arange(len(found["people"])) % 2 == 1]
    sexes.append(~sexes[0])
    alike = np.zeros((len(people), len(people)))
    for name, weight in WEIGHTS.items():
        cosines = found[name] @ found[name].T
        np.fill_diagonal(cosines, -1)
        each = 1 / (1 + np.exp(((STRICT[name] - cosines) / SOFT[name]).clip(-30, 30)))
        alike += weight * each / each.mean()
    centred, y = people.copy(), np.zeros(len(people))
    for rows in sexes:
        count = alike[np.ix_(rows, rows)].mean(1)
        told = np.log(count + 0.01 * count.mean())
        y[rows], centred[rows] = (
            (told - told.mean()) / told.std(),
            people[rows] - people[rows].mean(0),
        )
    both, lines = ridge(centred, y, PENALTY), []
    for rows in sexes:
        z = centred[rows]
        own = both + ridge(z, y[rows] - z @ both, 2 * PENALTY)
        skin = z @ dark
        back = ridge(z, skin, PENALTY)
        own -= np.cov(z @ own, skin)[0, 1] / np.cov(z @ back, skin)[0, 1] * back
        lines.append(np.r_[own, np.quantile(people[rows] @ own, SHARE)])
        stay = np.flatnonzero(rows)[people[rows] @ own <= lines[-1][-1]]
        for name, threshold in STRICT.items():
            shares = [
                (t @ t.T)[np.triu_indices(len(t), 1)] > threshold
                for t in (found[name][rows], found[name][stay])
            ]
            print(f"{name}: strangers {shares[0].mean():.5f}, who stay {shares[1].mean():.5f}")
    return np.asarray(lines, np.float32)


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
    paths = [given.work / f"candidates-{seed}.npz" for seed in range(2)]
    for seed, path in enumerate(paths):
        if not path.is_file():
            candidates(given.shared / "models", path, seed)
    parts = [np.load(path) for path in paths]
    found = {name: np.concatenate([p[name] for p in parts]) for name in parts[0].files}
    dark = tensors["kind.dark"][:STYLE].numpy().astype(float)
    tensors["crowd"] = torch.from_numpy(crowd(found, dark))
    files.save("natural.looks", tensors, exact=True)


if __name__ == "__main__":
    main()
