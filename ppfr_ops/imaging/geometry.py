"""Faces of photographs: align them to 112x112, put anonymized ones back over the whole head.

Convention: as in ``imaging.detector``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr_ops.imaging.arrays import FACE_SIZE, Faces, Picture
from ppfr_ops.imaging.covers import (
    HEAD,
    Cover,
    Head,
    PersonIn,
    clip,
    cover_head,
    fill,
    put_back,
    put_face,
)
from ppfr_ops.imaging.detector import Detections
from ppfr_ops.imaging.portraits import Portrait, Surroundings, put_portrait, yaw

TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ],
    np.float32,
)
"""Left eye, right eye, nose tip, mouth corners, as seen in the picture (ArcFace, InsightFace)."""

Reason = Literal["small", "unsure", "no_landmarks", "by_verdict"]
"""Why a face is not given to the method."""

Treatment = Literal[
    "anonymized",
    "covered",
    "covered_small",
    "covered_unsure",
    "covered_no_landmarks",
    "covered_by_verdict",
    "covered_faint",
    "pixelated_small",
    "pixelated_unsure",
    "pixelated_no_landmarks",
    "pixelated_by_verdict",
    "left_alone",
]
"""What was done to a face; all but the last hide it. Whole photographs have ``covered``, faces that
are cut out ``pixelated``."""

_FACELESS = "covered_no_landmarks", "covered_faint"

_DOUBTED, _MUCH, _ROOM = 0.35, 0.15, 0.8
"""Score below which what no first look shows may be no head; share of the picture: where a whole
head's cover would take more, that gets an ellipse over its box; and the half axes of that, in the
box's sides."""


def similarity(points: ArrayLike) -> NDArray[np.float64]:
    """The similarity transform of landmarks onto the template, least squares.

    Args:
        points: ``5 x 2``.

    Returns:
        float64 ``2 x 3``, from the picture's pixels to the 112x112 crop's.

    Raises:
        ValueError: landmarks that all lie on one spot, or are not finite.
    """
    found = np.asarray(points, np.float64)
    if found.shape != (5, 2) or not np.isfinite(found).all():
        raise ValueError("five finite points are needed")
    middle, goal = found.mean(0), TEMPLATE.mean(0).astype(np.float64)
    # As complex numbers z -> a z + b: a is the one-dimensional regression coefficient.
    source = (found - middle) @ np.array([1, 1j])
    target = (TEMPLATE - goal) @ np.array([1, 1j])
    power = float(np.vdot(source, source).real)
    if power < 1e-6:
        raise ValueError("landmarks that all lie on one spot")
    a = np.vdot(source, target) / power
    linear = np.array([[a.real, -a.imag], [a.imag, a.real]])
    return np.column_stack([linear, goal - linear @ middle])


def align(picture: Picture, landmarks: ArrayLike) -> NDArray[np.uint8]:
    """The 112x112 crops of a picture's faces; beyond its edge the edge goes on.

    Args:
        landmarks: ``N x 5 x 2``.

    Returns:
        uint8 ``N x 112 x 112 x 3``.
    """
    points = np.asarray(landmarks, np.float64).reshape(-1, 5, 2)
    return cut(picture, [similarity(face) for face in points])


def cut(picture: Picture, matrices: Sequence[NDArray[np.float64]]) -> Faces:
    """As ``align``, by transforms from the picture's to the crop's pixels."""
    crops = np.zeros((len(matrices), FACE_SIZE, FACE_SIZE, 3), np.uint8)
    for crop, given_matrix in zip(crops, matrices, strict=True):
        matrix, source = given_matrix.copy(), picture
        scale = np.hypot(*matrix[0, :2])
        if scale < 0.5:  # average first what would be skipped, only around the face
            window = _window(matrix, picture.shape, FACE_SIZE)
            source = np.ascontiguousarray(picture[window])
            source = cv2.GaussianBlur(source, (0, 0), 0.4 / scale).astype(np.uint8)
            matrix[:, 2] += matrix[:, :2] @ (window[1].start, window[0].start)
        # Black beyond the edge would be the same before and after, and count as disclosed.
        crop[:] = cv2.warpAffine(
            source,
            matrix,
            (FACE_SIZE, FACE_SIZE),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
    return crops


def _window(matrix: NDArray[np.float64], shape: Sequence[int], side: float) -> tuple[slice, slice]:
    """The part of a picture that a square of the template with half of ``side`` around covers."""
    low, high = -side / 2, FACE_SIZE + side / 2
    corners = np.array([[low, low], [low, high], [high, low], [high, high]])
    return clip(put_back(matrix, corners), tuple(shape))


_FORESHORTENED = 1.6
"""How much larger a head is than its landmarks say, at most."""

_LEAST_REACH = 0.8
"""Of a face's box (the ellipse in it), what the head must cover that its landmarks give; else they
are somebody else's, or of a face that is turned otherwise than they say."""


def reach(landmarks: NDArray[np.float32], box: NDArray[np.float32]) -> float:
    """Share of the ellipse in a box that is covered by the head that landmarks give; 0 to 1."""
    try:
        matrix = similarity(landmarks)
    except ValueError:
        return 0.0
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 15), np.linspace(-1, 1, 15)), -1).reshape(-1, 2)
    grid = grid[np.hypot(*grid.T) <= 1]
    points = (box[:2] + box[2:]) / 2 + grid * (box[2:] - box[:2]) / 2
    place = points @ matrix[:, :2].T + matrix[:, 2]
    x, y, half_x, half_y = HEAD
    inside = np.hypot((place[:, 0] - x) / half_x, (place[:, 1] - y) / half_y) <= 1
    return float(inside.mean())


