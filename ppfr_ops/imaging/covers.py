"""Covers of heads: what is put over a head in a photograph, and how it goes over into the rest.

A cover is an ellipse over the whole head, hair, ears and chin included, with a soft edge outside of
the ellipse. Nothing within the ellipse depends on more of the head than a few mean colours, so that
there is little that an attacker could bring back (``bench/covers.py`` attacks each). Before a drawn
person less may go: what shows nobody, outside of the oval of face and ears, and what lies below the
chin, stays as it is (``Head.outlined``).
"""

from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ppfr_ops.imaging.arrays import FACE_SIZE, Picture

PersonIn = Callable[[Picture], NDArray[np.float32]]
"""Of uint8 ``H x W x 3`` how surely each pixel shows a person, float32 ``H x W``, 0 to 1."""

Cover = Literal["blur", "mosaic", "solid"]
"""blur: a smooth field of a few colours of the head and its surroundings; mosaic: the same in soft
blocks; solid: one colour, that of the surroundings."""

HEAD = (56.0, 44.0, 70.0, 90.0)
"""Centre and half axes of the ellipse that covers hair, ears and chin, in the template's pixels."""

OVAL = (56.0, 56.0, 46.0, 60.0)
"""The same of what is always taken away of a head whose outline is looked for: face and ears."""

_COLLAR = 126.0, 138.0
"""Between these rows of the template a drawn neck goes over into the photograph's own."""

_AROUND, _NEAR, _PERSON, _SURELY = 1.8, 6.0, 0.1, 0.6
"""How far around a head it is looked who stands there, in its half axes; the template's pixels
beside a person that go, too; from which certainty on a pixel may be of one; and the mean certainty
within the oval below which an outline is not believed."""

BEHIND = 45.0
"""Of a head that is turned, by its ``yaw``, how much more of the template's pixels the ellipse
covers on the side of its back."""

MARGIN = 0.22
"""Beyond the ellipse the change fades out over this share of its half axes."""

FADE = 8
"""Over so many of the template's pixels the edge of a method's face fades out."""

CELLS = 2
"""Mean colours that are kept across a head and its margin, and as large ones down. With three a
linear attacker, who is taught faces of others, finds one head in 30 among 150 originals."""


