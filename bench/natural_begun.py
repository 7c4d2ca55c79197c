"""Photos of one person that differ in all but what recognisers see: an experiment, not the product.

    python bench/natural_begun.py ../shared WORK [--people 70] [--photos 8] [--away 0.6] [--plain]

A photo begins most of the way to *somebody else*, and a few steps, by gradient through the
generator, bring it back to where sface, mobileface, dlib and mfn128 take it for the person; faceres
and all real faces stay out. In spirit the Dispersion and DisCo of Geissbühler et al. (arXiv
2405.00228); the steps go along the principal directions in which styles vary by themselves, for off
these pictures break before they come near. ``--plain``: photos that are begun so are without
traits; what the method draws has them. WORK keeps, by settings, the pictures, and those that the
method draws of the same people; a run goes on from what is there. Printed is how
alike photos are to recognisers and to gradients, and what who learns from them (400 steps) makes of
``ids_aligned``, ``cfp_aligned`` (areas under the curve) and LFW.
"""

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from natural import jpeg
from natural_hold import crops_of
from natural_people import THRESHOLDS
from natural_worth import Pairs, hog, rows_of, train
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from ppfr_ops import torchscript
from ppfr_ops.draws import system_draws
from ppfr_ops.methods.base import Context
from ppfr_ops.methods.codes import normals
from ppfr_ops.methods.natural import Natural, network
from ppfr_ops.methods.natural.generator import Generator, load
from ppfr_ops.methods.natural.looks import ATTRIBUTES, DRAW, OTHERS, by_layer, on_grid
from ppfr_ops.methods.natural.network import LAYERS, STYLE
from ppfr_ops.methods.natural.quality import _CHEEKS, _NOSE, MOST_RED
from ppfr_ops.recognizers import Recognizer, RecognizerSpec

STEPS, RATE = 14, 0.12
"""Of Adam; the rate in deviations of styles, falling over the second half."""
DIRECTIONS, BANDS = 200, 4
"""Principal directions of styles, which hold .93 of their variance; and the bands of layers that
are moved, from 4 px on. Beyond 32 px there is hardly anything but colour to gain, and grain."""
STAY, WHOLE, RED = 0.5, 1.0, 2.0
"""Weights: of how far a photo is moved; of how damaged its features look; of a reddened nose."""
_SAMPLE, _LIKE = 4096, 8
"""Styles that the directions are of; people by whose photos it is told how alike photos are."""
_KEY = b"how alike photos are to judges: "
"""Of these people, who are in no release."""
STILL = torch.zeros(OTHERS, STYLE), torch.zeros(ATTRIBUTES)
"""Of a plain picture: nothing is mixed in, and nothing set."""


