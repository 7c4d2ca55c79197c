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
        # cv2.GaussianBlur of bytes takes five times as long, and rounds one of 60 pixels otherwise.
        side = round(6 * self.sigma + 1) | 1
        line = cv2.getGaussianKernel(side, self.sigma, cv2.CV_32F)
        return np.stack([cv2.sepFilter2D(face, -1, line, line) for face in faces])
