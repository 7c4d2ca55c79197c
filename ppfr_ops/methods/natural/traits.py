"""What a drawn person's face has of its own beyond its style: how far apart the eyes lie, how they
slant, how long the nose is, how dark the brows are, how red the lips; drawn by the key.

A style alone gives people who are told apart by what surrounds their face, too, and differ too
little in the face: two women of one age are soon the same to recognisers. Here each trait is a
smooth move of pixels, or a change of brightness or redness, in the frame of the aligned face. They
are mixed so that each of the twenty numbers moves the templates of recognisers as far as any other,
and in another direction (``bench/natural_traits.py``), and lie on a sphere: nobody is plain.
"""

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from ppfr_ops.methods.codes import normals
from ppfr_ops.methods.natural import files

NUMBERS, MOST = 20, 2.2
"""What is drawn for a person; the most of a trait, in its own unit."""
STEP, LEAST, SIDE = 4.0, -32.0, 45
"""Of the lattice that fields are kept on, px of the aligned face: spacing, first place, and how
many places there are on a side."""

Traits = NDArray[np.float32]
"""``SIDE x SIDE x 5``: to the right, down, px; logarithms by which red, green and blue change."""

Plane = NDArray[np.float64]
_EYES = ((38.3, 51.7, -1), (73.6, 51.6, 1))
_LIGHT, _RED = (1.0, 1.0, 1.0), (0.3, -0.5, -0.4)


def _near(x: Plane, y: Plane, wide: float, high: float) -> Plane:
    return np.asarray(np.exp(-0.5 * (np.square(x / wide) + np.square(y / high))))


def _eyes(x: Plane, y: Plane, of: Callable[[Plane, Plane, int], Plane]) -> Plane:
    """The same at both, ``x`` away from each eye's middle, and the side: -1 is left."""
    return np.asarray(sum(of(x - across, y - down, side) for across, down, side in _EYES))


def moves(x: Plane, y: Plane) -> dict[str, tuple[Plane | float, Plane | float]]:
    """Where each trait moves a place of the aligned face by one unit, right and down, px."""
    aside, off = np.abs(x - 56) - 28, x - 56
    return {
        "eyes apart": (_eyes(x, y, lambda u, v, s: s * _near(u, v, 11, 11)), 0),
        "eyes low": (0, _eyes(x, y, lambda u, v, _: _near(u, v, 14, 10))),
        "eyes wide": (_eyes(x, y, lambda u, v, _: u / 8 * _near(u, v, 9, 7)), 0),
        "eyes open": (0, _eyes(x, y, lambda u, v, _: v / 4 * _near(u, v, 9, 5))),
        "eyes slanting": (0, _eyes(x, y, lambda u, v, s: s * u / 8 * _near(u, v, 9, 7))),
        "eyes' inner corners": (_eyes(x, y, lambda u, v, s: s * _near(u + 9 * s, v, 6, 7)), 0),
        "lower lids": (0, _eyes(x, y, lambda u, v, _: _near(u, v - 6, 9, 4))),
        "brows low": (0, _eyes(x, y, lambda u, v, _: _near(u, v + 12, 13, 7))),
        "brows slanting": (
            0,
            _eyes(x, y, lambda u, v, s: s * u / 10 * _near(u, v + 12, 12, 7)),
        ),
        "brows thick": (0, _eyes(x, y, lambda u, v, _: (v + 12) / 4 * _near(u, v + 12, 12, 5))),
        "brows long": (_eyes(x, y, lambda u, v, _: u / 10 * _near(u, v + 12, 12, 6)), 0),
        "brows bent": (
            0,
            _eyes(x, y, lambda u, v, _: (np.square(u / 10) - 0.7) * _near(u, v + 12, 11, 6)),
        ),
        "nose wide": (off / 8 * _near(off, y - 73, 9, 9), 0),
        "nose long": (0, _near(off, y - 73, 11, 10)),
        "bridge wide": (off / 6 * _near(off, y - 58, 7, 9), 0),
        "nostrils wide": (off / 8 * _near(off, y - 79, 9, 5), 0),
        "mouth wide": (off / 14 * _near(off, y - 92, 15, 8), 0),
        "mouth low": (0, _near(off, y - 92, 19, 8)),
        "lips thick": (0, (y - 92) / 4 * _near(off, y - 92, 14, 6)),
        "mouth bent": (0, (np.abs(off) / 14 - 0.7) * _near(off, y - 92, 15, 8)),
        "upper lip": (0, _near(off, y - 87, 13, 5)),
        "lower lip": (0, _near(off, y - 98, 13, 5)),
        "jaw wide": (off / 35 * _near(off, y - 100, 40, 16), 0),
        "chin wide": (off / 18 * _near(off, y - 108, 18, 9), 0),
        "chin long": (0, _near(off, y - 110, 20, 12)),
        "cheekbones wide": (off / 35 * _near(off, y - 72, 40, 14), 0),
        "cheeks full": (off / 28 * _near(aside, y - 84, 14, 10), 0),
        "temples wide": (off / 35 * _near(off, y - 40, 40, 16), 0),
        "forehead low": (0, _near(off, y - 22, 36, 14)),
        "face broad": (
            off / 40 * _near(off, y - 70, 50, 55),
            -(y - 70) / 40 * _near(off, y - 70, 50, 50),
        ),
    }


