"""The embedded sample: faces drawn by code, of nobody, aligned to the ArcFace template.

A face is a height field (skull, brow, sockets, nose, cheeks, lips, chin) under a painted skin, lit
from somewhere and turned a little. An identity fixes the shapes and colours; light, pose,
expression and background are drawn anew for every picture. No network, no photograph behind it.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ppfr_ops.contracts.records import IMAGE_TYPE
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import FACE_SIZE, Faces
from ppfr_ops.imaging.codec import Encoding

Plane = NDArray[np.float32]

_SCALE = 2
_SIDE = FACE_SIZE * _SCALE
_y, _x = (np.indices((_SIDE, _SIDE)).astype(np.float32) + 0.5) / _SCALE
"""Pixel centres in px of the aligned face."""

_SKINS = ((255, 219, 190), (240, 194, 160), (214, 160, 120), (165, 110, 75), (105, 68, 46))
_HAIRS = ((30, 24, 22), (70, 45, 30), (120, 80, 45), (190, 150, 90), (140, 60, 30), (150, 150, 150))
_EYES = ((70, 45, 30), (60, 90, 120), (80, 100, 60), (110, 80, 50))


@dataclass(frozen=True)
class _Person:
    skin: Plane
    hair: Plane
    eye: Plane
    lips: Plane
    width: float
    jaw: float
    chin: float
    eye_size: float
    brow_height: float
    brow_weight: float
    brow_slope: float
    nose_width: float
    nose_length: float
    lip_width: float
    lip_height: float
    hairline: float
    hair_length: float
    freckles: Plane
    beard: float
    glasses: bool

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "_Person":
        def colour(choices: tuple[tuple[int, int, int], ...]) -> Plane:
            base = np.array(choices[rng.integers(len(choices))], np.float32)
            return np.clip(base * rng.uniform(0.88, 1.1) + rng.normal(0, 5, 3), 8, 255).astype("f4")

        skin = colour(_SKINS)
        spots = (rng.random((64, 64)) > rng.choice([0.9, 0.985, 1.0])).astype(np.float32)
        u = rng.uniform
        return cls(
            skin=skin,
            hair=colour(_HAIRS),
            eye=colour(_EYES),
            lips=(skin * np.array([0.85, 0.55, 0.55]) + u(0, 30)).astype(np.float32),
            width=u(36, 44),
            jaw=u(0.62, 0.9),
            chin=u(106, 116),
            eye_size=u(0.8, 1.2),
            brow_height=u(9, 14),
            brow_weight=u(1.2, 3.2),
            brow_slope=u(-0.12, 0.2),
            nose_width=u(5, 9.5),
            nose_length=u(-2.5, 3),
            lip_width=u(12, 17),
            lip_height=u(2.2, 4.6),
            hairline=u(8, 24),
            hair_length=u(0.1, 1.2),
            freckles=cv2.resize(spots, (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC),
            beard=float(rng.choice([0, 0, 0, u(0.2, 0.7)])),
            glasses=bool(rng.random() < 0.15),
        )


def _bump(x: float, y: float, rx: float, ry: float) -> Plane:
    """Gaussian hill of height 1."""
    return np.exp(-(((_x - x) / rx) ** 2) - ((_y - y) / ry) ** 2, dtype=np.float32)


def _inside(distance: NDArray[np.floating], soft: float = 1.0) -> Plane:
    """1 where ``distance`` (px) is below 0, 0 above, soft in between."""
    steep = np.clip(distance / (0.35 * soft), -30, 30).astype(np.float32)
    return 1 / (1 + np.exp(steep))


def _ellipse(x: float, y: float, rx: float, ry: float) -> Plane:
    """Signed distance, roughly, to an ellipse, px."""
    radius = np.sqrt(((_x - x) / rx) ** 2 + ((_y - y) / ry) ** 2)
    return ((radius - 1) * min(rx, ry)).astype(np.float32)


def _paint(canvas: Plane, colour: Plane, mask: Plane) -> Plane:
    return canvas + mask[..., None] * (colour - canvas)


def _picture(person: _Person, rng: np.random.Generator) -> NDArray[np.uint8]:
    smile, opened = rng.normal(0, 1.6), max(0.0, rng.normal(-0.5, 1.8))
    lids = float(np.clip(rng.normal(1, 0.15), 0.25, 1.3)) * person.eye_size
    raised = rng.normal(0, 1.2)
    yaw, pitch = rng.normal(0, 5), rng.normal(0, 3)
    eyes = ((38.3, 51.7), (73.5, 51.5))
    nose_y, mouth_y = 71.7 + person.nose_length, 92.3

    middle = 62.0
    below = np.clip((_y - middle) / (person.chin - middle), 0, 1)
    half = person.width * (1 - (1 - person.jaw) * below**2)
    up = np.where(_y > middle, person.chin - middle, 58.0)
    radius = np.sqrt(((_x - 56) / half) ** 2 + ((_y - middle) / up) ** 2)
    head = _inside((radius - 1) * 35, 1.5)

    height = 34 * np.sqrt(np.clip(1 - radius**2, 0.02, 1)).astype(np.float32)
    for x, y in eyes:
        height -= 4.5 * _bump(x, y, 9, 6)
        height += 2.2 * _bump(x, y - person.brow_height, 11, 4)
        height += 2.5 * _bump(x + (x - 56) * 0.12, 74, 11, 9)
    height += 8 * _bump(56, nose_y - 4, person.nose_width * 0.6, 15)
    height += 5 * _bump(56, nose_y, person.nose_width, 5.5)
    height += 2.4 * _bump(56, mouth_y, person.lip_width, 6) + 2.5 * _bump(56, 107, 10, 6)

    skin = np.broadcast_to(person.skin, (_SIDE, _SIDE, 3)).astype(np.float32)
    skin = skin * (1 - 0.18 * np.clip(person.freckles, 0, 1)[..., None])
    for x, _ in eyes:
        skin = _paint(skin, person.lips, 0.18 * _bump(x + (x - 56) * 0.1, 76, 12, 8))
    beard = _inside(78 + 0.02 * (_x - 56) ** 2 - _y, 8) * (1 - _bump(56, mouth_y, 12, 4))
    skin = _paint(skin, person.hair, np.clip(person.beard * beard, 0, 1))

    for x, y in eyes:
        outward = np.sign(x - 56)
        brow_y = y - person.brow_height - raised + person.brow_slope * outward * (_x - x)
        brow_y = brow_y + 0.02 * (_x - x) ** 2
        brow = _inside(np.abs(_y - brow_y) - person.brow_weight) * _inside(np.abs(_x - x) - 11, 3)
        skin = _paint(skin, person.hair, 0.85 * brow)
        lid = _ellipse(x, y, 8.2, 3.9 * lids)
        skin = _paint(skin, person.skin * 0.35, _inside(np.abs(lid) - 0.6))
        open_eye = _inside(lid)
        white = np.array([238, 234, 228], np.float32)
        eye = _paint(np.broadcast_to(white, skin.shape), person.eye, _inside(_ellipse(x, y, 4, 4)))
        eye = _paint(eye, np.full(3, 12, np.float32), _inside(_ellipse(x, y, 1.8, 1.8)))
        eye = _paint(
            eye, np.full(3, 250, np.float32), _inside(_ellipse(x + 1.3, y - 1.3, 0.8, 0.8))
        )
        skin = _paint(skin, eye, open_eye)
    for side in (-1, 1):
        nostril = _ellipse(56 + side * person.nose_width * 0.55, nose_y + 4, 2.1, 1.2)
        skin = _paint(skin, person.skin * 0.3, 0.8 * _inside(nostril))
    line = mouth_y + smile * (((_x - 56) / person.lip_width) ** 2 * -1 + 0.5)
    across = np.abs(_x - 56) / person.lip_width
    taper = np.sqrt(np.clip(1 - across**2, 0, 1))
    gap = opened * taper
    lips = _inside(np.abs(_y - line) - (person.lip_height + opened) * taper, 0.8)
    skin = _paint(skin, person.lips, 0.9 * lips * (across < 1))
    skin = _paint(skin, person.skin * 0.2, _inside(np.abs(_y - line) - 0.5 - gap) * (across < 0.95))
    if opened > 1.5:
        teeth = _inside(np.abs(_y - line + 0.3 * gap) - 0.5 * gap) * (across < 0.8)
        skin = _paint(skin, np.array([235, 230, 220], np.float32), 0.9 * teeth)

    light = np.array([rng.normal(0, 0.7), rng.normal(-0.5, 0.4), 1.0])
    light /= np.linalg.norm(light)
    slope_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3) / 8 * _SCALE
    slope_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3) / 8 * _SCALE
    length = np.sqrt(slope_x**2 + slope_y**2 + 1)
    facing = (-slope_x * light[0] - slope_y * light[1] + light[2]) / length
    ambient = rng.uniform(0.3, 0.55)
    shade = ambient + (1.08 - ambient) * np.clip(facing, 0, 1)
    texture = cv2.GaussianBlur(rng.normal(0, 1, (_SIDE, _SIDE)).astype(np.float32), (0, 0), 1.5)
    skin = skin * (shade * (1 + 0.06 * texture))[..., None]

    ends = (rng.uniform(20, 220, (2, 1)) + rng.normal(0, 25, (2, 3))).astype(np.float32)
    ramp = (_x * rng.normal() + _y * rng.normal()) / FACE_SIZE
    ramp = (ramp - ramp.min()) / (np.ptp(ramp) + 1e-6)
    clouds = cv2.resize(rng.normal(0, 14, (7, 7, 3)).astype(np.float32), (_SIDE, _SIDE))
    canvas = ends[0] + ramp[..., None] * (ends[1] - ends[0]) + clouds
    strands = cv2.GaussianBlur(
        rng.normal(0, 1, (_SIDE, _SIDE)).astype(np.float32), (0, 0), 0.8, sigmaY=6
    )
    hair = person.hair * (1 + 0.5 * strands[..., None]) * (0.6 + 0.4 * shade.mean())
    mane = _inside(_ellipse(56, 50, person.width + 9, 60), 3)
    mane = np.maximum(mane, (np.abs(_x - 56) < person.width + 7) * (_y > 50) * 1.0)
    canvas = _paint(canvas, hair, mane * _inside(_y - 50 - 70 * person.hair_length, 4))
    neck = _inside(np.abs(_x - 56) - person.width * 0.6, 2) * (_y > 85)
    canvas = _paint(canvas, person.skin * 0.55 * shade.mean(), neck)
    canvas = _paint(canvas, skin, head)
    fringe = _inside(_y - person.hairline - 0.012 * (_x - 56) ** 2, 3) * _inside(
        (radius - 1.1) * 35, 2
    )
    canvas = _paint(canvas, hair, fringe)
    if person.glasses:
        for x, y in eyes:
            rim = _inside(np.abs(_ellipse(x, y + 1, 12.5, 9.5)) - 0.9)
            canvas = _paint(canvas, np.full(3, 25, np.float32), rim)
        bridge = _inside(np.abs(_y - 50) - 0.9) * (np.abs(_x - 56) < 5.5)
        canvas = _paint(canvas, np.full(3, 25, np.float32), bridge)

    # Near parts move more than far ones when the head turns.
    depth = (height * head - 20) / 34
    map_x = (_x - yaw * depth) * _SCALE - 0.5
    map_y = (_y - pitch * depth) * _SCALE - 0.5
    turned = cv2.remap(
        canvas.astype(np.float32), map_x, map_y, cv2.INTER_LINEAR, None, cv2.BORDER_REFLECT
    )
    small = cv2.resize(turned, (FACE_SIZE, FACE_SIZE), interpolation=cv2.INTER_AREA)
    warmth = 1 + np.array([1, 0, -1]) * rng.normal(0, 0.06)
    exposed = small * warmth * rng.uniform(0.75, 1.15) + rng.normal(0, 2.5, small.shape)
    return np.clip(np.rint(exposed), 0, 255).astype(np.uint8)


def faces(count: int, seed: int = 0, identities: int | None = None) -> Faces:
    """Drawn faces; face ``i`` is of identity ``i % identities``.

    Args:
        count: how many.
        seed: of everything.
        identities: different people; by default one for every eight faces.

    Returns:
        uint8 ``count x 112 x 112 x 3``, RGB, aligned.
    """
    people = identities or max(1, count // 8)
    persons = [_Person.draw(np.random.default_rng([seed, 1, index])) for index in range(people)]
    drawn = [
        _picture(persons[index % people], np.random.default_rng([seed, 2, index]))
        for index in range(count)
    ]
    return np.stack(drawn) if drawn else np.zeros((0, FACE_SIZE, FACE_SIZE, 3), np.uint8)


def write_sample(
    folder: Path, count: int = 192, identities: int = 24, files: int = 3, seed: int = 0
) -> list[Path]:
    """Write drawn faces as Parquet files with Hugging Face's image struct and an ``identity``."""
    folder.mkdir(parents=True, exist_ok=True)
    encoding = Encoding()
    schema = pa.schema([("image", IMAGE_TYPE), ("identity", pa.string())])
    rows = [
        {
            "image": {
                "bytes": encoding.encode(face),
                "path": f"person{index % identities:03d}_{index:05d}.jpg",
            },
            "identity": f"person{index % identities:03d}",
        }
        for index, face in enumerate(faces(count, seed, identities))
    ]
    paths = []
    for number in range(files):
        part = rows[count * number // files : count * (number + 1) // files]
        paths.append(folder / f"part-{number:05d}.parquet")
        pq.write_table(pa.Table.from_pylist(part, schema), paths[-1], row_group_size=64)
    return paths


def write_pairs(
    path: Path, count: int = 192, identities: int = 24, seed: int = 0, folds: int = 4
) -> int:
    """Write pairs of the sample's faces for ``ppfr evaluate``: as many of the same person as of
    different people, no person in two folds.

    Args:
        path: Parquet file: ``a``, ``b`` (an ``image.path`` each), ``same``, ``fold``.
        count, identities, seed: as ``write_sample`` had them.
        folds: at most; each has two people at least, and one who has two faces.

    Returns:
        How many pairs there are.

    Raises:
        UserError: there are too few faces or identities for two folds.
    """
    folds = min(folds, identities // 2, count - identities)
    if folds < 2:
        raise UserError(
            f"pairs of {count} faces of {identities} identities: needed are 4 identities or more, "
            "and 2 faces more than identities"
        )
    rng = np.random.default_rng([seed, 3])
    rows = []
    for fold in range(folds):
        people = range(fold, identities, folds)
        faces_of = {person: range(person, count, identities) for person in people}
        same = [(a, b) for found in faces_of.values() for a, b in pairwise(found)]
        for a, b in same:
            others = [index for person in people if person != a % identities
                      for index in faces_of[person]]  # fmt: skip
            rows.append((a, b, True, fold))
            if others:
                rows.append((a, int(rng.choice(others)), False, fold))
    names = [f"person{index % identities:03d}_{index:05d}.jpg" for index in range(count)]
    schema = pa.schema(
        [("a", pa.string()), ("b", pa.string()), ("same", pa.bool_()), ("fold", pa.int8())]
    )
    table = [
        {"a": names[a], "b": names[b], "same": same_person, "fold": fold}
        for a, b, same_person, fold in rows
    ]
    pq.write_table(pa.Table.from_pylist(table, schema), path)
    return len(rows)


def photographs(count: int, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Drawn photographs with one or two drawn faces each, large enough to be detected.

    Args:
        count: how many.
        seed: of everything.

    Returns:
        uint8 ``360 x 560 x 3``, RGB, each.
    """
    rng = np.random.default_rng([seed, 4])
    heads = iter(faces(2 * count, seed))
    size = 168
    y, x = np.mgrid[:size, :size].astype(np.float32)
    inside = 1 - ((x - size / 2) / 80) ** 2 - ((y - size / 2) / 84) ** 2
    mask = np.clip(6 * inside, 0, 1)[..., None]
    pictures = []
    for number in range(count):
        sky = np.linspace(rng.uniform(160, 220), rng.uniform(60, 120), 360)[:, None, None]
        picture = np.tile(sky * rng.uniform(0.8, 1.1, 3), (1, 560, 1)).astype(np.float32)
        for place in range(1 + number % 2):
            head = cv2.resize(next(heads), (size, size), interpolation=cv2.INTER_CUBIC)
            left, top = 60 + 260 * place + rng.integers(-20, 20), 96 + rng.integers(-30, 30)
            spot = picture[top : top + size, left : left + size]
            spot[:] = spot * (1 - mask) + head * mask
        pictures.append(np.clip(np.rint(picture), 0, 255).astype(np.uint8))
    return pictures


def write_photographs(folder: Path, count: int = 24, seed: int = 0) -> None:
    """Write drawn photographs as JPEG files, ``IMG_0000.jpg`` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    encoding = Encoding()
    for number, picture in enumerate(photographs(count, seed)):
        (folder / f"IMG_{number:04d}.jpg").write_bytes(encoding.encode(picture))
