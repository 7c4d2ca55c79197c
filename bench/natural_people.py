"""Fit which people ``natural`` passes over, and how it reads glasses and sex: ``natural.looks``.

    python bench/natural_people.py ../shared WORK [--chunks 10]

Everything is fitted on drawn faces, in files of 256 in WORK, so that it can be gone on with.
Glasses and sex are labelled by eye: the first run writes sheets of the first 480 faces and stops;
``WORK/glasses.txt`` then holds two lines, the numbers of faces with and of those without, and
``WORK/sex.txt`` those of women and of men (who is unsure is left out). Recognisers: sface,
mobileface, dlib, mfn128; faceres and LFW stay out. For the score alone sex and ethnicity come from
UTKFace by sface's templates, so that people of both sexes and of Asia are passed over as often.
"""

import argparse
import io
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from ppfr_ops.methods.natural import STILL, Generator, files
from ppfr_ops.methods.natural.looks import ATTRIBUTES, CROWD_GRID, CROWD_SIDE, OTHERS
from ppfr_ops.methods.natural.network import LAYERS, STYLE

A_FILE, LABELLED = 256, 480
THRESHOLDS = {"sface": 0.363, "mobileface": 0.367, "dlib": 0.922, "mfn128": 0.35}
"""Near those of FAR 1e-3 as the recognisers are commonly used; of dlib and mfn128 a little below
those on CFP's people."""
SOFT = {"sface": 0.025, "mobileface": 0.035, "dlib": 0.003, "mfn128": 0.025}
WEIGHTS = {"sface": 1.0, "mobileface": 1.0, "dlib": 1.5, "mfn128": 1.0}
COMPONENTS, PENALTY, TAKEN, SHARE = 150, 0.03, 0.15, 0.3
"""Principal components of the features; of the weights; the share of people that is taken while
the score is fitted; the share that the method takes."""


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
    shown, crops, scores, features = [], [], [], []
    for i in range(A_FILE):
        far = 0.0 if i % 3 == 0 else 0.4 + float(torch.rand(1, generator=rng))
        look = torch.randn(ATTRIBUTES, generator=rng)
        person = generator.looks.person(who[i])
        given = generator.looks.styles(person, torch.stack([o[i] for o in others]), look, far)
        seen = generator.looked_at(given)
        early = generator.exact.features(given[None], CROWD_SIDE)
        features.append(torch.nn.functional.adaptive_avg_pool2d(early, CROWD_GRID).flatten())
        shown.append(given - generator.looks.mean)
        crops.append(seen.aligned(STILL))
        scores.append(seen.sound)
    faces = np.stack(crops)
    np.savez(
        path,
        styles=torch.stack(shown).numpy().astype(np.float16),
        features=torch.stack(features).numpy().astype(np.float16),
        crops=faces,
        scores=np.array(scores),
        **templates(models, faces, tuple(THRESHOLDS)),
    )


def groups(shared: Path, sface: np.ndarray) -> list[np.ndarray]:
    """Of drawn faces: how female, and how Asian, by heads on a thousand faces of UTKFace."""
    parts = sorted((shared / "data" / "utk_aligned").glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(part) for part in parts])
    table = table.take(np.sort(np.random.default_rng(0).permutation(len(table))[:1000]))
    images = [Image.open(io.BytesIO(row["bytes"])) for row in table["image"].to_pylist()]
    faces = np.stack([np.array(image.convert("RGB")) for image in images])
    x = templates(shared / "models", faces, ("sface",))["sface"]
    age, sex, ethnicity = (table[c].to_numpy() for c in ("age", "gender", "ethnicity"))
    found = []
    for rows, y in ((age >= 16, sex == 1), (age >= 0, ethnicity == 2)):
        mean, told = x[rows].mean(0), y[rows].astype(float)
        found.append((sface - mean) @ ridge(x[rows] - mean, told - told.mean(), 3.0))
    return found


def crowd(shared: Path, faces: dict[str, np.ndarray]) -> np.ndarray:
    """Weights of the features whose sum is low for the people that should be taken, so that few of
    these are taken for one another: found by descent on how often that happens."""
    features = faces["features"]
    spread = features.std(0)
    spread = spread + 0.3 * np.median(spread)
    z = (features - features.mean(0)) / spread
    values, vectors = np.linalg.eigh(z @ z.T)
    values, vectors = values[-COMPONENTS:], vectors[:, -COMPONENTS:] * len(z) ** 0.5
    alike = np.zeros((len(z), len(z)))
    for name, weight in WEIGHTS.items():
        cosines = faces[name] @ faces[name].T
        np.fill_diagonal(cosines, -1)
        each = 1 / (1 + np.exp(((THRESHOLDS[name] - cosines) / SOFT[name]).clip(-30, 30)))
        alike += weight * each / each.mean() / len(WEIGHTS)
    x, pairs = torch.from_numpy(vectors).float(), torch.from_numpy(alike).float()
    weights = torch.zeros(COMPONENTS, requires_grad=True)
    optimiser = torch.optim.Adam([weights], 0.03)
    for _ in range(400):
        score = x @ weights
        bound = torch.quantile(score.detach(), TAKEN)
        taken = torch.sigmoid(bound - score)
        taken = taken / taken.sum()
        loss = taken @ pairs @ taken + PENALTY * weights.square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    found = z.T @ (vectors / values) @ weights.detach().numpy().astype(float)
    kinds = groups(shared, faces["sface"])
    reads = [ridge(z, kind - kind.mean(), 3000.0) for kind in kinds]
    for _ in range(30):
        for read, kind in zip(reads, kinds, strict=True):
            found -= np.cov(z @ found, kind)[0, 1] / np.cov(z @ read, kind)[0, 1] * read
    score = z @ found
    chosen = score <= np.quantile(score, SHARE)
    for name, threshold in THRESHOLDS.items():
        for kind, rows in (("all", faces[name]), ("taken", faces[name][chosen])):
            above = (rows @ rows.T)[np.triu_indices(len(rows), 1)] > threshold
            print(f"{name}: strangers above the threshold, {kind}: {above.mean():.5f}")
    return np.asarray(found / spread, np.float32)


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


@torch.inference_mode()
def bound(generator: Generator) -> float:
    """Of the score, so that the method takes ``SHARE`` of people."""
    rng = torch.Generator().manual_seed(4242)
    styles = generator.mapping(torch.randn(500, STYLE, generator=rng)) - generator.looks.mean
    still, scores = (torch.zeros(OTHERS, STYLE), torch.zeros(ATTRIBUTES)), []
    for style in styles:
        plain = generator.looks.styles(generator.looks.person(style), *still, 0.0)
        early = generator.exact.features(plain[None], CROWD_SIDE)
        scores.append(generator.looks.crowded(early) + generator.looks.bound)
    return float(np.quantile(scores, SHARE))


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
    found = {name: values[faces["scores"] > 0.5] for name, values in faces.items()}
    tensors["crowd"] = torch.from_numpy(crowd(given.shared, found))
    tensors["bound"] = torch.zeros(())
    files.save("natural.looks", tensors, exact=True)
    tensors["bound"] = torch.tensor(bound(Generator("cpu")))
    files.save("natural.looks", tensors, exact=True)


if __name__ == "__main__":
    main()
