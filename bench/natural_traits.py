"""How the traits of drawn faces are mixed: ``natural.traits``; and what they bring.

    python bench/natural_traits.py ../shared/models [--people 70] [--read 150] [--photos 4]

Drawn people without traits; each trait is set two ways, and what that does to the templates of
sface, mobileface, dlib and mfn128, in the mean over faces, says in which directions they see it.
The numbers that are drawn for a person are the strongest of these directions together, each made
as strong as any other. Then other drawn people are read without traits and with them: strangers
above thresholds of FAR 1e-3 on ``cfp_aligned`` and ``ids_aligned``, and TAR at their own FAR 1e-3.
No real face is looked at, and faceres has no part.
"""

import argparse
import secrets
from pathlib import Path

import numpy as np
import torch
from natural import jpeg

from ppfr_ops.draws import system_draws
from ppfr_ops.methods.natural import camera, files, looks, traits
from ppfr_ops.methods.natural.steering import Sight
from ppfr_ops.methods.registry import create
from ppfr_ops.recognizers import Recognizer, RecognizerSpec

THRESHOLDS = {"sface": 0.410, "mobileface": 0.482, "dlib": 0.929, "mfn128": 0.377}
FAR, UNIT, STRENGTH = 1e-3, 1.5, 1.3
"""The last: of a person's traits together; by eye nothing looks made up."""


def sights(people: int, photos: int) -> tuple[list[tuple[Sight, np.ndarray]], np.ndarray]:
    """Pictures before the camera, and how the camera takes each."""
    method = create("natural").with_secrets({"identity-key": secrets.token_bytes(32)})
    found = []
    for person in range(people):
        for draw in system_draws([""] * photos, method.draw_size):
            sight, _ = method._best(str(person), draw)
            found.append((sight, camera.wide(draw[looks.DRAW :], 1.0)))
    return found, np.repeat(np.arange(people), photos)


def shown(seen: list[tuple[Sight, np.ndarray]], faces: list[traits.Traits | None]) -> np.ndarray:
    pictures = []
    for (sight, draw), face in zip(seen, faces, strict=True):
        sight.face = face
        pictures.append(jpeg(sight.aligned(draw)))
    return np.stack(pictures)


def mixed(moved: dict[str, np.ndarray]) -> np.ndarray:
    """``NUMBERS x 43``, by how far each unit moves templates, ``43 x dimensions`` a recogniser."""
    grams = [each @ each.T for each in moved.values()]
    strength, ways = np.linalg.eigh(sum(gram / np.trace(gram) for gram in grams) / len(grams))
    strength, ways = strength[::-1], ways[:, ::-1]
    count = traits.NUMBERS
    return (ways[:, :count] * STRENGTH * np.sqrt(strength.mean() / strength[:count])).T


def read(faces: np.ndarray, who: np.ndarray, models: dict[str, Recognizer]) -> None:
    pairs = np.triu_indices(len(who), 1)
    same = who[pairs[0]] == who[pairs[1]]
    for name, model in models.items():
        templates = model.embed(faces)
        scores = (templates @ templates.T)[pairs]
        own = np.quantile(scores[~same], 1 - FAR)
        print(
            f"  {name}: strangers above the threshold "
            f"{(scores[~same] > THRESHOLDS[name]).mean():.5f}, deviation of their cosines "
            f"{scores[~same].std():.3f}; same person {scores[same].mean():.3f}, "
            f"TAR at own FAR 1e-3 {(scores[same] > own).mean():.3f}",
            flush=True,
        )


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("models", type=Path)
    asked.add_argument("--people", type=int, default=70, help="to fit on; 0: only read")
    asked.add_argument("--read", type=int, default=150, help="people to read")
    asked.add_argument("--photos", type=int, default=4)
    given = asked.parse_args()
    torch.set_num_threads(1)
    models = {
        name: Recognizer(RecognizerSpec.parse(f"{name}={given.models / name}.onnx"), 1)
        for name in THRESHOLDS
    }
    if given.people:
        units = np.eye(len(traits._units()))
        still = {"mixed": np.zeros((traits.NUMBERS, len(units))), "shift": np.zeros(traits.NUMBERS)}
        traits._fitted = lambda: still  # type: ignore[assignment]
        seen, _ = sights(given.people, 1)
        moved: dict[str, list[np.ndarray]] = {name: [] for name in models}
        for unit in units:
            ways = [shown(seen, [traits.field_of(way * unit)] * len(seen)) for way in (UNIT, -UNIT)]
            for name, model in models.items():
                more, less = (model.embed(way) for way in ways)
                moved[name].append((more - less).mean(0) / (2 * UNIT))
        found = mixed({name: np.stack(each) for name, each in moved.items()})
        still["mixed"] = found
        kept = {name: torch.from_numpy(each) for name, each in still.items()}
        files.save(files.TRAITS, kept, exact=True)  # the shift: bench/natural_people.py
    seen, who = sights(given.read, given.photos)
    own = [traits.field(traits.drawn(bytes(32), str(person).encode())) for person in who]
    for name, faces in (("without", [None] * len(who)), ("with traits", own)):
        print(f"{name}, {given.read} people, {len(who)} faces")
        read(shown(seen, faces), who, models)


if __name__ == "__main__":
    main()
