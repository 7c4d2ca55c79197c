"""How a photo is taken: from where, in what light, and what the camera makes of its colours.

Photos of one real person differ less in the person than in these. Without them a few pixels tell
drawn people apart, and who learns from the pictures learns those: the colour of the whole, the side
that the light comes from, the outline. Colour and brightness differ as between photos of one person
in ``ids_aligned`` and ``cfp_aligned`` (``bench/natural_camera.py``); side light and turning go as
far as recognisers still take the pictures for one person, which is less.
"""

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from ppfr_ops.imaging.arrays import FACE_SIZE
from ppfr_ops.imaging.geometry import similarity
from ppfr_ops.imaging.look import INNER, NO_AIM
from ppfr_ops.methods.natural import traits
from ppfr_ops.methods.natural.traits import Traits

DRAW = 16
"""Normals of a draw that a photo is taken by."""
PLACES = -DRAW + 5, -DRAW + 10
"""Of a draw, the normals of the light's side and of brightness."""
YAW, PITCH = 0.23, 0.045
"""Radians that the head is turned by, one deviation."""
GAMMA, VIVID, SATURATION, BRIGHTNESS = 0.2, 0.08, 0.3, 0.14
"""Exponent of grey values, saturation (mean and spread) and brightness, in logarithms."""
LENS, BLUR = 0.55, 0.35
"""Of the blur that a lens and few pixels leave, its deviation, px of 112: mean, and spread."""
SKIN, CAST = (0.29, -0.16), 0.2
"""Red and blue of a face by its green, logarithms, as photographs have them; and how far from it a
face may be by itself, before a camera's tint: beyond, lips and all else drown in orange."""
SIDE, ABOVE, BENT, TINT, TINT_SIDE = 0.22, 0.1, 0.08, 0.08, 0.08
"""Logarithms: left half of the face by its right one, upper by lower; light that is no plane; red
and blue by green, in all and from left to right."""
KNEE = 0.65
"""Brightness of 1 beyond which it is held back, as film does."""
GREY = 1.88
"""From where on a normal gives a photo without colours: 3 of 100."""
_WIDEST = 1.9
_DEEP, _NOSE, _AXIS = 50.0, 10.0, 20.0
"""Of a head of which the crop of 112 px is full: depth, the nose's beyond it, and that of the axis
that it is turned by, px."""
_Y, _X = np.mgrid[:FACE_SIZE, :FACE_SIZE].astype(np.float32) / ((FACE_SIZE - 1) / 2) - 1
_HALVES = (0.56, 0.7)
"""By how much a slope of 1 parts the two halves of the inner face, across and down."""
_ROUNDS, _STEPS, _FARTHEST = 5, 40, 0.45
"""Of turning: rounds in which sources are sought, places on a side, and the most
radians: beyond them a head would fold."""

Points = NDArray[np.float64]


def wide(draw: NDArray[np.float32], variation: float) -> NDArray[np.float64]:
    """Normals as they are used: nothing too far out; 0 where nothing varies."""
    return np.clip(draw.astype(np.float64), -_WIDEST, _WIDEST) * variation


