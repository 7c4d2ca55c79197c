"""Who seems to be the same person: photos without labels, put into groups.

Every photo has a unit vector by each encoder that we may ship; set side by side (``fused``) their
dot product is the weighted mean of the encoders' cosines. Groups grow from the closest pairs: in
every round each group is merged with its nearest one, if each is the nearest of the other
(reciprocal agglomeration, Benzecri 1982; Murtagh 1983) and they are near enough; others to which
a large group is the nearest join it at once, as long as it no more than doubles by it. How near two
groups are is the cosine of their means, less what the mean of few photos adds by its noise. What is
near enough depends on the crowd: strangers who look alike are as many more as there are photos. And
it depends on the photo: small children, to these encoders, are near to each other. So each photo is
held against a sample of strangers, and what it has more in common with the nearest of them than
most photos have is taken off (as scores are normalised by a cohort: Matejka et al. 2017).

Only pairs among each photo's nearest neighbours are looked at (faiss, Johnson et al. 2017; exact up
to ``EXACT`` photos, then inverted lists of compressed vectors, scored anew exactly), so time grows
a little faster than the number of photos and memory with it.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.methods.registry import create

Vectors = NDArray[np.float32]
"""float32 ``N x D``."""

Groups = NDArray[np.int64]
"""int64 ``N``: numbers from 0, by each group's first photo."""

EXACT = 20_000
"""Photos of which all pairs are compared."""

WEIGHTS = (0.85, 0.15)
"""Of SFace's cosine and dlib's, which tells people apart less well: its errors are others."""

SURE, SURE_AT, SURE_STEP = 0.50, 1e4, 0.05
"""Among ``SURE_AT`` photos, two of this cosine are one person's; among ten times as many it takes
``SURE_STEP`` more, for a photo meets ten times as many strangers. Measured on half of the people of
ids_aligned and on cfp_aligned: of pairs of strangers one in 1e4 lies above 0.415, one in 1e5 above
0.467, one in 1e6 above 0.511; ``SURE`` is two in 1e6, a wrong pair for a hundred photos."""

SPREAD, MIDDLE = 0.115, 0.06
"""Of the cosines of all, at most, where those hold."""
_MOST = 0.9
"""A picture and its copy are one person's in any crowd."""

_SAMPLE = 512
_QUARTILES = 1.349
_LOOSE = 0.75
"""Of ``sure``: the least mean cosine of two groups' photos, so that a mean of many that are alike
in something else (small children, to these encoders) does not draw in strangers."""
_SAMPLED, _STRANGERS, _LEAST = 4096, 1024, 60
"""Photos among which strangers are looked for; strangers that every photo is held against; fewer
than the least say nothing."""
_STRICT = 0.2
"""More than ``sure``: two photos of this cosine are one person's even among small children."""
_NEAREST, _OWN = 12, 2
"""One in so many strangers is near to a photo; so many may be the person's own, and are passed."""
_LONELY, _CROWDED = 0.05, 0.2
"""What is added, at most, where a photo is near to nobody; what is taken off, at most: photos of a
person who has very many look like a crowd, too."""
_HOPEFUL = 0.6
"""Of what is needed: pairs below it are not looked at again when their groups grow."""
_STEADY = 8
"""Photos whose mean hardly moves by one more."""
_NEIGHBOURS = 64
_PROBES = 64
"""Lists of the index that a photo's neighbours are looked for in."""
_AT_ONCE = 16_384
"""Pairs that are scored at a time, and photos whose neighbours are looked for."""


def features_of(faces: Faces) -> list[Vectors]:
    """What the encoders that may be shipped see in faces and their mirror images: SFace's features
    and dlib's.

    Args:
        faces: uint8 ``N x 112 x 112 x 3``, aligned.

    Returns:
        One array an encoder, unit length, ``N x 128``; biometric templates of originals.
    """
    parts: list[Vectors] = []
    for method in _encoders():
        model = method.model()
        # dlib's looks at mirror images by itself
        looks = (faces, faces[:, :, ::-1]) if model.version == 2 else (faces,)
        found = np.zeros((len(faces), 128), np.float32)
        for start in range(0, len(faces), method.batch):
            part = slice(start, start + method.batch)
            for look in looks:
                codes = model.encode(np.ascontiguousarray(look[part]))
                found[part] += codes.float().cpu().numpy()
        method.forget()
        parts.append(_unit(found))
    return parts


