"""People named by how the pictures of a release lie to each other.

No published picture is like its original. But where something of the photos is kept, pictures of a
person lie to each other as the photos do; and a kept column that is another for each photo (the
number of a frame, a time) says which is which. And where nothing says which records are one
person's, the pictures do: clusters of them take the place of pseudonyms.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ppfr_ops.lab.evaluate.attacks.structure import Claims, Ints, Seen, Source
from ppfr_ops.sanitize.grouping import group

Templates = NDArray[np.float32]

_SURE = (0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75)
"""Cosines from which two pictures may be of one person."""
_LARGEST = 30
"""Sizes of clusters that are counted."""
_LEAST = 4
"""Pictures of which cosines say anything."""


def clusters(published: Sequence[Templates], people: Ints) -> Ints:
    """Records of a release without pseudonyms by which pictures are alike: as alike as it takes for
    the clusters to be as large as the attacker knows that people's rows are.

    Args:
        published: templates of the pictures, one array an encoder.
        people: of the rows of the source.
    """
    wanted = np.bincount(np.bincount(people), minlength=_LARGEST)[:_LARGEST]

    def misfit(groups: Ints) -> int:
        found = np.bincount(np.bincount(groups), minlength=_LARGEST)[:_LARGEST]
        return int(np.abs(found - wanted).sum())

    return min((group(published, sure) for sure in _SURE), key=misfit)


def _members(groups: Ints) -> list[Ints]:
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.cumsum(np.bincount(groups))[:-1])


# -- cosines within groups ------------------------------------------------------------------


def by_cosines(source: Source, seen: Seen, originals: Templates, published: Templates) -> Claims:
    """People by the cosines among their pictures, where kept values (a number of the frame, a date)
    say which record of a person is which of their photos; everybody, the likeliest assignment.

    Args:
        originals, published: templates, unit length, a row each.
    """
    people, names = _members(source.people), _members(seen.pseudonyms)
    fits = np.full((len(names), len(people)), -1.0)
    for name, records in enumerate(names):
        for person, rows in enumerate(people):
            if min(len(records), len(rows)) >= _LEAST:
                pairs = _aligned(source, seen, rows, records)
                if len(pairs[0]) >= _LEAST:
                    fits[name, person] = _likeness(originals[pairs[0]], published[pairs[1]])
    if (fits == -1).all():
        return {}
    found, persons = linear_sum_assignment(fits, maximize=True)
    return {n: p for n, p in zip(found.tolist(), persons.tolist(), strict=True) if fits[n, p] > -1}


def _aligned(source: Source, seen: Seen, rows: Ints, records: Ints) -> tuple[Ints, Ints]:
    """Those rows and records whose kept values are the same and nobody else's in the group."""
    known = {source.kept[row]: row for row in rows.tolist()}
    shown = {seen.kept[record]: record for record in records.tolist()}
    if len(known) < len(rows) or len(shown) < len(records):
        return rows[:0], records[:0]
    both = [value for value in shown if value in known]
    return np.array([known[v] for v in both], int), np.array([shown[v] for v in both], int)


def _likeness(before: Templates, after: Templates) -> float:
    """Correlation of the cosines among photos with those among pictures."""
    upper = np.triu_indices(len(before), 1)
    ours, theirs = (np.asarray(part @ part.T, float)[upper] for part in (before, after))
    return float(np.nan_to_num(np.corrcoef(ours, theirs)[0, 1], nan=-1.0))
