"""A head on public recognisers: their templates in, the target's template out.

With templates of the target it is a ridge regression, and beside it a small network on what the
ridge leaves; what is better on answers held back is taken. With scores alone it is the linear map
under which cosines are like the scores (a metric learned from pairs).
"""

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional

from ppfr_ops.contracts.surrogate import Fit
from ppfr_ops.distill.collecting import Scored
from ppfr_ops.recognizers import Embeddings

HELD = 10
"""Every so many-th picture (or pair) is held back."""
_RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_PAIRS = 20_000
_PATIENCE = 6
"""Looks at what is held back without its getting better, after which training ends."""


@dataclass(frozen=True)
class Features:
    """Public templates of faces, one array a recogniser, each float32 ``N x D``, unit length."""

    parts: list[Embeddings]

    @property
    def joined(self) -> Embeddings:
        """float32 ``N x sum(D)``."""
        return np.concatenate(self.parts, axis=1)

    def baseline(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.float64]:
        """Scores without a query: the mean of the recognisers' cosines, each of the centred
        templates and brought to mean 0 and deviation 1 over the pairs."""
        total = np.zeros(len(a))
        for part in self.parts:
            centred = part - part.mean(0)
            centred /= np.linalg.norm(centred, axis=1, keepdims=True)
            score = (centred[a] * centred[b]).sum(1, dtype=np.float64)
            total += (score - score.mean()) / max(score.std(), 1e-12)
        return total / len(self.parts)


class Head(nn.Module):
    """``normalise(W2 relu(W1 x) + A (x - centre) + offset)``; the first term may be absent."""

    centre: Tensor

    def __init__(self, inputs: int, outputs: int, hidden: int = 0) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(inputs))
        self.linear = nn.Linear(inputs, outputs)
        last = nn.Linear(max(hidden, 1), outputs)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.deep = nn.Sequential(nn.Linear(inputs, max(hidden, 1)), nn.ReLU(), last)

    def forward(self, features: Tensor) -> Tensor:
        x = features - self.centre
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
    x, t = features.joined.astype(np.float64), target.astype(np.float64)
    held = np.arange(len(x)) % HELD == HELD - 1
    a, b = all_pairs(int(held.sum()))
    truth = _scores(target[held], a, b)
    found = []
    for strength in _RIDGES:
        ridge = _ridge(x[~held], t[~held], strength)
        found.append((spearman(_scores(run(ridge, x[held]), a, b), truth), strength))
    best, strength = max(found)
    network = _deepened(_ridge(x[~held], t[~held], strength), x, t, held, seconds)
    better = spearman(_scores(run(network, x[held]), a, b), truth)
    head = network if better > best else _ridge(x, t, strength)
    without = Features([part[held] for part in features.parts]).baseline(a, b)
    return head, Fit(pairs=len(a), spearman=max(best, better), baseline=spearman(without, truth))


def _ridge(x: NDArray[np.float64], t: NDArray[np.float64], strength: float) -> Head:
    head = Head(x.shape[1], t.shape[1])
    centre, offset = x.mean(0), t.mean(0)
    y = x - centre
    gram = y.T @ y
    # relative to the mean variance of a feature, so that the same strengths serve any recogniser
    gram += strength * np.trace(gram) / len(gram) * np.eye(len(gram))
    weights = np.linalg.solve(gram, y.T @ (t - offset))
    head.centre.copy_(torch.from_numpy(centre))
    with torch.no_grad():
        head.linear.weight.copy_(torch.from_numpy(weights.T))
        head.linear.bias.copy_(torch.from_numpy(offset))
    return head.eval()


def _deepened(
    ridge: Head,
    x: NDArray[np.float64],
    t: NDArray[np.float64],
    held: NDArray[np.bool_],
    seconds: float,
) -> Head:
    """The ridge with a network beside it, as it was best on what is held back."""
    head = Head(x.shape[1], t.shape[1], hidden=512)
    head.load_state_dict({**head.state_dict(), **_without_deep(ridge)})
    optimizer = torch.optim.AdamW(head.parameters(), 1e-3, weight_decay=0.05)
    inputs = torch.from_numpy(x[~held]).float()
    truth = torch.from_numpy(t[~held]).float()
    a, b = all_pairs(int(held.sum()))
    wanted = _scores(t[held].astype(np.float32), a, b)
    best, state, since = -1.0, head.state_dict(), 0
    ends = time.monotonic() + seconds
    while time.monotonic() < ends and since < _PATIENCE:
        head.train()
        for batch in torch.randperm(len(inputs)).split(128):
            given = inputs[batch] + 0.02 * torch.randn(len(batch), inputs.shape[1])
            loss = 1 - (head(given) * truth[batch]).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        head.eval()
        now = spearman(_scores(run(head, x[held]), a, b), wanted)
        since += 1
        if now > best:
            best, since = now, 0
            state = {k: v.clone() for k, v in head.state_dict().items()}
    head.load_state_dict(state)
    return head.eval()


def _without_deep(head: Head) -> dict[str, Tensor]:
    return {k: v for k, v in head.state_dict().items() if not k.startswith("deep")}


def of_scores(features: Features, scored: Scored, steps: int = 1500) -> tuple[Head, Fit]:
    """A head by scores of pairs alone: its cosines are like the scores but for a straight line.

    It begins where the baseline is, and is taken from where it was best on pairs held back.
    """
    parts = [part - part.mean(0) for part in features.parts]
    scale = np.concatenate([np.full(p.shape[1], 1 / np.sqrt((p**2).sum(1).mean())) for p in parts])
    joined = features.joined
    size = joined.shape[1]
    head = Head(size, size)
    head.centre.copy_(torch.from_numpy(joined.mean(0)))
    with torch.no_grad():
        head.linear.weight.copy_(torch.diag(torch.from_numpy(scale)))
        head.linear.bias.zero_()
    held = np.arange(len(scored.a)) % HELD == HELD - 1
    x, truth = torch.from_numpy(joined), torch.from_numpy(scored.scores).float()
    line = nn.Parameter(torch.tensor([1.0, 0.0]))
    optimizer = torch.optim.Adam(
        [{"params": head.linear.parameters(), "lr": 3e-4}, {"params": [line], "lr": 1e-2}]
    )
    known = np.flatnonzero(~held)
    a, b = torch.from_numpy(scored.a), torch.from_numpy(scored.b)
    best, state, since = -1.0, head.state_dict(), 0
    for step in range(steps + 1):
        if since > _PATIENCE:
            break
        if step % 50 == 0:
            y = run(head, joined)
            now = spearman(_scores(y, scored.a[held], scored.b[held]), scored.scores[held])
            since += 1
            if now > best:
                best, since = now, 0
                state = {k: v.clone() for k, v in head.state_dict().items()}
        batch = torch.from_numpy(known[torch.randint(len(known), (256,)).numpy()])
        cosine = (head(x[a[batch]]) * head(x[b[batch]])).sum(1)
        loss = functional.mse_loss(line[0] * cosine + line[1], truth[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    head.load_state_dict(state)
    without = features.baseline(scored.a[held], scored.b[held])
    return head.eval(), Fit(
        pairs=int(held.sum()), spearman=best, baseline=spearman(without, scored.scores[held])
    )


def run(head: Head, x: NDArray[np.float64] | Embeddings) -> Embeddings:
    with torch.inference_mode():
        return np.asarray(head(torch.from_numpy(x).float()))


def _scores(
    templates: Embeddings, a: NDArray[np.int64], b: NDArray[np.int64]
) -> NDArray[np.float64]:
    return (templates[a] * templates[b]).sum(1, dtype=np.float64)