class Judges:
    """Recognisers with gradients, and how alike each takes photos of a person to be."""

    def __init__(self, files: Sequence[Path], generator: Generator) -> None:
        self.generator = generator
        self.networks = [torchscript.frozen(torchscript.load(path).eval()) for path in files]
        z = normals(_KEY, "directions", b"", _SAMPLE * STYLE).reshape(_SAMPLE, STYLE)
        with torch.no_grad():
            sample = self.generator.style(z).double()
            values, found = torch.linalg.eigh(sample.T @ sample / _SAMPLE)
            self.back = (found * values.clamp_min(0).sqrt())[:, -DIRECTIONS:].T.float()
            shown = [self.templates(self._some(row)) for row in range(_LIKE)]
        self.alike: list[tuple[float, float]] = []
        for judge in range(len(files)):
            each = torch.stack([templates[judge] for templates in shown])
            cosines = torch.einsum("ad,bpd->abp", each[:, 0], each[:, 1:])
            own = torch.eye(_LIKE, dtype=torch.bool)
            same, other = float(cosines[own].mean()), float(cosines[~own].mean())
            self.alike.append((same, max(same - other, 1e-3)))

    def _some(self, number: int) -> Tensor:
        """Somebody's plain picture and two photos without judges, as styles, ``3 x 14 x 512``."""
        looks, whose = self.generator.looks, bytes([number])
        person = next(self.generator.candidates(_KEY, whose, (("women", number % 2),)))
        drawn = normals(_KEY, "photos", whose, 2 * DRAW).reshape(2, DRAW)
        found = [looks.styles(person, *STILL, 0.0)]
        for draw in drawn:
            others = self.generator.style(draw[: OTHERS * STYLE].reshape(OTHERS, STYLE))
            found.append(looks.styles(person, others, torch.from_numpy(draw[-ATTRIBUTES:]), 1.0))
        return torch.stack(found)

    def templates(self, styles: Tensor) -> list[Tensor]:
        """What each recogniser makes of pictures, ``N x D`` of unit length."""
        return self._of(crops_of(self.generator, styles)[0])

    def _of(self, crops: Tensor) -> list[Tensor]:
        return [F.normalize(each(crops).float(), dim=1) for each in self.networks]

    def held(self, person: Tensor, styles: Tensor) -> Tensor:
        """The styles of a photo that has gone astray, ``14 x 512``, brought back to a person."""
        looks = self.generator.looks
        # Where the head is, as inference mode made it, could not be saved for gradients in float32.
        network._head.cache_clear()
        with torch.inference_mode(False), torch.enable_grad():
            start = styles.clone()
            with torch.no_grad():
                wanted = self.templates(looks.styles(person.clone(), *STILL, 0.0)[None])
            far = torch.zeros(BANDS, DIRECTIONS, requires_grad=True)
            optimiser = torch.optim.Adam([far], RATE)
            for step in range(STEPS):
                for group in optimiser.param_groups:
                    group["lr"] = RATE * min(1.0, 2 * (STEPS - step) / STEPS)
                crops, features, _ = crops_of(self.generator, self._moved(start, far)[None])
                damage = looks.most - on_grid(features.float().cpu()) @ looks.damage
                loss = WHOLE * F.relu(0.2 - damage) + STAY * far.square().mean()
                loss = loss + RED * F.relu(_redness(crops[0]) / MOST_RED - 0.7).cpu()
                for (same, beyond), own, found in zip(
                    self.alike, wanted, self._of(crops), strict=True
                ):
                    loss = loss + F.relu(same - (own * found).sum().cpu()) / beyond
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            return self._moved(start, far.detach())

    def _moved(self, styles: Tensor, far: Tensor) -> Tensor:
        bands = torch.cat([far @ self.back, torch.zeros(len(LAYERS) - BANDS, STYLE)])
        return torch.cat([styles[:-1] + by_layer(bands), styles[-1:]])


def _redness(crop: Tensor) -> Tensor:
    """``quality.redness`` with gradients, of ``3 x 112 x 112``."""
    red = crop[0] - (crop[1] + crop[2]) / 2
    cheeks = torch.cat([red[part].flatten() for part in _CHEEKS])
    return torch.quantile(red[_NOSE].flatten(), 0.95) - torch.quantile(cheeks, 0.75)


class Begun(Natural):
    """The method, with photos that are begun as somebody else's of the same sex."""

    def _styles(
        self,
        whose: Tensor,
        draw: NDArray[np.float32],
        number: int,
        steps: Mapping[str, float],
    ) -> Tensor:
        seed = hashlib.sha256(draw.tobytes()).digest()
        sex = (("women", float(self.generator().looks.is_of(whose, {"women": True}))),)
        other = next(self.generator().candidates(seed, b"beside %d" % number, sex, False))
        far = whose + GIVEN.away * (other - whose)
        return _judges().held(whose, super()._styles(far, draw, number, steps))

    def traits(self, label: str | None, draw: NDArray[np.float32]) -> NDArray[np.float32]:
        return super().traits(label, draw) * (not GIVEN.plain)


@lru_cache(maxsize=1)
def _judges() -> Judges:
    files = [GIVEN.shared / "models" / f"{name}.ts.pt" for name in THRESHOLDS]
    with torch.inference_mode(False):
        return Judges(files, load("cpu"))


