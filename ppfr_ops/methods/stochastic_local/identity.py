"""Whom a picture shows: secret maps and virtual codes from one key a release.

Pure: arrays and bytes in, arrays out. No engine, no files, no state; the same key, label and
feature give the same code anywhere, in any order and batch.

**Features.** The encoder's embedding, whitened by what photos of a person differ in and weighted
by what people differ in (``Features``), unit length. A secret map takes features to *turned codes*,
the generator's input: length ``sqrt(size)``, every direction alike, so that a code tells nothing of
which map made it.

**virtual.** A label's code is drawn by the key; a photo adds what it differs by, turned by a secret
of key *and* label. The code does not depend on the face, so no number of known pairs says anything
about the next person, and a turn learned on one label serves for no other.

**keyed.** One secret map for the release. An orthogonal one (``turn``) keeps all cosines and is
linear: ``n`` known pairs give an attacker ``n`` of its directions. ``forms`` are random quadratic
forms: z to (z' Q_1 z, z' Q_2 z, ...), the Q_j from the key. For features with cosine c the codes'
expected cosine is c^2. No linear attacker learns anything, whatever the number of pairs; the best
attacker there can be is regression on all d(d+1)/2 products of features, for to whoever lacks the
key the map is a Gaussian process with kernel c^2. It needs as many pairs as there are products
before it sees through the map, where a turn needs d.

**gathered.** No map of one photo at a time can bring photos of a person closer than the encoder
does. All photos of a release together can: each feature moves to the mean of those that are most
likely the same person's, before the map (one step of mean shift, Comaniciu and Meer 2002).
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from ppfr_ops.methods.codes import check_key, normals

LIKENESS = 0.6
"""About the cosine of two photos' features: what is left for the label's own code at ``variation``
1, so that the codes of a virtual person are as alike as features of a real one."""

SURE, SURE_AT, SURE_STEP, SOFT = 0.40, 1e4, 0.045, 0.02
"""Among ``SURE_AT`` faces, features of this cosine are as likely as not one person's; among ten
times as many it takes ``SURE_STEP`` more, since strangers who look alike are as many more: that is
how the tail of impostors falls off between the people of ids_aligned (1e-4 above 0.40, 1e-5 above
0.45, 1e-6 above 0.49). ``SOFT`` is the width of the step."""

SPREAD, MIDDLE = 0.115, 0.05
"""Of the cosines of all, at most, where those hold: UTKFace has 0.112 and 0.025, ids_aligned 0.099
and 0.030."""

_SAMPLE = 512
_QUARTILES = 1.349
"""Between the quartiles of a normal distribution, in its deviations."""
_AT_ONCE = 65_536
_SAME = 0.999
"""Cosine of a feature and itself, rounded to 16 bits, at least."""

Vectors = NDArray[np.float32]
"""float32 ``N x D``."""

Map = Literal["turn", "forms"]


def _scaled(codes: Vectors) -> Vectors:
    """To length ``sqrt(size)``."""
    lengths = np.linalg.norm(codes, axis=1, keepdims=True)
    return codes * (codes.shape[1] ** 0.5 / np.maximum(lengths, 1e-12)).astype(np.float32)


@lru_cache(maxsize=4)
def _turn(key: bytes, features: int, size: int) -> Vectors:
    """``features x size``, orthonormal rows (columns where there are fewer of them)."""
    square = max(features, size)
    basis = np.linalg.qr(normals(key, "turn", b"", square, square).astype(np.float64))[0]
    return basis[:features, :size].astype(np.float32)


@lru_cache(maxsize=4)
def _forms(key: bytes, features: int, size: int) -> Vectors:
    return normals(key, "forms", b"", features * (features + 1) // 2, size)


def products(features: Vectors) -> Vectors:
    """All products of two features, ``N x d`` to ``N x d(d+1)/2``, less their mean over the sphere,
    which would make all codes alike; scaled so that the inner product of two rows is the square of
    the features' inner product less 1/d."""
    size = features.shape[1]
    rows, columns = np.triu_indices(size)
    squares = rows == columns
    weight = np.where(squares, 1.0, 2.0**0.5).astype(np.float32)
    mean = np.where(squares, 1.0 / size, 0.0).astype(np.float32)
    return features[:, rows] * features[:, columns] * weight - mean


