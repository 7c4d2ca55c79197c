"""Drawn heads in photographs: in the light of the photograph, as sharp and as grainy as it, before
what lies around the original head, continued to where it was."""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from ppfr_ops.imaging.arrays import Picture
from ppfr_ops.imaging.covers import HEAD, MARGIN, Head

_WIDE = 1.6
"""How far around a head its surroundings are looked at, in its half axes."""

_GRID, _ABOVE, _BELOW, _POWER = 48, 2.0, 4.0, 2.0
"""Cells of the longer side that surroundings are continued on; how much farther what is above and
what is below is than what is beside, squared; and how much less what is farther counts, by its
square."""

_NECK, _THROAT, _SLOPE, _HEM = 22.0, 118.0, 38.0, 2.5
"""Where shoulders begin, aside and down, in the template's pixels; at which angle around the head
they most often end, from straight below; and over how many pixels they go over into what is behind
them."""

_CHIN, _LAST = 119.0, 9.0
"""Where a drawn neck begins, in the template's pixels, and how much of it lies in the picture; from
there it is stretched."""

_GONE, _SIDE, _SOFT = 139.0, 25.0, 5.0
"""Where a drawn neck ends, in the middle, before the clothes; half of its breadth, beyond which
hair ends behind the shoulders; and over how many pixels it fades out."""

_BLACK, _BRIGHT = 12, 48
"""Grey levels under which a pixel may be of a black frame, and from which on it shows whether there
are colours in a photograph."""

_SKIN = (slice(58, 84), slice(30, 82))
"""Cheeks and nose in an aligned face: what the colour of a drawn face is matched to."""

_STEP = 12.0
"""Grey levels that the colour of the original's skin is rounded to before anything is matched."""

_SHARPER = 1.5
"""How much more detail than its surroundings a drawn face may have."""


@dataclass(frozen=True)
class Portrait:
    """A drawn person. ``picture`` uint8 ``S x S x 3`` RGB; ``silhouette`` float32 ``S x S``, how
    much of a pixel is the person, 0 to 1; ``matrix`` float64 ``2 x 3``, from its pixels to the
    template's; ``seed`` of the grain."""

    picture: Picture
    silhouette: NDArray[np.float32]
    matrix: NDArray[np.float64]
    seed: int


def yaw(landmarks: NDArray[np.floating]) -> float:
    """How far the nose stands aside of the middle of eyes and mouth, in eye distances; 0: ahead.

    Args:
        landmarks: ``5 x 2``.
    """
    marks = np.asarray(landmarks, np.float64)
    across = marks[1] - marks[0]
    wide = max(float(np.hypot(*across)), 1e-6)
    middle = (marks[:2].mean(0) + marks[3:].mean(0)) / 2
    return float((marks[2] - middle) @ across) / wide**2


def skin_colour(aligned: Picture) -> NDArray[np.float64]:
    """Mean colour of cheeks and nose of an aligned face, uint8 ``112 x 112 x 3``; ``3``."""
    return np.asarray(aligned[_SKIN].reshape(-1, 3).mean(0), np.float64)


