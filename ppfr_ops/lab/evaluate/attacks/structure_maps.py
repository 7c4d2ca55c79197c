"""People named by a map that leads from their photos to their pictures, learned from the release.

Where a picture depends on the face by a secret map, the map can be learned, and nobody has to be
known for it. What sizes, kept columns and shards say is a first guess at who is whom; a regression
of the published templates on the original ones (linear and quadratic, as the maps that were broken
in this way) gives what everybody's picture should look like; held against the pictures, that gives
a better guess; and so on (expectation-maximisation). Each person's picture is foretold from the
others alone (the leave-one-out residuals of ridge regression have a closed form), so that a guess
does not confirm itself. Pairs that the attacker knows stay as they are.

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

from ppfr_ops.imaging.arrays import FACE_SIZE, Faces
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

Floats = NDArray[np.float64]

_LINEAR, _QUADRATIC = 96, 32
"""Principal components of the originals' templates that go into the regression as they are, and in
products of two."""
_SEEN = 64
"""Principal components of the published templates."""
_ROUNDS, _BALANCING = 12, 15
_RIDGES = (0.3, 3.0, 30.0)
_PROFILE = 48
_LOST = 0.03


def hints(source: Source, seen: Seen) -> Floats:
    """What sizes, kept columns and shards say together: log-likelihood of each pseudonym being each
    person's, ``pseudonyms x people``."""
    values: dict[object, int] = {}
    known_kept = np.array([values.setdefault(value, len(values)) for value in source.kept])
    shown_kept = np.array([values.setdefault(value, len(values)) for value in seen.kept])
    known, shown = (np.zeros((groups.count, len(values)), np.int64) for groups in (source, seen))
    np.add.at(known, (source.people, known_kept), 1)
    np.add.at(shown, (seen.pseudonyms, shown_kept), 1)
    found = likelihood(known, shown, _LOST)
    spread = table(seen.pseudonyms, seen.shards)
    for blocks in cuts(source, seen)[:1]:
        rows = table(source.people, blocks)
        if rows.shape[1] == spread.shape[1] > 1:
            fits = likelihood(rows[:, matched_blocks(rows, spread)], spread, _LOST)
            # how often, given how many: sizes have been counted
            totals = rows.sum(1, keepdims=True), spread.sum(1, keepdims=True)
            found += fits - likelihood(*totals, _LOST)
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
    faces, pictures = _means(originals, source.people), _means(published, seen.pseudonyms)
    target = _components(pictures, _SEEN)
    prior = hints(source, seen)
    prior -= prior.max()
    alike = _profiles(pictures) @ _profiles(faces).T * _PROFILE
    fits = []
    for start in (prior, prior + alike):
        for features in (_linear(faces), _quadratic(faces)):
            fits.append(_learned(start, prior, features, target, known))
    return _assigned(max(fits, key=lambda fit: fit[1])[0], known)


def _learned(
    start: Floats, prior: Floats, features: Floats, target: Floats, known: Claims
) -> tuple[Floats, float]:
    """Expectation-maximisation from one start: log-likelihoods, ``pseudonyms x people``; and how
    much the map foretells of the pictures of people it has not seen."""
    scores, explained = start, -np.inf
    for _ in range(_ROUNDS):
        whose = _balanced(scores, known)
        mass = np.maximum(whose.sum(0), 1e-9)
        wanted = (whose.T @ target) / mass[:, None]
        sure = whose.max(0)
        foretold, share = max(
            (_foretold(features, wanted, sure, ridge) for ridge in _RIDGES), key=lambda two: two[1]
        )
        if share <= explained + 1e-4 and explained > 0.02:
            break
        explained = share
        squares = (target**2).sum(1)[:, None] + (foretold**2).sum(1) - 2 * target @ foretold.T
        noise = max(float((whose * squares).sum() / whose.sum() / target.shape[1]), 1e-6)
        scores = prior - squares / (2 * noise)
    return scores, explained


