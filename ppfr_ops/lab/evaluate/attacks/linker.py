"""Strong linkers: from what is published of a face to which original it is.

What the method gives everybody is pairs without end: publish other people's faces, under keys of
one's own where the method takes one, and learn what templates of the original go with the templates
of the picture. :class:`Taught` does that with the templates of all FR models at hand. What an
attacker may have besides is pairs of the release itself, ``n`` originals whose published pictures
are known: :func:`known_pairs` tries regressions in both directions, linear and not, and reports the
one that finds most, for a claim is worth what the best attack on it was worth.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ppfr_ops.contracts.evaluation import Found, KnownPairs
from ppfr_ops.imaging.arrays import unit
from ppfr_ops.lab.evaluate.learning import fit, new
from ppfr_ops.recognizers import Embeddings

Matrix = NDArray[np.float32]

RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Of kernels whose diagonal is 1."""

KERNELS: dict[str, Callable[[Matrix], Matrix]] = {
    "linear": lambda c: c,
    "quadratic": lambda c: c * c,
    "exponential": lambda c: np.exp(4 * (c - 1)),
}
"""Of the cosine: linear maps, all products of two values, and smooth maps of any kind."""


@dataclass(frozen=True)
class Frame:
    """Templates of several models in one space: each centred, of unit length, then side by side.

    The dot product of two rows is the mean cosine over the models.
    """

    centres: tuple[Matrix, ...]

    @classmethod
    def of(cls, templates: Sequence[Embeddings]) -> "Frame":
        return cls(tuple(part.mean(0) for part in templates))

    def __call__(self, templates: Sequence[Embeddings]) -> Matrix:
        parts = [self.one(templates, i) for i in range(len(self.centres))]
        return np.concatenate(parts, 1) / np.float32(len(parts) ** 0.5)

    def one(self, templates: Sequence[Embeddings], place: int) -> Matrix:
        """Those of one model, by its place."""
        return unit(templates[place] - self.centres[place])


@dataclass(frozen=True)
class Search:
    """Probes and a gallery: probe ``i`` is what was published for gallery face ``rows[i]``."""

    people: NDArray[np.int64]
    """Of the gallery, a number a face."""
    rows: NDArray[np.int64]

    @property
    def another(self) -> NDArray[np.bool_]:
        """Probes whose person has another photo in the gallery."""
        return np.asarray(np.bincount(self.people)[self.people[self.rows]] > 1)

    @property
    def chance(self) -> Found:
        count = len(self.people)
        others = np.bincount(self.people)[self.people[self.rows]] - 1
        able = others > 0
        another = float((others[able] / (count - 1)).mean()) if able.any() else 0.0
        return Found(same_photo=1 / count, another_photo=another)

    def found(self, scores: Matrix) -> Found:
        """From scores ``probes x gallery``; a tie is no success."""
        scores = scores.copy()
        places = np.arange(len(self.rows))
        own = scores[places, self.rows].copy()
        scores[places, self.rows] = -np.inf
        best = scores.max(1)
        who = self.people[scores.argmax(1)] == self.people[self.rows]
        able = self.another
        return Found(
            same_photo=float((own > best).mean()),
            another_photo=float(who[able].mean()) if able.any() else 0.0,
        )


class _Reader(nn.Module):
    """Templates of the picture to templates of the original; begins as the identity."""

    def __init__(self, size: int) -> None:
        super().__init__()
        hidden = 768
        last = nn.Linear(hidden, size)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.body = nn.Sequential(
            nn.Linear(size, hidden),
            nn.GELU(),
            nn.Dropout(0.1),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Dropout(0.1),
            last,
        )

    def forward(self, seen: Tensor) -> Tensor:
        return F.normalize(seen + self.body(seen * seen.shape[1] ** 0.5), dim=1)