class Head:
    """The part of a photograph around one head.

    Args:
        shape: of the photograph.
        matrix: ``2 x 3``, from the photograph's pixels to the template's.
        turned: how far the head is turned to the right, as ``portraits.yaw`` says; what is behind
            the face lies on the other side.
    """

    def __init__(
        self, shape: tuple[int, ...], matrix: NDArray[np.float64], turned: float = 0.0
    ) -> None:
        x, y, half_x, half_y = HEAD
        behind = BEHIND * float(np.clip(turned, -0.6, 0.6))
        x, half_x = x - 0.4 * behind, half_x + 0.6 * abs(behind)
        self.ellipse = x, y, half_x, half_y
        """As ``HEAD``."""
        self.shape, self.matrix = shape, matrix
        self.window = self.around(1 + MARGIN)
        rows, columns = self.window
        self.empty = rows.start >= rows.stop or columns.start >= columns.stop
        # In the template's pixels, by plane; float32 and OpenCV, for this is half of the work.
        across = np.arange(columns.start, columns.stop, dtype=np.float32)
        down = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
        (ax, ay, a0), (bx, by, b0) = matrix.astype(np.float32)
        self.x, self.y = (ax * across + a0) + ay * down, (bx * across + b0) + by * down
        if not self.empty:
            self.radius = cv2.magnitude((self.x - x) / half_x, (self.y - y) / half_y)
        self.outline: NDArray[np.float32] | None = None
        """How much of each pixel of the window has to go; None: all that the ellipse covers."""

    def around(self, reach: float) -> tuple[slice, slice]:
        """The upright rectangle around the head and what is near it, in half axes."""
        x, y, half_x, half_y = self.ellipse
        far = reach * np.array([half_x, half_y]) * [[-1, -1], [-1, 1], [1, -1], [1, 1]]
        return clip(put_back(self.matrix, far + np.array([x, y])), self.shape)

    def holds(self, point: NDArray[np.floating]) -> bool:
        """Whether a point of the photograph, x and y, lies in the ellipse."""
        x, y, half_x, half_y = self.ellipse
        across, down = self.matrix @ [*point, 1.0] - [x, y]
        return bool(np.hypot(across / half_x, down / half_y) <= 1)

    @property
    def share(self) -> NDArray[np.float32]:
        """How much of the cover is seen: 1 all over the head, 0 beyond its margin."""
        linear = np.clip((1 + MARGIN - self.radius) / MARGIN, 0, 1)
        return np.asarray(linear * linear * (3 - 2 * linear), np.float32)

    @property
    def area(self) -> float:
        """Share of the photograph that the cover and its margin take."""
        pixels = 0 if self.empty else np.count_nonzero(self.radius < 1 + MARGIN)
        return pixels / max(self.shape[0] * self.shape[1], 1)

    @property
    def above_collar(self) -> NDArray[np.float32]:
        """1 down to below the chin, 0 from where clothes begin."""
        first, last = _COLLAR
        return np.asarray(np.clip((last - self.y) / (last - first), 0, 1), np.float32)

    @property
    def gone(self) -> NDArray[np.float32]:
        """How much of each pixel of the original is taken away."""
        return self.share if self.outline is None else self.share * self.outline

    def outlined(self, picture: Picture, person_in: PersonIn) -> None:
        """Take away no more than the person in the photograph and what is near it."""
        rows, columns = self.around(_AROUND)
        top, left = self.window[0].start - rows.start, self.window[1].start - columns.start
        height, width = self.x.shape
        person = person_in(picture[rows, columns])[top : top + height, left : left + width]
        x, y, half_x, half_y = OVAL + np.subtract(self.ellipse, HEAD)  # a turned head's ears, too
        far = cv2.magnitude((self.x - x) / half_x, (self.y - y) / half_y)
        if not (far < 1).any() or person[far < 1].mean() < _SURELY:
            return
        near = max(1, round(_NEAR / float(np.hypot(*self.matrix[0, :2]))))
        # A disc of hundreds of pixels would take minutes, and the network sees no more than fewer.
        fewer = max(1, near // 8)
        few = [-(-side // fewer) for side in (width, height)]
        small, near = cv2.resize(person, few, interpolation=cv2.INTER_AREA), round(near / fewer)
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * near + 1, 2 * near + 1))
        wide = np.clip(cv2.dilate(small, disc) / _PERSON - 1, 0, 1)
        soft = cv2.resize(cv2.GaussianBlur(wide, (0, 0), 0.4 * near), (width, height))
        whole = np.maximum(soft, np.clip((1 - far) / MARGIN + 1, 0, 1))
        self.outline = np.asarray(whole * self.above_collar, np.float32)


def fill(
    part: Picture, head: Head, style: Cover, known: NDArray[np.bool_] | None = None
) -> Picture:
    """What covers a head; as large as the window around it.

    Args:
        part: the photograph in that window.
        known: bool ``H x W``, the pixels whose colours it may have, some at least; None: all.
    """
    if style == "solid":
        known = np.ones(part.shape[:2], bool) if known is None else known
        ring = part[known & (head.radius > 1) & (head.radius <= 1 + MARGIN)]
        colour = np.median(ring if len(ring) else part[known], axis=0)
        return np.broadcast_to(colour.astype(np.uint8), part.shape).copy()
    height, width = part.shape[:2]
    # A head that is cut off by the edge, or much higher than wide, is not seen more finely for it.
    side = 2 * HEAD[2] * (1 + MARGIN) / np.hypot(*head.matrix.T[:2]).min() / CELLS
    count = (max(1, round(width / side)), max(1, round(height / side)))
    if known is None:
        small = cv2.resize(part, count, interpolation=cv2.INTER_AREA)
    else:
        each = known[..., None].astype(np.float32)
        some = np.dstack([part, np.full_like(part[..., 0], 255)]) * each
        cells = cv2.resize(some, count, interpolation=cv2.INTER_AREA).reshape(*count[::-1], 4)
        cells += 0.01 * some.mean((0, 1))  # of cells in which nothing is known
        small = np.asarray(255 * cells[..., :3] / cells[..., 3:], np.uint8)
    if style == "blur":
        smooth = cv2.resize(
            small.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
        )
        return np.asarray(np.clip(smooth, 0, 255), np.uint8)
    blocks = cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(cv2.GaussianBlur(blocks, (0, 0), max(0.3, side / 10)), np.uint8)


def cover_head(
    canvas: Picture,
    changed: NDArray[np.bool_],
    head: Head,
    style: Cover,
    filled: Picture | None = None,
) -> None:
    """Cover one head, in place.

    Args:
        changed: bool ``H x W``; what is covered becomes true.
        filled: what covers the head, as large as its window; None: what ``style`` says.
    """
    if head.empty:
        return
    part, share = canvas[head.window], head.gone
    if filled is None:
        filled = fill(part, head, style)
    canvas[head.window] = cv2.blendLinear(filled, part, share, 1 - share)
    changed[head.window] |= head.share > 0


def put_face(canvas: Picture, head: Head, face: NDArray[np.uint8]) -> None:
    """Put what a method made of an aligned face, uint8 ``112 x 112 x 3``, into the middle of its
    head's cover, in place; its edge fades out."""
    if head.empty:
        return
    warped = cv2.remap(face, head.x, head.y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    last = np.float32(FACE_SIZE - 1)
    edge = cv2.min(cv2.min(head.x, last - head.x), cv2.min(head.y, last - head.y))
    seen = np.clip(edge / FADE, 0, 1).astype(np.float32) * head.share
    canvas[head.window] = cv2.blendLinear(warped, canvas[head.window], seen, 1 - seen)


def clip(points: NDArray[np.floating], shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The upright rectangle around points, ``N x 2``, as far as it lies in a picture."""
    low, high = np.floor(points.min(0)) - 1, np.ceil(points.max(0)) + 2
    x0, x1 = np.clip([low[0], high[0]], 0, shape[1]).astype(int)
    y0, y1 = np.clip([low[1], high[1]], 0, shape[0]).astype(int)
    return slice(y0, y1), slice(x0, x1)


def put_back(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points, ``N x 2``, before a transform."""
    back = np.asarray(cv2.invertAffineTransform(matrix), np.float64)
    return np.asarray(points @ back[:, :2].T + back[:, 2], np.float64)
