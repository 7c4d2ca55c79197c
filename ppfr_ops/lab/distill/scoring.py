"""A head by scores of pairs alone.

It begins where the baseline is: the public recognisers' cosines, weighed by what they are worth for
the scores (least squares, no weight negative). From there a symmetric matrix M is learned under
which ``x_a^T M x_b`` is like the scores, drawn back to the beginning by a ridge; how strongly is
chosen on pairs with a face of which nothing was fitted, and of these on the closest, among which
decisions are made. M is a metric, so its negative part goes.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.sparse.linalg import LinearOperator, cg

from ppfr_ops.contracts.surrogate import Fit
from ppfr_ops.lab.distill.collecting import Scored
from ppfr_ops.lab.distill.heads import Features, Head, empty, run, scores, spearman

_COMPONENTS = 300
"""Principal components of the templates that M is learned on; on the rest it stays as it began."""
_RIDGES = (0.5, 1.0, 3.0, 10.0, 30.0)
_CLOSE = 0.25
"""Share of the pairs held back that is judged by: those that are most like by the baseline."""
_STEPS = 12
"""Of conjugate gradients; stopped early they draw back to the beginning, too."""

Floats = NDArray[np.float32]


def of_scores(features: Features, scored: Scored) -> tuple[Head, Fit]:
    """A head whose cosines are like the scores of pairs but for a straight line.

    Args:
        features: of the faces; only templates are read.
        scored: pairs of them, and what the target said.
    """
    features = Features(features.parts)
    apart = features.held()
    held = apart[scored.a] | apart[scored.b]
    like = features.baseline(scored.a, scored.b)
    judged = held & (like >= np.quantile(like[held], 1 - _CLOSE))
    a, b, truth = scored.a[judged], scored.b[judged], scored.scores[judged]
    first = _Start(features, scored, ~held)
    found = []
    for strength in _RIDGES:
        templates = run(first.head(strength), features.joined)
        found.append((spearman(scores(templates, a, b), truth), strength))
    best, strength = max(found)
    head = _Start(features, scored, np.ones(len(held), bool)).head(strength)
    without = features.baseline(a, b)
    return head, Fit(pairs=int(judged.sum()), spearman=best, baseline=spearman(without, truth))


class _Start:
    """The beginning, fitted to some of the pairs, and what it leaves of their scores."""

    def __init__(self, features: Features, scored: Scored, which: NDArray[np.bool_]) -> None:
        self.features = features
        a, b, wanted = scored.a[which], scored.b[which], scored.scores[which]
        cosines = features.cosines(a, b)
        ones = np.ones((len(a), 1))
        weights = nnls(np.concatenate([cosines, ones, -ones], axis=1), wanted)[0][:-2]
        self.lengths = [float(w) for w in np.sqrt(weights / max(weights.sum(), 1e-12))]
        width = features.joined.shape[1]
        with torch.inference_mode():
            x = self._blank(width).blocks(torch.from_numpy(features.joined)).numpy()
        self.basis = np.linalg.eigh(x.T @ x)[1][:, -_COMPONENTS:]
        own = (x[a] * x[b]).sum(1, dtype=np.float64)
        self.slope, offset = np.polyfit(own, wanted, 1)
        self.left = (wanted - self.slope * own - offset).astype(np.float32)
        y = x @ self.basis
        self.a, self.b = y[a], y[b]

    def _blank(self, outputs: int) -> Head:
        head = empty(self.features, outputs)
        head.lengths = list(self.lengths)
        return head

    def head(self, strength: float) -> Head:
        """The beginning and what is learned beside it."""
        learned = self.basis @ _learned(self.a, self.b, self.left, strength) @ self.basis.T
        values, vectors = np.linalg.eigh(max(self.slope, 1e-6) * np.eye(len(learned)) + learned)
        root = vectors * np.sqrt(np.maximum(values, 0))
        head = self._blank(len(root))
        with torch.no_grad():
            head.linear.weight.copy_(torch.from_numpy(root.T))
            head.linear.bias.zero_()
        return head.eval()


def _learned(a: Floats, b: Floats, wanted: Floats, strength: float) -> Floats:
    """Symmetric D that minimises ``|a^T D b - wanted|^2 + strength |D|^2`` over the P rows of
    ``a`` and ``b``, ``P x K`` each, by conjugate gradients from zero."""

    def back(errors: Floats) -> Floats:
        grown: Floats = a.T @ (errors[:, None] * b)
        return 0.5 * (grown + grown.T)

    def bent(flat: Floats) -> Floats:
        way = flat.reshape(size, size)
        return (back(((a @ way) * b).sum(1)) + strength * way).ravel()

    size = a.shape[1]
    system = LinearOperator((size * size,) * 2, bent, dtype=np.float32)
    found, _ = cg(system, back(wanted).ravel(), rtol=1e-6, maxiter=_STEPS)
    return np.asarray(found.reshape(size, size), np.float32)
