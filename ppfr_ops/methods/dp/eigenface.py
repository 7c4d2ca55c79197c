"""Noise on eigenface coefficients (PEEP), sound; or as published, with its true epsilon.

After "Privacy Preserving Face Recognition Utilizing Differential Privacy" (Chamikara, Bertok,
Khalil, Liu, Camtepe, arXiv 2005.10486). The coefficients of a face in a basis of public faces
(Turk and Pentland 1991) are clipped, noised, and drawn again.

``claim=peep`` is the published scaling: every coefficient is brought to 0..1, and Laplace noise of
scale 1 / epsilon is added to each of 128 as if all of them together changed by 1 at most. They
change by 128 at most, so the true epsilon is 128 times the claimed one.
"""

from functools import lru_cache
from pathlib import Path
from typing import Literal, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from safetensors.numpy import load_file

from ppfr_ops.imaging.arrays import FACE_SIZE, Faces
from ppfr_ops.methods.base import Output, file_digest
from ppfr_ops.methods.dp.base import Private
from ppfr_ops.methods.dp.mechanism import Mechanism, Vectors
from ppfr_ops.methods.registry import register
from ppfr_ops.privacy import Guarantee, Loss

BASIS = Path(__file__).parent / "eigenfaces.safetensors"
"""Made by ``bench/dp_basis.py`` from UTKFace."""
SIZE = 128
"""Coefficients."""
SIDE = 56
"""px; what 128 eigenfaces hold is no finer."""
BOX = 3.5
"""``claim=peep``: a coefficient is brought from so many public standard deviations around the
public mean to 0..1."""


_PROJECTIONS = 300
_BROAD = 8
"""The first axes hold most of the contrast; a picture cannot be at a corner with them."""


class Basis:
    """Mean and eigenfaces of public faces, grey, and what they are scaled by.

    ``mean`` is ``P`` (grey levels), ``axes`` ``SIZE x P``; a coefficient is the root mean square
    of its part of the picture, grey levels. ``spread`` (``SIZE``) and the radii are of public
    faces, too: 0.4 of the first percentile of the norms, so that nearly every face is scaled onto
    the surface of the ball.
    """

    def __init__(self, path: Path) -> None:
        found = load_file(path)
        axes = found["axes"].astype(np.float64) * found["scale"].astype(np.float64)[:, None]
        self.axes = axes
        self.mean = found["mean"].astype(np.float64)
        self.spread = found["spread"].astype(np.float64)
        self.radius = {"laplace": float(found["radius"][0]), "gaussian": float(found["radius"][1])}
        self.shape = {
            "laplace": found["clipped"][0].astype(np.float64),
            "gaussian": found["clipped"][1].astype(np.float64),
        }
        """Standard deviations of clipped coefficients, radius 1."""

    def coefficients(self, faces: Faces) -> Vectors:
        """uint8 ``N x 112 x 112 x 3`` to ``N x SIZE``, grey levels."""
        grey = [cv2.cvtColor(np.ascontiguousarray(face), cv2.COLOR_RGB2GRAY) for face in faces]
        small = [cv2.resize(g, (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel() for g in grey]
        return (np.stack(small) - self.mean) @ self.axes.T / SIDE

    def reach(self, coefficients: Vectors) -> NDArray[np.uint8]:
        """A picture, ``112 x 112 x 3``, with these coefficients (``SIZE``) as nearly as pixels of
        0 to 255 allow: by projections in turn on either."""
        small = self.mean.copy()
        for _ in range(_PROJECTIONS):
            missing = coefficients - (small - self.mean) @ self.axes.T / SIDE
            small = np.clip(small + missing @ self.axes * SIDE, 0, 255)
        grey = np.kron(small.round().reshape(SIDE, SIDE), np.ones((2, 2))).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)

    def pictures(self, coefficients: Vectors) -> Faces:
        """The way back."""
        small = self.mean + coefficients @ self.axes * SIDE
        out = np.empty((len(small), FACE_SIZE, FACE_SIZE, 3), np.uint8)
        for place, flat in enumerate(small):
            picture = flat.reshape(SIDE, SIDE).astype(np.float32)
            size = (FACE_SIZE, FACE_SIZE)
            large = cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC)
            out[place] = np.clip(large.round(), 0, 255).astype(np.uint8)[..., None]
        return out


