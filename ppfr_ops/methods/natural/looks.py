"""From a person and a draw to styles: who it is, and how this photo shows the person.

**Person.** A normal by the key gives a style, centred. Some forty directions in style space are
what recognisers see (``bench/natural_fit.py``). In them the person is put onto a sphere, somewhat
farther from the mean than styles are by themselves, so that nobody crowds near the mean face; the
rest stays. People whom recognisers would take for many others of their sex (a score read off the
style) are passed over by a fixed bound.

Two small networks, taught by recognisers on drawn people (``bench/natural_hold.py``), have the last
word in those directions: one moves people apart on the sphere, one brings a photo back to its
person.

**Photo.** Other draws are added, layer by layer: one a little at 4 to 32 px (hair, face), less of
it where recognisers see it; one at 64 px (light, colour); a third shapes what lies around the head.
Then *attributes* are set along directions in style space: pose, mouth and light to a value that is
drawn; the colour of the skin near the person's own; glasses and sex as the person has them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ppfr_ops.imaging.look import NO_AIM
from ppfr_ops.methods.natural.network import LAYERS, STYLE

OTHERS = 3
"""Styles that a photo draws: for the head's shape, for its surface, and for what is around it."""
ATTRIBUTES = 16
"""Normals of a draw that are kept for amounts and attributes."""
DRAW = OTHERS * STYLE + ATTRIBUTES

RADIUS, REST, LARGEST = 1.35, 0.9, 2.2
"""Of a person: length in the directions that recognisers see, in that of average styles; share of
the other directions that is kept; the largest coordinate, in deviations."""
HIDDEN = 0.8
"""Of what a photo adds, the share that is taken out in the directions that recognisers see."""

WIDEST = 1.8
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
    "yaw": Law(0.0, 1.45),
    "pitch": Law(0.0, 1.2),
    "mouth": Law(0.3, 1.15),
    "light": Law(0.7, 0.7),
    "red_green": Law(1.0, 0.2),
    "yellow_blue": Law(1.0, 0.2),
    "glasses": Law(1.0, 0.0),
    "sex": Law(1.0, 0.0),
}
"""``red_green`` and ``yellow_blue``: of the cheeks."""
PLACES = {name: DRAW - ATTRIBUTES + len(BANDS) + row for row, name in enumerate(LAWS)}
"""Of a draw, the normal of each."""
KINDS = {"glasses": (0.25, 0.9, 1.25), "sex": (-0.4, 0.0, 0.4)}
"""What a person is or is not: from where on, and the most of a person on the one side and the least
on the other. With what is read for glasses at 0.25 4 % of pictures show some, at 1.25 83 %."""
HELD_BANDS, WIDTH = 4, 192
"""Of a photo, the bands that are brought back to the person, from 4 px on; hidden numbers of the
small networks."""
GRID = 4
"""Side of the grid that the features of a picture are averaged over."""


MIX = ("women", "children", "dark")
"""Kinds of people whose share can be asked for; children are under 16, dark is skin whose typology
angle is below 19 degrees."""
CLEARLY = 0.25
"""How far from a kind's edge people are taken, in deviations of what is read."""


