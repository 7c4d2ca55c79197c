"""What differs between photos of one person, and what between people: real ones beside drawn ones.

    python bench/natural_camera.py ../shared [--people 200] [--photos 8]

Deviations within a person and between people of how a face is lit, coloured and turned, on
``ids_aligned`` and ``cfp_aligned`` (the camera of ``natural`` follows them) and on as many drawn
people; and how well pixels and histograms of gradients alone tell the people apart (AUC): what a
learner may learn in place of faces.
"""

import argparse
from pathlib import Path

import numpy as np
from natural import faces_in, jpeg, table_of

from ppfr_ops.draws import system_draws
from ppfr_ops.lab.evaluate.stages.look import looked
from ppfr_ops.methods.base import Context
from ppfr_ops.methods.registry import create


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


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("shared", type=Path)
    asked.add_argument("--people", type=int, default=200)
    asked.add_argument("--photos", type=int, default=8)
    asked.add_argument("--variation", type=float, default=1.0)
    given = asked.parse_args()
    sets = {
        name: real(given.shared, name, given.people, given.photos)
        for name in ("ids_aligned", "cfp_aligned")
    }
    sets["natural"] = drawn(given.people, given.photos, given.variation)
    for name, (faces, who) in sets.items():
        told = looked(faces, who)
        print(f"{name}: {len(faces)} photos; deviation within a person, between people")
        for key, each in told.varied.items():
            print(f"  {key}: {each.within:.3f}, {each.between:.3f}")
        print(f"  AUC of pixels {told.pixels_auc:.3f}, of gradients {told.gradients_auc:.3f}")


if __name__ == "__main__":
    main()
