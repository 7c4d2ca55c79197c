"""Faces left bare in made scenes, by class, beside deface: turned, cut, small, crowded faces.

    python bench/bare_faces.py ../shared/data/lfw_raw --scenes 2000 --out scenes.jsonl

A scene is a background of drawn shapes with faces of the folder at known places; every face is of
one class. A face is covered if 90 % of what is seen of its inner ellipse (brows to chin) is
changed, bare if less than half is, half bare in between. deface (``pip install --no-deps deface``,
``pip install imageio tqdm``) is called as its command line calls it: threshold 0.2, ellipses 1.3
times the box. Seeded by scene, so that it can be repeated, and resumed: what stands in ``--out`` is
not done again. ``queued``: of the faces that ours does not cover, those whose photograph is in the
review queue or held back. Last: whether the queue's order, worst first, has photographs with such a
face before others (auc; .5: chance).
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ppfr_ops.imaging.arrays import Picture
from ppfr_ops.imaging.codec import decode
from ppfr_ops.imaging.geometry import cover
from ppfr_ops.review.queue import Doubt, doubts
from ppfr_ops.sanitize.items import Item
from ppfr_ops.sanitize.photographs.faces import place
from ppfr_ops.sanitize.photographs.finder import Finder, Photograph
from ppfr_ops.sanitize.photographs.options import PhotographOptions

CLASSES = ("upright", "turned", "upside down", "cut", "cut and turned", "small", "crowded")
HEIGHT, WIDTH = 600, 800
Mask = NDArray[np.bool_]


@dataclass
class Scene:
    picture: Picture
    faces: list[tuple[str, Mask]]
    """Class, and what is seen of the face."""


def cropped(picture: Picture) -> tuple[Picture, tuple[float, float, float, float]]:
    """A face with some of its head around, and its inner ellipse in it: centre and half axes."""
    side = picture.shape[0]
    if side == 112:
        return picture, (56, 64, 34, 44)
    low, high = side // 2 - 80 * side // 250, side // 2 + 80 * side // 250
    scale = (high - low) / 160
    return picture[low:high, low:high], (80 * scale, 82 * scale, 36 * scale, 46 * scale)


def background(random: np.random.Generator) -> Picture:
    canvas = np.full((HEIGHT, WIDTH, 3), random.integers(60, 200, 3), np.uint8)
    for _ in range(25):
        x, y = int(random.integers(WIDTH)), int(random.integers(HEIGHT))
        colour = tuple(int(v) for v in random.integers(20, 236, 3))
        if random.random() < 0.5:
            w, h = (int(v) for v in random.integers(20, 260, 2))
            cv2.rectangle(canvas, (x, y), (x + w, y + h), colour, -1)
        else:
            cv2.circle(canvas, (x, y), int(random.integers(10, 120)), colour, -1)
    noise = random.normal(0, 6, canvas.shape)
    return np.clip(cv2.GaussianBlur(canvas, (0, 0), 1.5) + noise, 0, 255).astype(np.uint8)


class Faces:
    """The pictures of a folder of Parquet files."""

    def __init__(self, folder: Path) -> None:
        parts = [
            pq.read_table(p, columns=["image"])["image"] for p in sorted(folder.glob("*.parquet"))
        ]
        self._cells = [cell for part in parts for cell in part]

    def any(self, random: np.random.Generator) -> Picture:
        return decode(self._cells[int(random.integers(len(self._cells)))].as_py()["bytes"])


def scene(faces: Faces, number: int, seed: int, classes: Sequence[str] = CLASSES[:-1]) -> Scene:
    random = np.random.default_rng((seed, number))
    canvas, placed = background(random), []
    taken = np.zeros((HEIGHT, WIDTH), bool)
    kinds = list(random.permutation(classes)[:4])
    if random.random() < 0.4:
        kinds = ["crowded"] * int(random.integers(4, 8)) + kinds[:1]
    row = (float(random.uniform(90, 250)), float(random.uniform(150, HEIGHT - 150)))
    crowd = 0
    for kind in kinds:
        face, (cx, cy, ax, ay) = cropped(faces.any(random))
        size = float(random.uniform(18, 34) if kind == "small" else random.uniform(60, 150))
        angle = 0.0
        if kind in ("turned", "cut and turned"):
            angle = float(random.uniform(40, 320))
        elif kind == "upside down":
            angle = float(random.uniform(165, 195))
        if kind == "crowded":
            size = 80.0
        scale = size / (2 * ay)  # size: height of the inner ellipse
        for _ in range(60):
            x, y = random.uniform(size, WIDTH - size), random.uniform(size, HEIGHT - size)
            if kind == "crowded":
                x, y = row[0] + crowd * 0.85 * size * 1.05, row[1] + random.uniform(-12, 12)
            elif kind.startswith("cut"):
                at = random.uniform(-0.12, 0.12) * size  # of the middle, beyond the edge
                side = int(random.integers(4))
                x = (at, WIDTH - at, x, x)[side]
                y = (y, y, at, HEIGHT - at)[side]
            turn = cv2.getRotationMatrix2D((cx, cy), angle, scale)
            turn[:, 2] += (x - cx, y - cy)
            patch = cv2.warpAffine(face, turn, (WIDTH, HEIGHT), flags=cv2.INTER_AREA)
            head = np.zeros(face.shape[:2], np.uint8)
            middle = (int(face.shape[1] / 2), int(face.shape[0] / 2))
            axes = (int(face.shape[1] * 0.48), int(face.shape[0] * 0.5))
            cv2.ellipse(head, middle, axes, 0, 0, 360, 255, -1)
            inner = np.zeros(face.shape[:2], np.uint8)
            cv2.ellipse(inner, (int(cx), int(cy)), (int(ax), int(ay)), 0, 0, 360, 255, -1)
            where = cv2.warpAffine(head, turn, (WIDTH, HEIGHT)) > 127
            seen = cv2.warpAffine(inner, turn, (WIDTH, HEIGHT)) > 127
            if kind == "crowded" or not (taken & where).any():
                break
        else:
            continue
        crowd += kind == "crowded"
        taken |= cv2.dilate(where.astype(np.uint8), np.ones((15, 15))) > 0
        canvas[where] = patch[where]
        placed = [(other, mask & ~where) for other, mask in placed]  # heads in front hide it
        placed.append((str(kind), seen))
    return Scene(canvas, [(kind, mask) for kind, mask in placed if mask.sum() > 60])


def smaller(made: Scene, by: float) -> Scene:
    """The scene in so many times fewer pixels a side."""
    if by == 1:
        return made
    size = (round(WIDTH / by), round(HEIGHT / by))
    picture = cv2.resize(made.picture, size, interpolation=cv2.INTER_AREA)
    faces = [
        (kind, cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_AREA) > 0)
        for kind, mask in made.faces
    ]
    return Scene(np.asarray(picture, np.uint8), faces)


Tool = Callable[[Picture], tuple[Mask, Doubt | None]]
"""What it changed of a picture, and how it stands in a queue; None: in none."""


def ours() -> Tool:
    options = PhotographOptions(output_faces="in-place", cover="blur")
    finder = Finder(options, {})
    letters = pa.table({"code": [], "record_id": []})

    def work(picture: Picture) -> tuple[Mask, Doubt | None]:
        (done,) = finder([Item("", 0, picture, {})], [{}], [None])
        if not isinstance(done, Photograph):  # held back
            return np.zeros(picture.shape[:2], bool), Doubt("", "held back", 0, 0)
        each = enumerate(done.treatments)
        rows = [place("", i, done.faces, i, treatment, done.doubt) for i, treatment in each]
        _, changed = cover(picture, done.faces, done.treatments, {})
        queue = doubts(pa.Table.from_pylist(rows), letters, options.face_sure)
        return changed, queue[0] if queue else None

    return work


def theirs() -> Tool:
    from deface.centerface import CenterFace as Network
    from deface.deface import anonymize_frame

    network = Network(backend="onnxrt")

    def work(picture: Picture) -> tuple[Mask, Doubt | None]:
        canvas = picture.copy()
        found, _ = network(canvas, threshold=0.2)
        anonymize_frame(
            found, canvas, mask_scale=1.3, replacewith="solid", ellipse=True,
            draw_scores=False, replaceimg=None, mosaicsize=20,
        )  # fmt: skip
        return (canvas != picture).any(2), None

    return work


def line(made: Scene, tool: Tool) -> dict[str, object]:
    changed, doubt = tool(made.picture)
    shares = [[kind, round(float(changed[mask].mean()), 3)] for kind, mask in made.faces]
    asked = {"reason": doubt.reason, "score": doubt.score} if doubt else {}
    return {"faces": shares, "queued": doubt is not None, **asked}


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--scenes", default=2000, show_default=True)
@click.option("--first", default=0, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--smaller", "by", default=1.0, show_default=True, help="times, both sides")
@click.option("--classes", default=",".join(CLASSES[:-1]), help="besides crowds")
@click.option("--deface/--no-deface", "beside", default=True)
@click.option("--out", default="scenes.jsonl", type=click.Path(path_type=Path))
def main(
    folder: Path,
    scenes: int,
    first: int,
    seed: int,
    by: float,
    classes: str,
    beside: bool,
    out: Path,
) -> None:
    tools = {"ours": ours()} | ({"deface": theirs()} if beside else {})
    done: dict[int, dict[str, Any]] = {}
    if out.exists():
        done = {row["scene"]: row for row in map(json.loads, out.read_text().splitlines())}
    faces = Faces(folder)
    with out.open("a") as file:
        for number in range(first, first + scenes):
            if number not in done:
                made = smaller(scene(faces, number, seed, classes.split(",")), by)
                done[number] = {name: line(made, tool) for name, tool in tools.items()}
                file.write(json.dumps({"scene": number, **done[number]}) + "\n")
                file.flush()
    table([row for number, row in done.items() if first <= number < first + scenes], list(tools))


def table(rows: list[dict[str, Any]], tools: list[str]) -> None:
    counts: dict[str, dict[str, Counter[str]]] = {name: defaultdict(Counter) for name in tools}
    unseen: Counter[str] = Counter()
    for row in rows:
        for name in tools:
            for kind, share in row[name]["faces"]:
                word = "covered" if share >= 0.9 else "bare" if share < 0.5 else "half bare"
                counts[name][kind][word] += 1
                unseen[kind] += name == "ours" and word != "covered" and not row[name]["queued"]
    print(f"| class | faces |{''.join(f' {n}: bare | half bare |' for n in tools)} not queued |")
    print("| --- | --- |" + " --- |" * (2 * len(tools) + 1))
    for kind in CLASSES:
        total = sum(counts["ours"][kind].values())
        cells = "".join(
            f" {counts[n][kind]['bare']} | {counts[n][kind]['half bare']} |" for n in tools
        )
        print(f"| {kind} | {total} |{cells} {unseen[kind]} |")
    queued = sum(row["ours"]["queued"] for row in rows)
    print(json.dumps({"scenes": len(rows), "queued": queued}))
    waiting = sorted(
        (row["ours"] for row in rows if row["ours"]["queued"]), key=itemgetter("score")
    )
    for reason in ("", *sorted({row["reason"] for row in waiting})):
        order = [row for row in waiting if reason in row["reason"]]
        bare = np.array([any(share < 0.9 for _, share in row["faces"]) for row in order])
        if bare.any() and not bare.all():
            ranks = np.arange(1, len(bare) + 1)[bare]
            auc = 1 - (ranks.mean() - (bare.sum() + 1) / 2) / (~bare).sum()
            first = int(bare[: len(bare) // 2].sum())
            found = f"{bare.sum()} with a bare head, {first} of them in its first half"
            print(f"{reason or 'all'}: {len(bare)}, {found}, auc {auc:.3f}")


if __name__ == "__main__":
    main()