class Taught:
    """A network taught by pairs that the attacker made.

    Args:
        seen, originals: templates of the pairs in their frames, ``N x D``.
        how: of :func:`ppfr_ops.lab.evaluate.learning.fit`.
    """

    def __init__(self, seen: Matrix, originals: Matrix, **how: Any) -> None:
        inputs, targets = torch.from_numpy(seen), torch.from_numpy(originals)
        model = new(lambda: _Reader(seen.shape[1]), how["seed"])
        size = min(256, len(seen))

        def loss_of(rng: np.random.Generator) -> Tensor:
            rows = torch.from_numpy(rng.choice(len(inputs), size, replace=False))
            guess = model(inputs[rows])
            scores = guess @ targets[rows].T
            near = F.cross_entropy(scores / 0.05, torch.arange(size))
            return near + 1 - scores.diagonal().mean()

        fit(model, loss_of, weight_decay=0.05, **how)
        self.model = model

    @torch.inference_mode()
    def guess(self, seen: Matrix) -> Matrix:
        """Templates of the originals; ``N x D``, unit length."""
        return np.asarray(self.model(torch.from_numpy(seen)))


@dataclass(frozen=True)
class Known:
    """What the attacker of known pairs has.

    ``seen``: templates of the known pictures, ``n x D``; ``probes``: of those to find, ``P x D``.
    ``originals`` and ``gallery``: of the known originals, ``n x D``, and of all, ``G x D``, by the
    name of a frame: ``all`` FR models side by side, and each alone, for one of them may be close to
    what the method itself reads from a face.
    """

    seen: Matrix
    probes: Matrix
    originals: dict[str, Matrix]
    gallery: dict[str, Matrix]

    def first(self, count: int) -> "Known":
        """With the first ``count`` pairs only."""
        originals = {name: part[:count] for name, part in self.originals.items()}
        return Known(self.seen[:count], self.probes, originals, self.gallery)


def known_pairs(known: Known, search: Search) -> KnownPairs:
    """The best of many regressions: from picture to original, and from original to picture with
    every frame of the originals, each with all of :data:`KERNELS`. The strength of the ridge is
    chosen on a fifth of the pairs."""
    tried: dict[str, Found] = {}
    targets, gallery = known.originals["all"], known.gallery["all"]
    for kernel in KERNELS:
        guess = _regress(known.seen, targets, known.probes, KERNELS[kernel])
        scores = np.asarray(guess @ (gallery - targets.mean(0)).T)
        tried[f"backward, {kernel}"] = search.found(scores)
        for frame in known.originals:
            scores = _forward(known, kernel, frame)
            tried[f"forward, {kernel}, {frame}"] = search.found(scores)
    best = max(tried, key=lambda name: tried[name].same_photo + tried[name].another_photo)
    return KnownPairs(pairs=len(known.seen), attack=best, **tried[best].model_dump())


def _forward(known: Known, kernel: str, frame: str) -> Matrix:
    """Scores ``probes x gallery``: the pictures of all originals are guessed. For a keyed map that
    is a random function with a known kernel this is the best there is."""
    guess = _regress(known.originals[frame], known.seen, known.gallery[frame], KERNELS[kernel])
    return np.asarray((known.probes - known.seen.mean(0)) @ guess.T)


def _regress(
    inputs: Matrix, targets: Matrix, queries: Matrix, kernel: Callable[[Matrix], Matrix]
) -> Matrix:
    """Kernel ridge regression; guesses for ``queries``, centred, of unit length."""
    held = np.arange(len(inputs)) % 5 == 4
    gram = kernel(inputs @ inputs.T)
    wanted = targets - targets.mean(0)

    def right(ridge: float) -> float:
        weights = _solve(gram[np.ix_(~held, ~held)], wanted[~held], ridge)
        guess = gram[np.ix_(held, ~held)] @ weights
        return float((unit(guess) * unit(wanted[held])).sum(1).mean())

    weights = _solve(gram, wanted, max(RIDGES, key=right))
    return unit(kernel(queries @ inputs.T) @ weights)


def _solve(gram: Matrix, targets: Matrix, ridge: float) -> Matrix:
    system = gram.astype(np.float64) + ridge * np.eye(len(gram))
    return np.linalg.solve(system, targets.astype(np.float64)).astype(np.float32)
