"""Faces of single frames to tracks: one face over time, without holes where the detector missed it.

Convention: as in ``imaging.detector``; frames are numbered from 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import linear_sum_assignment

from ppfr_ops.imaging.boxes import overlap
from ppfr_ops.imaging.detector import Detections

SAME = 0.2
"""Overlap (intersection over union) of boxes in frames that follow each other, at least."""

JOINED = 0.35
"""Distance of the middles of boxes, in sizes, up to which a face is taken up again after a gap."""


@dataclass
class Track:
    """One face over time.

    ``frames`` rising int; ``boxes`` ``N x 4``; ``landmarks`` ``N x 5 x 2`` (NaN: none); ``scores``
    ``N``, 0 where the face was not found but must be: between two frames in which it was, and for
    some frames before the first and after the last. ``skins``: mean colours of its skin, ``3``;
    ``codes``: what recognisers see in some of its frames.
    """

    number: int
    frames: list[int] = field(default_factory=list)
    boxes: list[NDArray[np.float32]] = field(default_factory=list)
    landmarks: list[NDArray[np.float32]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    skins: list[NDArray[np.float32]] = field(default_factory=list)
    codes: list[NDArray[np.float32]] = field(default_factory=list)

    def add(
        self, frame: int, box: NDArray[np.float32], marks: NDArray[np.float32], score: float
    ) -> None:
        self.frames.append(frame)
        self.boxes.append(box)
        self.landmarks.append(marks)
        self.scores.append(score)


class Tracker:
    """Joins detections to tracks, frame by frame.

    Args:
        gap: frames that a face may be missed in a row and still be the same.
    """

    def __init__(self, gap: int) -> None:
        self.gap = gap
        self.tracks: list[Track] = []
        self._open: list[Track] = []

    def cut(self) -> None:
        """The scene changes: no face goes on."""
        self._open = []

    def add(self, frame: int, faces: Detections) -> list[Track]:
        """The faces of the next frame; returns the track of each."""
        self._open = [track for track in self._open if frame - track.frames[-1] <= self.gap + 1]
        found: dict[int, Track] = {}
        if self._open and len(faces):
            last = np.stack([track.boxes[-1] for track in self._open])
            likeness = np.stack([overlap(box, faces.boxes) for box in last])
            age = np.array([frame - track.frames[-1] for track in self._open], np.float32)
            near = _distance(last, faces.boxes) <= JOINED * np.sqrt(age)[:, None]
            score = np.where((likeness >= SAME) | near, 1 + likeness, 0)
            for row, column in zip(*linear_sum_assignment(-score), strict=True):
                if score[row, column] > 0:
                    found[int(column)] = self._open[row]
        for column in range(len(faces)):
            if column not in found:
                found[column] = Track(len(self.tracks))
                self.tracks.append(found[column])
                self._open.append(found[column])
            sure = float(faces.scores[column])
            found[column].add(frame, faces.boxes[column], faces.landmarks[column], sure)
        return [found[column] for column in range(len(faces))]


def _distance(ones: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Between the middles of boxes, in the mean of their longer sides; ``N x M``."""
    middles = [(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (ones, others)]
    sizes = [(boxes[:, 2:] - boxes[:, :2]).max(1) for boxes in (ones, others)]
    apart = np.linalg.norm(middles[0][:, None] - middles[1][None], axis=2)
    return np.asarray(2 * apart / np.maximum(sizes[0][:, None] + sizes[1][None], 1e-6), np.float32)


def filled(track: Track, scenes: Sequence[int], frames: int, reach: int, smooth: float) -> Track:
    """A track without holes, steady.

    Args:
        scenes: first frame of every scene, rising, from 0.
        frames: of the video.
        reach: frames that it is carried on before its first and after its last, within the scene:
            a face is seldom found at once, and a cover too many is better than a face.
        smooth: deviation of the Gaussian over time, frames.

    Returns:
        One entry for every frame from first to last. A smoothed box is as large as what was found
        there: the detector's box lies within it.
    """
    known = np.array(track.frames)
    start = scenes[int(np.searchsorted(scenes, known[0], "right")) - 1]
    after = int(np.searchsorted(scenes, known[-1], "right"))
    end = scenes[after] if after < len(scenes) else frames
    all_frames = np.arange(max(start, known[0] - reach), min(end, known[-1] + reach + 1))
    found = np.stack(track.boxes).astype(np.float64)
    boxes = _over_time(all_frames, known, found, smooth)
    raw = _over_time(all_frames, known, found, 0)
    boxes[:, :2] = np.minimum(boxes[:, :2], raw[:, :2])
    boxes[:, 2:] = np.maximum(boxes[:, 2:], raw[:, 2:])
    marks = np.stack(track.landmarks).astype(np.float64).reshape(len(known), 10)
    whole = np.isfinite(marks).all(1)
    landmarks = np.full((len(all_frames), 10), np.nan)
    if whole.any():
        landmarks = _over_time(all_frames, known[whole], marks[whole], smooth)
    scores = np.zeros(len(all_frames))
    scores[np.searchsorted(all_frames, known)] = track.scores
    return Track(
        track.number,
        [int(frame) for frame in all_frames],
        list(boxes.astype(np.float32)),
        list(landmarks.reshape(-1, 5, 2).astype(np.float32)),
        [float(score) for score in scores],
        track.skins,
        track.codes,
    )


def _over_time(
    wanted: NDArray[np.int64], known: NDArray[np.int64], values: NDArray[np.float64], smooth: float
) -> NDArray[np.float64]:
    """Columns at all frames: linear between those that are known, constant beyond, smoothed."""
    lines = np.stack([np.interp(wanted, known, column) for column in values.T], 1)
    return gaussian_filter1d(lines, smooth, axis=0, mode="nearest") if smooth else lines


def scene_changes(before: NDArray[np.uint8], now: NDArray[np.uint8]) -> bool:
    """Whether a frame belongs to another scene than the one before it.

    Args:
        before, now: uint8 ``H x W x 3``, small.
    """
    histograms = [
        np.concatenate([np.histogram(frame[..., c], 16, (0, 256))[0] for c in range(3)])
        for frame in (before, now)
    ]
    total = max(1, int(histograms[0].sum()))
    return float(np.abs(histograms[0] - histograms[1]).sum()) / (2 * total) > 0.4
