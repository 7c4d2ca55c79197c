"""The picture of the covers in the docs: people who do not exist, in drawn scenes.

    ppfr invent --people 3 --photos 1 --size 256 --output invented/
    python bench/covers_shown.py invented/ docs/covers.jpg

First row: before; then ``--cover`` blur, mosaic and solid.
"""

import sys
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from ppfr_ops.imaging.arrays import Picture
from ppfr_ops.imaging.codec import decode
from ppfr_ops.imaging.covers import Cover
from ppfr_ops.imaging.detector import CenterFace
from ppfr_ops.imaging.geometry import cover

HEIGHT, WIDTH, SIDE = 230, 300, 150
"""Of a scene, and of the portrait in it, px."""


def scene(portrait: Picture, number: int) -> Picture:
    """A head in front of a drawn wall with a picture on it, above a drawn jersey."""
    wall = np.linspace((206, 196, 178), (138, 150, 158), HEIGHT)[:, None]
    canvas = np.clip(np.tile(wall, (1, WIDTH, 1)), 0, 255).astype(np.uint8)
    frame = 12 + 220 * (number % 2)
    cv2.rectangle(canvas, (frame, 22), (frame + 58, 92), (92, 74, 58), -1)
    cv2.rectangle(canvas, (frame + 6, 28), (frame + 52, 86), (120, 160, 170 - 30 * number), -1)
    cv2.circle(canvas, (frame + 28, 62), 13, (226, 190, 96), -1)
    left, top = 60 + 15 * number, 32
    head = cv2.resize(portrait, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32) / SIDE - 0.5
    share = np.clip(8 * (1 - (x / 0.42) ** 2 - (y / 0.5) ** 2), 0, 1)
    spot = canvas[top : top + SIDE, left : left + SIDE]
    spot[:] = spot * (1 - share[..., None]) + head * share[..., None]
    jersey = ((120, 44, 52), (38, 84, 124), (60, 92, 60))[number % 3]
    cv2.ellipse(canvas, (left + SIDE // 2, HEIGHT + 30), (108, 86), 0, 180, 360, jersey, -1)
    return canvas


def main(invented: Path, target: Path) -> None:
    cells = pq.read_table(invented)["image"].to_pylist()
    scenes = [scene(decode(cell["bytes"]), number) for number, cell in enumerate(cells)]
    columns = []
    for picture, found in zip(scenes, CenterFace()(scenes), strict=True):
        styles: tuple[Cover, ...] = get_args(Cover)
        covered = [
            cover(picture, found, ["covered"] * len(found), {}, style=style)[0] for style in styles
        ]
        columns.append(np.concatenate([picture, *covered]))
    Image.fromarray(np.concatenate(columns, axis=1)).save(target, quality=88)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