def treat(
    faces: Detections,
    smallest: float = 32,
    sure: float = 0.35,
    otherwise: Literal["covered", "pixelated"] = "covered",
) -> list[Treatment]:
    """What has to be done to every face, by itself.

    Args:
        smallest: faces of shorter boxes are not given to the method, px.
        sure: nor are those with a lower score.
        otherwise: what becomes of those.
    """
    treatments: list[Treatment] = []
    each = zip(faces.landmarks, faces.boxes, faces.sizes, faces.scores, strict=True)
    for marks, box, size, score in each:
        if not np.isfinite(marks).all() or reach(marks, box) < _LEAST_REACH:
            treatments.append(because(otherwise, "no_landmarks"))
        elif size < smallest:
            treatments.append(because(otherwise, "small"))
        else:
            treatments.append(because(otherwise, "unsure") if score < sure else "anonymized")
    return treatments


def because(what: Literal["covered", "pixelated"], reason: Reason) -> Treatment:
    """The treatment of a face that is not given to the method."""
    return cast(Treatment, f"{what}_{reason}")


def transforms(faces: Detections) -> list[NDArray[np.float64]]:
    """Of every face to the template: by its landmarks, or by its box where they are of no use."""
    matrices = []
    for marks, box in zip(faces.landmarks, faces.boxes, strict=True):
        try:
            matrices.append(similarity(marks))
        except ValueError:
            matrices.append(_from_box(box))
    return matrices


def whole_head(
    marks: NDArray[np.floating], box: NDArray[np.float32]
) -> tuple[NDArray[np.float64], float]:
    """Transform to the template of a head that may be turned aside or nod, and how far it is
    turned, as ``yaw`` says. Landmarks of such a face lie closer together one way, which does not
    make its head smaller: the other way counts."""
    try:
        matrix = similarity(marks)
    except ValueError:
        return _from_box(box), 0.0
    points, template = np.asarray(marks, np.float64), TEMPLATE.astype(np.float64)
    (across, down), (far, high) = _extent(points), _extent(template)
    scale = float(np.hypot(*matrix[0, :2]))
    larger = np.clip(max(across / far, down / high) * scale, 1, _FORESHORTENED)
    linear = matrix[:, :2] / larger
    middle, goal = (each[[0, 1, 3, 4]].mean(0) for each in (points, template))
    return np.column_stack([linear, goal - linear @ middle]), yaw(points)


def _extent(points: NDArray[np.float64]) -> tuple[float, float]:
    """From eye to eye, and from the eyes to the mouth."""
    across, down = points[1] - points[0], points[3:].mean(0) - points[:2].mean(0)
    return float(np.hypot(*across)), float(np.hypot(*down))


