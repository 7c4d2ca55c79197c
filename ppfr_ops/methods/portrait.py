"""Drawn people for the heads of whole photographs: those of the method natural, turned as the
original face is turned and in its light.

What is read of a face: how far it is turned to the side, its place and size, and the mean colour of
its skin, rounded (``imaging.portraits``). Who the drawn person is depends on nothing of it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.imaging.geometry import align, similarity
from ppfr_ops.imaging.portraits import Portrait, lit, skin_colour, yaw
from ppfr_ops.methods.base import Anonymizer, Context
from ppfr_ops.methods.registry import create, register

if TYPE_CHECKING:
    from ppfr_ops.methods.natural import Natural

_TURN, _AHEAD, _WIDEST = 0.176, -0.03, 1.8
"""How much ``yaw`` moves for one deviation of the generator's own pictures, where it stands at
none, and how many are asked for at most; from three renderings of one person."""

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
        made: Any = create("natural", {"device": self.device})
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
        from ppfr_ops.methods.natural.looks import ATTRIBUTES, BANDS, DRAW, LAWS

        seed = hashlib.sha256(draw.tobytes())
        turned = float(np.clip((yaw(seen.landmarks) - _AHEAD) / _TURN, -_WIDEST, _WIDEST))
        moved = draw.copy()
        place = DRAW - ATTRIBUTES + len(BANDS) + list(LAWS).index("yaw")
        moved[place] = turned / LAWS["yaw"].spread
        eyes = float(np.hypot(*(seen.landmarks[1] - seen.landmarks[0])))
        size = next((side for side in (128, 256, 512) if side * _EYES >= 0.9 * eyes), 1024)
        # Somebody of that name: nothing of the face has a part in who it is.
        for tried in (moved, draw):
            made = natural.render(natural.styles([seed.hexdigest()], tried[None]), size)
            if made.scores[0] > 0 and np.isfinite(made.landmarks[0]).all():
                picture, marks = made.pictures[0], made.landmarks[0]
                own = skin_colour(align(picture, marks[None])[0])
                shown = lit(picture, skin_colour(seen.aligned), own)
                return Portrait(shown, similarity(marks), int.from_bytes(seed.digest()[:8]))
        return None
