"""Face verification from scores: accuracy over folds, AUC, EER, TAR at a FAR.

A comparison is *genuine* when both images show one person, else *impostor*; its score is the dot
product of two templates, and it is accepted when the score is at or above a threshold.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve

from ppfr_ops.contracts.evaluation import Rates

Scores = NDArray[np.floating]
Labels = NDArray[np.bool_]

FARS = (1e-2, 1e-3)


def pair_scores(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Dot products of templates ``N x D`` row by row; ``N``."""
    return np.einsum("nd,nd->n", a, b)


def best_threshold(scores: Scores, same: Labels, candidates: int = 200) -> float:
    """The threshold with the highest accuracy among quantiles of the scores, evenly spaced; a
    finer search follows the noise of the pairs at hand."""
    grid = np.quantile(scores, np.linspace(0, 1, candidates))
    genuine, impostor = np.sort(scores[same]), np.sort(scores[~same])
    right = len(genuine) - np.searchsorted(genuine, grid) + np.searchsorted(impostor, grid)
    return float(grid[int(np.argmax(right))])


def threshold_at_far(impostor: Scores, far: float) -> float:
    """The lowest threshold that accepts at most ``far`` of the impostor scores."""
    ranked = np.sort(impostor)[::-1]
    allowed = int(np.floor(far * len(ranked) + 1e-9))
    if allowed >= len(ranked):
        return float(ranked[-1])
    return float(np.nextafter(ranked[allowed], np.inf))


def thresholds(impostor: Scores) -> dict[str, float]:
    """Scores of the FARs that are told, by FAR."""
    return {f"{far:g}": threshold_at_far(impostor, far) for far in FARS}


def fold_accuracies(scores: Scores, same: Labels, folds: NDArray[np.integer]) -> Scores:
    """LFW's protocol: the threshold chosen on all other folds, accuracy on the fold itself.

    Raises:
        ValueError: fewer than two folds.
    """
    names = np.unique(folds)
    if len(names) < 2:
        raise ValueError("the pairs need at least two folds, to choose the threshold elsewhere")
    values = []
    for name in names:
        held = folds == name
        threshold = best_threshold(scores[~held], same[~held])
        values.append(float(((scores[held] >= threshold) == same[held]).mean()))
    return np.array(values)


def verify(scores: Scores, same: Labels, folds: NDArray[np.integer]) -> Rates:
    """All of it.

    Args:
        scores: ``N``, higher is more alike.
        same: ``N``, True for genuine.
        folds: ``N``.

    Raises:
        ValueError: NaN scores, only one kind of pair, or fewer than two folds.
    """
    scores = np.asarray(scores, np.float64)
    same = np.asarray(same, bool)
    if not np.isfinite(scores).all():
        raise ValueError("a score is NaN or infinite")
    if same.all() or not same.any():
        raise ValueError("the pairs need both genuine and impostor comparisons")
    accuracies = fold_accuracies(scores, same, np.asarray(folds))
    fpr, tpr, _ = roc_curve(same, scores)
    crossing = int(np.argmin(np.abs(fpr - (1 - tpr))))
    limits = thresholds(scores[~same])
    return Rates(
        accuracy=float(accuracies.mean()),
        accuracy_std=float(accuracies.std()),
        auc=float(roc_auc_score(same, scores)),
        eer=float((fpr[crossing] + 1 - tpr[crossing]) / 2),
        tar={key: float((scores[same] >= value).mean()) for key, value in limits.items()},
    )
