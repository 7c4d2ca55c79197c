"""What differs between photos of one person, and what between people: real ones beside drawn ones.

    python bench/natural_camera.py ../shared [--people 200] [--photos 8]

Deviations within a person and between people of how a face is lit, coloured and turned, on
``ids_aligned`` and ``cfp_aligned`` (the camera of ``natural`` follows them) and on as many drawn
people; and how well pixels and histograms of gradients alone tell the people apart (AUC): what a
learner may learn in place of faces.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from natural import jpeg
from natural_worth import faces_in, hog, raw, table_of

from ppfr_ops.draws import system_draws
from ppfr_ops.imaging.detector import CenterFace
from ppfr_ops.methods.base import Context
from ppfr_ops.methods.registry import create

BORDER, PAIRS = 16, 20_000


def real(shared: Path, name: str, people: int, photos: int) -> tuple[np.ndarray, np.ndarray]:
    """Some photos of some people, and whose they are."""
    rng, table = np.random.default_rng(0), table_of(shared, name)
    names, who = np.unique(np.array(table["identity"].to_pylist()), return_inverse=True)
    rows = [rng.permutation(np.flatnonzero(who == k))[:photos] for k in range(len(names))[:people]]
    chosen = np.concatenate(rows)
    return faces_in(table["image"].take(chosen).to_pylist()), who[chosen]


def drawn(people: int, photos: int, variation: float) -> tuple[np.ndarray, np.ndarray]:
    method = create("natural", {"variation": variation}).with_secrets({"identity-key": bytes(32)})
    who = np.repeat(np.arange(people), photos)
    draws = system_draws([""] * len(who), method.draw_size)
    blank = np.zeros((len(who), 112, 112, 3), np.uint8)
    y = method(blank, draws, Context({"identity": [f"p{n}" for n in who]}))
    assert isinstance(y, np.ndarray)
    return np.stack([jpeg(face) for face in y]), who


def measures(faces: np.ndarray, detector: CenterFace) -> dict[str, np.ndarray]:
    """One number a face each; logarithms, but for what landmarks say (px at 112)."""
    x = faces[:, 20:100, 25:87].astype(np.float64) / 255 + 0.02
    grey, mean = x.mean(-1), x.mean((1, 2))
    height, width = grey.shape[1] // 2, grey.shape[2] // 2

    def by(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.log(one.mean((1, 2)) / other.mean((1, 2)))

    points = np.full((len(faces), 5, 2), np.nan)
    side = (BORDER,) * 4
    for row, face in enumerate(faces):
        found = detector([cv2.copyMakeBorder(face, *side, cv2.BORDER_REPLICATE)])[0]
        if len(found.scores):
            points[row] = found.landmarks[found.scores.argmax()] - BORDER
    sharp = [cv2.Laplacian(g.astype(np.float32), cv2.CV_32F).std() for g in grey]
    return {
        "brightness": np.log(grey.mean((1, 2))),
        "contrast": np.log(grey.std((1, 2)) / grey.mean((1, 2))),
        "saturation": np.log((x.max(-1) - x.min(-1)).mean((1, 2)) + 0.01),
        "red by green": np.log(mean[:, 0] / mean[:, 1]),
        "blue by green": np.log(mean[:, 2] / mean[:, 1]),
        "left by right": by(grey[:, :, :width], grey[:, :, width:]),
        "upper by lower": by(grey[:, :height], grey[:, height:]),
        "sharpness": np.log(np.array(sharp) + 0.005),
        "nose aside, px": points[:, 2, 0] - points[:, :2, 0].mean(1),
        "eyes apart, px": points[:, 1, 0] - points[:, 0, 0],
        "eyes to mouth, px": points[:, 3:, 1].mean(1) - points[:, :2, 1].mean(1),
    }


def parts(values: np.ndarray, who: np.ndarray) -> tuple[float, float]:
    """Deviation within a person, and between people's means less what the former adds to it."""
    values, who = values[np.isfinite(values)], who[np.isfinite(values)]
    _, who, count = np.unique(who, return_inverse=True, return_counts=True)
    means = np.bincount(who, values) / count
    within = float(np.square(values - means[who]).sum() / (len(values) - len(count)))
    between = float(means.var(ddof=1) - (within / count).mean())
    return within**0.5, max(between, 0.0) ** 0.5


def auc(read: Callable[[np.ndarray], np.ndarray], faces: np.ndarray, who: np.ndarray) -> float:
    templates = read(faces)
    first, second = np.triu_indices(len(who), 1)
    scores = (templates @ templates.T)[first, second]
    same = who[first] == who[second]
    rng = np.random.default_rng(0)
    genuine, others = (rng.choice(scores[kind], PAIRS) for kind in (same, ~same))
    return float((np.searchsorted(np.sort(others), genuine) / PAIRS).mean())


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("shared", type=Path)
    asked.add_argument("--people", type=int, default=200)
    asked.add_argument("--photos", type=int, default=8)
    asked.add_argument("--variation", type=float, default=1.0)
    given = asked.parse_args()
    detector = CenterFace(threshold=0.2, threads=1, once=True)
    sets = {
        name: real(given.shared, name, given.people, given.photos)
        for name in ("ids_aligned", "cfp_aligned")
    }
    sets["natural"] = drawn(given.people, given.photos, given.variation)
    for name, (faces, who) in sets.items():
        told = {key: parts(v, who) for key, v in measures(faces, detector).items()}
        print(f"{name}: {len(faces)} photos; deviation within a person, between people")
        for key, (within, between) in told.items():
            print(f"  {key}: {within:.3f}, {between:.3f}")
        print(
            f"  AUC of pixels {auc(raw, faces, who):.3f}, of gradients {auc(hog, faces, who):.3f}"
        )


if __name__ == "__main__":
    main()
