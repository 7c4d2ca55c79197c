"""From a person and a draw to styles: who it is, and how this photo shows the person.

A person is a style, centred. A photo of it brings in two other draws, layer by layer: the first a
little at 4 to 32 px (hair, age, the face), the second at 64 px (light, colour, background). Then
*attributes* are set along directions in style space, each read off the styles by regression
(``bench/natural_fit.py``): pose, mouth and light to a value that is drawn; what must not change
with the photo, to the person's own value.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ppfr_ops.methods.natural.network import LAYERS, STYLE

DEPTH = 13
"""Layers that have a style of their own."""

ATTRIBUTES = 16
"""Normals of a draw that are kept for attributes and amounts."""

DRAW = 2 * STYLE + ATTRIBUTES

_AMOUNTS = len(LAYERS)
_WIDEST = 1.8
"""Of a normal that an attribute is drawn by: beyond it pictures get damaged."""


@dataclass(frozen=True)
class Band:
    """How the layers of one resolution are mixed: how far the person's own style goes from the
    mean, and the least and the most of the other's that comes in; ``mixed``: in its place, not in
    addition."""

    own: float
    low: float
    high: float
    mixed: bool = False


BANDS = {
    4: Band(1.0, 0.0, 0.4, True),
    8: Band(1.05, 0.0, 0.25),
    16: Band(1.1, 0.0, 0.15),
    32: Band(1.1, 0.0, 0.15),
    64: Band(1.0, 0.3, 0.8, True),
}


class Attribute:
    """Something that is read off styles and set in them.

    ``read`` and ``move`` are ``13 x 512``; a picture whose styles are moved by ``a * move`` reads
    ``a`` more, in the deviations of the generator's own pictures. ``held``: how much of the
    person's own value stays; ``spread``: of what is drawn.
    """

    def __init__(self, read: Tensor, move: Tensor, held: float, spread: float) -> None:
        self.read, self.move, self.held, self.spread = read, move, held, spread

    def value(self, styles: Tensor) -> Tensor:
        return (styles * self.read).sum()

    def set(self, styles: Tensor, wanted: Tensor) -> Tensor:
        return styles + (wanted - self.value(styles)) * self.move


class Looks:
    """What a person looks like in a photo; built from the tensors of ``natural.looks``."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.mean = tensors["mean"]
        names = sorted({name.split(".")[1] for name in tensors if name.startswith("read.")})
        self.attributes = {}
        for name in names:
            held, spread = tensors[f"law.{name}"].tolist()
            parts = tensors[f"read.{name}"], tensors[f"move.{name}"]
            self.attributes[name] = Attribute(*parts, held, spread)

    def neutral(self, person: Tensor) -> Tensor:
        """The person's own styles, ``13 x 512``, centred; ``person``: ``512``, centred."""
        own = [band.own * person for band in BANDS.values()]
        return _by_layer(own)

    def styles(self, person: Tensor, others: Tensor, draw: Tensor, variation: float) -> Tensor:
        """The styles of one photo, ``13 x 512``, as the network takes them.

        Args:
            person: ``512``, centred.
            others: ``2 x 512``, centred: what comes in up to 32 px, and at 64 px.
            draw: ``ATTRIBUTES`` standard normals.
            variation: how wide looks are; 0: every photo is the same.
        """
        amounts = torch.special.ndtr(draw[:_AMOUNTS]).tolist()
        mixed = []
        for amount, (resolution, band) in zip(amounts, BANDS.items(), strict=True):
            own, other = band.own * person, others[1 if resolution == 64 else 0]
            share = min(variation * (band.low + (band.high - band.low) * amount), 1.0)
            mixed.append(own + share * (other - own if band.mixed else other))
        styles, neutral = _by_layer(mixed), self.neutral(person)
        for number, attribute in enumerate(self.attributes.values()):
            drawn = draw[_AMOUNTS + number].clamp(-_WIDEST, _WIDEST)
            wanted = attribute.held * attribute.value(neutral)
            styles = attribute.set(styles, wanted + variation * attribute.spread * drawn)
        return styles + self.mean


def _by_layer(bands: list[Tensor]) -> Tensor:
    return torch.cat(
        [
            style.expand(stop - start, STYLE)
            for style, (start, stop) in zip(bands, LAYERS.values(), strict=True)
        ]
    )