def _foretold(features: Floats, wanted: Floats, sure: Floats, ridge: float) -> tuple[Floats, float]:
    """What every person's picture should be, by a ridge regression on the others (weighted by how
    sure each is); and how much of the variance that explains."""
    count, size = features.shape
    weighted = features * sure[:, None]
    ridge *= max(float((features * weighted).sum()) / size, 1e-9)
    if size < count:
        inner = features.T @ weighted
        inner[np.diag_indices(size)] += ridge
        turned = np.linalg.solve(inner, weighted.T)
        leverage, fitted = np.einsum("nd,dn->n", features, turned), features @ (turned @ wanted)
    else:
        kernel = features @ features.T
        hat = np.linalg.solve(kernel + np.diag(ridge / np.maximum(sure, 1e-6)), kernel).T
        leverage, fitted = np.diag(hat), hat @ wanted
    leverage = np.minimum(leverage, 0.99)
    left = (wanted - fitted) / (1 - leverage)[:, None]
    everything = (sure[:, None] * wanted**2).sum()
    share = 1 - float((sure[:, None] * left**2).sum() / max(everything, 1e-9))
    # uncertain targets are means of many and easy to foretell: what counts are pictures
    return wanted - left, share * float((sure[:, None] * wanted**2).sum() / (wanted**2).size)


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


def _means(templates: NDArray[np.float32], groups: Ints) -> Floats:
    sums = np.zeros((int(groups.max()) + 1, templates.shape[1]))
    np.add.at(sums, groups, templates)
    return sums / np.bincount(groups)[:, None]


def _components(vectors: Floats, most: int) -> Floats:
    """Principal components, each of variance 1 but for the faint ones."""
    centred = vectors - vectors.mean(0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    floor = 0.1 * values[0] if len(values) else 1.0
    scale = values / np.maximum(np.maximum(values, floor), 1e-12) * len(vectors) ** 0.5
    return np.asarray((left * scale)[:, :most])


def _linear(faces: Floats) -> Floats:
    found = _components(faces, _LINEAR)
    return np.concatenate([np.ones((len(found), 1)), found], 1)


def _quadratic(faces: Floats) -> Floats:
    linear = _linear(faces)
    some = linear[:, 1 : _QUADRATIC + 1]
    first, second = np.triu_indices(some.shape[1])
    products = some[:, first] * some[:, second]
    return np.concatenate([linear, products - products.mean(0)], 1)


def _profiles(vectors: Floats) -> Floats:
    """How everybody's cosines to the others are spread: quantiles, standardised, unit length."""
    centred = vectors - vectors.mean(0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    cosines = np.sort(unit @ unit.T, axis=1)[:, :-1]
    # more of the near ones, which tell most
    places = (1 - np.geomspace(1 / cosines.shape[1], 1, _PROFILE)) * (cosines.shape[1] - 1)
    found = cosines[:, places.astype(int)]
    found = (found - found.mean(0)) / np.maximum(found.std(0), 1e-12)
    return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12))


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
    pictures = method.anonymize_with(blank, draws, Context({"identity": labels}))
    own, whose = derive(key, IDENTITY), [person(label, draws[0]) for label in labels]
    if method.name == "natural":
        generator = method.generator()
        codes = np.stack([generator.person(own, name).numpy() for name in whose])
    else:
        codes = virtual(own, whose, method.model().generator.code_size)
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
    mean, spread = templates[:held].mean(0), templates[:held].std(0) + 1e-6
    middle = codes[:held].mean(0)

    def seen(some: NDArray[np.float32]) -> Floats:
        return np.asarray((some - mean) / spread, float)

    inputs = seen(templates[:held])
    inner = inputs.T @ inputs
    inner[np.diag_indices_from(inner)] += 0.1 * np.trace(inner) / len(inner)
    matrix = np.linalg.solve(inner, inputs.T @ (codes[:held] - middle))

    def read(some: NDArray[np.float32]) -> NDArray[np.float32]:
        return (seen(some) @ matrix).astype(np.float32)

    ours, theirs = read(templates[held:]), codes[held:] - middle
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return read, float(((ours * theirs).sum(1) / np.maximum(lengths, 1e-12)).mean())


def known_pairs(truth: Claims, count: int, seed: int = 0) -> Claims:
    """Some pseudonyms whose people the attacker knows."""
    names: Sequence[int] = sorted(truth)
    some = np.random.default_rng(seed).permutation(names)[:count]
    return {int(name): truth[int(name)] for name in some}