class Nudge(nn.Sequential):
    """A small network that moves nothing until it is taught: ``N x before`` to ``N x after``."""

    def __init__(self, before: int, after: int) -> None:
        last = nn.Linear(WIDTH, after)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        layers = nn.Linear(before, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.GELU(), last
        super().__init__(*layers)


class Looks:
    """What a person looks like in a photo; built from the tensors of ``natural.looks``."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.mean = tensors["mean"]
        self.seen, self.back = tensors["seen"], tensors["back"]
        """``512 x 40`` and ``40 x 512``: styles to what recognisers see of them, and back."""
        self.radius = float(tensors["radius"])
        self.crowd, self.bent = tensors["crowd"], tensors["bent"]
        """``2 x 513`` and ``2 x 40 x 40``: of men and of women, what is read off a person, and the
        bound; and what is quadratic in what recognisers see."""
        self.damage, self.most = tensors["damage"], float(tensors["most"])
        self.flaws, self.fair = tensors["flaws"], float(tensors["fair"])
        self.read = torch.stack([tensors[f"read.{name}"] for name in LAWS])
        self.move = torch.stack([tensors[f"move.{name}"] for name in LAWS])
        """``6 x 5 x 512``: styles by band to attributes, and what moves each."""
        together = torch.einsum("abs,cbs->ac", self.read, self.move)
        self.solve = torch.linalg.inv(together + 0.1 * torch.eye(len(LAWS)))
        self.kinds = {name: tensors[f"kind.{name}"] for name in MIX if f"kind.{name}" in tensors}
        seen = self.seen.shape[1]
        self.apart = Nudge(seen, seen)
        self.hold = Nudge(seen + len(LAWS) + HELD_BANDS + STYLE, HELD_BANDS * seen)
        for name, part in (("apart", self.apart), ("hold", self.hold)):
            own = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(name)}
            if own:
                part.load_state_dict(own)
        self.held = torch.tensor([law.held for law in LAWS.values()])
        self.spread = torch.tensor([law.spread for law in LAWS.values()])

    def is_of(self, person: Tensor, wanted: Mapping[str, bool]) -> bool:
        """Whether a person is clearly of these kinds, or clearly not, as is wanted."""
        far = {name: self._kind(name, person) for name in wanted}
        return all((far[name] if yes else -far[name]) >= CLEARLY for name, yes in wanted.items())

    def _kind(self, name: str, person: Tensor) -> float:
        """How far beyond the edge of a kind somebody is, in deviations."""
        read, (edge, spread) = self.kinds[name][:STYLE], self.kinds[name][STYLE:]
        return float((person @ read - edge) / spread)

    def crowded(self, person: Tensor) -> bool:
        """Whether recognisers would take somebody for too many others of the same sex."""
        sex, own = int(self._kind("women", person) > 0), person @ self.seen
        told = person @ self.crowd[sex, :STYLE] + own @ self.bent[sex] @ own
        return float(told) > float(self.crowd[sex, STYLE])

    def whole(self, features: Tensor) -> float:
        """How surely a picture is not damaged (smears, holes, hands and wires before the face),
        from its ``1 x 512 x 64 x 64``; 1 and more: surely enough."""
        return math.exp(self.most - float(on_grid(features.float().cpu()) @ self.damage))

    def flawless(self, features: Tensor) -> float:
        """The same, more strictly: eyes, noses and glasses that catch the eye count. For a person's
        plain picture, as all photos would have them, and for heads in photographs, which are large;
        of other photos it would leave less of poses."""
        return math.exp(self.fair - float(on_grid(features.float().cpu()) @ self.flaws))

    def person(self, style: Tensor) -> Tensor:
        """A style, centred, ``512`` or ``N x 512``, to the person's."""
        own = style @ self.seen
        far = self._on_sphere(own)
        far = self._on_sphere(far + self.apart(far))
        return REST * style + (far - REST * own) @ self.back

    def _on_sphere(self, own: Tensor) -> Tensor:
        far = own.clamp(-LARGEST, LARGEST)
        return far * (RADIUS * self.radius / far.norm(dim=-1, keepdim=True).clamp_min(1e-6))

    def styles(
        self,
        person: Tensor,
        others: Tensor,
        draw: Tensor,
        variation: float,
        steps: Mapping[str, float] = NO_AIM,
    ) -> Tensor:
        """The styles of one photo, ``14 x 512``, as the network takes them: of the layers, and of
        what is around the head.

        Args:
            person: ``512``, centred.
            others: ``3 x 512``, centred.
            draw: ``ATTRIBUTES`` standard normals.
            variation: how wide looks are; 0: every photo is the same.
            steps: normals of ``LAWS`` that are not drawn.
        """
        shape, surface, around = others
        shape = shape - HIDDEN * (shape @ self.seen) @ self.back
        amounts = torch.special.ndtr(draw[: len(BANDS)]).tolist()
        mixed, shares = [], []
        for amount, (resolution, band) in zip(amounts, BANDS.items(), strict=True):
            share = min(variation * (band.low + (band.high - band.low) * amount), 1.0)
            shares.append(share)
            other = surface if resolution == 64 else shape
            mixed.append(person + share * (other - person if band.mixed else other))
        bands = torch.stack(mixed)
        own = torch.stack(
            [
                _sided(value, *KINDS[name]) if name in KINDS else value
                for name, value in zip(
                    LAWS, torch.einsum("abs,s->a", self.read, person), strict=True
                )
            ]
        )
        drawn = draw[len(BANDS) : len(BANDS) + len(LAWS)].clamp(-WIDEST, WIDEST)
        for row, name in enumerate(LAWS):
            drawn[row] = steps.get(name, drawn[row])
        wanted = self.held * own + variation * self.spread * drawn
        told = (person @ self.seen, wanted - own, torch.tensor(shares[:HELD_BANDS]), shape)
        held = variation * self.hold(torch.cat(told)).view(HELD_BANDS, -1) @ self.back
        bands = torch.cat([bands[:HELD_BANDS] + held, bands[HELD_BANDS:]])
        steps = self.solve @ (wanted - torch.einsum("abs,bs->a", self.read, bands))
        bands = bands + torch.einsum("a,abs->bs", steps, self.move)
        behind = person + min(variation, 1.0) * (around - person)
        return torch.cat([by_layer(bands), behind[None]]) + self.mean


def on_grid(features: Tensor) -> Tensor:
    """Of pictures, ``N x 512 x side x side``, averaged over the cells of a coarse grid, flat; of
    one without its first dimension."""
    return torch.nn.functional.adaptive_avg_pool2d(features, GRID).flatten(1).squeeze(0)


def _sided(value: Tensor, most: float, edge: float, least: float) -> Tensor:
    """Away from the edge, on the value's side of it."""
    return value.clamp_min(least) if value > edge else value.clamp_max(most)


def by_layer(bands: Tensor) -> Tensor:
    """Styles of the five resolutions, ``5 x 512``, to those of the layers, ``13 x 512``."""
    repeats = torch.tensor([stop - start for start, stop in LAYERS.values()])
    return bands.repeat_interleave(repeats, 0)
