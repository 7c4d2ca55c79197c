"""From a person and a draw to styles: who it is, and how this photo shows the person.

**Person.** A normal by the key gives a style, centred. Some forty directions in style space are
what recognisers see (``bench/natural_fit.py``). In them the person is put onto a sphere, somewhat
farther from the mean than styles are by themselves, so that nobody crowds near the mean face; the
rest stays. Styles that recognisers would take for many others (a score read off the network's
features at 16 px) are passed over by a fixed bound.

**Photo.** Other draws are added, layer by layer: one a little at 4 to 32 px (hair, face), less of
it where recognisers see it; one at 64 px (light, colour); a third shapes what lies around the head.
Then *attributes* are set along directions in style space: pose, mouth and light to a value that is
drawn; the colour of the skin near the person's own; glasses and sex as the person has them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ppfr_ops.methods.natural.network import LAYERS, STYLE

OTHERS = 3
"""Styles that a photo draws: for the head's shape, for its surface, and for what is around it."""
ATTRIBUTES = 16
"""Normals of a draw that are kept for amounts and attributes."""
DRAW = OTHERS * STYLE + ATTRIBUTES

RADIUS, REST, LARGEST = 1.2, 0.9, 2.2
"""Of a person: length in the directions that recognisers see, in that of average styles; share of
the other directions that is kept; the largest coordinate, in deviations."""
HIDDEN = 0.8
"""Of what a photo adds, the share that is taken out in the directions that recognisers see."""

_WIDEST = 1.8
"""Of a normal that an attribute is drawn by: beyond it pictures get damaged."""


@dataclass(frozen=True)
class Band:
    """How the layers of one resolution are mixed: the least and the most of the other's style that
    comes in; ``mixed``: in the person's place, not in addition."""

    low: float
    high: float
    mixed: bool = False


BANDS = {
    4: Band(0.0, 0.2),
    8: Band(0.0, 0.2),
    16: Band(0.0, 0.15),
    32: Band(0.0, 0.2),
    64: Band(0.1, 0.5, True),
}


@dataclass(frozen=True)
class Law:
    """How an attribute is set: how much of the person's own value stays, and the spread of what is
    drawn, both in the deviations of the generator's own pictures."""

    held: float
    spread: float


LAWS = {
    "yaw": Law(0.0, 1.25),
    "pitch": Law(0.0, 1.0),
    "mouth": Law(0.3, 1.0),
    "light": Law(0.7, 0.58),
    "red_green": Law(1.0, 0.2),
    "yellow_blue": Law(1.0, 0.2),
    "glasses": Law(1.0, 0.0),
    "sex": Law(1.0, 0.0),
}
"""``red_green`` and ``yellow_blue``: of the cheeks."""
KINDS = {"glasses": (0.25, 0.9, 1.25), "sex": (-0.4, 0.0, 0.4)}
"""What a person is or is not: from where on, and the most of a person on the one side and the least
on the other. With what is read for glasses at 0.25 4 % of pictures show some, at 1.25 83 %."""
CROWD_SIDE, CROWD_GRID = 16, 4
"""Side of the features that a crowd is read off, and of the grid that they are averaged over."""


class Looks:
    """What a person looks like in a photo; built from the tensors of ``natural.looks``."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.mean = tensors["mean"]
        self.seen, self.back = tensors["seen"], tensors["back"]
        """``512 x 40`` and ``40 x 512``: styles to what recognisers see of them, and back."""
        self.radius = float(tensors["radius"])
        self.crowd, self.bound = tensors["crowd"], float(tensors["bound"])
        self.read = torch.stack([tensors[f"read.{name}"] for name in LAWS])
        self.move = torch.stack([tensors[f"move.{name}"] for name in LAWS])
        """``6 x 5 x 512``: styles by band to attributes, and what moves each."""
        together = torch.einsum("abs,cbs->ac", self.read, self.move)
        self.solve = torch.linalg.inv(together + 0.1 * torch.eye(len(LAWS)))
        self.held = torch.tensor([law.held for law in LAWS.values()])
        self.spread = torch.tensor([law.spread for law in LAWS.values()])

    def crowded(self, features: Tensor) -> float:
        """How many others recognisers would take somebody for, from ``1 x 512 x 16 x 16`` of the
        plain picture; above 0: too many."""
        pooled = torch.nn.functional.adaptive_avg_pool2d(features, CROWD_GRID)
        return float(pooled.flatten() @ self.crowd) - self.bound

    def person(self, style: Tensor) -> Tensor:
        """A style, centred, ``512``, to the person's."""
        own = style @ self.seen
        far = own.clamp(-LARGEST, LARGEST)
        far = far * (RADIUS * self.radius / far.norm().clamp_min(1e-6))
        return REST * style + (far - REST * own) @ self.back

    def styles(self, person: Tensor, others: Tensor, draw: Tensor, variation: float) -> Tensor:
        """The styles of one photo, ``14 x 512``, as the network takes them: of the layers, and of
        what is around the head.

        Args:
            person: ``512``, centred.
            others: ``3 x 512``, centred.
            draw: ``ATTRIBUTES`` standard normals.
            variation: how wide looks are; 0: every photo is the same.
        """
        shape, surface, around = others
        shape = shape - HIDDEN * (shape @ self.seen) @ self.back
        amounts = torch.special.ndtr(draw[: len(BANDS)]).tolist()
        mixed = []
        for amount, (resolution, band) in zip(amounts, BANDS.items(), strict=True):
            share = min(variation * (band.low + (band.high - band.low) * amount), 1.0)
            other = surface if resolution == 64 else shape
            mixed.append(person + share * (other - person if band.mixed else other))
        bands = torch.stack(mixed)
        own = torch.einsum("abs,s->a", self.read, person)
        for name, (most, edge, least) in KINDS.items():
            k = list(LAWS).index(name)
            own[k] = own[k].clamp_min(least) if own[k] > edge else own[k].clamp_max(most)
        drawn = draw[len(BANDS) : len(BANDS) + len(LAWS)].clamp(-_WIDEST, _WIDEST)
        wanted = self.held * own + variation * self.spread * drawn
        steps = self.solve @ (wanted - torch.einsum("abs,bs->a", self.read, bands))
        bands = bands + torch.einsum("a,abs->bs", steps, self.move)
        behind = person + min(variation, 1.0) * (around - person)
        return torch.cat([by_layer(bands), behind[None]]) + self.mean


def by_layer(bands: Tensor) -> Tensor:
    """Styles of the five resolutions, ``5 x 512``, to those of the layers, ``13 x 512``."""
    repeats = torch.tensor([stop - start for start, stop in LAYERS.values()])
    return bands.repeat_interleave(repeats, 0)