def sure_of(crowd: NDArray[np.floating]) -> float:
    """The cosine at which two features of a crowd are as likely as not one person's.

    Where the encoder tells people apart less well than it does elsewhere (drawn faces; half of the
    photos are one person's), cosines are higher or wider spread, and it takes more.
    """
    sure = SURE + SURE_STEP * np.log10(max(len(crowd), 10) / SURE_AT)
    if len(crowd) < 2:
        return float(sure)
    some = crowd[np.unique(np.linspace(0, len(crowd) - 1, _SAMPLE).astype(int))]
    some = some.astype(np.float32)
    low, middle, high = np.percentile((some @ some.T)[np.triu_indices(len(some), 1)], (25, 50, 75))
    wide = (high - low) / (_QUARTILES * SPREAD)
    return float(sure * max(1.0, wide) + max(0.0, middle - MIDDLE))


def gathered(features: Vectors, crowd: NDArray[np.floating], sure: float | None = None) -> Vectors:
    """Features moved to the mean of those of the crowd that are most likely the same person's.

    Args:
        features: unit length, ``N x d``.
        crowd: of all faces of the release, unit length, ``M x d``, any float; a face that is not
            in it is added for itself.
        sure: ``sure_of`` the crowd, where it is at hand.

    Returns:
        Unit length, ``N x d``.

    >>> crowd = np.eye(3, 128, dtype=np.float32)
    >>> bool(np.allclose(gathered(crowd, crowd), crowd))  # strangers: nothing moves
    True
    """
    if sure is None:
        sure = sure_of(crowd)
    total = np.zeros_like(features)
    itself = np.ones((len(features), 1), np.float32)
    for start in range(0, len(crowd), _AT_ONCE):
        part = crowd[start : start + _AT_ONCE].astype(np.float32)
        cosines = features @ part.T
        weights = expit((cosines - sure) / SOFT)
        weights[weights < 1e-3] = 0
        total += weights @ part
        itself[cosines.max(1) > _SAME] = 0
    total += itself * features
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def keyed(key: bytes, features: Vectors, size: int, kind: Map = "forms") -> Vectors:
    """Turned codes of faces without labels.

    Args:
        key: of the release.
        features: unit length, ``N x d``.
        size: of the codes.
        kind: ``turn``, orthogonal; or ``forms``, quadratic.

    Returns:
        ``N x size``, length ``sqrt(size)``.
    """
    check_key(key)
    d = features.shape[1]
    if kind == "turn":
        return _scaled(_product(features, _turn(key, d, size)))
    return _scaled(_product(products(features), _forms(key, d, size)))


def _product(rows: Vectors, matrix: Vectors) -> Vectors:
    """In doubles: how many threads add up a sum, and so in what order, must not show."""
    return (rows.astype(np.float64) @ matrix.astype(np.float64)).astype(np.float32)


def virtual(
    key: bytes,
    whose: Sequence[bytes],
    size: int,
    features: Vectors | None = None,
    means: Vectors | None = None,
    variation: float = 0.0,
) -> Vectors:
    """Turned codes of people that there are not.

    Args:
        key: of the release.
        whose: ``person`` of every face; equal ones share a virtual person.
        size: of the codes.
        features: unit length, ``N x d``; not looked at where ``variation`` is 0.
        means: what a face's variation is measured from, ``N x d``, NaN: it has none; None: the
            public mean, 0.
        variation: how much of it is kept, 0..1; the codes of two photos have a cosine of about
            1 - variation^2 (1 - LIKENESS), whatever it is measured from. Measured from the public
            mean, the person's own part stays in, turned by a secret of this label: it makes the
            virtual person another one, and at 1 alone makes them.

    Returns:
        ``N x size``, length ``sqrt(size)``.

    Raises:
        ValueError: a shape does not fit.
    """
    check_key(key)
    if not len(whose):
        return np.zeros((0, size), np.float32)
    people = {name: normals(key, "person", name, size) for name in set(whose)}
    codes = _scaled(np.stack([people[name] for name in whose]))
    if variation == 0:
        return codes
    if features is None or len(features) != len(whose):
        raise ValueError("variation needs the features of all faces")
    if means is not None and means.shape != features.shape:
        raise ValueError(f"means must be {features.shape}, got {means.shape}")
    d = features.shape[1]
    turns = {name: normals(key, "variation", name, d, size) for name in set(whose)}
    if means is None:
        differs, share = features, variation**2
    else:
        differs = np.nan_to_num(features - means, nan=0.0)
        share = variation**2 * (1 - LIKENESS)
    turned = np.stack([row @ turns[name] for row, name in zip(differs, whose, strict=True)])
    return _scaled((1 - share) ** 0.5 * codes + variation * turned)
