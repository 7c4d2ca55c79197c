"""What does the set tell? People named from a release without looking at a picture.

The attacker knows which person stands in which row of the source, and the rows' kept columns, and
has the release as it is: shards, their order and sizes, the order in them, record ids, pseudonyms
and kept columns. Four ways:

- **sizes**: a person whose number of photos nobody else has is the pseudonym of that size; with
  kept columns, the size and all values of them together.
- **shards**: where shards are blocks of consecutive rows, how often a person occurs in each block
  is a fingerprint of the person, and so it is of the pseudonym, with the blocks in an unknown
  order. Colour refinement (Weisfeiler and Leman 1968) solves that where nothing was left out;
  matching the blocks by the people they share (FAQ, Vogelstein et al. 2015), where some was.
- **order**: the n-th record is the n-th row, for every order that a reader may see.
- **likelihood**: all counts together, soft, the best assignment of all (Hungarian method).

A pseudonym is named where one person fits it better than any other does.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment, quadratic_assignment
from scipy.spatial.distance import cdist

Ints = NDArray[np.int64]
Claims = dict[int, int]
"""Person by pseudonym."""

_RESTARTS = 24
_MOST_BLOCKS = 96
"""Shards that are matched with blocks by their Gram matrices."""
_TOGETHER = 0.2
"""Of pairs of a person's rows, the share in two blocks below which each stands in one."""
_LOST = 0.03
_SHUFFLES = 1000
_MOST_PEOPLE = 6000
"""That the Hungarian method is asked about."""


@dataclass(frozen=True)
class Source:
    """What the attacker knows, a row each: ``people`` and ``files`` as numbers from 0, and the kept
    columns' values."""

    people: Ints
    files: Ints
    kept: Sequence[Hashable]

    @property
    def count(self) -> int:
        return int(self.people.max()) + 1


@dataclass(frozen=True)
class Seen:
    """What the release shows, a record each, in the order of the listing: ``shards`` and
    ``pseudonyms`` as numbers from 0, kept columns' values, record ids."""

    shards: Ints
    pseudonyms: Ints
    kept: Sequence[Hashable]
    ids: Sequence[str]

    @property
    def count(self) -> int:
        return int(self.pseudonyms.max()) + 1


def by_size(source: Source, seen: Seen) -> Claims:
    """People whose number of photos nobody else has."""
    return _unique(np.bincount(source.people).tolist(), np.bincount(seen.pseudonyms).tolist())


def by_size_and_kept(source: Source, seen: Seen) -> Claims:
    """People whose number of photos and kept values nobody else has."""
    return _unique(_signs(source.people, source.kept), _signs(seen.pseudonyms, seen.kept))


def _signs(groups: Ints, kept: Sequence[Hashable]) -> list[Hashable]:
    """Of every group how many rows it has, and which kept values how often."""
    found: list[Counter[Hashable]] = [Counter() for _ in range(int(groups.max()) + 1)]
    for group, value in zip(groups.tolist(), kept, strict=True):
        found[group][value] += 1
    return [tuple(sorted(values.items(), key=repr)) for values in found]


def _unique(known: Sequence[Hashable], shown: Sequence[Hashable]) -> Claims:
    """Where one person and one pseudonym have the same sign, and nobody else."""
    people, names = Counter(known), Counter(shown)
    who = {sign: person for person, sign in enumerate(known) if people[sign] == 1}
    return {name: who[sign] for name, sign in enumerate(shown) if names[sign] == 1 and sign in who}


# -- shards ---------------------------------------------------------------------------------


def cuts(source: Source, seen: Seen) -> list[Ints]:
    """Blocks of consecutive rows that the shards may be: the block of every row, likeliest first.

    Every file, or all rows as one, cut evenly into as many blocks as there are shards; or into
    blocks of as many rows as the largest shard has.
    """
    shards, rows = np.bincount(seen.shards), len(source.people)
    files = np.bincount(source.files)
    found: list[list[int]] = []
    for lengths in ([rows], files.tolist()):
        share = max(1, round(len(shards) / len(lengths)))
        found.append([n for length in lengths for n in _even(length, share)])
        most = int(shards.max())
        found.append([min(most, n - start) for n in lengths for start in range(0, n, most)])
    target = np.sort(shards)[::-1]

    def misfit(sizes: list[int]) -> float:
        mine = np.sort(sizes)[::-1]
        width = max(len(mine), len(target))
        pad = [np.pad(part, (0, width - len(part))) for part in (mine, target)]
        return float(np.abs(pad[0] - pad[1]).sum())

    order = sorted(range(len(found)), key=lambda n: misfit(found[n]))
    return [np.repeat(np.arange(len(found[n])), found[n]) for n in order]


