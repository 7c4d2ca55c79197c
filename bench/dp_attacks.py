"""Attacks on ``dp-template`` beside what the proof bounds: linkage, averaging, recovery.

Prints JSON lines.

    python bench/dp_attacks.py --test DATA/lfw_aligned --train DATA/utk_aligned \\
        --fr dlib=MODELS/dlib.onnx --fr mobileface=MODELS/mobileface.onnx

*Linkage*: whose photo was published, among ``--gallery`` originals of as many people, the very
photo among them or another of the person; and of two candidates, which? By templates of FR models,
centred; by the method's own vectors, read off the picture (dlib's templates, for its encoder is
dlib's); and by the noised vector itself, which a picture holds at most: nobody does better on these
candidates. Once from one release, once from the mean over all.

*Recovery*: a network from the picture, and one from the noised vector, trained on pairs that are
made by running the method on other faces; SSIM to the original beside that of the mean face, and
whether an FR model finds the original by what came back.

*Bounds*: all vectors lie in a ball, so any release is mu/2-Gaussian private against that of its
centre (mu the mechanism's, times the root of the number of releases), whence of n candidates,
equally likely, the right one is named with probability Phi(Phi^-1(1/n) + mu/2) at most; and by
epsilon alone e^eps / (e^eps + n - 1), plus about delta.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dp import publish, show
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import norm
from virtual import coded, read

from ppfr_ops.imaging.measures import ssim
from ppfr_ops.lab.evaluate.attacks.networks import mean_face, to_tensor
from ppfr_ops.lab.evaluate.attacks.recovery import RecoveryAttack
from ppfr_ops.lab.evaluate.data import read_faces
from ppfr_ops.memory import keep_freed_memory
from ppfr_ops.methods.dp.template import Template, directions
from ppfr_ops.recognizers import Recognizer, RecognizerSpec

Faces = NDArray[np.uint8]
Vectors = NDArray[np.float64]

COMPONENTS = 128
"""Principal ones of faces, in which the network from vectors draws."""


def chosen(folder: Path, size: int, probes: int) -> tuple[Faces, Faces]:
    """A photo of each of ``size`` people, and another of each of the first ``probes``."""
    faces, _, people = read(folder)
    _, first, count = np.unique(people, return_index=True, return_counts=True)
    many = first[count > 1][:probes]
    others = np.setdiff1d(first, many)[:: max(1, (len(first) - probes) // (size - probes))]
    one = np.concatenate([many, others[: size - probes]])
    another = [np.flatnonzero(people == people[i])[-1] for i in many]
    return faces[one], faces[another]


def training(folder: Path, count: int) -> Faces:
    faces = read_faces(str(folder), "faces of others").images
    return faces[:: max(1, len(faces) // count)][:count]


def centred(vectors: NDArray[Any]) -> Vectors:
    away = vectors.astype(np.float64)
    away = away - away.reshape(-1, away.shape[-1]).mean(0)
    return away / np.linalg.norm(away, axis=-1, keepdims=True)


def named(scores: Vectors) -> dict[str, float]:
    """Of scores, ``N x releases x n``, where row i's right one is column i: how often it is the
    highest, and how often it is above any one other."""
    rows = np.arange(len(scores))
    right = scores[rows, :, rows][..., None]
    above = (scores < right).sum(-1)
    return {
        "rank1": float((above == scores.shape[-1] - 1).mean()),
        "of_two": float(above.mean() / (scores.shape[-1] - 1)),
    }


def bounds(method: Template, releases: int, size: int) -> dict[str, float]:
    loss = method.mechanism().loss.times(releases)
    epsilon, mu = loss.epsilon(method.delta), loss.square**0.5
    return {
        "epsilon_of_all": epsilon,
        "rank1_at_most": float(norm.cdf(norm.ppf(1 / size) + mu / 2)),
        "of_two_at_most": float(norm.cdf(mu / 2)),
        "rank1_by_epsilon": float(expit(epsilon - np.log(size - 1))),
    }


def own_vectors(method: Template, templates: NDArray[np.float32]) -> Vectors:
    """dlib's templates to the method's vectors, before their length is taken away."""
    codes = method.generator().model().codes(torch.from_numpy(templates)).numpy()
    return np.asarray(codes.astype(np.float64) @ directions().into)


class Linkage:
    """The gallery as every attacker sees it."""

    def __init__(self, arguments: argparse.Namespace, photos: Faces, another: Faces) -> None:
        self.models = [Recognizer(RecognizerSpec.parse(text), 1) for text in arguments.fr]
        self.log, self.releases = arguments.log, arguments.releases
        self.photos, self.another = photos, another
        self.templates = {model.name: model.embed(photos) for model in self.models}
        self.others = {model.name: model.embed(another) for model in self.models}

    def measure(self, method: Template) -> None:
        count, size = len(self.another), len(self.photos)
        way = publish(method)
        shown = [coded(way(self.photos[:count], [""] * count)) for _ in range(self.releases)]
        seen = {m.name: np.stack([m.embed(f) for f in shown], 1) for m in self.models}
        for name, templates in seen.items():
            swapped = self.templates[name].copy()
            swapped[:count] = self.others[name]
            for what, gallery in (("very", self.templates[name]), ("another", swapped)):
                self._told(method, name, what, centred(templates), centred(gallery))
        if "dlib" in seen:
            flat = seen["dlib"].reshape(-1, seen["dlib"].shape[-1])
            read_off = own_vectors(method, flat).reshape(count, self.releases, -1)
            gallery = own_vectors(method, self.templates["dlib"])
            self._told(method, "own vectors", "very", centred(read_off), centred(gallery))
        exact = directions().vectors(method.encoded(self.photos))
        drawn = [method.mechanism().private(exact[:count]) for _ in range(self.releases)]
        self._told(method, "noised vector itself", "very", np.stack(drawn, 1), exact)
        for releases in (1, self.releases):
            told = bounds(method, releases, size)
            show(self.log, attack="bound", epsilon=method.epsilon, releases=releases, **told)

    def _told(self, method: Template, by: str, photo: str, seen: Vectors, gallery: Vectors) -> None:
        """``seen`` is ``N x releases x D``, ``gallery`` ``n x D``."""
        for releases, probes in ((1, seen), (self.releases, seen.mean(1, keepdims=True))):
            found = named(np.asarray(probes @ gallery.T))
            entry = {"attack": "linkage", "epsilon": method.epsilon, "by": by, "photo": photo}
            show(self.log, **entry, releases=releases, candidates=len(gallery), **found)


class Drawn:
    """Faces in their principal components."""

    def __init__(self, faces: Faces) -> None:
        flat = faces.reshape(len(faces), -1).astype(np.float32)
        self.mean = flat.mean(0)
        flat -= self.mean
        _, found = np.linalg.eigh((flat @ flat.T).astype(np.float64))  # fewer faces than pixels
        axes = (found[:, -COMPONENTS:].T.astype(np.float32)) @ flat
        self.axes = axes / np.linalg.norm(axes, axis=1, keepdims=True)
        self.coefficients = flat @ self.axes.T
        self.spread = float(self.coefficients.std())

    def faces(self, coefficients: NDArray[np.float32]) -> Faces:
        flat = self.mean + coefficients @ self.axes
        return flat.clip(0, 255).round().astype(np.uint8).reshape(len(flat), 112, 112, 3)


class FromVectors:
    """A network from noised vectors to faces, drawn in principal components of others' faces."""

    def __init__(self, drawn: Drawn, vectors: Vectors, deviation: float, steps: int) -> None:
        self.drawn, self.deviation = drawn, deviation
        target = torch.from_numpy(drawn.coefficients / drawn.spread)
        known = torch.from_numpy(vectors).float()
        width = 256
        self.net = torch.nn.Sequential(
            torch.nn.Linear(vectors.shape[1], width),
            torch.nn.GELU(),
            torch.nn.Linear(width, width),
            torch.nn.GELU(),
            torch.nn.Linear(width, target.shape[1]),
        )
        optimizer = torch.optim.AdamW(self.net.parameters(), 1e-3, weight_decay=1e-2)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = 1e-3 * (1 - step / steps)
            rows = torch.randint(len(known), (256,))
            noised = known[rows] + deviation * torch.randn(len(rows), known.shape[1])
            loss = ((self.net(noised / (1 + deviation)) - target[rows]) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def recover(self, noised: Vectors) -> Faces:
        with torch.inference_mode():
            found = self.net(torch.from_numpy(noised).float() / (1 + self.deviation)).numpy()
        return self.drawn.faces(found * self.drawn.spread)


def recovered(linkage: Linkage, found: Faces, **entry: Any) -> None:
    """How like the originals it is, and whom FR models take it for."""
    truth = linkage.photos[: len(found)]
    entry["ssim"] = float(ssim(to_tensor(found), to_tensor(truth)).mean())
    for model in linkage.models:
        if np.ptp(found, axis=0).any():
            seen = centred(model.embed(found))[:, None] @ centred(linkage.templates[model.name]).T
            entry |= {f"{model.name}_{name}": value for name, value in named(seen).items()}
    show(linkage.log, attack="recovery", **entry)


def from_pictures(
    arguments: argparse.Namespace, linkage: Linkage, method: Template, others: Faces
) -> None:
    way = publish(method)
    parts = [others[i : i + 256] for i in range(0, len(others), 256)]
    pairs = np.concatenate([coded(way(part, [""] * len(part))) for part in parts])
    held = np.arange(len(others)) % 10 == 9
    # the validation's indices are counted on from the training's
    order = np.concatenate([np.flatnonzero(~held), np.flatnonzero(held)])
    attack = RecoveryAttack("unet", batch=16)
    curve = attack.train(
        others[~held],
        lambda faces, index, rng: pairs[order[index]],
        arguments.steps,
        validation=others[held],
        points=6,
    )
    count = len(linkage.another)
    shown = coded(way(linkage.photos[:count], [""] * count))
    entry = {"epsilon": method.epsilon, "pairs": int((~held).sum()), "steps": arguments.steps}
    held_back = [round(point.val_ssim, 4) for point in curve]
    recovered(linkage, attack.recover(shown), by="picture", held_back=held_back, **entry)


def from_vectors(
    arguments: argparse.Namespace, linkage: Linkage, method: Template, drawn: Drawn, others: Faces
) -> None:
    vectors = directions().vectors(method.encoded(others))
    exact = directions().vectors(method.encoded(linkage.photos[: len(linkage.another)]))
    entry = {"epsilon": method.epsilon, "pairs": len(others)}
    for releases in (1, arguments.releases):
        deviation = method.mechanism().deviation / releases**0.5
        network = FromVectors(drawn, vectors, deviation, arguments.vector_steps)
        noised = np.mean([method.mechanism().private(exact) for _ in range(releases)], 0)
        found = network.recover(noised)
        recovered(linkage, found, by="noised vector", releases=releases, **entry)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--test", type=Path, required=True, help="aligned faces with identities")
    parser.add_argument("--train", type=Path, required=True, help="aligned faces of others")
    parser.add_argument("--fr", action="append", default=[], metavar="NAME=PATH")
    attacks = ("linkage", "vectors", "pictures")
    parser.add_argument("--attack", nargs="*", choices=attacks, default=attacks)
    parser.add_argument("--epsilon", nargs="*", type=float, default=[10.0, 50.0, 100.0])
    parser.add_argument("--releases", type=int, default=32)
    parser.add_argument("--probes", type=int, default=64)
    parser.add_argument("--gallery", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=1200, help="faces of others, published once")
    parser.add_argument("--steps", type=int, default=140, help="of the network from pictures")
    parser.add_argument("--vector-steps", type=int, default=2000)
    parser.add_argument("--log", type=Path, help="written to as well")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    linkage = Linkage(arguments, *chosen(arguments.test, arguments.gallery, arguments.probes))
    others = training(arguments.train, arguments.pairs)
    methods = [Template(epsilon=epsilon) for epsilon in arguments.epsilon]
    if "linkage" in arguments.attack:
        for method in methods:
            linkage.measure(method)
    if "vectors" in arguments.attack:
        floor = np.repeat(mean_face(others)[None], arguments.probes, axis=0)
        recovered(linkage, floor, by="nothing: the mean face")
        drawn = Drawn(others)
        for method in methods:
            from_vectors(arguments, linkage, method, drawn, others)
    if "pictures" in arguments.attack:
        for method in methods:
            from_pictures(arguments, linkage, method, others)


if __name__ == "__main__":
    main()
