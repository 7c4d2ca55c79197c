"""Drawn people for the heads of whole photographs: those of the method natural, turned as the
original face is turned, in its light, and cut out of what is behind them.

What is read of a face: how far it is turned to the side, its place and size, and the mean colour of
its skin, rounded (``imaging.portraits``). Who stands for a label depends on nothing of it; where
there is none, somebody is sought by turn and colour among people whom the draw gives.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ppfr_ops.imaging.arrays import Faces, Picture
from ppfr_ops.imaging.geometry import align
from ppfr_ops.imaging.people_in import PERSONS
from ppfr_ops.imaging.portraits import Portrait, light, lit, rounded, skin_colour, yaw
from ppfr_ops.imaging.silhouettes import (
    EYES,
    HIGH,
    bare,
    crowned,
    cut_out,
    in_one_piece,
    placed,
)
from ppfr_ops.methods.base import Anonymizer, Context, file_digest
from ppfr_ops.methods.codes import normals
from ppfr_ops.methods.registry import create, register

if TYPE_CHECKING:
    import torch

    from ppfr_ops.methods.natural import Natural
    from ppfr_ops.methods.natural.traits import Traits

_TURN, _AHEAD, _WIDEST = 0.176, -0.03, 1.8
"""How much ``yaw`` moves for one deviation of the generator's own pictures, where it stands at
none, and how many are asked for at most; from three renderings of one person."""

_VARIATION = 0.7
"""Of the method natural: nobody has to look alike here, and less of it is sounder."""

_PEOPLE, _LOOKS_TRIED, _DRAWN = 32, 6, 6
"""Among how many people one is sought for a face, and among how many looks of somebody who has a
label; and how many of these are drawn before the best of them is taken."""

_WHOLE, _MOST_CUT, _MOST_ASTRAY, _MOST_LIGHT = 1.5, 0.15, 0.12, 0.35
"""How surely a picture has to be whole, more than where a person's plain picture was looked at as
well; what of the upper edge of the picture somebody may cover; by how much ``yaw`` may differ from
what was asked for, and by how much brighter or darker, as a logarithm, somebody may have to be
made."""

_TOLD = np.array([0.565, 0.169, 0.257, 0.095, 0.038, 0.123])
"""How far ``Generator.foretold`` is astray, one deviation of each."""

_LOOKS, _BETWEEN, _KEPT, _EASED = 5, 0.12, 32 * 512**2, 0.8
"""Of somebody who turns: pictures that landmarks are looked up in; deviations from one drawn
picture to the next, a fiftieth of the eyes' distance for the nose; pixels of pictures that are
kept; and how far the head turns from its middle, as a share of how far the original does: one who
turns less stays more alike (sface between the pictures of eight people .859 for .817)."""


@dataclass(frozen=True)
class Seen:
    """What is read of an original face: uint8 ``112 x 112 x 3``, aligned, and its landmarks in the
    photograph, ``5 x 2``."""

    aligned: NDArray[np.uint8]
    landmarks: NDArray[np.float32]


@register("portrait")
class PortraitHeads(Anonymizer):
    redrawable = False
    draws_faces = True
    secrets: ClassVar[Mapping[str, str]] = {
        "identity-key": "decides which virtual people the pictures show"
    }

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where it runs")

    @property
    def draw_size(self) -> int:
        return self._natural.draw_size

    def options(self) -> dict[str, Any]:
        return {}

    def weights_digest(self) -> str:
        return self._natural.weights_digest() + file_digest(PERSONS)

    @property
    def _natural(self) -> "Natural":
        made: Any = create("natural", {"device": self.device, "variation": str(_VARIATION)})
        return made.with_secrets(self._secrets) if self._secrets else made

    def anonymize(self, faces: Faces, draws: NDArray[np.float32]) -> Faces:
        """Of aligned faces: as natural shows somebody new."""
        return self._natural(faces, draws, Context({"identity": [None] * len(faces)}))

    def portraits(
        self,
        faces: Sequence[Seen],
        draws: NDArray[np.float32],
        labels: Sequence[str | None] | None = None,
    ) -> list[Portrait | None]:
        """Somebody for every face, as large as the photograph needs.

        Args:
            draws: float32 ``N x draw_size``, standard normals.
            labels: of whom faces are; faces of one label show one virtual person. None: somebody
                new.

        Returns:
            None where no sound picture was drawn.
        """
        made: list[Portrait | None] = []
        for seen, draw, label in zip(faces, draws, labels or [None] * len(faces), strict=True):
            eyes = float(np.hypot(*(seen.landmarks[1] - seen.landmarks[0])))
            turned = round(yaw(seen.landmarks), 3)  # beyond is the trembling of landmarks
            sitter = self.sitter(draw, (turned,), skin_colour(seen.aligned), eyes, label)
            made.append(None if sitter is None else sitter.turned(turned))
        return made

    def sitter(
        self,
        draw: NDArray[np.float32],
        turns: Sequence[float],
        skin: NDArray[np.float64],
        eyes: float,
        label: str | None = None,
    ) -> "Sitter | None":
        """One person in one look and one light, to be seen from several sides.

        Args:
            draw: float32 ``draw_size``, standard normals.
            turns: how far the original is turned, as ``yaw`` says; the person is chosen for the
                one in the middle.
            skin: mean colour of the original's skin, of which a rounded value is used; ``3``.
            eyes: the largest distance of the original's eyes, px.
            label: of whom it is; None: somebody new.

        Returns:
            None if no sound picture was drawn.
        """
        import torch

        natural, middle = self._natural, float(np.median(turns))
        with torch.inference_mode():
            people = _people(natural, draw, middle, skin, label)
            found = max(people, key=lambda person: person.fit, default=None)
        if found is None:
            return None
        size = next((side for side in (128, 256, 512) if side * EYES >= 0.9 * eyes), 1024)
        return Sitter(natural, found, size, skin, (min(turns), middle, max(turns)))


class Sitter:
    """A drawn person, turned as is wanted: everything else stays. What lies between two steps is
    blended, so that a head that turns over time does not jump.

    Args:
        person: who, and in which look.
        size: side of the drawn pictures, px.
        skin: as in ``PortraitHeads.sitter``.
        turns: least, the one that the person was drawn with, and most.
    """

    def __init__(
        self,
        natural: "Natural",
        person: "_Person",
        size: int,
        skin: NDArray[np.float64],
        turns: tuple[float, float, float],
    ) -> None:
        import torch

        self.person, self.size, self.skin, self.turns = person, size, skin, turns
        self._natural, self._still = natural, turns[0] == turns[2]
        self._drawn: dict[int, tuple[Picture, NDArray[np.float32]]] = {}
        self._middle = _steps(turns[1])
        self._seed = int.from_bytes(hashlib.sha256(person.look.tobytes()).digest()[:8])
        low, middle, high = (_steps(turn) for turn in turns)
        places, marks = [middle], [person.landmarks]
        generator = natural.generator()
        with torch.inference_mode():
            for step in () if self._still else np.linspace(low, high, _LOOKS):
                found, score = generator.landmarks(
                    generator.drawn(person.styles_at(natural, step))[0]
                )
                if score:
                    places.append(float(step))
                    marks.append(found)
        # Where a detector sees landmarks trembles from one picture to the next.
        degree = min(2, len(set(places)) - 1)
        self._curve = np.polyfit(places, np.reshape(marks, (len(marks), 10)), degree)

    def in_light(self, skin: NDArray[np.float64]) -> "Sitter":
        """The same person in the same look, where the original's skin has another colour; ``3``."""
        return Sitter(self._natural, self.person, self.size, skin, self.turns)

    def turned(self, wanted: float) -> Portrait:
        """The person, turned as far as is wanted or as is possible."""
        from ppfr_ops.methods.natural import camera

        step = self._middle + _EASED * (_steps(wanted) - self._middle)
        place = step / _BETWEEN
        low = round(place) if self._still else int(np.floor(place))
        share = 0.0 if self._still else place - low
        picture, silhouette = self._at(low)
        if share > 1e-3:
            other, shape = self._at(low + 1)
            picture = np.asarray(cv2.addWeighted(picture, 1 - share, other, share, 0), np.uint8)
            silhouette = (1 - share) * silhouette + np.float32(share) * shape
        points, unit = camera.placed(self._marks(step), self.person.own), self.size // 128
        matrix = placed(points, unit)
        matrix[:, 2] -= matrix[:, 1] * unit * HIGH
        return Portrait(picture, np.asarray(silhouette, np.float32), matrix, self._seed)

    def _at(self, number: int) -> tuple[Picture, NDArray[np.float32]]:
        """Picture and silhouette at a step; so many are kept that one who sways needs no others."""
        import torch

        from ppfr_ops.methods.natural import camera

        if number not in self._drawn:
            if (len(self._drawn) + 1) * self.size**2 > _KEPT:
                self._drawn.pop(next(iter(self._drawn)))
            with torch.inference_mode():
                generator, styles = self._natural.generator(), self.person.styles
                picture, shape = self.person.picture, self.person.silhouette
                features = self.person.features
                step = self._middle if self._still else number * _BETWEEN
                if not self._still:
                    styles = self.person.styles_at(self._natural, step)
                    picture, features = generator.drawn(styles)
                    shape = in_one_piece(generator.silhouette(features), self.person.landmarks)
                shape, made, tone = bare(picture, shape, self._marks(step, 128), self.person.skin)
                if self._still or self.size != len(picture):
                    picture = generator.picture(styles, self.size, seen=features)
            size = (self.size, self.size)
            wide, neck = (
                cv2.resize(each, size, interpolation=cv2.INTER_CUBIC)
                for each in (255 * shape, made)
            )
            picture = np.asarray(picture + neck.clip(0, 1)[..., None] * (tone - picture), np.uint8)
            shown = lit(picture, self.skin, self.person.skin)
            both = np.dstack([shown, wide.clip(0, 255).round().astype(np.uint8)])
            both, _ = camera.turned(both, self._marks(step), np.zeros(2), self.person.own)
            shown, shape = both[..., :3], np.asarray(both[..., 3] / 255, np.float32)
            self._drawn[number] = crowned(*cut_out(shown, shape), self.size // 128)
        return self._drawn[number]

    def _marks(self, step: float, side: int | None = None) -> NDArray[np.float32]:
        """Landmarks of the picture at a step, before the person's traits are shown, ``5 x 2``."""
        marks = np.array([np.polyval(line, step) for line in self._curve.T]).reshape(5, 2)
        return np.asarray((marks + 0.5) * ((side or self.size) / 128) - 0.5, np.float32)


def _steps(turned: float) -> float:
    """By how many of the generator's deviations somebody has to be turned."""
    return float(np.clip((turned - _AHEAD) / _TURN, -_WIDEST, _WIDEST))


@dataclass(frozen=True)
class _Person:
    """Somebody drawn: who, centred, ``512``, and the look, of which come the styles, float32
    ``13 x 512``; the picture of 128 px, and of it the features at 64 px, the landmarks, ``5 x 2``,
    the silhouette and the mean colour of the skin, ``3``; how well they fit, 1 and more is good
    enough; and what the face has of its own, which no part of the picture shows yet."""

    who: "torch.Tensor"
    look: NDArray[np.float32]
    styles: "torch.Tensor"
    picture: Picture
    features: "torch.Tensor"
    landmarks: NDArray[np.float32]
    silhouette: NDArray[np.float32]
    skin: NDArray[np.float64]
    fit: float
    own: "Traits"

    def styles_at(self, natural: "Natural", steps: float) -> "torch.Tensor":
        """In the same look, turned otherwise."""
        return _styles(natural, [self.who], self.look[None], steps)[0]


def _styles(
    natural: "Natural", people: Sequence["torch.Tensor"], looks: NDArray[np.float32], steps: float
) -> "torch.Tensor":
    """People in looks, all turned by so many deviations, ``N x 13 x 512``."""
    from ppfr_ops.methods.natural.looks import LAWS, WIDEST
    from ppfr_ops.methods.natural.network import DEPTH

    turned = float(np.clip(steps / (LAWS["yaw"].spread * natural.variation), -WIDEST, WIDEST))
    return natural.looks_of(people, looks, {"yaw": turned})[:, :DEPTH]


def _people(
    natural: "Natural",
    draw: NDArray[np.float32],
    turned: float,
    skin: NDArray[np.float64],
    label: str | None,
) -> Iterator[_Person]:
    """People turned as is wanted, up to the first that fits, those first of whom that is told
    before they are drawn; with a label one person in several looks. Nothing of the face has a part
    in who they are but how far it is turned and the rounded colour of its skin, and nothing at all
    with a label."""
    import torch

    from ppfr_ops.methods.natural.looks import DRAW
    from ppfr_ops.methods.natural.quality import plain, sound
    from ppfr_ops.methods.natural.traits import field

    generator, count = natural.generator(), _LOOKS_TRIED if label else _PEOPLE
    people = repeat(natural.person(label, draw)) if label else natural.strangers(draw)
    seed, sought = hashlib.sha256(draw.tobytes()).digest(), list(islice(people, count))
    others = normals(seed, "portrait look", b"", count - 1, DRAW)
    looks = np.concatenate([draw[None, :DRAW], others])[: len(sought)]
    each = _styles(natural, sought, looks, _steps(turned))
    early, told = generator.foretold(each)
    face = field(natural.traits(label, draw))
    whole, *least, cut, astray, bright = told.double().numpy().T
    bound, reached = 1.0 if label else _WHOLE, _AHEAD + _TURN * _steps(turned)
    goal = 0.0 if label else np.log(rounded(skin) + 10).mean()
    spare = np.stack(
        [
            whole - np.log(bound),
            *(value - 1 for value in least),
            _MOST_CUT - cut,
            _MOST_ASTRAY - abs(astray - reached),
            _MOST_LIGHT - abs(bright - goal) * (not label),
        ]
    )
    chances = torch.special.log_ndtr(torch.from_numpy(spare / _TOLD[:, None])).sum(0)
    for number in chances.argsort(descending=True, stable=True)[:_DRAWN].tolist():
        who, look, styles = sought[number], looks[number], each[number]
        picture, features = generator.drawn(styles, seen=early[number : number + 1])
        marks, score = generator.landmarks(picture)
        if not score:
            continue
        silhouette = in_one_piece(generator.silhouette(features), marks)
        if silhouette.mean() < 0.1:
            continue
        crop = align(picture, marks[None])[0]
        kept = generator.looks.whole(features) / bound, generator.looks.flawless(features)
        good = min(sound(crop, marks, score), plain(crop), *kept)
        # A person's own skin is what it is.
        own = skin_colour(crop)
        brighter = 0.0 if label else abs(np.log(light(skin, own)))
        fit = min(
            good**3,  # who leans or shines a little too much is better than who is broken
            _MOST_CUT / max(float(silhouette[:2].mean()), 1e-6),
            _MOST_ASTRAY / max(abs(yaw(marks) - reached), 1e-6),
            _MOST_LIGHT / max(brighter, 1e-6),
        )
        yield _Person(
            who, look, styles, picture, features, marks, silhouette, own, float(fit), face
        )
        if fit >= 1:
            return
