"""Drawn people for the tracks of a video: one person, one look and one light for each track; only
place, size, slant and turn follow the face, as smooth as the track is.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ppfr_ops.draws import keyed_draws
from ppfr_ops.imaging.arrays import Picture
from ppfr_ops.imaging.detector import Detections
from ppfr_ops.imaging.geometry import cut, transforms
from ppfr_ops.imaging.portraits import Portrait, skin_colour, yaw
from ppfr_ops.imaging.tracking import Track
from ppfr_ops.methods.portrait import PortraitHeads, Sitter
from ppfr_ops.methods.registry import create
from ppfr_ops.store.atomic import in_one_step

SMALLEST, SURE = 32.0, 0.35
"""Tracks of which no face is as large (px) or as sure stay under a blur; as in photographs."""


def skins_of(picture: Picture, faces: Detections) -> NDArray[np.float32]:
    """Mean colours of the skin of faces, float32 ``N x 3``."""
    crops = cut(picture, transforms(faces))
    return np.array([skin_colour(crop) for crop in crops], np.float32).reshape(-1, 3)


class DrawnTracks:
    """Who is drawn for each track of one video.

    Args:
        key: a file that keeps the secret that people and looks are drawn by until the video is
            done, so that a run that is killed goes on with the same people.
    """

    def __init__(self, key: Path) -> None:
        if not key.exists():
            with in_one_step(str(key), mode=0o600) as file:
                file.write(os.urandom(32))
        secret = key.read_bytes()
        heads = create("portrait").with_secrets({"identity-key": secret})
        self._heads, self._draws = cast(PortraitHeads, heads), keyed_draws(secret)
        self._known: dict[int, Sitter | None] = {}

    def portraits(self, there: Sequence[tuple[Track, int]]) -> dict[int, Portrait]:
        """The people in a frame, by the number of the head; some have none.

        Args:
            there: tracks, and their places in them. A track that is not there is over.
        """
        numbers = {track.number for track, _ in there}
        self._known = {n: each for n, each in self._known.items() if n in numbers}
        found: dict[int, Portrait] = {}
        for head, (track, place) in enumerate(there):
            if track.number not in self._known:
                self._known[track.number] = self._sitter(track)
            sitter = self._known[track.number]
            if sitter is not None:
                found[head] = sitter.turned(yaw(track.landmarks[place]))
        return found

    def _sitter(self, track: Track) -> Sitter | None:
        marks, boxes = np.stack(track.landmarks), np.stack(track.boxes)
        size = float((boxes[:, 2:] - boxes[:, :2]).max())
        if not np.isfinite(marks).all() or size < SMALLEST or max(track.scores) < SURE:
            return None
        (draw,) = self._draws([str(track.number)], self._heads.draw_size, 0)
        skin = np.median(np.stack(track.skins).astype(np.float64), axis=0)
        eyes = float(np.linalg.norm(marks[:, 1] - marks[:, 0], axis=1).max())
        return self._heads.sitter(draw, [yaw(each) for each in marks], skin, eyes)
