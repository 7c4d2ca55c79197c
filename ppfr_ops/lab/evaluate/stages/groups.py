"""Who is protected less, or recognised less? Figures by group of the held-back faces."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppfr_ops.contracts.evaluation import Gap, Group, Groups
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.lab.evaluate.data import evenly, group_names
from ppfr_ops.lab.evaluate.measured import disclosures, likeness
from ppfr_ops.lab.evaluate.protocol import pair_scores
from ppfr_ops.lab.evaluate.run import Run
from ppfr_ops.lab.evaluate.stages.base import Skip, stage
from ppfr_ops.lab.evaluate.stages.recovery import strongest

MIN_GROUP = 20
"""Faces; a smaller group says nothing."""


@dataclass(frozen=True)
class _Measured:
    """Per-face values by measure; whether FR models match faces with their originals; and of each
    model a matrix of scores and the threshold that suits it best."""

    values: dict[str, NDArray[Any]]
    matches: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    scores: dict[str, tuple[NDArray[np.float32], float]] = field(default_factory=dict)

    def group(self, mask: NDArray[np.bool_]) -> Group:
        means: dict[str, Any] = {n: float(value[mask].mean()) for n, value in self.values.items()}
        return Group(
            faces=int(mask.sum()),
            rec_ssim=means.pop("rec_ssim", None),
            **means,
            id_match={name: float(value[mask].mean()) for name, value in self.matches.items()},
            accuracy={
                name: balanced(scores[np.ix_(mask, mask)], threshold)
                for name, (scores, threshold) in self.scores.items()
            },
        )


@stage("the same by age, sex and ethnicity, and the largest gaps")
def groups(run: Run) -> Groups:
    faces = run.attack_faces
    if faces is None or run.publisher is None or not faces.attributes:
        raise Skip("needs the method and attack faces with age, gender, ethnicity")
    rows = run.held[evenly(len(run.held), run.settings.group_faces)]
    measured = _measure(run, faces.images[rows])
    attributes: dict[str, dict[str, Group]] = {}
    gaps: dict[str, Gap] = {}
    for attribute, values in faces.attributes.items():
        names = np.array(group_names(attribute, [values[i] for i in rows]), object)
        masks = {name: names == name for name in sorted({n for n in names if n is not None})}
        entry = {n: measured.group(mask) for n, mask in masks.items() if mask.sum() >= MIN_GROUP}
        attributes[attribute] = entry
        for gap in _gaps(attribute, entry):
            if gap.measure not in gaps or gap.gap >= gaps[gap.measure].gap:
                gaps[gap.measure] = gap
    ordered = sorted(gaps.values(), key=lambda gap: -gap.gap)
    return Groups(faces=len(rows), attributes=attributes, largest_gaps=ordered)


def _measure(run: Run, x: Faces) -> _Measured:
    # the stand-in for a second photo, where identities are not known
    mirrored = np.ascontiguousarray(x[:, :, ::-1])
    who = [f"face {i}" for i in range(len(x))]
    world = run.release
    y = world.publish(x, run.stream("published: groups"), who)
    other = world.publish(mirrored, run.stream("published: groups, mirrored"), who)
    measured = _Measured({"disclosure": disclosures(x, y)})
    back = _held_back(run)
    if back is not None:
        floor = likeness(x, np.broadcast_to(run.mean_face, x.shape))["ssim"]
        measured.values.update(rec_ssim=back, rec_ssim_above_floor=back - floor)
    for name, threshold in run.thresholds.items():
        a, b, c = (run.embed(name, faces, "groups") for faces in (x, y, other))
        measured.matches[name] = pair_scores(a, b) >= threshold
        scores = b @ c.T
        cuts = np.quantile(np.diag(scores), np.linspace(0, 1, 201))
        measured.scores[name] = scores, max(cuts, key=lambda value: balanced(scores, value))
    return measured


def _held_back(run: Run) -> NDArray[np.float64] | None:
    """What the best attacker of the standard case got back of the held-back faces, if any ran."""
    ran = {n: run.kept.get(f"recovery_{n}") for n in run.settings.attacks}
    found = {n: entry for n, entry in ran.items() if entry is not None and entry.held_rec_ssim}
    return np.array(found[strongest(found)].held_rec_ssim) if found else None


def _gaps(attribute: str, groups: dict[str, Group]) -> list[Gap]:
    """The gap of every measure between the groups of one attribute."""
    if len(groups) < 2:
        return []
    by_measure: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for label, group in groups.items():
        figures = {
            **group.model_dump(include={"disclosure", "rec_ssim", "rec_ssim_above_floor"}),
            **{f"id_match_{name}": value for name, value in group.id_match.items()},
            **{f"accuracy_{name}": value for name, value in group.accuracy.items()},
        }
        for measure, value in figures.items():
            if value is not None:
                by_measure[measure].append((value, label))
    gaps = []
    for measure, ranked in by_measure.items():
        (low, lowest), *_, (high, highest) = sorted(ranked)
        gaps.append(
            Gap(
                measure=measure,
                attribute=attribute,
                lowest_group=lowest,
                lowest=low,
                highest_group=highest,
                highest=high,
                gap=high - low,
            )
        )
    return gaps


def balanced(scores: NDArray[np.float32], threshold: float) -> float:
    """Mean of genuine (the diagonal of ``N x N``) and impostor accuracy at a threshold."""
    passed = scores >= threshold
    genuine = np.diag(passed).mean()
    impostor = (passed.sum() - np.diag(passed).sum()) / (passed.size - len(passed))
    return float((genuine + 1 - impostor) / 2)
