"""Drawn heads in photographs: in the light of the photograph, as sharp and as grainy as it, before
what lies around the original head, continued to where it was."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from ppfr_ops.imaging.arrays import Picture
from ppfr_ops.imaging.covers import HEAD, MARGIN, Head

_WIDE = 1.6
"""How far around a head its surroundings are looked at, in its half axes."""

_GRID, _DOWN, _POWER = 48, 2.0, 2.0
"""Cells of the longer side that surroundings are continued on; how much farther what is above or
below is than what is beside, squared; and how much less what is farther counts, by its square."""

_FINE, _TEXTURE = 8.0, 14.0
"""Texture is finer than so many of the template's pixels, and flatter than so many grey levels:
whole things, mirrored, would be seen to be."""

_CHIN, _LAST = 119.0, 9.0
"""Where a drawn neck begins, in the template's pixels, and how much of it lies in the picture; from
there it is stretched."""

_NECK, _GONE, _SIDE = 121.0, 145.0, 25.0
"""From where to where a drawn neck fades out, and half of its breadth."""

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


def fill_around(picture: Picture, hidden: NDArray[np.bool_], head: Head) -> Picture:
    """What lies around a head, smoothly continued to where it was, with the fine texture that lies
    beyond its edge, mirrored; as large as its window.

    Args:
        hidden: bool ``H x W``, all heads and their margins: of those pixels nothing is read.
    """
    if head.empty:
        return picture[head.window]
    smooth = _smooth_around(picture, hidden, head)
    known = cv2.erode((~hidden).astype(np.uint8), np.ones((3, 3), np.uint8))
    x, y = head.ellipse[:2]
    far = 2 * (1 + MARGIN) / np.maximum(head.radius, 0.5) - 1
    (ax, ay, a0), (bx, by, b0) = cv2.invertAffineTransform(head.matrix).astype(np.float32)
    across, down = x + (head.x - x) * far, y + (head.y - y) * far
    places = ax * across + ay * down + a0, bx * across + by * down + b0
    mirrored = cv2.remap(picture, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    there = cv2.remap(known, *places, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
    # Of what is known alone, so that the edge of what is not is no texture.
    sigma = _FINE / np.hypot(*head.matrix[0, :2])
    given = (there > 0).astype(np.float32)
    mass, mean = _blurred(given, sigma), _blurred(mirrored * given[..., None], sigma)
    fine = mirrored - mean / np.maximum(mass, 1e-3)[..., None]
    share = given * np.asarray(_ramp(2 * mass - 1) * _ramp((head.radius - 0.5) / 0.6))
    fine = np.clip(fine, -_TEXTURE, _TEXTURE) * share[..., None]
    return np.asarray(np.clip(smooth + fine, 0, 255), np.uint8)


def _blurred(values: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """A Gaussian blur; a wide one, which would take seconds, in fewer pixels."""
    fewer = max(1, int(sigma / 6))
    if fewer == 1:
        return np.asarray(cv2.GaussianBlur(values, (0, 0), sigma), np.float32)
    size = values.shape[1::-1]
    small = cv2.resize(values, [-(-side // fewer) for side in size], interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(small, (0, 0), sigma / fewer)
    return np.asarray(cv2.resize(soft, size, interpolation=cv2.INTER_LINEAR), np.float32)


def _smooth_around(picture: Picture, hidden: NDArray[np.bool_], head: Head) -> NDArray[np.float32]:
    """The mean of what is known by its distance; what is beside counts more than what is below."""
    window = head.around(_WIDE)
    part, seen = picture[window], ~hidden[window]
    black = seen & (part.max(2) < _BLACK)
    if 2 * black.sum() < seen.sum():  # a black frame or corner is no background; a dark night is
        seen &= ~black
    known = seen.astype(np.float32)
    height, width = known.shape
    cell = max(height, width) / _GRID
    size = (max(2, round(width / cell)), max(2, round(height / cell)))
    weight = cv2.resize(known, size, interpolation=cv2.INTER_AREA)
    small = cv2.resize(part * known[..., None], size, interpolation=cv2.INTER_AREA)
    given = weight > 0.05
    if not given.any():
        return np.full((*head.x.shape, 3), 128, np.float32)
    field = small / np.maximum(weight, 1e-6)[..., None]
    down, across = np.ogrid[1 - size[1] : size[1], 1 - size[0] : size[0]]
    near = np.maximum(_DOWN * down**2 + across**2, 1) ** -_POWER
    known_there = np.dstack([field, np.ones_like(weight)]) * given[..., None]
    sums = fftconvolve(known_there.astype(np.float64), near[..., None], "same", axes=(0, 1))
    field[~given] = (sums[..., :3] / sums[..., 3:])[~given]
    wide = cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC)
    rows, columns = head.window
    top, left = rows.start - window[0].start, columns.start - window[1].start
    inner = wide[top : top + head.x.shape[0], left : left + head.x.shape[1]]
    return np.asarray(inner, np.float32)


def put_portrait(
    canvas: Picture, picture: Picture, hidden: NDArray[np.bool_], head: Head, portrait: Portrait
) -> None:
    """Put a drawn head before what was filled in, in place.

    Args:
        canvas: the photograph without the heads.
        picture: the photograph, of which only what is not ``hidden`` is looked at.
    """
    if head.empty:
        return
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
    seen = cv2.remap(shares, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    seen = seen * head.share * _ramp((_GONE - head.y) / (_GONE - _NECK))
    breadth = _SIDE + 40 * _ramp((_CHIN - head.y) / 24)
    seen *= 1 - _ramp((np.abs(head.x - HEAD[0]) - breadth) / 12)
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
    put += (noise * head.share * grain)[..., None]
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
