"""Drawn people for the tracks of a video: one person, one look and one light for each track; only
place, size, slant and turn follow the face, as smooth as the track is. Tracks in which recognisers
see one person are drawn as one.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ppfr_ops.draws import keyed_draws
from ppfr_ops.imaging.arrays import Picture
from ppfr_ops.imaging.detector import Detections
from ppfr_ops.imaging.geometry import cut, transforms, whole_head
from ppfr_ops.imaging.portraits import Portrait, skin_colour, yaw
from ppfr_ops.imaging.tracking import Track
from ppfr_ops.methods.portrait import PortraitHeads, Sitter
from ppfr_ops.methods.registry import create
from ppfr_ops.sanitize.grouping import SURE as SAME
from ppfr_ops.sanitize.grouping import features_of, fused
from ppfr_ops.store.atomic import in_one_step

SMALLEST, SURE = 32.0, 0.35
"""Tracks of which no face is as large (px) or as sure stay under a blur; as in photographs."""

FACE, FRONT = (56.0, 72.0, 42.0, 54.0), (56.0, 64.0, 42.0, 56.0)
"""As ``covers.HEAD``: of a face behind, which no hair hides, and of one in front, which does."""

CODED, CLEAR = 12, 0.6
"""One frame in so many is shown to recognisers; of it the faces that score as much."""


def read_of(picture: Picture, faces: Detections, coded: bool) -> dict[str, NDArray[Any]]:
    """What is read of the faces of a frame.

    Args:
        coded: whether recognisers are asked who it is.

    Returns:
        ``skins``: mean colours of the skin, float32 ``N x 3``; ``coded``: bool ``N``, which of them
        have ``codes``, float32 ``M x 256``: templates of originals, kept until the video is done.
    """
    crops = cut(picture, transforms(faces))
    size = (faces.boxes[:, 2:] - faces.boxes[:, :2]).max(1, initial=0)
    shown = coded & (size >= SMALLEST) & (faces.scores >= CLEAR)
    nobody = np.zeros((0, 256), np.float32)
    return {
        "skins": np.array([skin_colour(crop) for crop in crops], np.float32).reshape(-1, 3),
        "coded": shown,
        "codes": fused(features_of(crops[shown])) if shown.any() else nobody,
    }


def people_of(tracks: Sequence[Track]) -> list[list[Track]]:
    """Tracks by the person that recognisers see in them; nobody is in one frame twice."""
    people: list[list[Track]] = []
    for track in tracks:
        likeness = [_likeness(track, own) for own in people]
        if likeness and max(likeness) >= SAME:
            people[int(np.argmax(likeness))].append(track)
        else:
            people.append([track])
    return people


def _likeness(track: Track, own: Sequence[Track]) -> float:
    theirs = [code for other in own for code in other.codes]
    found = {frame for frame, score in zip(track.frames, track.scores, strict=True) if score > 0}
    for other in own:
        if any(s > 0 and f in found for f, s in zip(other.frames, other.scores, strict=True)):
            return -1.0
    if not track.codes or not theirs:
        return -1.0
    one, two = np.sum(track.codes, axis=0), np.sum(theirs, axis=0)
    return float(one @ two / (np.linalg.norm(one) * np.linalg.norm(two)))


class DrawnTracks:
    """Who is drawn for each track of one video.

    Args:
        key: a file that keeps the secret that people and looks are drawn by until the video is
            done, so that a run that is killed goes on with the same people.
        tracks: all of the video, whole.
    """

    def __init__(self, key: Path, tracks: Sequence[Track]) -> None:
        if not key.exists():
            with in_one_step(str(key), mode=0o600) as file:
                file.write(os.urandom(32))
        secret = key.read_bytes()
        heads = create("portrait").with_secrets({"identity-key": secret})
        self._heads, self._draws = cast(PortraitHeads, heads), keyed_draws(secret)
        self._people = {each.number: own for own in people_of(tracks) for each in own}
        self._known: dict[int, Sitter | None] = {}

    def portraits(
        self, there: Sequence[tuple[Track, int]], faces: Detections
    ) -> dict[int, Portrait]:
        """The people in a frame, by the number of the head; some have none.

        Args:
            there: tracks, and their places in them. A track that is not there is over.
            faces: theirs.
        """
        known, self._known = self._known, {}
        for track, _ in there:
            number = track.number
            self._known[number] = known[number] if number in known else self._sitter(track)
        turns = [yaw(marks) for marks in faces.landmarks]
        each = enumerate(zip(self._known.values(), turns, strict=True))
        drawn = {i: sitter.turned(turn) for i, (sitter, turn) in each if sitter is not None}
        return unhidden(drawn, faces)

    def _sitter(self, track: Track) -> Sitter | None:
        """Of all tracks of the person, in the light of this one."""
        sound = [each for each in self._people[track.number] if _sound(each)]
        if not _sound(track):
            return None
        marks = np.concatenate([np.stack(each.landmarks) for each in sound])
        (draw,) = self._draws([str(sound[0].number)], self._heads.draw_size, 0)
        skin, own = (
            np.median(np.concatenate(skins).astype(np.float64), axis=0)
            for skins in ([np.stack(each.skins) for each in sound], [np.stack(track.skins)])
        )
        eyes = float(np.linalg.norm(marks[:, 1] - marks[:, 0], axis=1).max())
        sitter = self._heads.sitter(draw, [yaw(each) for each in marks], skin, eyes)
        return sitter if sitter is None or len(sound) == 1 else sitter.in_light(own)


def unhidden(drawn: Mapping[int, Portrait], faces: Detections) -> dict[int, Portrait]:
    """Drawn people of a frame, by the number of the face, whose hair hides no face behind them: of
    what the original had around its face in front, nothing is known.

    Args:
        faces: all of the frame; the larger stand in front.
    """
    found, boxes, last = dict(drawn), faces.boxes, [0, 0, 1]
    ways = {i: np.vstack([whole_head(faces.landmarks[i], boxes[i])[0], last]) for i in drawn}
    areas, middles = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), (boxes[:, :2] + boxes[:, 2:]) / 2
    for front, behind in product(drawn, drawn):
        apart = np.linalg.norm(middles[front] - middles[behind])
        if areas[behind] < areas[front] and apart < 2 * faces.sizes[front]:
            own, shares = np.vstack([drawn[front].matrix, last]), found[front].silhouette
            there = ways[behind] @ np.linalg.inv(ways[front]) @ own
            clear = 1 - _within(FACE, there, shares.shape)
            room = np.maximum(clear, _within(FRONT, own, shares.shape))
            found[front] = replace(found[front], silhouette=shares * room)
    return found


def _within(
    ellipse: tuple[float, ...], matrix: NDArray[np.float64], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Of pixels, by their way to the template, how much lies within an ellipse there, 0 to 1."""
    down, across = np.ogrid[: shape[0], : shape[1]]
    x, y = (line[0] * across + line[1] * down + line[2] for line in matrix[:2])
    radius = np.hypot((x - ellipse[0]) / ellipse[2], (y - ellipse[1]) / ellipse[3])
    return np.asarray(np.clip((1.1 - radius) / 0.2, 0, 1), np.float32)


def _sound(track: Track) -> bool:
    size = float(np.ptp(np.stack(track.boxes).reshape(-1, 2, 2), axis=1).max())
    marked = bool(np.isfinite(track.landmarks).all())
    return marked and size >= SMALLEST and max(track.scores) >= SURE
