"""Gaussian blur: the plain baseline. It hides little at small sigma and breaks FR at large."""

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.methods.base import Anonymizer
from ppfr_ops.methods.registry import register


@register("blur")
class Blur(Anonymizer):
    may_publish_metrics = True

    sigma: float = Field(6.0, gt=0, le=56, description="standard deviation of the Gaussian, px")

    def anonymize(self, faces: Faces, draws: NDArray[np.float32]) -> Faces:
        return np.stack([cv2.GaussianBlur(face, (0, 0), self.sigma) for face in faces])
