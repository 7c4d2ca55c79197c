"""Drawn people for the heads of whole photographs: those of the method natural, turned as the
original face is turned, in its light, and cut out of what is behind them.

What is read of a face: how far it is turned to the side, its place and size, and the mean colour of
its skin, rounded (``imaging.portraits``). Who the drawn person is depends on nothing of it.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ppfr_ops.imaging.arrays import Faces, Picture
from ppfr_ops.imaging.geometry import align, similarity
from ppfr_ops.imaging.portraits import Portrait, light, lit, skin_colour, yaw
from ppfr_ops.methods.base import Anonymizer, Context
from ppfr_ops.methods.codes import normals
from ppfr_ops.methods.registry import create, register

if TYPE_CHECKING:
    import torch

    from ppfr_ops.methods.natural import Natural

_TURN, _AHEAD, _WIDEST = 0.176, -0.03, 1.8
"""How much ``yaw`` moves for one deviation of the generator's own pictures, where it stands at
none, and how many are asked for at most; from three renderings of one person."""

_VARIATION = 0.7
"""Of the method natural: nobody has to look alike here, and less of it is sounder."""

_PEOPLE, _MOST_CUT, _MOST_ASTRAY, _MOST_LIGHT = 6, 0.33, 0.12, 0.35
"""How many are drawn before the best of them is taken; what of the upper edge of the
picture somebody may cover; by how much ``yaw`` may differ from what was asked for, and by
how much brighter or darker, as a logarithm, somebody may have to be made."""

_EDGE, _CROWN, _HIGH = 7, 10, 24
"""Of a picture of 128 px, px: over so many a head fades out towards the sides; so many rows are
stretched to a crown where hair is cut off by the upper edge; and how many are added for it."""

_EYES = 31 / 128
"""Distance of the eyes in a drawn picture, of its side."""


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
        return self._natural.weights_digest()

    @property
    def _natural(self) -> "Natural":
        made: Any = create("natural", {"device": self.device, "variation": str(_VARIATION)})
        return made.with_secrets(self._secrets) if self._secrets else made

    def anonymize(self, faces: Faces, draws: NDArray[np.float32]) -> Faces:
        """Of aligned faces: as natural shows somebody new."""
        return self._natural(faces, draws, Context({"identity": [None] * len(faces)}))

    def portraits(self, faces: Sequence[Seen], draws: NDArray[np.float32]) -> list[Portrait | None]:
        """Somebody new for every face, as large as the photograph needs.

        Args:
            draws: float32 ``N x draw_size``, standard normals.

        Returns:
            None where no sound picture was drawn.
        """
        natural = self._natural
        return [
            self._portrait(natural, seen, draw) for seen, draw in zip(faces, draws, strict=True)
        ]

    def _portrait(
        self, natural: "Natural", seen: Seen, draw: NDArray[np.float32]
    ) -> Portrait | None:
        import torch

        generator, wanted = natural.generator(), yaw(seen.landmarks)
        skin = skin_colour(seen.aligned)
        with torch.inference_mode():
            found = max(
                _people(natural, draw, wanted, skin), key=lambda person: person.fit, default=None
            )
            if found is None:
                return None
            eyes = float(np.hypot(*(seen.landmarks[1] - seen.landmarks[0])))
            size = next((side for side in (128, 256, 512) if side * _EYES >= 0.9 * eyes), 1024)
            picture = generator.picture(found.styles, size)
        marks = (found.landmarks + 0.5) * (size / 128) - 0.5
        own = skin_colour(align(picture, marks[None])[0])
        shown = lit(picture, skin, own)
        seed = int.from_bytes(hashlib.sha256(draw.tobytes()).digest()[:8])
        silhouette = np.asarray(
            cv2.resize(found.silhouette, (size, size), interpolation=cv2.INTER_CUBIC), np.float32
        )
        matrix, unit = similarity(marks), size // 128
        matrix[:, 2] -= matrix[:, 1] * unit * _HIGH
        return Portrait(*_crowned(*_cut_out(shown, silhouette), unit), matrix, seed)


def _in_one_piece(
    silhouette: NDArray[np.float32], landmarks: NDArray[np.float32]
) -> NDArray[np.float32]:
    """A silhouette of 128 px without what does not hang together with the face."""
    solid = cv2.erode((silhouette > 0.5).astype(np.uint8), _disc(7))
    _, pieces = cv2.connectedComponents(solid)
    across, down = landmarks.mean(0).round().astype(int)
    own = (pieces == pieces[down, across]) & (solid > 0)
    kept = cv2.GaussianBlur(cv2.dilate(own.astype(np.float32), _disc(13)), (0, 0), 1.0)
    return np.asarray(silhouette * kept, np.float32)


def _disc(side: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


def _cut_out(
    picture: Picture, silhouette: NDArray[np.float32]
) -> tuple[Picture, NDArray[np.float32]]:
    """A picture in which the edge of the person has the colours within, not those of what is
    behind, and a silhouette that is a little smaller."""
    inside = (silhouette > 0.9).astype(np.float32)
    wide = 2.5 * len(picture) / 128
    mass = cv2.GaussianBlur(inside, (0, 0), wide)[..., None]
    within = cv2.GaussianBlur(picture * inside[..., None], (0, 0), wide) / np.maximum(mass, 1e-3)
    share = np.clip((silhouette - 0.6) / 0.35, 0, 1)[..., None]
    share = np.where(mass > 1e-2, share, 1)
    edged = share * picture + (1 - share) * within
    shrunk = np.clip((silhouette - 0.3) / 0.6, 0, 1)
    return np.asarray(np.clip(edged, 0, 255), np.uint8), np.asarray(shrunk, np.float32)


@dataclass(frozen=True)
class _Person:
    """Somebody drawn: styles float32 ``13 x 512``; of the picture of 128 px the landmarks,
    ``5 x 2``, and the silhouette; and how well they fit, 1 and more is good enough."""

    styles: "torch.Tensor"
    landmarks: NDArray[np.float32]
    silhouette: NDArray[np.float32]
    fit: float


def _people(
    natural: "Natural", draw: NDArray[np.float32], turned: float, skin: NDArray[np.float64]
) -> Iterator[_Person]:
    """People turned as is wanted, up to the first that fits. Nothing of the face has a part in who
    they are but how far it is turned and the rounded colour of its skin."""
    from ppfr_ops.methods.natural.looks import ATTRIBUTES, BANDS, DRAW, LAWS
    from ppfr_ops.methods.natural.network import DEPTH
    from ppfr_ops.methods.natural.quality import sound

    generator, seed = natural.generator(), hashlib.sha256(draw.tobytes())
    place = DRAW - ATTRIBUTES + len(BANDS) + list(LAWS).index("yaw")
    steps = float(np.clip((turned - _AHEAD) / _TURN, -_WIDEST, _WIDEST))
    for number in range(_PEOPLE):
        look = draw[:DRAW].copy()
        if number:
            look = normals(seed.digest(), "portrait look", bytes([number]), DRAW)
        look[place] = steps / (LAWS["yaw"].spread * natural.variation)
        styles = next(natural.tries(f"{seed.hexdigest()} {number}", look))[:DEPTH]
        picture = generator.picture(styles, 128)
        marks, score = generator.landmarks(picture)
        if not score:
            continue
        silhouette = _in_one_piece(generator.silhouette(styles), marks)
        if silhouette.mean() < 0.1:
            continue
        crop = align(picture, marks[None])[0]
        good = sound(crop, marks, score)
        brighter = abs(np.log(light(skin, skin_colour(crop))))
        astray = abs(yaw(marks) - turned)
        fit = min(
            good,
            _MOST_CUT / max(float(silhouette[:2].mean()), 1e-6),
            _MOST_ASTRAY / max(astray, 1e-6),
            _MOST_LIGHT / max(brighter, 1e-6),
        )
        yield _Person(styles, marks, silhouette, float(fit))
        if fit >= 1:
            return


def _crowned(
    picture: Picture, silhouette: NDArray[np.float32], unit: int
) -> tuple[Picture, NDArray[np.float32]]:
    """With more room above, where hair that the upper edge cuts off goes on, and ends round; and no
    hard edge at the sides. ``unit``: the picture's pixels for one of 128."""
    side, first = len(picture), unit * _CROWN
    above = np.arange(first + unit * _HIGH, 0, -1, dtype=np.float32)
    rows = np.concatenate([first * (1 - np.tanh(above / first)), np.arange(first, side)])
    y = np.repeat(rows.astype(np.float32)[:, None], side, axis=1)
    x = np.repeat(np.arange(side, dtype=np.float32)[None], len(rows), axis=0)
    edge = cv2.BORDER_REPLICATE
    taller = cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=edge)
    shares = cv2.remap(silhouette, x, y, cv2.INTER_LINEAR, borderMode=edge)
    across, line = np.arange(side), silhouette[first]
    half = max(float(line.sum()) / 2, 1.0)
    middle = float((line * across).sum() / max(float(line.sum()), 1e-6))
    crown = np.hypot((x[: len(above)] - middle) / half, above[:, None] / (0.5 * half))
    shares[: len(above)] *= np.clip((1.08 - crown) / 0.16, 0, 1)
    near = np.minimum(across, across[::-1]) + 0.5
    shares *= np.clip(near / (_EDGE * unit), 0, 1).astype(np.float32)
    return np.asarray(taller, np.uint8), np.asarray(shares, np.float32)
