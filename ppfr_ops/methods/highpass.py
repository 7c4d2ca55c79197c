"""High-pass: the local features that a Gaussian low-pass leaves behind, amplified."""

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.methods.base import Anonymizer
from ppfr_ops.methods.registry import register


def highpass(faces: Faces, sigma: float) -> NDArray[np.float32]:
    """x minus its Gaussian low-pass.

    Args:
        faces: uint8 ``N x H x W x 3``.
        sigma: standard deviation of the Gaussian, px.

    Returns:
        float32 ``N x H x W x 3``, about -255 to 255, mean near 0.
    """
    return np.stack(
        [face - cv2.GaussianBlur(face, (0, 0), sigma) for face in faces.astype(np.float32)]
    )


def to_uint8(signal: NDArray[np.float32]) -> Faces:
    """Centre a signed signal on mid-grey and round it into the 8-bit range."""
    return np.clip(np.rint(signal + 127.5), 0, 255).astype(np.uint8)


@register("highpass")
class HighPass(Anonymizer):
    may_publish_metrics = True

    sigma: float = Field(2.0, gt=0, le=56, description="standard deviation of the low-pass, px")
    gain: float = Field(2.5, gt=0, le=100, description="factor on what the low-pass leaves")

    def anonymize(self, faces: Faces, draws: NDArray[np.float32]) -> Faces:
        return to_uint8(self.gain * highpass(faces, self.sigma))