def _even(length: int, parts: int) -> list[int]:
    ends = [length * n // parts for n in range(parts + 1)]
    return [b - a for a, b in pairwise(ends) if b > a]


def table(groups: Ints, blocks: Ints, width: int = 0) -> Ints:
    """How often each group occurs in each block, ``groups x blocks``; of these ``width`` at
    least."""
    shape = int(groups.max()) + 1, max(width, int(blocks.max()) + 1)
    return np.bincount(groups * shape[1] + blocks, minlength=shape[0] * shape[1]).reshape(shape)


def by_shards(source: Source, seen: Seen) -> Claims:
    """People by how they are spread over the shards."""
    shown = table(seen.pseudonyms, seen.shards)
    best: Claims = {}
    for blocks in cuts(source, seen)[:2]:
        known = table(source.people, blocks)
        if known.shape[1] != shown.shape[1]:
            continue
        claims = refined(known, shown)
        if len(claims) < 0.5 * seen.count:
            claims = max(claims, by_counts(known, shown), key=len)
        best = max(best, claims, key=len)
    return best


def refined(known: Ints, shown: Ints) -> Claims:
    """Colour refinement of people and blocks, pseudonyms and shards, all at once: who ends up with
    a colour of their own is named."""
    rows = [part.sum(1) for part in (known, shown)]
    columns = [part.sum(0) for part in (known, shown)]
    count = 0
    while True:
        palette: dict[Hashable, int] = {}
        rows = [
            _finer(r, c, part, palette)
            for r, c, part in zip(rows, columns, (known, shown), strict=True)
        ]
        other: dict[Hashable, int] = {}
        columns = [
            _finer(c, r, part.T, other)
            for r, c, part in zip(rows, columns, (known, shown), strict=True)
        ]
        if len(palette) + len(other) == count:
            break
        count = len(palette) + len(other)
    return _unique(rows[0].tolist(), rows[1].tolist())


def _finer(mine: Ints, theirs: Ints, counts: Ints, palette: dict[Hashable, int]) -> Ints:
    """A colour for each row: its own, and those of what it touches, with how often."""
    found = np.empty(len(mine), np.int64)
    for number, row in enumerate(counts):
        touched = np.flatnonzero(row)
        around = sorted(zip(theirs[touched].tolist(), row[touched].tolist(), strict=True))
        sign = (int(mine[number]), tuple(around))
        found[number] = palette.setdefault(sign, len(palette))
    return found


def by_counts(known: Ints, shown: Ints) -> Claims:
    """Blocks matched with shards by the people that they share, then people by their counts; and
    again, until nothing changes. It takes rows that were left out."""
    order = matched_blocks(known, shown)
    claims: Claims = {}
    for _ in range(10):
        fits = likelihood(known[:, order], shown)
        again = named(fits)
        if again == claims or len(known) > _MOST_PEOPLE:
            return again
        claims = again
        names, people = np.array(list(claims), int), np.array(list(claims.values()), int)
        if not len(names):
            return claims
        agree = np.minimum(known[people][:, :, None], shown[names][:, None, :]).sum(0)
        order = np.empty(known.shape[1], np.int64)
        block, shard = linear_sum_assignment(agree, maximize=True)
        order[shard] = block
    return claims


def matched_blocks(known: Ints, shown: Ints) -> Ints:
    """For every shard the block that it most likely is: by the people that two have in common, or,
    where people stand in one block each, by how many people of each number of rows a block has."""
    both = shown, known
    if all((part**2).sum() > (1 - _TOGETHER) * (part.sum(1) ** 2).sum() for part in both):
        most = int(max(shown.max(), known.max()))
        unlike = cdist(_census(shown, most), _census(known, most), "sqeuclidean")
        return linear_sum_assignment(unlike)[1]
    if known.shape[1] > _MOST_BLOCKS:
        return np.argsort(np.argsort(shown.sum(0)))
    grams = [(part.T @ part).astype(float) for part in both]
    for gram in grams:
        np.fill_diagonal(gram, (gram.sum() - np.trace(gram)) / max(gram.size - len(gram), 1))
        gram -= gram.mean()
    best, order = -np.inf, np.arange(known.shape[1])
    rng = np.random.default_rng(0)
    for number in range(_RESTARTS):
        start = "barycenter" if not number else "randomized"
        found = quadratic_assignment(
            *grams, method="faq", options={"maximize": True, "P0": start, "rng": rng}
        )
        if found.fun > best:
            best, order = found.fun, found.col_ind
    return np.asarray(order, np.int64)


def _census(counts: Ints, most: int) -> NDArray[np.float64]:
    """Of every block, how many groups have 1, 2, … ``most`` rows in it, square roots of."""
    rows = [np.bincount(column[column > 0], minlength=most + 1) for column in counts.T]
    return np.asarray(np.sqrt(rows))


def likelihood(known: Ints, shown: Ints) -> NDArray[np.float64]:
    """Log-likelihood of every pseudonym's counts if it is a person's, ``pseudonyms x people``:
    Poisson around what the person has, of which a little may be lost or added."""
    rate = known * (1 - _LOST) + _LOST / known.shape[1]
    return shown @ np.log(rate).T - rate.sum(1)


def named(fits: NDArray[np.float64], margin: float = 0.5) -> Claims:
    """The best assignment of all, as far as each is better than the next person by a margin."""
    if max(fits.shape) > _MOST_PEOPLE:
        names, people = np.arange(len(fits)), fits.argmax(1)
    else:
        names, people = linear_sum_assignment(fits, maximize=True)
    best = fits[names, people]
    rest = fits[names].copy()
    rest[np.arange(len(names)), people] = -np.inf
    sure = best - rest.max(1) > margin if fits.shape[1] > 1 else np.ones(len(names), bool)
    return dict(zip(names[sure].tolist(), people[sure].tolist(), strict=True))


# -- order ----------------------------------------------------------------------------------


def by_order(source: Source, seen: Seen) -> Claims:
    """The n-th record is the n-th row: by the listing, by record id, by the shards' sizes; the
    order under which the records of a pseudonym agree most, and those pseudonyms that agree."""
    count = len(seen.ids)
    size = np.bincount(seen.shards)[seen.shards]
    orders = (
        np.arange(count),
        np.argsort(np.array(seen.ids), kind="stable"),
        np.lexsort((np.arange(count), seen.shards, size)),
    )
    best: Claims = {}
    for order in orders:
        votes: dict[int, Counter[int]] = defaultdict(Counter)
        rows = np.arange(count) * len(source.people) // count
        for record, row in zip(order.tolist(), rows.tolist(), strict=True):
            votes[int(seen.pseudonyms[record])][int(source.people[row])] += 1
        claims = {}
        for name, counts in votes.items():
            ((person, most),) = counts.most_common(1)
            if most > 1 and 2 * most > counts.total():
                claims[name] = person
        best = max(best, claims, key=len)
    return best


# -- all of it ------------------------------------------------------------------------------

ATTACKS: dict[str, Callable[[Source, Seen], Claims]] = {
    "sizes": by_size,
    "sizes and kept columns": by_size_and_kept,
    "shards": by_shards,
    "order": by_order,
}
"""Those that look at no picture."""


def dealt(seen: Seen) -> Seen:
    """The control: people get each other's pseudonyms, and those lie anywhere in the release."""
    rng = np.random.default_rng(0)
    others = rng.permutation(seen.count)[seen.pseudonyms]
    return Seen(seen.shards, rng.permutation(others), seen.kept, seen.ids)


def within_sizes(seen: Seen, truth: Claims, claims: Claims) -> Ints:
    """How many of the claims are right by the luck that shared sizes leave: the truth is shuffled
    among pseudonyms whose number of records and kept values are the same, again and again.

    Args:
        truth: person by pseudonym, of those that the attacker does not know.

    Returns:
        int64, a shuffle each.
    """
    rng = np.random.default_rng(0)
    names, people = (np.array(part, np.int64) for part in (list(truth), list(truth.values())))
    signs = _signs(seen.pseudonyms, seen.kept)
    numbers: dict[Hashable, int] = {}
    classes = np.array([numbers.setdefault(signs[name], len(numbers)) for name in names], np.int64)
    claimed = np.array([claims.get(name, -1) for name in names.tolist()], np.int64)
    place = np.argsort(classes, kind="stable")
    right = np.zeros(_SHUFFLES, np.int64)
    for number in range(_SHUFFLES):
        order = np.lexsort((rng.random(len(names)), classes))
        right[number] = (people[order] == claimed[place]).sum()
    return right
