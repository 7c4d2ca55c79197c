"""Pose as a kept look asks for it: what a look will miss is added to the next one that is looked
over, and the camera turns the head by the rest."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ppfr_ops.imaging.arrays import FACE_SIZE
from ppfr_ops.imaging.geometry import align
from ppfr_ops.imaging.look import EDGES, NO_AIM, shape
from ppfr_ops.methods.natural import camera, looks
from ppfr_ops.methods.natural.traits import Traits

SLOPES = {"yaw": (-0.03, 0.11), "pitch": (0.565, 0.0105)}
"""Where a feature stands when nothing is asked for, and what a normal of it adds; means of 16
people."""
FURTHEST = {"yaw": 2.3, "pitch": 1.8}
"""Normals that are asked for at most."""
TURNS = {"yaw": (0.124, 0.83), "pitch": (0.0195, 2.7)}
"""What the camera's turning by 1 adds, and by how much it turns at most."""
NEAR = {"yaw": 0.01, "pitch": 0.004}
"""What may be missing beyond what a turn adds."""
ENLARGED, _LARGE = 0.4, 256
"""What is sharpened of a picture of fewer pixels a side, for its crop is enlarged."""
_SHARE = 0.8
"""Of what is missing that is added for the next one."""


STILL = np.zeros(camera.DRAW)
"""A camera straight ahead, in the light that there is."""


@dataclass
class Sight:
    """A picture of 128 or 256 px with a border, its landmarks in it, ``5 x 2``, and how sound it
    is: 1 and more is good enough, 0: no face; and what the person's face has of its own."""

    picture: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    sound: float = 0.0
    face: Traits | None = None

    def aligned(
        self, draw: NDArray[np.float64], aim: Mapping[str, float] = NO_AIM
    ) -> NDArray[np.uint8]:
        """As the camera takes it, uint8 ``112 x 112 x 3``; black where there is no face."""
        if not np.isfinite(self.landmarks).all():
            return np.zeros((FACE_SIZE, FACE_SIZE, 3), np.uint8)
        to = turn(draw[:2], shape(self.landmarks), aim)
        picture, points = camera.turned(self.picture, self.landmarks, to, self.face)
        crop = align(picture, points[None])[0]
        if len(picture) < _LARGE:
            crop = camera.blurred(crop, -ENLARGED)
        return camera.taken(crop, draw[2:], aim)


def places(draw: NDArray[np.float32]) -> dict[str, float]:
    """Where in its bin each feature of a look is to be, 0 to 1."""
    chosen = [looks.PLACES["yaw"], looks.PLACES["pitch"], *camera.PLACES]
    shares = torch.special.ndtr(torch.from_numpy(draw[chosen]))
    return dict(zip(EDGES, shares.tolist(), strict=True))


def begin(aim: Mapping[str, float]) -> dict[str, float]:
    """Normals to try first, by feature."""
    return {
        name: _within(name, (aim[name] - middle) / slope)
        for name, (middle, slope) in SLOPES.items()
        if name in aim
    }


def steer(steps: dict[str, float], seen: Mapping[str, float], aim: Mapping[str, float]) -> float:
    """Change the normals by what a look misses.

    Returns:
        How much it misses: 0 is near enough, 1 as far from it as can be.
    """
    missed = 0.0
    for name, step in steps.items():
        short = aim[name] - seen[name]
        gain, most = TURNS[name]
        if (beyond := abs(short) - gain * most) > NEAR[name]:
            missed += beyond / (10 * NEAR[name])
            steps[name] = _within(name, step + _SHARE * short / SLOPES[name][1])
    return missed / (1 + missed)


def turn(
    drawn: NDArray[np.float64], seen: Mapping[str, float], aim: Mapping[str, float]
) -> NDArray[np.float64]:
    """How the camera turns a head, to the side and up: as drawn, or by what it misses."""
    found = drawn.copy()
    for place, (name, (gain, most)) in enumerate(TURNS.items()):
        if name in aim:
            found[place] = np.clip((aim[name] - seen[name]) / gain, -most, most)
    return found


def _within(name: str, step: float) -> float:
    return float(np.clip(step, -FURTHEST[name], FURTHEST[name]))