def drawn(work: Path, people: int, photos: int) -> dict[str, NDArray[np.uint8]]:
    """Of each way, uint8 ``people * photos x 112 x 112 x 3``."""
    work.mkdir(parents=True, exist_ok=True)
    ways = {"begun as others": Begun(), "as the method draws": Natural()}
    key, found = {"identity-key": bytes(32)}, {way: [] for way in ways}
    blank = np.zeros((photos, 112, 112, 3), np.uint8)
    for person in range(people):
        path = work / f"{person:04d}.npz"
        if not path.is_file():
            draws = system_draws([""] * photos, Natural().draw_size)
            context = Context({"identity": [f"p{person}"] * photos})
            shown = [m.with_secrets(key)(blank, draws, context) for m in ways.values()]
            np.savez(path.with_suffix(".part.npz"), *shown)
            path.with_suffix(".part.npz").replace(path)
        with np.load(path) as kept:
            for way, name in zip(ways, kept.files, strict=True):
                found[way] += [jpeg(face) for face in kept[name]]
    return {way: np.stack(faces) for way, faces in found.items()}


def curve(templates: NDArray[np.floating], who: NDArray[np.int64]) -> str:
    near = templates / np.linalg.norm(templates, axis=1, keepdims=True)
    first, second = np.triu_indices(len(who), 1)
    cosines, same = (near @ near.T)[first, second], who[first] == who[second]
    taken = (cosines[same] > np.quantile(cosines[~same], 0.999)).mean()
    return f"{roc_auc_score(same, cosines):.3f}; same {cosines[same].mean():.3f}; TAR {taken:.3f}"


def main() -> None:
    torch.set_num_threads(1)
    who = np.repeat(np.arange(GIVEN.people), GIVEN.photos)
    kept = f"{GIVEN.people}x{GIVEN.photos}-{GIVEN.away}{'-plain' * GIVEN.plain}"
    work = GIVEN.work / kept
    sets = drawn(work, GIVEN.people, GIVEN.photos)
    real = {name: rows_of(GIVEN.shared, name) for name in ("ids_aligned", "cfp_aligned")}
    faces, names, _ = real["ids_aligned"]
    people, labels = np.unique(names, return_inverse=True)
    rows = [np.flatnonzero(labels == i)[: GIVEN.photos] for i in range(len(people))][: GIVEN.people]
    few = np.concatenate(rows)
    taught = {way: (x, who) for way, x in sets.items()} | {"originals": (faces[few], labels[few])}
    models = [f"{n}={GIVEN.shared / 'models' / n}.onnx" for n in ("faceres", *THRESHOLDS)]
    recognisers = [Recognizer(RecognizerSpec.parse(text), 1) for text in models]
    for way, x in sets.items():
        print(way, "gradients", curve(hog(x), who), flush=True)
        for text, recogniser in zip(models, recognisers, strict=True):
            print(way, text.partition("=")[0], curve(recogniser.embed(x), who), flush=True)
    pairs, rng = Pairs(GIVEN.shared), np.random.default_rng(0)
    chosen = {name: rng.permutation(len(shown))[:3000] for name, (shown, *_) in real.items()}
    for way, (x, whose) in taught.items():
        for seed in range(2):
            path = work / f"{way.replace(' ', '-')}-{seed}.pt"
            model = train(path, x, whose, 400, seed)
            for name, (shown, told, _) in real.items():
                some = chosen[name]
                seen = np.unique(told[some], return_inverse=True)[1]
                print(way, seed, name, curve(model.embed(shown[some]), seen), flush=True)
            pairs.read(f"{way}, seed {seed}, LFW", model.embed(pairs.x))


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("shared", type=Path)
    asked.add_argument("work", type=Path)
    asked.add_argument("--people", type=int, default=70)
    asked.add_argument("--photos", type=int, default=8)
    asked.add_argument("--away", type=float, default=0.6, help="of the way to somebody else")
    asked.add_argument("--plain", action="store_true", help="without traits")
    GIVEN = asked.parse_args()
    main()
