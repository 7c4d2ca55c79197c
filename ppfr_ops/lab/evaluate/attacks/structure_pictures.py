"""People named by looking at the pictures of a release, beside what the set tells.

No published picture is like its original. But where something of the photos is kept, pictures of a
person lie to each other as the photos do; and a kept column that is another for each photo (the
number of a frame, a time) says which is which. And where nothing says which records are one
person's, the pictures do: clusters of them take the place of pseudonyms.

Where a picture depends on the face by a secret map, the map can be learned, and nobody has to be
known for it. What sizes, kept columns and shards say is a first guess at who is whom; a regression
of the published templates on the original ones (a Gaussian process; linear, and of products, as the
maps that were broken in this way) gives what everybody's picture should look like; held against the
pictures, that gives a better guess; and so on (expectation-maximisation, cooled slowly). Each
person's picture is foretold from the others alone (leaving one out has a closed form), so that a
guess does not confirm itself. Pairs that the attacker knows stay as they are.

A second first guess needs no hint at all: a map that keeps cosines, as a secret rotation does,
keeps how a person's cosines to everybody else are spread (Artetxe et al. 2018). Of all starts that
one counts whose map foretells the pictures best, which the attacker sees without the truth.

The same attack with the code that the public generator drew a picture from, in place of the
picture's template: the attacker draws pictures of codes of their own, learns to read them, and
reads those of the release (``reader``).
"""

import secrets
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ppfr_ops.imaging.arrays import FACE_SIZE, Faces, unit
from ppfr_ops.lab.evaluate.attacks.structure import (
    Claims,
    Ints,
    Seen,
    Source,
    cuts,
    likelihood,
    matched_blocks,
    table,
)
from ppfr_ops.methods.base import Context
from ppfr_ops.sanitize.grouping import group

Floats = NDArray[np.float64]

_COOLING = (8.0, 4.0, 3.0, *(2.5,) * 11, *(2.0,) * 6, *(1.7,) * 4)
"""By what evidence from pictures is divided, round by round."""
_DOUBT, _BALANCING = 0.02, 15
"""Of the pictures' variance, what is left to doubt in any case; rounds of Sinkhorn's."""
_PROFILE = 48

Templates = NDArray[np.float32]

_SURE = (0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75)
"""Cosines from which two pictures may be of one person."""
_LARGEST = 30
"""Sizes of clusters that are counted."""
_LEAST = 4
"""Pictures of which cosines say anything."""


# -- cosines --------------------------------------------------------------------------------


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


# -- maps -----------------------------------------------------------------------------------


def hints(source: Source, seen: Seen) -> Floats:
    """What sizes, kept columns and shards say together: log-likelihood of each pseudonym being each
    person's, ``pseudonyms x people``."""
    values: dict[object, int] = {}
    known_kept = np.array([values.setdefault(value, len(values)) for value in source.kept])
    shown_kept = np.array([values.setdefault(value, len(values)) for value in seen.kept])
    known = table(source.people, known_kept, len(values))
    shown = table(seen.pseudonyms, shown_kept, len(values))
    found = likelihood(known, shown)
    spread = table(seen.pseudonyms, seen.shards)
    for blocks in cuts(source, seen)[:1]:
        rows = table(source.people, blocks)
        if rows.shape[1] == spread.shape[1] > 1:
            fits = likelihood(rows[:, matched_blocks(rows, spread)], spread)
            # how often, given how many: sizes have been counted
            totals = rows.sum(1, keepdims=True), spread.sum(1, keepdims=True)
            found += fits - likelihood(*totals)
    return found


def by_hints(source: Source, seen: Seen) -> Claims:
    """Everybody, the likeliest assignment by sizes, kept columns and shards together."""
    return _assigned(hints(source, seen), {})


