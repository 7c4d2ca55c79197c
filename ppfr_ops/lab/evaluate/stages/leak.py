"""Are the people who are published anybody? Pictures of them, one each, against photos of everybody
else at hand: at a threshold by which one pair of strangers in ten thousand is taken for one person,
no more of these may be.

Whether a person's picture is near the person's own photos is for the stages ``utility`` and
``linkage``; here it is whether a generator gives away those whom it has seen.
"""

import numpy as np
from numpy.typing import NDArray

from ppfr_ops.contracts.worth import Leak, Near
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.lab.evaluate.data import evenly
from ppfr_ops.lab.evaluate.run import Run
from ppfr_ops.lab.evaluate.stages.base import Skip, stage

FAR, _PAIRS = 1e-4, 10
"""Of how many pairs of strangers above it a threshold takes at least."""
_LEAST = 20


@stage("whether published people are anybody of the sets at hand, other than by chance")
def leak(run: Run) -> Leak:
    who = run.gallery.identities
    first = np.arange(len(run.gallery)) if who is None else np.unique(who, return_index=True)[1]
    index = np.sort(first)[evenly(len(first), run.settings.leak_faces)]
    if len(index) < _LEAST:
        raise Skip(f"needs photos of {_LEAST} people")
    far = max(FAR, _PAIRS / (len(index) * (len(index) - 1) / 2))
    sets: dict[str, Faces] = {}
    for name, given in (("attack faces", run.attack_faces), ("identities", run.identities)):
        if given is not None:
            sets[name] = given.images[evenly(len(given), run.settings.leak_faces)]
    found: dict[str, dict[str, Near]] = {name: {} for name in ("originals", *sets)}
    for model in run.names:
        before, after = run.embeddings(model, index)
        among = (before @ before.T)[np.triu_indices(len(index), 1)]
        limit = float(np.quantile(among, 1 - far))
        others = ~np.eye(len(index), dtype=bool)
        found["originals"][model] = _near(before @ after.T >= limit, among >= limit, others)
        for name, faces in sets.items():
            theirs = run.embed(model, faces, name)
            found[name][model] = _near(theirs @ after.T >= limit, theirs @ before.T >= limit)
    return Leak(people=len(index), far=far, sets=found)


def _near(
    published: NDArray[np.bool_],
    strangers: NDArray[np.bool_],
    counts: NDArray[np.bool_] | None = None,
) -> Near:
    """Shares of pairs, photos by people, that are taken for one person; ``counts`` are the
    pairs with published pictures that count, None: all."""
    each = published.mean(0) if counts is None else (published & counts).sum(0) / counts.sum(0)
    return Near(
        published=float(each.mean()),
        two_standard_errors=float(2 * each.std(ddof=1) / len(each) ** 0.5),
        strangers=float(strangers.mean()),
    )
