"""Virtual codes from one key a release.

Pure: arrays and bytes in, arrays out. No engine, no files, no state; the same key, label and
feature give the same code anywhere, in any order and batch.

A label's code is drawn by the key: length ``sqrt(size)``, every direction alike. With ``variation``
a photo adds what it differs by, turned by a secret of key *and* label, so that a turn learned on
one label serves for no other; its cosines with other photos of the person stay. Features are the
encoder's embedding, whitened by what photos of a person differ in and weighted by what people
differ in (``Features``), unit length.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ppfr_ops.methods.codes import check_key, normals

Vectors = NDArray[np.float32]
"""float32 ``N x D``."""


def _scaled(codes: Vectors) -> Vectors:
    """To length ``sqrt(size)``."""
    lengths = np.linalg.norm(codes, axis=1, keepdims=True)
    return codes * (codes.shape[1] ** 0.5 / np.maximum(lengths, 1e-12)).astype(np.float32)


def virtual(
    key: bytes,
    whose: Sequence[bytes],
    size: int,
    features: Vectors | None = None,
    variation: float = 0.0,
) -> Vectors:
    """Turned codes of people that there are not.

    Args:
        key: of the release.
        whose: ``person`` of every face; equal ones share a virtual person.
        size: of the codes.
        features: unit length, ``N x d``; not looked at where ``variation`` is 0.
        variation: how much of what they differ by from the public mean is kept, 0..1. The
            person's own part stays in, turned by a secret of this label: it makes the virtual
            person another one, and at 1 alone makes them.

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
    d = features.shape[1]
    turns = {name: normals(key, "variation", name, d, size) for name in set(whose)}
    turned = np.stack([row @ turns[name] for row, name in zip(features, whose, strict=True)])
    return _scaled((1 - variation**2) ** 0.5 * codes + variation * turned)