def cover(
    picture: Picture,
    faces: Detections,
    treatments: Sequence[Treatment],
    published: Mapping[int, NDArray[np.uint8] | Portrait],
    background: Literal["keep", "blur", "black"] = "keep",
    style: Cover = "blur",
    person_in: PersonIn | None = None,
) -> tuple[Picture, NDArray[np.bool_]]:
    """Cover every head (``imaging.covers``); what the method made lies in the middle of the cover.

    Nothing of the original is mixed in within the ellipse ``HEAD``; only in the margin beyond it.
    Before drawn people, with ``person_in``, that holds for what shows a person or is near it.

    Args:
        treatments: one a face.
        published: by number of the face, what the method made of its crop, uint8
            ``112 x 112 x 3``, or a drawn person; all others are only covered, or left alone.
        background: what is not head: as it is, blurred, or black.
        style: of the covers.
        person_in: of uint8 ``H x W x 3`` how surely each pixel shows a person, float32 ``H x W``, 0
            to 1. Around drawn people what shows none stays as it is, if the background does.

    Returns:
        The picture, and bool ``H x W``: inside a head or its margin, or changed background.
    """
    canvas, changed = picture.copy(), np.zeros(picture.shape[:2], bool)
    spared = np.zeros_like(changed)
    matrices = transforms(faces)
    covers, doubted = _heads(picture.shape, faces, treatments)
    heads = [each[-1] for each in covers]
    shown: list[int] = []
    for i in range(len(faces) - 1, -1, -1):  # the best last, on top
        if treatments[i] == "left_alone":
            spared[clip(faces.boxes[i].reshape(2, 2), picture.shape)] = True
        else:
            shown.append(i)
    drawn = {i: each for i, each in published.items() if isinstance(each, Portrait)}
    hidden, replaced = np.zeros_like(changed), np.zeros_like(changed)
    if person_in is not None and background == "keep":
        for head in (heads[i] for i in drawn if not heads[i].empty):
            head.outlined(picture, person_in)
    for i in shown if drawn else ():
        for head in (each for each in covers[i] if not each.empty):
            gone = head.gone > 0
            hidden[head.window] |= gone
            replaced[head.window] |= gone & (i in drawn)
    behind: dict[int, Surroundings] = {}
    for i in shown:
        face = published.get(i)
        middle = faces.boxes[i].reshape(2, 2).mean(0)
        fills = i in drawn or (bool(drawn) and treatments[i] in _FACELESS and not doubted[i])
        fills = fills or any(heads[n].holds(middle) for n in drawn)
        for head in (each for each in covers[i] if not each.empty):
            filled, own = None, ~replaced[head.window]
            if fills or not own.any():
                around = Surroundings(picture, hidden, head)
                filled = around.continued(i in drawn)
                if head is heads[i]:
                    behind[i] = around
            elif drawn:  # else a blur in the colours of another would be seen
                filled = fill(picture[head.window], head, style, own)
            cover_head(canvas, changed, head, style, filled)
        if isinstance(face, np.ndarray):
            put_face(canvas, Head(canvas.shape, matrices[i]), face)
    size = np.prod(faces.boxes[:, 2:] - faces.boxes[:, :2], axis=1)
    for i in sorted(shown, key=lambda i: float(size[i])):  # who is nearest stands in front
        if i in drawn and i in behind:
            put_portrait(canvas, behind[i], drawn[i])
    if background != "keep":
        rest = np.zeros_like(canvas)
        if background == "blur":
            small = cv2.resize(canvas, (24, 24), interpolation=cv2.INTER_AREA)
            wide = cv2.resize(small, canvas.shape[1::-1], interpolation=cv2.INTER_LINEAR)
            rest = wide.astype(np.uint8)
        canvas = np.where((changed | spared)[..., None], canvas, rest)
        changed |= ~spared
    return canvas, changed


@dataclass(frozen=True)
class Protected:
    """A picture whose heads are covered; ``changed`` and ``treatments`` as in ``cover``."""

    picture: Picture
    changed: NDArray[np.bool_]
    treatments: tuple[Treatment, ...]


def protect(
    picture: Picture,
    faces: Detections,
    anonymize: Callable[[Faces], Faces],
    *,
    smallest: float = 32,
    sure: float = 0.35,
    background: Literal["keep", "blur", "black"] = "keep",
) -> Protected:
    """``treat``, anonymize, ``cover``: all for one picture.

    Args:
        anonymize: uint8 ``N x 112 x 112 x 3`` to the same; called once, if a face suits it.
    """
    treatments = treat(faces, smallest, sure)
    suited = [i for i, treatment in enumerate(treatments) if treatment == "anonymized"]
    crops = anonymize(align(picture, faces.landmarks[suited])) if suited else ()
    published = dict(zip(suited, crops, strict=True))
    return Protected(*cover(picture, faces, treatments, published, background), tuple(treatments))


def _from_box(box: NDArray[np.float32]) -> NDArray[np.float64]:
    """As if a face stood upright in the box: it spans about 80 x 104 of the template's pixels."""
    width, height = np.maximum(box[2:] - box[:2], 1)
    scale = min(80 / width, 104 / height)
    middle = (box[:2] + box[2:]) / 2
    return np.array(
        [[scale, 0, 56 - scale * middle[0]], [0, scale, 64 - scale * middle[1]]], np.float64
    )


def _heads(
    shape: tuple[int, ...], faces: Detections, treatments: Sequence[Treatment]
) -> tuple[list[list[Head]], NDArray[np.bool_]]:
    """Of every face its head, last; of those whose landmarks may lie anywhere, as those of a poor
    detection may, before it one over the box; and bool ``N``, whether it may be no head."""
    sound = np.array([each in ("anonymized", "covered") for each in treatments], bool)
    doubted = faces.second & (faces.scores < _DOUBTED) & ~sound
    found = []
    for i, (marks, box) in enumerate(zip(faces.landmarks, faces.boxes, strict=True)):
        covers = [Head(shape, *whole_head(marks, box))]
        if treatments[i] != "left_alone" and not (sound[i] and reach(marks, box) == 1):
            covers.insert(0, Head(shape, _from_box(box)))
            if doubted[i] and covers[0].area > _MUCH:
                covers = [Head(shape, _over_box(box))]
        found.append(covers)
    return found, doubted


def _over_box(box: NDArray[np.float32]) -> NDArray[np.float64]:
    """As if a head that may be turned any way filled the box: an ellipse around it."""
    x, y, half_x, half_y = HEAD
    scale = np.array([half_x, half_y]) / (_ROOM * np.maximum(box[2:] - box[:2], 1))
    middle = np.array([x, y]) - scale * (box[:2] + box[2:]) / 2
    return np.column_stack([np.diag(scale), middle])
