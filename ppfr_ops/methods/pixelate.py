"""Pixelation: every block becomes its mean colour."""

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ppfr_ops.imaging.arrays import FACE_SIZE, Faces
from ppfr_ops.methods.base import Anonymizer
from ppfr_ops.methods.registry import register


@register("pixelate")
class Pixelate(Anonymizer):
    may_publish_metrics = True

    block: int = Field(8, ge=2, le=56, description="side of a block, px")

    def anonymize(self, faces: Faces, draws: NDArray[np.float32]) -> Faces:
        side = -(-FACE_SIZE // self.block)
        full = (side * self.block, side * self.block)
        pad = full[0] - FACE_SIZE
        out = np.empty_like(faces)
        for face, target in zip(faces, out, strict=True):
            padded = cv2.copyMakeBorder(face, 0, pad, 0, pad, cv2.BORDER_REPLICATE)
            small = cv2.resize(padded, (side, side), interpolation=cv2.INTER_AREA)
            large = cv2.resize(small, full, interpolation=cv2.INTER_NEAREST)
            target[:] = large[:FACE_SIZE, :FACE_SIZE]
        return out