@lru_cache(maxsize=1)
def basis() -> Basis:
    """The shipped one."""
    return Basis(BASIS)


@register("dp-eigenface")
class Eigenface(Private):
    claim: Literal["none", "peep"] = Field(
        "none", description="peep: the published scaling, whose claim is wrong"
    )

    @model_validator(mode="after")
    def _published(self) -> Self:
        if self.claim == "peep" and self.unit != "record":
            raise ValueError("claim peep knows no unit but a record")
        return self

    def weights_digest(self) -> str:
        return file_digest(BASIS)

    @property
    def draw_size(self) -> int:
        """Noise comes from OpenDP alone; but a face drawn twice differs, which measures ask."""
        return 1

    def mechanism(self) -> Mechanism:
        if self.claim == "peep":
            # The box's diameter in L1 is SIZE; the mechanism's ball has diameter 2.
            return Mechanism("laplace", SIZE * self.epsilon, 0.0)
        return super().mechanism()

    def clip_radius(self) -> float:
        return SIZE / 2 if self.claim == "peep" else basis().radius[self.noise]

    def guarantee(self) -> Guarantee:
        if self.claim == "none":
            return super().guarantee()
        true = SIZE * self.epsilon
        return Guarantee(
            epsilon=true,
            delta=0.0,
            mechanism="Laplace, box 0..1 (as published), discrete (OpenDP)",
            clip_radius=self.clip_radius(),
            unit="record",
            loss=Loss(pure=true),
            claimed_epsilon=self.epsilon,
            unsound=f"claimed epsilon {self.epsilon:g} takes {SIZE} coefficients in 0..1 to change "
            f"by 1 together; they change by {SIZE}, so the true epsilon is {true:g}",
        )

    def anonymize(self, faces: Faces, draws: NDArray[np.float32]) -> Output:
        noised = self.mechanism().private(self.vectors(faces))
        if self.claim == "peep":
            drawn = noised * SIZE * self._edge() * self._faintness()
        else:
            drawn = self.natural(noised)
        return Output(basis().pictures(drawn), self.figures(len(faces)))

    def neighbours(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Pictures whose coefficients are opposite: on one axis, where the ball is widest; for the
        box on all axes, as near to its corners as a picture can be."""
        radius = self.clip_radius()
        if self.claim == "peep":
            wanted = BOX * basis().spread * (np.arange(SIZE) >= _BROAD)
        else:
            wanted = np.eye(SIZE)[0] * radius
        return basis().reach(wanted), basis().reach(-wanted)

    def readings(self, pictures: Faces) -> NDArray[np.float64]:
        """The coefficient that the neighbours differ in; for the box the sum of all, each cut off
        where more of it tells no more (the log likelihood ratio of Laplace noise)."""
        found = basis().coefficients(pictures)
        if self.claim == "none":
            return found[:, :1]
        seen = found[:, _BROAD:] / (BOX * basis().spread[_BROAD:] * self._faintness())
        return np.clip(seen, -1, 1).sum(1, keepdims=True)

    def natural(self, noised: Vectors, deviation: float | None = None) -> Vectors:
        """Clipped and noised coefficients, radius 1, to what is drawn: the best linear estimate for
        public faces (Wiener), at their natural contrast. Post-processing.

        Args:
            deviation: of the noise; None: the mechanism's.
        """
        prior = basis().shape[self.noise] ** 2
        noise = self.mechanism().deviation if deviation is None else deviation
        weights = prior / (prior + noise**2)
        contrast = np.sqrt((basis().spread ** 2).sum() / (weights * prior).sum())
        return noised * weights * contrast

    def vectors(self, faces: Faces) -> Vectors:
        coefficients = basis().coefficients(faces)
        if self.claim == "none":
            return coefficients / basis().radius[self.noise]
        # -1/SIZE..1/SIZE: the box inside the mechanism's ball, corners on its surface
        return np.clip(coefficients / self._edge(), -1, 1) / SIZE

    def _edge(self) -> Vectors:
        """What the published scaling brings to 0..1, either way from the mean."""
        return BOX * basis().spread

    def _faintness(self) -> float:
        """What the published noise is drawn with, so that the picture is not black and white."""
        noise = self.mechanism().deviation * SIZE * BOX
        return float((1 + noise**2) ** -0.5)
