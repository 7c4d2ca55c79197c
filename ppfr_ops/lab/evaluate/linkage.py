"""Linkage: who holds another photo of a person and an FR model, does he find that person?

All figures come from one matrix of scores, published probes against a gallery of original photos,
one photo a person, the probe made from another photo of that person.

* rank-1: the true person has the highest score of the whole gallery.
* D_sys: M. Gomez-Barrero et al., "General Framework to Evaluate Unlinkability in Biometric
  Template Protection Systems", IEEE TIFS 2018; 0 unlinkable, 1 fully linkable.
* linking and singling out: the criteria of WP216 (Opinion 05/2014 on anonymisation techniques) as
  measured by Vauquier et al., Interspeech 2025, in their package ``legal_eval``; chance is 1/N' for
  linking among N' people and at most 1/e for singling out.
* the student attack: FaceLinkGen (arXiv 2602.02914), a small network trained on a few hundred
  pairs of published and original to give the original's template.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from legal_eval.embeddings import SpeakerConversations
from legal_eval.io import ScoreMatrix
from legal_eval.metrics import linkability, singling_out
from legal_eval.metrics.singling_out import score_conversations
from numpy.typing import NDArray
from torch import nn

from ppfr_ops.imaging.arrays import unit
from ppfr_ops.lab.evaluate.data import rows_of
from ppfr_ops.recognizers import Embeddings

SINGLING_OUT_CHANCE = math.exp(-1)
POPULATIONS = (2, 10, 100, 1000)


@dataclass(frozen=True)
class LinkageSets:
    """Who is compared with whom; indices into the gallery of faces.

    ``gallery`` holds the first photo of every person, ``probes`` the second photo of those who
    have one and ``probe_rows`` their row in ``gallery``; ``calibration`` further photos, a list a
    probe, which may be empty.
    """

    gallery: NDArray[np.int64]
    probes: NDArray[np.int64]
    probe_rows: NDArray[np.int64]
    calibration: tuple[tuple[int, ...], ...]


def linkage_sets(identities: Sequence[str]) -> LinkageSets:
    """Split by identity, in the order given.

    Raises:
        ValueError: nobody has two photos.
    """
    people = list(rows_of(identities).values())
    rows = [row for row, images in enumerate(people) if len(images) >= 2]
    if not rows:
        raise ValueError("linkage needs people with at least two photos in the gallery")
    return LinkageSets(
        np.array([images[0] for images in people]),
        np.array([people[row][1] for row in rows]),
        np.array(rows),
        tuple(tuple(people[row][2:6]) for row in rows),
    )


def d_sys(mated: NDArray[np.floating], non_mated: NDArray[np.floating]) -> float:
    """Global linkability: the mean over mated scores of D(s) = 2 LR / (1 + LR) - 1 where LR > 1,
    else 0; LR is the likelihood ratio of mated to non-mated scores, from histograms.

    Args:
        mated, non_mated: scores, higher is more alike.

    Returns:
        0 (unlinkable) to 1 (fully linkable).
    """
    bins = int(np.clip(min(len(mated), len(non_mated)) / 10, 2, 100))
    both = np.concatenate([mated, non_mated])
    edges = np.linspace(both.min(), both.max() + 1e-9, bins + 1)
    p_mated = np.histogram(mated, edges)[0] / len(mated)
    p_non = np.histogram(non_mated, edges)[0] / len(non_mated)
    ratio = np.divide(p_mated, p_non, out=np.full(bins, np.inf), where=p_non > 0)
    local = np.where(
        np.isinf(ratio), 1.0, 2 * ratio / (1 + np.where(np.isinf(ratio), 0, ratio)) - 1
    )
    return float(np.clip(np.sum(p_mated * np.where(ratio > 1, local, 0)), 0, 1))


def rank1(scores: NDArray[np.floating], rows: NDArray[np.int64]) -> float:
    """Share of probes whose own face is first.

    Args:
        scores: ``gallery x probes``.
        rows: each probe's own, in the gallery.
    """
    return float((_ranks(scores, rows) == 0).mean())


def _ranks(scores: NDArray[np.floating], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of the gallery come before each probe's own, ties among them."""
    return (scores >= scores[rows, np.arange(scores.shape[1])]).sum(0) - 1


