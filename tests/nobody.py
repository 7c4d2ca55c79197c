"""A method for tests that reads no face: stripes by key and person, noise by the draw. Cheap."""

import hashlib
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.methods.base import Anonymizer, Context


class Stripes(Anonymizer):
    secrets: ClassVar[Mapping[str, str]] = {"identity-key": "whom the pictures show"}
    wants = ("identity", "look")

    peeks: bool = Field(False, description="let the face show; what tests must notice")

    keep_look: str = Field("", description="parts of a look; they show in the last columns")

    @property
    def reads_faces(self) -> bool:
        return False

    @property
    def draw_size(self) -> int:
        return 3

    def anonymize_with(self, faces: Faces, draws: NDArray[np.float32], context: Context) -> Faces:
        out = np.empty_like(faces)
        for place, person in enumerate(context["identity"]):
            seed = hashlib.sha256(self.secret("identity-key") + person.encode()).digest()
            stripes = np.frombuffer(seed, np.uint8).repeat(4)[:112].astype(np.float32)
            out[place] = np.clip(stripes[:, None, None] / 2 + 60 + 9 * draws[place], 0, 255)
            if self.kept_look:
                digits = [
                    0 if digit == "-" else 8 * int(digit) + 8 for digit in context["look"][place]
                ]
                out[place, :, -len(digits) :] = np.uint8(digits)[:, None]
            if self.peeks:
                out[place, :8, :8] = faces[place, :8, :8]
        return out
