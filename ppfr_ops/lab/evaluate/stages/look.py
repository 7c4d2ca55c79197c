"""Do the pictures look like photographs, and do a person's photos differ as photographs do?

Of originals and of what is published for them: whether a detector finds the face, how colourful and
sharp pictures are, and how light, colour and pose vary within a person and between people; and how
well pixels and histograms of gradients alone tell people apart, which is what a recogniser may
learn in place of faces.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from ppfr_ops.contracts.look import Look, Looked, Varied
from ppfr_ops.imaging.arrays import Faces, unit
from ppfr_ops.imaging.look import INNER, landmarks
from ppfr_ops.lab.evaluate.run import Run
from ppfr_ops.lab.evaluate.stages.base import Skip, stage

_PAIRS, _DIRECTIONS = 200_000, 9

Values = NDArray[np.float64]


def measures(faces: Faces, points: NDArray[np.float32]) -> dict[str, Values]:
    """One number a face each: logarithms of the inner face, and what landmarks say, px."""
    x = faces[(slice(None), *INNER)].astype(np.float64) / 255 + 0.02
    grey, mean = x.mean(-1), x.mean((1, 2))
    height, width = grey.shape[1] // 2, grey.shape[2] // 2

    def by(one: Values, other: Values) -> Values:
        return np.asarray(np.log(one.mean((1, 2)) / other.mean((1, 2))))

    sharp = np.array([cv2.Laplacian(g.astype(np.float32), cv2.CV_32F).std() for g in grey])
    return {
        "brightness": np.log(grey.mean((1, 2))),
        "contrast": np.log(grey.std((1, 2)) / grey.mean((1, 2))),
        "saturation": np.log((x.max(-1) - x.min(-1)).mean((1, 2)) + 0.01),
        "red by green": np.log(mean[:, 0] / mean[:, 1]),
        "blue by green": np.log(mean[:, 2] / mean[:, 1]),
        "left by right": by(grey[:, :, :width], grey[:, :, width:]),
        "upper by lower": by(grey[:, :height], grey[:, height:]),
        "sharpness": np.log(sharp + 0.005),
        "nose aside": points[:, 2, 0] - points[:, :2, 0].mean(1, dtype=float),
        "eyes apart": (points[:, 1, 0] - points[:, 0, 0]).astype(float),
        "eyes to mouth": points[:, 3:, 1].mean(1, dtype=float) - points[:, :2, 1].mean(1),
        "mouth": np.hypot(*(points[:, 4] - points[:, 3]).T).astype(float),
    }


def varied(values: Values, who: NDArray[np.int64]) -> Varied:
    """Deviation within a person, and between people's means less what the former adds to it;
    people with one value say nothing."""
    fine = np.isfinite(values)
    _, place, count = np.unique(who[fine], return_inverse=True, return_counts=True)
    values, place = values[fine][count[place] > 1], place[count[place] > 1]
    _, who, count = np.unique(place, return_inverse=True, return_counts=True)
    if len(count) < 2:
        return Varied(within=None, between=None)
    means = np.bincount(who, values) / count
    inside = float(np.square(values - means[who]).sum() / (len(values) - len(count)))
    between = float(means.var(ddof=1) - (inside / count).mean())
    return Varied(within=inside**0.5, between=max(between, 0.0) ** 0.5)


def pixels(faces: Faces) -> NDArray[np.float32]:
    """28 by 28 px, centred, of length 1."""
    small = np.stack([cv2.resize(f, (28, 28), interpolation=cv2.INTER_AREA) for f in faces])
    found = small.reshape(len(small), -1).astype(np.float32)
    return unit(found - found.mean(1, keepdims=True))


def gradients(faces: Faces) -> NDArray[np.float32]:
    """Histograms of gradients (Dalal and Triggs, CVPR 2005): nine directions in cells of 14 px,
    blocks of four cells, all of length 1."""
    found = []
    for face in faces:
        grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(np.float32)
        across, down = cv2.Sobel(grey, -1, 1, 0, ksize=1), cv2.Sobel(grey, -1, 0, 1, ksize=1)
        direction = (np.arctan2(down, across) % np.pi * (_DIRECTIONS / np.pi)).astype(int)
        strength = np.hypot(across, down)
        parts = [strength * (direction % _DIRECTIONS == k) for k in range(_DIRECTIONS)]
        cells = np.stack([p.reshape(8, 14, 8, 14).sum((1, 3)) for p in parts], -1)
        corners = (cells[:-1, :-1], cells[1:, :-1], cells[:-1, 1:], cells[1:, 1:])
        blocks = np.concatenate(corners, -1)
        found.append((blocks / (np.linalg.norm(blocks, axis=-1, keepdims=True) + 1e-3)).ravel())
    return unit(np.stack(found) - np.mean(found, 0))


def auc(templates: NDArray[np.float32], who: NDArray[np.int64]) -> float | None:
    """How often two photos of a person are more alike than two of others; None without pairs."""
    first, second = np.triu_indices(len(who), 1)
    same, rng, scores = who[first] == who[second], np.random.default_rng(0), []
    for kind in (same, ~same):
        rows = np.flatnonzero(kind)
        if not len(rows):
            return None
        rows = rng.choice(rows, _PAIRS) if len(rows) > _PAIRS else rows
        scores.append((templates[first[rows]] * templates[second[rows]]).sum(1))
    genuine, strangers = scores
    return float((np.searchsorted(np.sort(strangers), genuine) / len(strangers)).mean())


def looked(faces: Faces, who: NDArray[np.int64]) -> Looked:
    """All of it, of aligned faces, uint8 ``N x 112 x 112 x 3``, and the people whom they show."""
    points = landmarks(faces)
    told = measures(faces, points)
    colour = [cv2.cvtColor(f, cv2.COLOR_RGB2HSV)[..., 1].mean() for f in faces]
    return Looked(
        found=float(np.isfinite(points[:, 0, 0]).mean()),
        saturation=float(np.mean(colour)),
        sharpness=float(np.exp(told["sharpness"].mean())),
        varied={name: varied(values, who) for name, values in told.items()},
        pixels_auc=auc(pixels(faces), who),
        gradients_auc=auc(gradients(faces), who),
    )


@stage("whether pictures look, and a person's photos differ, as photographs do")
def look(run: Run) -> Look:
    if run.gallery.identities is None:
        raise Skip("needs labels: whom each face shows")
    _, who, count = np.unique(run.gallery.identities, return_inverse=True, return_counts=True)
    several = np.flatnonzero(count[who] > 1)
    if not len(several):
        raise Skip("needs people with two photos or more")
    order = run.stream("look").permutation(len(count))
    rows = several[np.argsort(order[who[several]], kind="stable")][: run.settings.look_faces]
    people = who[rows]
    return Look(
        people=len(np.unique(people)),
        faces=len(rows),
        originals=looked(run.gallery.images[rows], people),
        published=looked(run.published(rows), people),
    )