def figures(
    gallery: Embeddings,
    probes: Embeddings,
    sets: LinkageSets,
    calibration: Sequence[Embeddings],
    seed: int = 0,
) -> dict[str, Any]:
    """All figures for one FR model, by their names in ``contracts.evaluation.Linkage``.

    Args:
        gallery: templates of ``sets.gallery`` (originals), ``G x D``.
        probes: templates of ``sets.probes`` (published), ``P x D``.
        sets: who is who.
        calibration: templates of ``sets.calibration`` (published), one array a probe.
        seed: for the random sets of the singling-out measure.
    """
    scores = (gallery @ probes.T).astype(np.float64)
    own = np.zeros_like(scores, bool)
    own[sets.probe_rows, np.arange(len(probes))] = True
    names = [str(row) for row in range(len(gallery))]
    matrix = ScoreMatrix(scores, names, [names[row] for row in sets.probe_rows], {})
    sizes = [n for n in POPULATIONS if n < len(gallery)] + [len(gallery)]
    able = {names[sets.probe_rows[i]]: i for i, more in enumerate(calibration) if len(more)}
    rate = among = None
    if len(able) >= 20:
        conversations = {
            name: SpeakerConversations(name, probes[i], list(calibration[i]))
            for name, i in able.items()
        }
        enrolled = {name: gallery[int(name)] for name in conversations}
        table = score_conversations(enrolled, conversations)
        among = min(100, len(able))
        outcomes = singling_out(table, among, n_runs=3, seed=seed)
        rate = float(np.mean([np.mean(runs) for runs in outcomes.values()]))
    return {
        "people": len(gallery),
        "probes": len(probes),
        "rank1": rank1(scores, sets.probe_rows),
        "rank10": float((_ranks(scores, sets.probe_rows) < 10).mean()),
        "chance": 1 / len(gallery),
        "d_sys": d_sys(scores[own], scores[~own]),
        "linking": {str(n): float(linkability(matrix, n, estimator="exact")[0]) for n in sizes},
        "linking_chance": {str(n): 1 / n for n in sizes},
        "singling_out": rate,
        "singling_out_chance": SINGLING_OUT_CHANCE,
        "singling_out_among": among,
    }


class Student(nn.Module):
    """Template of the original from the templates of what was published: the target model's own
    template plus what a small network makes of all of them."""

    def __init__(self, seen: int, target: int, hidden: int = 256) -> None:
        super().__init__()
        last = nn.Linear(hidden, target)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.body = nn.Sequential(nn.Dropout(0.2), nn.Linear(seen, hidden), nn.GELU(), last)

    def forward(self, own: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        return F.normalize(own + self.body(seen), dim=1)


class StudentAttack:
    """A student, trained on pairs of published and original.

    Args:
        seen: templates of the published images by every FR model the attacker has, ``N x D_i``.
        own: those by the target model, ``N x D``.
        originals: templates of the originals by the target model, ``N x D``.
        seed: of weights and dropout.
        steps: full-batch steps of AdamW on cosine and contrastive loss.
    """

    def __init__(
        self,
        seen: Sequence[Embeddings],
        own: Embeddings,
        originals: Embeddings,
        seed: int = 0,
        steps: int = 300,
    ) -> None:
        self._centres = [part.mean(0) for part in (own, *seen)]
        self._centre = originals.mean(0)
        inputs, features = self._prepared(own, seen)
        target = torch.from_numpy(self.gallery(originals))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = Student(features.shape[1], target.shape[1]).train()
            optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05)
            labels = torch.arange(len(target))
            for _ in range(steps):
                guess = model(inputs, features)
                loss = 1 - (guess * target).sum(1).mean()
                loss = loss + 0.5 * F.cross_entropy(guess @ target.T / 0.1, labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        self._model = model.eval()

    def _prepared(
        self, own: Embeddings, seen: Sequence[Embeddings]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        pairs = zip((own, *seen), self._centres, strict=True)
        first, *rest = (torch.from_numpy(unit(part - centre)) for part, centre in pairs)
        return first, torch.cat(rest, 1)

    @torch.inference_mode()
    def guess(self, own: Embeddings, seen: Sequence[Embeddings]) -> Embeddings:
        """Guessed templates of the originals, centred, unit length; ``N x D``."""
        return np.asarray(self._model(*self._prepared(own, seen)))

    def gallery(self, originals: Embeddings) -> Embeddings:
        """Templates of original photos in the same centred frame."""
        return unit(originals - self._centre)
