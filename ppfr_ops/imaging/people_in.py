"""Which pixels of a picture show a person, and which what is around."""

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ppfr_ops.imaging.arrays import Picture

PERSONS = Path(__file__).parent / "persons" / "persons.onnx"

_SIDE = 256
"""Of what the network is shown, px."""


@lru_cache(maxsize=1)
def _network() -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(PERSONS, options, providers=["CPUExecutionProvider"])


def person_in(picture: Picture) -> NDArray[np.float32]:
    """How surely each pixel shows a person: hair, face, neck, clothes.

    Made for portraits in which one person fills much of the picture. On one thread; a process
    loads the network once.

    Args:
        picture: uint8 ``H x W x 3``, RGB, of any size from 1 px on; it is stretched to a square.

    Returns:
        float32 ``H x W``, 0 to 1.

    Example:
        >>> around = person_in(picture) < 0.5
    """
    height, width = picture.shape[:2]
    way = cv2.INTER_AREA if min(height, width) > _SIDE else cv2.INTER_LINEAR
    seen = cv2.resize(picture, (_SIDE, _SIDE), interpolation=way)
    network = _network()
    image = (seen.astype(np.float32) / 255).transpose(2, 0, 1)[None]
    mask = np.asarray(network.run(None, {network.get_inputs()[0].name: image})[0])[0, 0]
    return np.asarray(cv2.resize(mask, (width, height)), np.float32).clip(0, 1)
