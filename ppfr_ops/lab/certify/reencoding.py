"""Disturbances of every day, tried one by one: a finite set needs no bound, only patience.

Of JPEG every quality is encoded, of brightness every step; what holds for all of them holds, for
this encoder and whole grey levels. Here the decision is the plain one, without noise.
"""

from collections.abc import Callable

import numpy as np

from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.imaging.codec import Encoding

LOWEST_QUALITY = 30
MOST_BRIGHTNESS = 40

Decides = Callable[[Faces], "np.ndarray"]
"""Faces to a bool each: decided as claimed."""


def jpeg_quality(face: Faces, decides: Decides) -> int | None:
    """The lowest quality from which on, up to 100, all hold; None: 100 does not."""
    encodings = (Encoding("jpeg", quality) for quality in range(100, LOWEST_QUALITY - 1, -1))
    holds = decides(np.stack([code.decode(code.encode(face)) for code in encodings]))
    count = _leading(holds)
    return 101 - count if count else None


def brightness(face: Faces, decides: Decides) -> int | None:
    """The most grey levels by which brightness may go up or down, every step of which holds;
    None: the picture as it is does not."""
    steps = np.arange(MOST_BRIGHTNESS + 1)[:, None, None, None]
    up = np.clip(face[None].astype(int) + steps, 0, 255).astype(np.uint8)
    down = np.clip(face[None].astype(int) - steps, 0, 255).astype(np.uint8)
    count = _leading(decides(up) & decides(down))
    return count - 1 if count else None


def _leading(holds: np.ndarray) -> int:
    return len(holds) if holds.all() else int(np.argmin(holds))
