"""The contract of a method.

A method is a frozen pydantic model whose fields are its options. It is called with a batch of
aligned faces and as many draws and returns what may be published; it keeps no state between calls.
"""

import hashlib
import json
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ppfr_ops.imaging.arrays import FACE_SIZE, Faces


class Anonymizer(BaseModel):
    """y = A(x, r). Subclasses add their options as fields and implement ``anonymize``."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: ClassVar[str]
    disclosure_limit: ClassVar[float | None] = None
    """A record that discloses more is drawn again, and not published if no draw helps."""

    @property
    def draw_size(self) -> int:
        """Standard normals that one face takes; 0 for a deterministic method."""
        return 0

    def anonymize(self, faces: Faces, draws: NDArray[np.float32]) -> Faces:
        raise NotImplementedError

    def __call__(self, faces: Faces, draws: NDArray[np.float32]) -> Faces:
        """Anonymize a batch.

        Args:
            faces: uint8 ``N x 112 x 112 x 3``, RGB, aligned.
            draws: float32 ``N x draw_size``, standard normal.

        Returns:
            uint8 ``N x 112 x 112 x 3``, RGB.

        Raises:
            ValueError: a shape or dtype is not as above.
        """
        expected = (len(faces), FACE_SIZE, FACE_SIZE, 3)
        if faces.shape != expected or faces.dtype != np.uint8:
            raise ValueError(f"faces must be uint8 {expected}, got {faces.dtype} {faces.shape}")
        if draws.shape != (len(faces), self.draw_size):
            raise ValueError(f"draws must be {(len(faces), self.draw_size)}, got {draws.shape}")
        if len(faces) == 0:
            return faces.copy()
        return self.anonymize(faces, draws)

    def options(self) -> dict[str, Any]:
        """The options that shape the output, as a manifest may show them: no path, no device."""
        return self.model_dump(mode="json")

    def digest(self) -> str:
        """sha256 over method, options and (where there are any) weights: what ran, exactly."""
        text = json.dumps({"method": self.name, "options": self.options()}, sort_keys=True)
        return hashlib.sha256(text.encode() + self.weights_digest().encode()).hexdigest()

    def weights_digest(self) -> str:
        """sha256 of the learned weights, hex; empty for a method without any."""
        return ""