@lru_cache(maxsize=1)
def _encoders() -> tuple[Any, ...]:
    return tuple(create("stochastic-local", {"identity": who}) for who in ("virtual", "original"))


def fused(features: Sequence[Vectors]) -> Vectors:
    """The encoders' vectors side by side, ``N x (D1 + D2 + …)``, unit length: a dot product of two
    rows is the mean of the encoders' cosines, each centred on its own crowd.

    Raises:
        ValueError: none, or of different lengths.
    """
    if not features or len({len(part) for part in features}) != 1:
        raise ValueError("features: one array an encoder, all of the same photos")
    weights = WEIGHTS[: len(features)] if len(features) <= len(WEIGHTS) else (1.0,) * len(features)
    parts = [
        _unit(np.asarray(part, np.float32)) * np.float32((weight / sum(weights)) ** 0.5)
        for part, weight in zip(features, weights, strict=True)
    ]
    return np.concatenate(parts, 1)


def group(features: Sequence[Vectors], sure: float | None = None) -> Groups:
    """Group photos by who seems to be in them.

    Args:
        features: as ``features_of`` gives them, one array an encoder, ``N x D``.
        sure: the cosine from which two photos are one person's; None: ``sure_of`` them.

    Returns:
        int64 ``N``: the group of every photo, numbered by each group's first photo.

    >>> one, other = np.eye(2, 128, dtype=np.float32)
    >>> group([np.stack([one, other, one])]).tolist()
    [0, 1, 0]
    """
    vectors = fused(features)
    count = len(vectors)
    sure = sure_of(vectors) if sure is None else sure
    pairs = _neighbours(vectors)
    crowded = _crowded(vectors, sure)
    return _numbered(_merged(vectors.copy(), np.ones(count, np.int64), crowded, pairs, sure))


def assign(
    new: Sequence[Vectors], old: Sequence[Vectors], old_groups: NDArray[np.integer]
) -> Groups:
    """Groups of photos that are added to a dataset; those of the old photos stay as they are.

    A new photo joins the group that it is nearest to, if it is near enough; the others are grouped
    among themselves, and open groups.

    Args:
        new: of ``M`` photos, one array an encoder.
        old: of ``N`` photos, likewise.
        old_groups: ``N``, whole numbers.

    Returns:
        int64 ``M``: groups of ``old_groups``, and new ones, numbered from the highest of those + 1.
    """
    added, known = fused(new), fused(old)
    names, places = np.unique(np.asarray(old_groups, np.int64), return_inverse=True)
    sums = np.zeros((len(names), known.shape[1]), np.float32)
    np.add.at(sums, places, known)
    together = np.concatenate([_unit(sums), added])
    pairs = _neighbours(together)
    frozen = np.arange(len(together)) < len(names)
    pairs = pairs[~frozen[pairs].all(1)]
    counts = np.concatenate([np.bincount(places, minlength=len(names)), np.ones(len(added), int)])
    photos = np.concatenate([known, added])
    sure = sure_of(photos)
    near = _crowded(photos, sure)
    crowded = np.concatenate([np.bincount(places, near[: len(known)]), near[len(known) :]])
    sums = np.concatenate([sums, added])
    roots = _merged(sums, counts, crowded.astype(np.float32), pairs, sure, frozen)[len(names) :]
    first = int(names[-1]) + 1 if len(names) else 0
    joined = roots < len(names)
    found = np.empty(len(added), np.int64)
    found[joined] = names[roots[joined]]
    found[~joined] = first + _numbered(roots[~joined])
    return found


def sure_of(vectors: Vectors) -> float:
    """The cosine at which two photos of a crowd are as likely as not one person's: it takes more
    among more photos, and where the crowd's cosines are higher or wider spread than those of the
    photographs that this was fitted on (drawn faces; half of the photos are one person's)."""
    sure = SURE + SURE_STEP * np.log10(max(len(vectors), 10) / SURE_AT)
    if len(vectors) < 2:
        return float(sure)
    some = _spread(vectors, _SAMPLE)
    low, middle, high = np.percentile((some @ some.T)[np.triu_indices(len(some), 1)], (25, 50, 75))
    wide = (high - low) / (_QUARTILES * SPREAD)
    return float(min(_MOST, sure * max(1.0, wide) + max(0.0, middle - MIDDLE)))


