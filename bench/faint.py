"""Weights by which faint places are taken for heads (``imaging.faint``): fitted to made scenes.

    python bench/faint.py ../shared/data

Scenes as in ``bare_faces.py``, those by which docs/faces.md says who is asked about (``SETS``). A
place that no face covers is a head if it shares more than .35 of the smaller box with one that is
not covered. Half of the scenes fit, the other half tells how often places of a chance were heads;
then all of them fit the weights that are printed, which are those of ``imaging.faint`` (7.06, 1.27,
.82, 1.90, -1.08; with .3, as ``alike`` has it by itself, 7.32, 1.26, .93, 1.89, -1.07). Nothing of
LFW belongs here.
"""

from pathlib import Path
from unittest import mock

import click
import numpy as np
from bare_faces import CLASSES, Faces, Scene, scene, smaller
from numpy.typing import NDArray

from ppfr_ops.imaging import detector as detecting
from ppfr_ops.imaging import faint
from ppfr_ops.imaging.boxes import alike
from ppfr_ops.imaging.geometry import cover, treat

Floats = NDArray[np.float64]
HARD = ("cut and turned", "small", "turned", "upside down")


def fitted(known: Floats, heads: Floats, ridge: float = 1.0) -> Floats:
    """Weights of one and of every column, logistic, by Newton's method."""
    middle, spread = known.mean(0), known.std(0)
    columns = np.column_stack([np.ones(len(known)), (known - middle) / spread])
    penalty = ridge * np.array([0.0, *[1.0] * known.shape[1]])
    weights = np.zeros(columns.shape[1])
    for _ in range(50):
        chance = 1 / (1 + np.exp(-columns @ weights))
        slope = columns.T @ (chance - heads) + penalty * weights
        curve = (columns.T * (chance * (1 - chance))) @ columns + np.diag(penalty)
        weights -= np.linalg.solve(curve, slope)
    rest = weights[1:] / spread
    return np.array([weights[0] - rest @ middle, *rest])


def rows(made: Scene, detector: detecting.CenterFace) -> list[list[float]]:
    """Of every faint place what is weighed, and whether it is a head that is not covered."""
    told = lambda *given: np.column_stack(faint.places(*given))  # noqa: E731
    with mock.patch.object(detecting, "doubtful", told):
        found = detector([made.picture])[0]
    _, changed = cover(made.picture, found, treat(found), {})
    bare = [np.argwhere(mask) for _, mask in made.faces if changed[mask].mean() < 0.9]
    boxes = [(*spots.min(0)[::-1], *(spots.max(0)[::-1] + 1)) for spots in bare]
    out = []
    for place in found.faint if found.faint is not None else ():
        is_head = alike(place[:4], np.array(boxes, float).reshape(-1, 4), 0.35).any()
        logs = np.log(np.maximum(place[4:7], faint.LEAST))
        out.append([*logs, np.log(place[7] / 40), float(is_head)])
    return out


SETS = (
    ("ids_aligned", 300, 101, 1.0, HARD),
    ("ids_aligned", 300, 102, 1.6, CLASSES[:-1]),
    ("cfp_aligned", 200, 103, 1.0, CLASSES[:-1]),
    ("cfp_aligned", 200, 106, 1.6, HARD),
)
"""Folder, scenes, seed, how many times smaller than 800x600 px, classes."""


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
def main(data: Path) -> None:
    detector, table, half = detecting.CenterFace(threads=1, quick=True), [], []
    for folder, scenes, seed, by, classes in SETS:
        faces = Faces(data / folder)
        for number in range(scenes):
            more = rows(smaller(scene(faces, number, seed, classes), by), detector)
            table += more
            half += [number % 2] * len(more)
    values, other = np.array(table), np.array(half) == 1
    weights = fitted(values[~other, :4], values[~other, 4])
    chance = 1 / (1 + np.exp(-weights[0] - values[:, :4] @ weights[1:]))
    print("| chance | places of the other half | heads among them |\n| --- | --- | --- |")
    for low, high in ((0, 0.01), (0.01, 0.04), (0.04, 0.15), (0.15, 0.4), (0.4, 1)):
        some = other & (low <= chance) & (chance < high)
        print(f"| {low} to {high} | {some.sum()} | {int(values[some, 4].sum())} |")
    print(len(values), "places:", fitted(values[:, :4], values[:, 4]).round(2).tolist())


if __name__ == "__main__":
    main()
