"""How many pictures of each person a release holds, so that no number singles somebody out.

Who knows how many photos of everybody an input has finds a person by a number that nobody else
has. So each number that is published is shared by ``k`` people or more; where there are fewer than
``k`` people, by all of them. And since a release may grow, and its versions may be laid side by
side, that holds among people who were alike in all earlier versions.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Rounding = Literal["add", "split", "drop"]
"""How sizes are made alike: by drawing more pictures; by splitting what is larger than the ``k``
largest into several people first; or by leaving rows out."""

Sizes = NDArray[np.int64]


def rounded(sizes: Sizes, histories: Sizes, k: int, rounding: Rounding = "add") -> Sizes:
    """The sizes to publish.

    Args:
        sizes: of the groups, ``N``, 1 or more.
        histories: what earlier versions published of each, as a number that is the same for those
            that were alike in all of them, ``N``.
        k: groups that share a size, at least; 1: sizes are left as they are.
        rounding: ``drop`` makes sizes smaller, the others larger.

    Returns:
        ``N``. With ``drop`` none larger than it was, else none smaller; as few pictures more (or
        less) as can be.

    >>> rounded(np.array([9, 2, 2, 7]), np.zeros(4, int), 2).tolist()
    [9, 2, 2, 9]
    """
    found = sizes.copy()
    if k == 1:
        return found
    for alike in np.unique(histories):
        members = np.flatnonzero(histories == alike)
        own = sizes[members]
        found[members] = -_raised(-own, k) if rounding == "drop" else _raised(own, k)
    return found


def cap(sizes: Sizes, k: int) -> int:
    """The largest size that ``k`` groups have or exceed: what is larger is split into pieces of it.
    The largest of all where there are not so many."""
    if len(sizes) < k:
        return int(sizes.max(initial=0))
    return int(np.sort(sizes)[-k])


def _raised(sizes: Sizes, k: int) -> Sizes:
    """Sizes, none smaller than before, each shared by ``k`` or all, of the least sum.

    In their order, groups are cut into runs of ``k`` to ``2 k - 1``, and each run gets its largest
    size; dynamic programming over the cuts. Of many equal ones the middle is left out of it, for
    it stays as it is whatever happens at both ends.
    """
    order = np.argsort(sizes, kind="stable")
    values, counts = np.unique(sizes, return_counts=True)
    short = np.minimum(counts, 4 * k)
    raised = _cut(np.repeat(values, short).tolist(), k)
    # Per run of equal sizes: those that rise stand at its end.
    target = np.repeat(values, counts)
    ends, stops = np.cumsum(counts), np.cumsum(short)
    for end, stop, kept in zip(ends.tolist(), stops.tolist(), short.tolist(), strict=True):
        target[end - kept : end] = raised[stop - kept : stop]
    found = np.empty_like(sizes)
    found[order] = target
    return found


def _cut(ascending: list[int], k: int) -> list[int]:
    count = len(ascending)
    if count < 2 * k:
        return [ascending[-1]] * count
    sums = [0]
    for size in ascending:
        sums.append(sums[-1] + size)
    best, start = [0.0] + [np.inf] * count, [0] * (count + 1)
    for stop in range(k, count + 1):
        for first in range(max(0, stop - 2 * k + 1), stop - k + 1):
            cost = best[first] + ascending[stop - 1] * (stop - first) - (sums[stop] - sums[first])
            if cost < best[stop]:
                best[stop], start[stop] = cost, first
    raised = [0] * count
    stop = count
    while stop:
        first = start[stop]
        raised[first:stop] = [ascending[stop - 1]] * (stop - first)
        stop = first
    return raised