def colours(x: Plane, y: Plane) -> dict[str, tuple[Plane, tuple[float, ...], float]]:
    """By what each trait changes a place of the aligned face: where, the share of red, green and
    blue, and the logarithm of one unit."""
    off, side = x - 56, np.abs(x - 56)
    return {
        "brows light": (_eyes(x, y, lambda u, v, _: _near(u, v + 11, 11, 4)), _LIGHT, 0.16),
        "sockets light": (_eyes(x, y, lambda u, v, _: _near(u, v + 4, 11, 5)), _LIGHT, 0.12),
        "under the eyes": (_eyes(x, y, lambda u, v, _: _near(u, v - 9, 10, 4)), _LIGHT, 0.10),
        "lips light": (_near(off, y - 93, 12, 5), _LIGHT, 0.14),
        "lips red": (_near(off, y - 93, 12, 5), _RED, 0.12),
        "cheeks red": (_near(side - 23, y - 78, 10, 9), _RED, 0.12),
        "chin light": (_near(off, y - 104, 26, 9), _LIGHT, 0.14),
        "upper lip light": (_near(off, y - 83, 12, 4), _LIGHT, 0.12),
        "nose light": (_near(off, y - 68, 6, 9), _LIGHT, 0.10),
        "folds light": (_near(side - 17, y - 84, 4, 8), _LIGHT, 0.10),
        "temples light": (_near(side - 36, y - 45, 9, 14), _LIGHT, 0.12),
        "forehead light": (_near(off, y - 30, 22, 9), _LIGHT, 0.08),
        "between the brows": (_near(off, y - 45, 6, 8), _LIGHT, 0.10),
    }


@lru_cache(maxsize=1)
def _units() -> NDArray[np.float64]:
    """Fields of one unit of each trait, ``43 x SIDE x SIDE x 5``."""
    y, x = LEAST + STEP * np.mgrid[:SIDE, :SIDE].astype(np.float64)
    rows = []
    for right, down in moves(x, y).values():
        rows.append(np.stack([right + 0 * x, down + 0 * x, *np.zeros((3, *x.shape))], -1))
    for place, share, amount in colours(x, y).values():
        tone = amount * place[..., None] * np.array(share)
        rows.append(np.concatenate([np.zeros((*x.shape, 2)), tone], -1))
    return np.stack(rows)


@lru_cache(maxsize=1)
def _fitted() -> dict[str, NDArray[np.float64]]:
    """``mixed``: of the numbers that are drawn to traits, ``NUMBERS x 43``; ``shift``: where the
    numbers lie in the mean, away from where people crowd (``bench/natural_people.py``)."""
    return {name: each.double().numpy() for name, each in files.read(files.TRAITS).items()}


def drawn(key: bytes, whose: bytes) -> NDArray[np.float32]:
    """A person's numbers, on a sphere, float32 ``NUMBERS``; they depend on nothing else."""
    found = normals(key, "natural traits", whose, NUMBERS) + _fitted()["shift"]
    return np.asarray(found * np.sqrt(NUMBERS) / np.linalg.norm(found), np.float32)


def field(numbers: NDArray[np.floating]) -> Traits:
    """What a person's numbers do to an aligned face."""
    return field_of(np.asarray(numbers, np.float64) @ _fitted()["mixed"])


def field_of(amounts: NDArray[np.float64]) -> Traits:
    """What amounts of the traits, in their units, ``43``, do to an aligned face."""
    found = np.tensordot(np.clip(amounts, -MOST, MOST), _units(), 1)
    return np.ascontiguousarray(found, np.float32)


def at(field: NDArray[np.float32], places: NDArray[np.floating]) -> NDArray[np.float32]:
    """What a field, ``SIDE x SIDE x C``, says at places of the aligned face, ``... x 2``: ``... x
    C``; beyond its edge the edge goes on."""
    found = (np.asarray(places, np.float32) - LEAST) / STEP
    rows = found.reshape(-1, found.shape[-2], 2)
    said = cv2.remap(
        field, rows[..., 0], rows[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(said, np.float32).reshape(*places.shape[:-1], field.shape[-1])