def by_map(
    source: Source,
    seen: Seen,
    originals: NDArray[np.float32],
    published: NDArray[np.float32],
    known: Claims,
) -> Claims:
    """Everybody but those who are known, by the map that is learned.

    Args:
        originals: templates of the source's rows.
        published: templates of the records, or what codes were read in them.
        known: people of some pseudonyms.
    """
    faces = means(originals, source.people)
    linear, products = _kernels(faces)
    target, noise = _centred(published, seen.pseudonyms)
    prior = hints(source, seen)
    prior -= prior.max()
    alike = _profiles(target) @ _profiles(faces).T * _PROFILE
    fits = [
        _learned(start, prior, kernel, target, noise, known)
        for kernel, start in ((linear, prior), (linear, prior + alike), (products, prior))
    ]
    return _assigned(max(fits, key=lambda fit: fit[1])[0], known)


def _learned(
    start: Floats, prior: Floats, kernel: Floats, target: Floats, noise: Floats, known: Claims
) -> tuple[Floats, float]:
    """Expectation-maximisation from one start, slowly cooled: a guess that is too sure too early
    confirms itself.

    Returns:
        Log-likelihoods, ``pseudonyms x people``; and how much of the pictures the map foretells of
        people it has not seen.
    """
    scores, explained, size = start, 0.0, target.shape[1]
    squares = (target**2).sum(1)
    scale = max(float((squares - noise).mean()), 0.1 * float(squares.mean()))
    for heat in _COOLING:
        whose = _balanced(scores, known)
        shares = whose / np.maximum(whose.sum(0), 1e-9)
        wanted = shares.T @ target
        # uncertain targets are means of many
        doubt = shares.T @ (squares + noise) - (wanted**2).sum(1)
        foretold, left = _foretold(scale * kernel, wanted, np.maximum(doubt, 0) + _DOUBT * scale)
        left = np.clip(left + _DOUBT * scale, _DOUBT * scale, scale)
        away = squares[:, None] + (foretold**2).sum(1) - 2 * target @ foretold.T
        spread = (left + noise[:, None]) / size
        scores = prior - (away / spread + size * np.log(spread)) / (2 * heat)
        explained = 1 - float((whose * away).sum() / (whose.sum(1) @ squares))
    return scores, explained


def _foretold(kernel: Floats, wanted: Floats, doubt: Floats) -> tuple[Floats, Floats]:
    """What every person's picture should be, by a Gaussian process on the others, and the variance
    that this leaves (Rasmussen and Williams 2006, 5.4.2)."""
    inverse = np.linalg.inv(kernel + np.diag(doubt).astype(kernel.dtype))
    alone = np.diag(inverse)
    return wanted - inverse @ wanted / alone[:, None], 1 / alone - doubt


def _balanced(scores: Floats, known: Claims) -> Floats:
    """Probabilities, ``pseudonyms x people``, whose rows and columns have equal sums (Sinkhorn)."""
    logs = scores.copy()
    for name, person in known.items():
        logs[name, :], logs[:, person] = -1e9, -1e9
        logs[name, person] = 0.0
    for _ in range(_BALANCING):
        logs -= logsumexp(logs, axis=0, keepdims=True)
        logs -= logsumexp(logs, axis=1, keepdims=True)
    return np.exp(logs)


def _assigned(scores: Floats, known: Claims) -> Claims:
    """The best assignment of all who are not known."""
    names = np.setdiff1d(np.arange(scores.shape[0]), list(known))
    people = np.setdiff1d(np.arange(scores.shape[1]), list(known.values()))
    rows, columns = linear_sum_assignment(scores[np.ix_(names, people)], maximize=True)
    return dict(zip(names[rows].tolist(), people[columns].tolist(), strict=True))


# -- templates ------------------------------------------------------------------------------


def means(templates: NDArray[np.float32], groups: Ints) -> Floats:
    """Of every group, numbered from 0."""
    sums = np.zeros((int(groups.max()) + 1, templates.shape[1]))
    np.add.at(sums, groups, templates)
    return sums / np.bincount(groups)[:, None]


