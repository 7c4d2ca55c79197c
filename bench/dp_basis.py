"""Make what ``dp-eigenface`` and ``dp-template`` ship, from public faces (UTKFace).

Every number of the files is an aggregate of thousands of faces: their mean, principal axes of
covariances, variances, and percentiles of norms. Eigenfaces: nine faces of ten; directions of the
identity code: every third face, encoded by ``stochastic-local`` version 1.

    python bench/dp_basis.py --faces DATA/utk_aligned --out ppfr_ops/methods/dp
"""

import argparse
import hashlib
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from ppfr_ops.methods.dp.eigenface import BASIS, SIDE, SIZE
from ppfr_ops.methods.dp.template import DIRECTIONS, Template
from ppfr_ops.methods.dp.template import SIZE as TEMPLATE_SIZE

RADIUS = 0.4
"""Times the first percentile of the norms: nearly every face is scaled onto the surface, and so far
every picture can be moved along the first axis, either way."""
HELD_BACK = 10
"""Every so many faces are left out."""


def read(folder: Path) -> np.ndarray:
    """uint8 ``N x 112 x 112 x 3``, RGB."""
    found = []
    for file in sorted(folder.glob("*.parquet")):
        for cell in pq.read_table(file, columns=["image"])["image"].to_pylist():
            face = cv2.imdecode(np.frombuffer(cell["bytes"], np.uint8), cv2.IMREAD_COLOR)
            found.append(face[..., ::-1])
    return np.stack(found)


def small(faces: np.ndarray) -> np.ndarray:
    """Grey pictures of ``SIDE`` px, ``N x P``."""
    grey = (cv2.cvtColor(face, cv2.COLOR_RGB2GRAY) for face in faces)
    found = [cv2.resize(g, (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel() for g in grey]
    return np.stack(found).astype(np.float32)


def principal(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Strongest axes, ``count x D``, and their variances; a sign is anybody's choice."""
    variances, axes = np.linalg.eigh((rows.T @ rows / len(rows)).astype(np.float64))
    axes = axes[:, ::-1][:, :count].T
    return axes * np.where(axes.sum(1) < 0, -1, 1)[:, None], variances[::-1][:count]


def directions(codes: np.ndarray, out: Path) -> None:
    """Of identity codes, ``N x 128``."""
    codes = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    axes, variances = principal(codes, TEMPLATE_SIZE)
    vectors = codes @ axes.T * variances**-0.25
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = {"axes": axes, "variance": variances, "prior": (vectors**2).mean(0)}
    save_file(
        {name: np.ascontiguousarray(value, np.float32) for name, value in found.items()},
        out,
        metadata={"faces": str(len(codes)), "source": "UTKFace, every third; aggregates only"},
    )
    show(out, len(codes))


def show(file: Path, faces: int) -> None:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    print(f"{file.name}: {faces} faces, {file.stat().st_size} bytes, sha256 {digest}")


def eigenfaces(faces: np.ndarray, out: Path) -> None:
    """Of grey pictures, ``N x P``."""
    mean = faces.mean(0)
    axes = principal(faces - mean, SIZE)[0]
    scale = np.abs(axes).max(1) / 127
    kept = (axes / scale[:, None]).round().astype(np.int8)
    mean = mean.round(1)
    coefficients = (faces - mean) @ (kept * scale[:, None]).T / SIDE
    radii, clipped = [], []
    for order in (1, 2):
        norms = np.linalg.norm(coefficients, order, axis=1)
        radii.append(round(RADIUS * float(np.percentile(norms, 1))))
        scaled = coefficients / np.maximum(norms, radii[-1])[:, None]
        clipped.append(np.sqrt((scaled**2).mean(0)))
    save_file(
        {
            "mean": mean.astype(np.float32),
            "axes": np.ascontiguousarray(kept),
            "scale": scale.astype(np.float32),
            "spread": coefficients.std(0).astype(np.float32),
            "radius": np.array(radii, np.float32),
            "clipped": np.array(clipped, np.float32),
        },
        out,
        metadata={"faces": str(len(faces)), "source": "UTKFace, nine of ten; aggregates only"},
    )
    show(out, len(faces))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--codes", type=Path, help="of every third face, .npy, if made before")
    arguments = parser.parse_args()
    faces = read(arguments.faces)
    eigenfaces(small(faces[np.arange(len(faces)) % HELD_BACK != 0]), arguments.out / BASIS.name)
    if arguments.codes is not None:
        codes = np.load(arguments.codes)
    else:
        codes = Template(epsilon=1).encoded(faces[::3])
    directions(codes, arguments.out / DIRECTIONS.name)


if __name__ == "__main__":
    main()
