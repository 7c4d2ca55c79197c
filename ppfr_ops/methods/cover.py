"""Nothing of a face but a few mean colours, or none: the covers of heads in photographs."""

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ppfr_ops.imaging.arrays import FACE_SIZE, Faces
from ppfr_ops.imaging.covers import HEAD, MARGIN, Cover, Head, cover_head
from ppfr_ops.methods.base import Anonymizer
from ppfr_ops.methods.registry import register


@register("cover")
class HeadCover(Anonymizer):
    """In whole photographs it covers heads where they are; of aligned faces it gives what is seen
    of such a cover, with their edges mirrored for surroundings."""

    style: Cover = Field("blur", description="blur, mosaic, or solid: one colour")

    def anonymize(self, faces: Faces, draws: NDArray[np.float32]) -> Faces:
        x, y, half_x, half_y = HEAD
        reach = 1 + MARGIN
        left, top = round(half_x * reach - x) + 2, round(half_y * reach - y) + 2
        right = round(half_x * reach + x) - FACE_SIZE + 2
        bottom = round(half_y * reach + y) - FACE_SIZE + 2
        matrix = np.array([[1.0, 0, -left], [0, 1, -top]])
        out = np.empty_like(faces)
        for face, target in zip(faces, out, strict=True):
            whole = cv2.copyMakeBorder(face, top, bottom, left, right, cv2.BORDER_REFLECT)
            head = Head(whole.shape, matrix)
            cover_head(whole, np.zeros(whole.shape[:2], bool), head, self.style)
            target[:] = whole[top : top + FACE_SIZE, left : left + FACE_SIZE]
        return out
