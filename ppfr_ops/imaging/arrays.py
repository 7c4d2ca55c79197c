"""The two kinds of pictures, as arrays."""

import numpy as np
from numpy.typing import NDArray

FACE_SIZE = 112
"""Side in px of an aligned face (the ArcFace template)."""

Faces = NDArray[np.uint8]
"""uint8 ``N x 112 x 112 x 3``, RGB, aligned."""

Picture = NDArray[np.uint8]
"""uint8 ``H x W x 3``, RGB."""
