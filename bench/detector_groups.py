"""Misses of the detector by age, gender and ethnicity, and the largest gap.

    python bench/detector_groups.py ../shared/data/utk_aligned --limit 9649

Every aligned face is pasted, at 40 to 120 px (or as told) and at a random place, onto a plain
background of random grey, 256 x 256. A miss: no box whose centre is within a third of the face's
side of where the face is. Seeded, so that it can be repeated.
"""

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import click
import cv2
import numpy as np
import pyarrow.parquet as pq

from ppfr_ops.imaging.codec import decode
from ppfr_ops.imaging.detector import CenterFace
from ppfr_ops.lab.evaluate.data import group_names

SIDE = 256
CHUNK = 64


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--limit", type=int)
@click.option("--smallest", default=40, show_default=True, help="px")
@click.option("--largest", default=120, show_default=True, help="px")
@click.option("--threshold", default=0.2, show_default=True)
@click.option("--threads", default=0, show_default=True)
def main(
    folder: Path, limit: int | None, smallest: int, largest: int, threshold: float, threads: int
) -> None:
    random = np.random.default_rng(0)
    detector = CenterFace(threshold, threads=threads)
    missed: list[bool] = []
    sizes: list[int] = []
    values: dict[str, list[int | None]] = defaultdict(list)
    for part in sorted(folder.glob("*.parquet")):
        table = pq.read_table(part)
        for start in range(0, len(table), CHUNK):
            rows = table.slice(start, CHUNK)
            pictures, places = [], []
            for cell in rows["image"].to_pylist():
                size = int(random.integers(smallest, largest + 1))
                face = cv2.resize(decode(cell["bytes"]), (size, size), interpolation=cv2.INTER_AREA)
                picture = np.full((SIDE, SIDE, 3), random.integers(0, 256), np.uint8)
                x, y = random.integers(0, SIDE - size, 2)
                picture[y : y + size, x : x + size] = face
                pictures.append(picture)
                places.append((x + size / 2, y + size / 2, size))
            for found, (x, y, size) in zip(detector(pictures), places, strict=True):
                middle = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
                missed.append(not (np.hypot(*(middle - (x, y)).T) < size / 3).any())
                sizes.append(size)
            for name in ("age", "gender", "ethnicity"):
                values[name] += rows[name].to_pylist()
            if limit is not None and len(missed) >= limit:
                break
    miss, size_of = np.array(missed), np.array(sizes)
    result: dict[str, object] = {"faces": len(miss), "missed": float(miss.mean())}
    edges = np.linspace(smallest, largest + 1, 5).astype(int)
    result["by_size"] = {
        f"{low}-{high - 1}": float(miss[(size_of >= low) & (size_of < high)].mean())
        for low, high in pairwise(edges.tolist())
    }
    gaps = {}
    for name, column in values.items():
        groups = np.array(group_names(name, column), object)
        rates = {
            group: [float(miss[groups == group].mean()), int((groups == group).sum())]
            for group in sorted({group for group in groups if group is not None})
        }
        result[name] = rates
        shares = [rate for rate, _ in rates.values()]
        gaps[name] = max(shares) - min(shares)
    result["gaps"] = gaps
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
