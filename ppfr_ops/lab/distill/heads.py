"""A head on public recognisers: what they make of a face in, the target's template out.

With templates of the target it is a ridge regression, and beside it a small network on what the
ridge leaves; what is better on answers held back is taken. With scores alone it is the linear map
under which cosines are like the scores (a metric learned from pairs; :mod:`.scoring`).
"""

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from torch import Tensor, nn
from torch.nn import functional

from ppfr_ops.contracts.surrogate import Fit
from ppfr_ops.imaging.arrays import unit
from ppfr_ops.recognizers import Embeddings

HELD = 10
"""One in so many pictures is held back."""
INSIDE = 1.0
"""Length of what a last layer reads beside templates of length 1."""
_GROUP = 40
"""Pictures of a group of like ones, about."""
_RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_PAIRS = 20_000
_PATIENCE = 6
"""Looks at what is held back without its getting better, after which training ends."""


@dataclass(frozen=True)
class Features:
    """What public recognisers make of faces, one array a recogniser: templates, float32
    ``N x D``, unit length, and what their last layers read, float32 ``N x I`` (:mod:`.reading`)."""

    parts: list[Embeddings]
    inside: list[Embeddings] = field(default_factory=list)

    @classmethod
    def of(cls, read: Sequence[Embeddings], sizes: Sequence[tuple[int, int]]) -> "Features":
        """From what readers gave, ``N x (D + I)`` each, and their sizes."""
        return cls(
            [rows[:, :d] for rows, (d, _) in zip(read, sizes, strict=True)],
            [rows[:, d:] for rows, (d, i) in zip(read, sizes, strict=True) if i],
        )

    def __len__(self) -> int:
        return len(self.parts[0])

    def keep(self, which: NDArray[np.int64] | NDArray[np.bool_] | slice) -> "Features":
        """Of some faces."""
        return Features([p[which] for p in self.parts], [p[which] for p in self.inside])

    @cached_property
    def joined(self) -> Embeddings:
        """float32 ``N x sum(D + I)``: all templates, then the rest."""
        return np.concatenate([*self.parts, *self.inside], axis=1)

    def baseline(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.float64]:
        """Scores without a query: the mean of the recognisers' cosines, each of the centred
        templates and brought to mean 0 and deviation 1 over the pairs."""
        total = np.zeros(len(a))
        for score in self.cosines(a, b).T:
            total += (score - score.mean()) / max(score.std(), 1e-12)
        return total / len(self.parts)

    def cosines(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of the centred templates, ``pairs x recognisers``."""
        found = []
        for part in self.parts:
            centred = unit(part - part.mean(0))
            found.append((centred[a] * centred[b]).sum(1, dtype=np.float64))
        return np.stack(found, 1)

    def alike(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Groups of faces that public recognisers find alike (k-means of their templates): who is
        in one group is in no other, nearly always, though nobody said who is who."""
        x = unit(np.concatenate([p - p.mean(0) for p in self.parts], axis=1))
        count = max(2 * HELD, len(x) // _GROUP)
        centres = x[rng.choice(len(x), min(count, len(x)), replace=False)]
        for _ in range(10):
            group = np.argmax(x @ centres.T, axis=1)
            total = np.zeros_like(centres)
            np.add.at(total, group, x)
            centres = unit(total)
        return np.asarray(np.argmax(x @ centres.T, axis=1), np.int64)

    def held(self) -> NDArray[np.bool_]:
        """One face in ``HELD`` or a few more, whole groups of like ones: the same in every run."""
        group = self.alike(np.random.default_rng(0))
        sizes = np.bincount(group)
        before = np.concatenate([[0], sizes.cumsum()[:-1]])
        return np.asarray((before < len(group) / HELD)[group])


class Head(nn.Module):
    """``normalise(W2 relu(W1 x) + A x + offset)``; the first term may be absent. x: each block of
    the input less its centre, scaled by column, and brought to the block's length; a block of
    length None keeps the length that it has. Columns behind the last block are not read."""

    centre: Tensor
    scale: Tensor

    def __init__(
        self, sizes: Sequence[int], lengths: Sequence[float | None], outputs: int, hidden: int = 0
    ) -> None:
        super().__init__()
        self.sizes, self.lengths = list(sizes), list(lengths)
        inputs = sum(sizes)
        self.register_buffer("centre", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        self.linear = nn.Linear(inputs, outputs)
        last = nn.Linear(max(hidden, 1), outputs)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.deep = nn.Sequential(nn.Linear(inputs, max(hidden, 1)), nn.ReLU(), last)

    def blocks(self, features: Tensor) -> Tensor:
        """x of the class's formula."""
        x = (features[:, : sum(self.sizes)] - self.centre) * self.scale
        parts = [
            part if length is None else length * functional.normalize(part, dim=1)
            for part, length in zip(x.split(self.sizes, 1), self.lengths, strict=True)
        ]
        return torch.cat(parts, 1)

    def forward(self, features: Tensor) -> Tensor:
        x = self.blocks(features)
        return functional.normalize(self.linear(x) + self.deep(x), dim=1)


def spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Rank correlation of two lists of scores."""
    return float(spearmanr(a, b).statistic)


def all_pairs(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of ``count`` faces, evenly thinned to some thousands."""
    a, b = np.triu_indices(count, 1)
    step = max(1, len(a) // _PAIRS)
    return a[::step], b[::step]


def of_templates(features: Features, target: Embeddings, seconds: float = 60) -> tuple[Head, Fit]:
    """A head by the target's templates.

    Args:
        features: of the faces that were answered.
        target: the answers, float32 ``N x D``, unit length.
        seconds: for the network, at most.
    """
    held = features.held()
    known, kept = features.keep(~held), features.keep(held)
    a, b = all_pairs(int(held.sum()))
    truth = scores(target[held], a, b)

    def good(head: Head) -> float:
        return spearman(scores(run(head, kept.joined), a, b), truth)

    fits = _ridges(known, target[~held], _RIDGES)
    best, place = max((good(head), -place) for place, head in enumerate(fits))
    network = _deepened(fits[-place], known, target[~held], good, seconds)
    better = good(network)
    head = network if better > best else _ridges(features, target, (_RIDGES[-place],))[0]
    without = kept.baseline(a, b)
    return head, Fit(pairs=len(a), spearman=max(best, better), baseline=spearman(without, truth))


def empty(features: Features, outputs: int, hidden: int = 0) -> Head:
    """A head that knows centres and scales of its input, and nothing of a target."""
    sizes = [part.shape[1] for part in (*features.parts, *features.inside)]
    lengths = [None] * len(features.parts) + [INSIDE] * len(features.inside)
    head = Head(sizes, lengths, outputs, hidden)
    head.centre.copy_(torch.from_numpy(features.joined.mean(0)))
    width = sum(sizes[: len(features.parts)])
    spread = np.concatenate([np.ones(width), *(part.std(0) + 1e-6 for part in features.inside)])
    head.scale.copy_(torch.from_numpy(1 / spread))
    return head


def _ridges(features: Features, target: Embeddings, strengths: Sequence[float]) -> list[Head]:
    """A ridge regression a strength."""
    first = empty(features, target.shape[1])
    with torch.inference_mode():
        x = first.blocks(torch.from_numpy(features.joined)).double().numpy()
    # relative to the mean variance of a feature, so that the same strengths serve any recogniser
    unit_strength = len(x) * x.var(0).mean()
    found = []
    for strength in strengths:
        fitted = Ridge(strength * unit_strength).fit(x, target.astype(np.float64))
        head = deepcopy(first)
        with torch.no_grad():
            head.linear.weight.copy_(torch.from_numpy(fitted.coef_))
            head.linear.bias.copy_(torch.from_numpy(fitted.intercept_))
        found.append(head.eval())
    return found


def _deepened(
    ridge: Head,
    features: Features,
    target: Embeddings,
    good: Callable[[Head], float],
    seconds: float,
) -> Head:
    """The ridge with a network beside it, as it was best on what is held back."""
    head = empty(features, target.shape[1], hidden=512)
    head.linear.load_state_dict(ridge.linear.state_dict())
    optimizer = torch.optim.AdamW(head.parameters(), 1e-3, weight_decay=0.05)
    inputs, truth = torch.from_numpy(features.joined), torch.from_numpy(target)
    best, state, since = -1.0, head.state_dict(), 0
    ends = time.monotonic() + seconds
    while time.monotonic() < ends and since < _PATIENCE:
        head.train()
        for batch in torch.randperm(len(inputs)).split(128):
            loss = 1 - (head(inputs[batch]) * truth[batch]).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        head.eval()
        now = good(head)
        since += 1
        if now > best:
            best, since = now, 0
            state = {k: v.clone() for k, v in head.state_dict().items()}
    head.load_state_dict(state)
    return head.eval()


def run(head: Head, x: Embeddings) -> Embeddings:
    """Templates of a head, float32 ``N x D``, of what :attr:`Features.joined` gives."""
    with torch.inference_mode():
        return np.asarray(head(torch.from_numpy(x).float()))


def scores(
    templates: Embeddings, a: NDArray[np.int64], b: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Cosines of pairs of templates of unit length."""
    return (templates[a] * templates[b]).sum(1, dtype=np.float64)