def _crowded(vectors: Vectors, sure: float) -> Vectors:
    """How much nearer each photo is to those strangers that are near to it than the photo in the
    middle is. Strangers are a photo of each group of a sample, which is grouped several times with
    what is known by then: so that many photos of a person are not taken for strangers, nor many
    children for one person."""
    some = _spread(vectors, _SAMPLED)
    pairs, crowded = _neighbours(some), np.zeros(len(some), np.float32)
    for needed, most in ((sure + _STRICT, 0.0), (sure, _CROWDED / 2), (sure, _CROWDED)):
        ones, less = np.ones(len(some), np.int64), np.minimum(crowded, np.float32(most))
        roots = _merged(some.copy(), ones, less, pairs, needed)
        strangers = _spread(some[np.unique(roots)], _STRANGERS)
        crowded = _held_against(strangers, some)
    return _held_against(strangers, vectors)


def _held_against(strangers: Vectors, vectors: Vectors) -> Vectors:
    """The same, of given strangers; 0 where there are too few of them."""
    count, found = len(strangers), np.zeros(len(vectors), np.float32)
    if count < _LEAST:
        return found
    last = count - _OWN
    for start in range(0, len(vectors), _AT_ONCE):
        cosines = vectors[start : start + _AT_ONCE] @ strangers.T
        cosines.partition((last - count // _NEAREST, last), axis=1)
        found[start : start + _AT_ONCE] = cosines[:, last - count // _NEAREST : last].mean(1)
    return np.clip(found - np.median(found), -_LONELY, _CROWDED)


def _spread(vectors: Vectors, most: int) -> Vectors:
    """So many rows at most, evenly spread."""
    if len(vectors) <= most:
        return vectors
    return vectors[np.linspace(0, len(vectors) - 1, most).astype(int)]


def _merged(
    sums: Vectors,
    counts: NDArray[np.int64],
    crowded: Vectors,
    pairs: NDArray[np.int64],
    sure: float,
    frozen: NDArray[np.bool_] | None = None,
) -> Groups:
    """For every row the row that its group is known by.

    Args:
        sums: of each row's photos' vectors, ``N x D``; changed in place, as are the next two.
        counts: of each row's photos.
        crowded: sums of what they are crowded by.
        pairs: of rows that may be one person's, ``P x 2``.
        sure: the cosine of means from which two rows are merged.
        frozen: rows that are never merged with one another; None: there are none.
    """
    frozen = np.zeros(len(sums), bool) if frozen is None else frozen
    roots = np.arange(len(sums))
    pairs, scores = _scored(sums, counts, crowded, pairs, sure)
    while len(pairs):
        near = scores >= sure
        into, gone = _joining(pairs[near], scores[near], counts, frozen)
        if not len(gone):
            break
        np.add.at(sums, into, sums[gone])
        np.add.at(counts, into, counts[gone])
        np.add.at(crowded, into, crowded[gone])
        roots[gone] = into
        touched = np.zeros(len(sums), bool)
        touched[into] = touched[gone] = True
        stale = touched[pairs].any(1)
        moved = np.sort(roots[pairs[stale]], 1)
        moved = moved[(moved[:, 0] != moved[:, 1]) & ~frozen[moved].all(1)]
        moved, again = _scored(sums, counts, crowded, _each_once(moved, len(sums)), sure)
        pairs = np.concatenate([pairs[~stale], moved])
        scores = np.concatenate([scores[~stale], again])
    while (roots != roots[roots]).any():
        roots = roots[roots]
    return roots


def _joining(
    pairs: NDArray[np.int64], scores: Vectors, counts: NDArray[np.int64], frozen: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows that are merged in a round, and which each goes into.

    Where two rows are the best of each other they are merged; and, once the two have ``_STEADY``
    photos, with them rows to which one of the two is the best, the nearest first, as long as these
    bring no more photos than the two have: so that a person of a thousand photos takes some twenty
    rounds, and not a thousand.
    """
    count = len(counts)
    best, first = np.full(count, -np.inf, np.float32), np.full(count, len(pairs))
    for side in pairs.T:
        np.maximum.at(best, side, scores)
    for side in pairs.T:
        own = np.flatnonzero(best[side] == scores)
        np.minimum.at(first, side[own], own)  # of equally good pairs the first
    own = np.flatnonzero((first[pairs] == np.arange(len(pairs))[:, None]).all(1))
    into, gone = pairs[own].T.copy()
    turned = frozen[gone]
    into[turned], gone[turned] = gone[turned], into[turned]
    hub = np.full(count, -1)
    hub[into] = hub[gone] = into
    rows = np.flatnonzero((first < len(pairs)) & (hub < 0) & ~frozen)
    wanted = hub[pairs[first[rows]].sum(1) - rows]
    rows, wanted = rows[wanted >= 0], wanted[wanted >= 0]
    order = np.lexsort((-best[rows], wanted))
    rows, wanted = rows[order], wanted[order]
    room = np.zeros(count, np.int64)
    both = counts[into] + counts[gone]
    room[into] = np.where(both < _STEADY, 0, both)
    brought = np.cumsum(counts[rows])
    starts = np.flatnonzero(np.diff(wanted, prepend=-1))
    before = np.concatenate([[0], brought])[starts]
    brought -= np.repeat(before, np.diff(starts, append=len(rows)))
    fits = brought <= room[wanted]
    return np.concatenate([into, wanted[fits]]), np.concatenate([gone, rows[fits]])


def _each_once(pairs: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Pairs of rows below ``count``, sorted."""
    keys = np.sort(pairs[:, 0] * count + pairs[:, 1])  # np.unique hashes, which is slower here
    return np.stack(np.divmod(keys[np.diff(keys, prepend=-1) > 0], count), 1)


def _scored(
    sums: Vectors,
    counts: NDArray[np.int64],
    crowded: Vectors,
    pairs: NDArray[np.int64],
    sure: float,
) -> tuple[NDArray[np.int64], Vectors]:
    """How near pairs of rows are, and the pairs, of those that may still be merged: the cosine of
    their means, or less where the mean cosine of their photos falls short of what it takes."""
    lengths = np.zeros(len(sums), np.float32)
    there = np.zeros(len(sums), bool)
    there[pairs] = True
    rows = np.flatnonzero(there)
    for start in range(0, len(rows), _AT_ONCE):
        some = rows[start : start + _AT_ONCE]
        lengths[some] = np.linalg.norm(sums[some], axis=1)
    kept, scores = [pairs[:0]], [np.zeros(0, np.float32)]
    for start in range(0, len(pairs), _AT_ONCE):
        part = pairs[start : start + _AT_ONCE]
        dots = np.einsum("nd,nd->n", sums[part[:, 0]], sums[part[:, 1]])
        cosines = dots / np.maximum(lengths[part].prod(1), 1e-12)
        means = dots / counts[part].prod(1)
        cosines -= (crowded[part] / np.maximum(lengths[part], 1e-12)).mean(1)
        means -= (crowded[part] / counts[part]).mean(1)
        cosines = np.minimum(cosines, means + (sure - _LOOSE * sure))
        some = cosines >= _HOPEFUL * sure
        kept.append(part[some])
        scores.append(cosines[some].astype(np.float32))
    return np.concatenate(kept), np.concatenate(scores)


def _neighbours(vectors: Vectors) -> NDArray[np.int64]:
    """Pairs of rows, one among the nearest of the other, each once, ``P x 2``."""
    import faiss

    count, size = vectors.shape
    if count <= EXACT:
        index: faiss.Index = faiss.IndexFlatIP(size)
    else:
        lists = int(2 * count**0.5)
        index = faiss.index_factory(
            size, f"IVF{lists},PQ{size // 4}x4fs", faiss.METRIC_INNER_PRODUCT
        )
        inverted = faiss.extract_index_ivf(index)
        inverted.nprobe, inverted.cp.niter = _PROBES, 8
        index.train(vectors[np.linspace(0, count - 1, min(count, 64 * lists)).astype(np.int64)])
    index.add(vectors)
    found = [np.zeros((0, 2), np.int64)]
    for start in range(0, count, _AT_ONCE):
        near = index.search(vectors[start : start + _AT_ONCE], min(_NEIGHBOURS + 1, count))[1]
        rows = np.broadcast_to(np.arange(start, start + len(near))[:, None], near.shape)
        some = (near >= 0) & (near != rows)
        found.append(np.sort(np.stack([rows[some], near[some]], 1), 1))
    return _each_once(np.concatenate(found), count)


def _numbered(roots: NDArray[np.int64]) -> Groups:
    """Any names of groups as numbers from 0, by each group's first photo."""
    _, firsts, places = np.unique(roots, return_index=True, return_inverse=True)
    order = np.empty(len(firsts), np.int64)
    order[np.argsort(firsts)] = np.arange(len(firsts))
    return order[places]


def _unit(vectors: Vectors) -> Vectors:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