def _centred(templates: NDArray[np.float32], groups: Ints) -> tuple[Floats, Floats]:
    """The groups' means, and how far each of them is off for its few pictures, squared."""
    middle, counts = means(templates, groups), np.bincount(groups)
    off = np.square(templates - middle[groups]).sum(1)
    several = counts[groups] > 1
    within = off[several].sum() / max(int(several.sum()) - int((counts > 1).sum()), 1)
    return middle - np.average(middle, 0, counts), np.asarray(within / counts)


def _kernels(faces: Floats) -> tuple[Floats, Floats]:
    """How like people are, to maps that are linear, and to those that take products of two."""
    centred = faces - faces.mean(0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    whitened = left * (values / np.maximum(values, 0.1 * values[0]))
    products = np.square(unit(faces) @ unit(faces).T)
    found = [part / np.diag(part).mean() for part in (whitened @ whitened.T, products)]
    return found[0], found[1]


def _profiles(vectors: Floats) -> Floats:
    """How everybody's cosines to the others are spread: quantiles, standardised, unit length."""
    centred = unit(vectors - vectors.mean(0))
    cosines = np.sort(centred @ centred.T, axis=1)[:, :-1]
    # more of the near ones, which tell most
    places = (1 - np.geomspace(1 / cosines.shape[1], 1, _PROFILE)) * (cosines.shape[1] - 1)
    found = cosines[:, places.astype(int)]
    return unit((found - found.mean(0)) / np.maximum(found.std(0), 1e-12))


# -- the public generator -------------------------------------------------------------------


def drawn(method: Any, count: int) -> tuple[Faces, NDArray[np.float32]]:
    """Pictures of people under a key of the attacker's own, each of somebody else, and the codes
    that they were drawn from.

    Args:
        method: ``stochastic-local`` with virtual people, or ``natural``.
    """
    from ppfr_ops.keys import IDENTITY, derive
    from ppfr_ops.methods.codes import person
    from ppfr_ops.methods.stochastic_local.identity import virtual

    key, rng = secrets.token_bytes(32), np.random.default_rng()
    method = method.with_secrets(dict.fromkeys(method.needed_secrets(), key))
    draws = rng.standard_normal((count, method.draw_size)).astype(np.float32)
    labels = [str(number) for number in range(count)]
    blank = np.zeros((count, FACE_SIZE, FACE_SIZE, 3), np.uint8)
    context = Context({"identity": labels, "look": [None] * count})
    pictures = method.anonymize_with(blank, draws, context)
    if method.name == "natural":
        each = list(zip(labels, draws, strict=True))
        codes = np.stack([np.append(method.person(*of), method.traits(*of)) for of in each])
    else:
        whose = [person(label, draws[0]) for label in labels]
        codes = virtual(derive(key, IDENTITY), whose, method.model().generator.code_size)
    return pictures, codes


def reader(
    templates: NDArray[np.float32], codes: NDArray[np.float32]
) -> tuple[Callable[[NDArray[np.float32]], NDArray[np.float32]], float]:
    """Learn to read the codes that pictures were drawn from.

    Args:
        templates, codes: of pictures that the attacker drew, a row each.

    Returns:
        A function of templates to codes; and the mean cosine of what it reads with what is true, of
        the last quarter of the pictures, which it was not taught on.
    """
    held = len(codes) * 3 // 4
    wanted = codes - codes[:held].mean(0)
    learned = make_pipeline(StandardScaler(), Ridge(0.1 * held, fit_intercept=False))
    learned.fit(templates[:held], wanted[:held])

    def read(some: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(learned.predict(some), np.float32)

    return read, float((unit(read(templates[held:])) * unit(wanted[held:])).sum(1).mean())


def known_pairs(truth: Claims, count: int, seed: int = 0) -> Claims:
    """Some pseudonyms whose people the attacker knows."""
    names: Sequence[int] = sorted(truth)
    some = np.random.default_rng(seed).permutation(names)[:count]
    return {int(name): truth[int(name)] for name in some}