def rounded(skin: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the colour of an original's skin, ``3``, what is made use of."""
    return np.asarray(np.round(skin / _STEP) * _STEP)


def light(skin: NDArray[np.float64], own: NDArray[np.float64]) -> float:
    """By how much a drawn face has to be brighter."""
    return float(((rounded(skin) + 10) / (own + 10)).mean())


def lit(drawn: Picture, skin: NDArray[np.float64], own: NDArray[np.float64]) -> Picture:
    """A drawn picture in the light of a photograph.

    Args:
        skin: mean colour of the original's skin, of which a rounded value is used; ``3``.
        own: of the drawn face; ``3``.
    """
    brighter = light(skin, own)
    # What hides skin, such as a mask, has colours that no light has.
    tint = np.clip((rounded(skin) + 10) / (own + 10) / brighter, 0.87, 1.15)
    gain = (np.clip(brighter, 0.45, 1.5) * tint).astype(np.float32)
    return np.asarray(np.clip(drawn * gain, 0, 255), np.uint8)


class Surroundings:
    """What is seen around a head, in cells; nothing is read of what is hidden.

    Args:
        picture: the photograph.
        hidden: bool ``H x W``, all heads and their margins.
        head: not an empty one.
    """

    def __init__(self, picture: Picture, hidden: NDArray[np.bool_], head: Head) -> None:
        self.picture, self.hidden, self.head = picture, hidden, head
        part, seen = picture[head.around(_WIDE)], ~hidden[head.around(_WIDE)]
        black = seen & (part.max(2) < _BLACK)
        if 2 * black.sum() < seen.sum():  # a black frame or corner is no background; a night is
            seen &= ~black
        height, width = seen.shape
        cell = max(height, width) / _GRID
        size = (max(2, round(width / cell)), max(2, round(height / cell)))
        known = cv2.resize(seen.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        some = part * seen[..., None].astype(np.float32)
        small = cv2.resize(some, size, interpolation=cv2.INTER_AREA)
        self.field = np.asarray(small / np.maximum(known, 1e-6)[..., None], np.float32)
        """Mean colours of cells, float32 ``H x W x 3``."""
        self.given = known > 0.05
        """Where any is known, bool ``H x W``."""

    @cached_property
    def shoulders(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return _shoulders(self.field, self.given, self.head)

    def continued(self, person: bool = True) -> Picture:
        """What lies around the head, smoothly continued to where it was; as large as its window.
        The mean of what is known by its distance, of clothes below the shoulders and of what is
        behind above them; what is beside counts more than what is above or below.

        Args:
            person: whether shoulders are looked for.
        """
        head, field, given = self.head, self.field, self.given
        if not given.any():
            return np.full((*head.x.shape, 3), 128, np.uint8)
        height, width = given.shape
        down, across = np.ogrid[1 - height : height, 1 - width : width]
        near = np.maximum(np.where(down > 0, _ABOVE, _BELOW) * down**2 + across**2, 1) ** -_POWER

        def smooth(cells: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
            """Cells, ``H x W x C``, from those that have weight to the others, in pixels."""
            some = np.dstack([cells, np.ones_like(weight)]) * weight[..., None].astype(np.float64)
            sums = fftconvolve(some, near[..., None], "same", axes=(0, 1))
            mean = sums[..., :-1] / np.maximum(sums[..., -1:], 1e-9)
            return _in_window(np.where(weight[..., None] > 0.5, cells, mean), head)

        if not person:
            return np.asarray(np.clip(smooth(field, given.astype(np.float32)), 0, 255), np.uint8)
        dressed, line = self.shoulders
        clothes, behind = (
            smooth(field, (given * part if (given * part).any() else given).astype(np.float32))
            for part in (dressed, 1 - dressed)
        )
        share = np.clip((head.y - line) / _HEM + 0.5, 0, 1)[..., None]
        mixed = share * clothes + (1 - share) * behind
        return np.asarray(np.clip(mixed, 0, 255), np.uint8)


def _in_window(cells: NDArray[np.floating], head: Head) -> NDArray[np.float32]:
    """Of cells what lies in a head's window, in pixels."""
    (rows, columns), (high, wide) = head.window, head.around(_WIDE)
    size = (wide.stop - wide.start, high.stop - high.start)
    full = cv2.resize(cells.astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
    top, left = rows.start - high.start, columns.start - wide.start
    return np.asarray(full[top : top + head.x.shape[0], left : left + head.x.shape[1]], np.float32)


def _shoulders(
    field: NDArray[np.float32], given: NDArray[np.bool_], head: Head
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How much of a cell lies below the shoulders, and where these are in a head's window, in the
    template's rows. On either side they go from the neck to where what is seen around the head
    changes most on the way up."""
    high, wide = head.around(_WIDE)
    rows = (np.arange(given.shape[0]) + 0.5) * (high.stop - high.start) / given.shape[0] - 0.5
    columns = (np.arange(given.shape[1]) + 0.5) * (wide.stop - wide.start) / given.shape[1] - 0.5
    places = np.dstack(np.meshgrid(columns + wide.start, rows + high.start))
    across, down = np.moveaxis(places @ head.matrix[:, :2].T + head.matrix[:, 2], 2, 0)
    x, y, half_x, half_y = head.ellipse
    angles = np.degrees(np.arctan2((across - x) / half_x, (down - y) / half_y))
    below, line = np.zeros(given.shape, np.float32), np.full_like(head.x, _THROAT)
    steps = np.arange(20, 95, 3)
    for side in (-1, 1):
        changes = np.zeros(len(steps))
        for number, angle in enumerate(steps):
            away = np.where(given, side * angles - angle, np.inf)
            low, above = (away > -22) & (away <= 0), (away > 0) & (away < 35)
            if low.sum() > 1 and above.sum() > 1:
                changes[number] = np.linalg.norm(field[low].mean(0) - field[above].mean(0))
        # Not the largest alone, so that the frames of a video do not jump from one to another.
        sure = (changes * np.exp(-(((steps - _SLOPE) / 30) ** 2)) + 1e-3) ** 16
        found = float((steps * sure).sum() / sure.sum())
        below += (side * angles >= 0) * np.clip((found - side * angles) / 8 + 0.5, 0, 1)
        turn, far = np.radians(found), side * (head.x - HEAD[0])
        end = side * (x - HEAD[0]) + (1 + MARGIN) * half_x * np.sin(turn)
        along = np.clip((far - _NECK) / max(end - _NECK, 1), 0, 1)
        drop = y + (1 + MARGIN) * half_y * np.cos(turn) - _THROAT
        line += np.where(far > 0, along * drop, 0).astype(np.float32)
    return below.clip(0, 1), line


def put_portrait(canvas: Picture, around: Surroundings, portrait: Portrait) -> None:
    """Put a drawn head before what was filled in, in place.

    Args:
        canvas: the photograph without the heads.
    """
    picture, hidden, head = around.picture, around.hidden, around.head
    back = cv2.invertAffineTransform(portrait.matrix).astype(np.float32)
    drawn, shares = portrait.picture, portrait.silhouette
    # Pixels of the drawn picture for one of the photograph: average what would be skipped.
    shrunk = float(np.linalg.norm(back[:, :2] @ head.matrix[:, :2], axis=1)[0])
    if shrunk > 1.2:
        drawn = np.asarray(cv2.GaussianBlur(drawn, (0, 0), 0.4 * shrunk), np.uint8)
        shares = np.asarray(cv2.GaussianBlur(shares, (0, 0), 0.4 * shrunk), np.float32)
    below = np.maximum(head.y - _CHIN, 0)
    down = np.minimum(head.y, _CHIN) + _LAST * np.tanh(below / _LAST)
    x = back[0, 0] * head.x + back[0, 1] * down + back[0, 2]
    y = back[1, 0] * head.x + back[1, 1] * down + back[1, 2]
    warped = cv2.remap(drawn, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    seen = cv2.remap(shares, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    line = around.shoulders[1]
    aside = np.abs(head.x - HEAD[0])
    end = _GONE - 12 * (aside / _SIDE) ** 2
    inner = _ramp((_SIDE + 3 - aside) / 6)
    seen = seen * head.share * _ramp((inner * end + (1 - inner) * line - head.y) / _SOFT + 0.5)
    if head.outline is not None:
        seen = seen * head.above_collar
    window = head.around(_WIDE)
    part, known = picture[window], ~hidden[window]
    red, green, blue = (picture[::3, ::3, channel][~hidden[::3, ::3]] for channel in range(3))
    brightest = np.maximum(np.maximum(red, green), blue)
    colours = (brightest - np.minimum(np.minimum(red, green), blue))[brightest >= _BRIGHT]
    if colours.size >= 64 and np.percentile(colours, 98) < 12:  # a photograph without colours
        warped = np.repeat(warped[..., 1:2], 3, axis=2)
    soft, noise = _as_sharp(np.asarray(warped, np.uint8), part, known)
    put = cv2.blendLinear(soft, canvas[head.window], seen, 1 - seen).astype(np.float32)
    grain = np.random.default_rng(portrait.seed).standard_normal(seen.shape).astype(np.float32)
    put += (noise * np.maximum(head.gone, seen) * grain)[..., None]
    canvas[head.window] = np.clip(put, 0, 255)


def _ramp(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """From 0 to 1, smoothly."""
    linear = np.clip(values, 0, 1)
    return np.asarray(linear * linear * (3 - 2 * linear), np.float32)


def _as_sharp(drawn: Picture, around: Picture, known: NDArray[np.bool_]) -> tuple[Picture, float]:
    """A drawn picture no sharper than its surroundings, and how grainy these are, grey levels."""
    if known.sum() < 64:
        return drawn, 0.0
    goal = cv2.cvtColor(around, cv2.COLOR_RGB2GRAY)
    inside = cv2.erode(known.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    detail = np.abs(cv2.Laplacian(goal, cv2.CV_32F))[inside if inside.any() else known]
    most, noise = map(float, np.percentile(detail, (90, 20)))
    softer, before, last = drawn, 0.0, 0.0
    for sigma in (0.0, 0.6, 1.0, 1.6):
        if sigma:
            softer = np.asarray(cv2.GaussianBlur(drawn, (0, 0), sigma), np.uint8)
        light = cv2.cvtColor(softer, cv2.COLOR_RGB2GRAY)
        now = float(np.percentile(np.abs(cv2.Laplacian(light, cv2.CV_32F)), 90))
        if now <= _SHARPER * most:
            # Between two steps, so that the frames of a video do not jump from one to the other.
            share = (before - _SHARPER * most) / max(before - now, 1e-6)
            between = last + (sigma - last) * share
            if sigma and between > 0.3:
                softer = np.asarray(cv2.GaussianBlur(drawn, (0, 0), between), np.uint8)
            elif sigma:
                softer = drawn
            break
        before, last = now, sigma
    return softer, min(noise / 1.15, 6.0)
