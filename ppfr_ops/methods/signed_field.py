"""Signed field: the high-pass times a random smooth gain field that also flips signs.

The field is fresh for every record. Without it the local sign of contrast cannot be told, which is
what a reconstructor needs; no training is involved.
"""

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ppfr_ops.imaging.arrays import FACE_SIZE, Faces
from ppfr_ops.methods.base import Anonymizer
from ppfr_ops.methods.highpass import highpass, to_uint8
from ppfr_ops.methods.registry import register


@register("signed-field")
class SignedField(Anonymizer):
    may_publish_metrics = True

    sigma: float = Field(2.0, gt=0, le=56, description="standard deviation of the low-pass, px")
    gain: float = Field(2.5, gt=0, le=100, description="factor on what the low-pass leaves")
    grid: int = Field(28, ge=2, le=FACE_SIZE, description="cells a side of the gain field")

    @property
    def draw_size(self) -> int:
        return self.grid * self.grid

    def anonymize(self, faces: Faces, draws: NDArray[np.float32]) -> Faces:
        size = (FACE_SIZE, FACE_SIZE)
        grids = draws.reshape(-1, self.grid, self.grid)
        field = np.stack([cv2.resize(grid, size, interpolation=cv2.INTER_CUBIC) for grid in grids])
        return to_uint8(self.gain * highpass(faces, self.sigma) * field[..., None])