def turned(
    picture: NDArray[np.uint8],
    landmarks: NDArray[np.float32],
    draw: NDArray[np.float64],
    face: Traits | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A head seen from another side, by the depth that heads have.

    Args:
        picture: uint8 ``H x W x 3``, or more channels, of which the first three are colours.
        landmarks: of its face, ``5 x 2``.
        draw: two numbers of :func:`wide`: to the side, up.
        face: the person's traits, which are shown before the head is turned.

    Returns:
        Picture and landmarks.
    """
    if not draw.any() and face is None:
        return picture, landmarks
    matrix, moved = similarity(landmarks), _mover(landmarks, draw, face)
    height, width = picture.shape[:2]
    step = max(width // _STEPS, 1)
    # Smooth, so it is sought at the middle of every few pixels, and enlarged.
    rows, columns = np.mgrid[:height:step, :width:step] + (step - 1) / 2
    wanted = np.stack([columns, rows], -1)
    source = wanted.copy()
    for _ in range(_ROUNDS):
        source += wanted - moved(source)

    def enlarged(values: NDArray[np.floating]) -> NDArray[np.float32]:
        small = np.asarray(values, np.float32)
        size = columns.shape[1] * step, columns.shape[0] * step
        large = cv2.resize(small, size, interpolation=cv2.INTER_CUBIC)[:height, :width]
        return np.asarray(large, np.float32)

    away = enlarged(source - wanted)
    places = away + np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(
        np.float32
    )
    seen = cv2.remap(
        picture, places[..., 0], places[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    if face is not None:
        tones = traits.at(face[..., 2:], source @ matrix[:, :2].T + matrix[:, 2])
        colours = cv2.multiply(seen[..., :3], cv2.exp(enlarged(tones)), dtype=cv2.CV_8U)
        seen = np.dstack([colours, seen[..., 3:]])
    return seen.astype(np.uint8), moved(landmarks.astype(np.float64)).astype(np.float32)


def placed(landmarks: NDArray[np.floating], face: Traits) -> NDArray[np.float64]:
    """Where the landmarks of a face lie, ``5 x 2``, once the person's traits are shown."""
    return _mover(landmarks, np.zeros(2), face)(np.asarray(landmarks, np.float64))


def _mover(
    landmarks: NDArray[np.floating], draw: NDArray[np.float64], face: Traits | None
) -> Callable[[Points], Points]:
    """Where points of a picture come to lie, as :func:`turned` moves them."""
    yaw, pitch = np.clip([YAW * draw[0], PITCH * draw[1]], -_FARTHEST, _FARTHEST)
    matrix = similarity(landmarks)
    back = np.linalg.inv(matrix[:, :2])

    def moved(points: Points) -> Points:
        there = points @ matrix[:, :2].T + matrix[:, 2]
        own = 0.0 if face is None else traits.at(face[..., :2], there)
        x, y = np.moveaxis(there + own, -1, 0)
        r = ((x - 56) / 48) ** 2 + ((y - 66) / 64) ** 2
        z = _DEEP * np.exp(-0.9 * r) - _AXIS
        z += _NOSE * np.exp(-(((x - 56) / 7) ** 2) - ((y - 71) / 10) ** 2)
        by = (
            (x - 56) * (np.cos(yaw) - 1) + z * np.sin(yaw),
            (y - 68) * (np.cos(pitch) - 1) + z * np.sin(pitch),
        )
        found: Points = points + (own + np.stack(by, -1)) @ back.T
        return found

    return moved


def taken(
    crop: NDArray[np.uint8], draw: NDArray[np.float64], aim: Mapping[str, float] = NO_AIM
) -> NDArray[np.uint8]:
    """An aligned picture in another light, by another camera.

    Args:
        crop: uint8 ``112 x 112 x 3``.
        draw: the rest of :func:`wide`.
        aim: features of ``imaging.look`` that are not drawn.
    """
    sharp, gamma, colour, side, above, red, blue, tint, bright, grey, *bent = draw[: DRAW - 2]
    if not draw.any() and not aim:
        return crop
    seen, values = blurred(crop, LENS + BLUR * sharp), (np.arange(256) + 0.5) / 256
    before = values[seen[INNER]].mean()
    pixels = (values ** np.exp(GAMMA * gamma))[seen]
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    coloured = np.exp(VIVID + SATURATION * colour) if grey < GREY else 0.0
    pixels = np.maximum(luma[..., None] + (pixels - luma[..., None]) * coloured, 1e-3)
    light = _plane(luma, aim.get("side", SIDE * side), ABOVE * above)
    for amount, shape in zip(bent, (_X * _X, _X * _Y, _Y * _Y), strict=False):
        light = light + BENT * amount * shape
    pixels *= np.exp(light)[..., None]
    if coloured:
        pixels *= _no_cast(pixels[INNER].mean((0, 1)))
        pixels[..., 0] *= np.exp(TINT * red + TINT_SIDE * tint * _X[0])
        pixels[..., 2] *= np.exp(TINT * blue - TINT_SIDE * tint * _X[0])
    wanted = aim.get("brightness", 256 * before * np.exp(BRIGHTNESS * bright)) / 256
    pixels *= min(wanted, 0.75) / pixels[INNER].mean()
    high = pixels > KNEE
    pixels[high] = KNEE + (1 - KNEE) * np.tanh((pixels[high] - KNEE) / (1 - KNEE))
    return (pixels * 256 - 0.5).clip(0, 255).round().astype(np.uint8)


def blurred(crop: NDArray[np.uint8], deviation: float) -> NDArray[np.uint8]:
    """As a lens shows it; sharpened where the deviation is below 0, as cameras do."""
    if deviation > 0.2:
        return np.asarray(cv2.GaussianBlur(crop, (0, 0), deviation), np.uint8)
    soft = cv2.GaussianBlur(crop, (0, 0), 1.0)
    more = max(0.0, -deviation)
    return np.asarray(cv2.addWeighted(crop, 1 + more, soft, -more, 0), np.uint8)


def _no_cast(colour: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a face's mean colour has to be multiplied by so that it is skin's."""
    own = np.log(colour[[0, 2]] / colour[1]) - SKIN
    red, blue = np.exp(CAST * np.tanh(own / CAST) - own)
    return np.array([red, 1.0, blue])


def _plane(luma: NDArray[np.float64], side: float, above: float) -> NDArray[np.float64]:
    """What light has to be laid over a face so that it comes from where it was drawn to."""
    inner = luma[INNER]
    height, width = inner.shape[0] // 2, inner.shape[1] // 2
    left = np.log(inner[:, :width].mean() / inner[:, width:].mean())
    up = np.log(inner[:height].mean() / inner[height:].mean())
    across = np.clip((left - side) / _HALVES[0], -1.1, 1.1)
    down = np.clip((0.5 * up - above) / _HALVES[1], -0.6, 0.6)
    return np.asarray(across * _X + down * _Y)
