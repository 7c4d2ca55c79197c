"""A method for the tests: it kills its process on a marked face, as broken native code does."""

import os
import signal
import time

import numpy as np
from numpy.typing import NDArray

from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.methods.base import Anonymizer


def is_marked(faces: Faces) -> NDArray[np.bool_]:
    """Whether the upper left corner is plain red; ``N``."""
    corner = faces[:, :8, :8].astype(int).mean((1, 2))
    return (corner[:, 0] > 200) & (corner[:, 1] < 60) & (corner[:, 2] < 60)


class Poison(Anonymizer):
    def anonymize(self, faces: Faces, draws: NDArray[np.float32]) -> Faces:
        if is_marked(faces).any():
            os.kill(os.getpid(), signal.SIGSEGV)
            # The signal may be another thread's to handle, which takes its time; broken native
            # code does not go on meanwhile.
            time.sleep(60)
        return 255 - faces
