"""Alignment, covering heads, CenterFace on real photographs."""

import glob
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st

from ppfr_ops.imaging import covers, faint, geometry
from ppfr_ops.imaging import detector as faces
from ppfr_ops.imaging.arrays import Faces, Picture
from ppfr_ops.imaging.codec import decode
from ppfr_ops.imaging.edges import EdgeFaces
from ppfr_ops.imaging.video import detector_of_videos
from ppfr_ops.sample import faces as drawn

NOISE = np.random.default_rng(5)


def white(crops: Faces) -> Faces:
    return np.full_like(crops, 255)


def one(points: np.ndarray, score: float = 1.0) -> faces.Detections:
    low, high = points.min(0), points.max(0)
    pad = (high - low) * 0.6
    box = np.concatenate([low - pad, high + pad])[None]
    return faces.Detections(
        box.astype(np.float32),
        points[None].astype(np.float32),
        np.array([score], np.float32),
        np.zeros(1, bool),
    )


@examples(st.floats(0.2, 4), st.floats(-180, 180), st.floats(-300, 300), st.floats(-300, 300))
@settings(max_examples=60, deadline=None)
def test_similarity_undoes_a_similarity(scale: float, angle: float, x: float, y: float) -> None:
    turn = cv2.getRotationMatrix2D((0, 0), angle, scale)
    moved = geometry.TEMPLATE @ turn[:, :2].T + (x, y)
    matrix = geometry.similarity(moved)
    assert np.allclose(moved @ matrix[:, :2].T + matrix[:, 2], geometry.TEMPLATE, atol=1e-3)


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.full((5, 2), np.nan), np.ones((4, 2))])
def test_similarity_refuses(points: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"five finite|one spot"):
        geometry.similarity(points)


def test_align_of_an_aligned_face_is_the_face() -> None:
    face = NOISE.integers(0, 256, (112, 112, 3), np.uint8)
    assert np.array_equal(geometry.align(face, geometry.TEMPLATE[None])[0], face)


@pytest.mark.parametrize("angle", [0, 15, -30, 90])
@pytest.mark.parametrize("x", [150, 300, 399])
def test_nothing_of_a_head_remains_and_nothing_else_changes(angle: float, x: float) -> None:
    picture = NOISE.integers(0, 256, (400, 400, 3), np.uint8)
    turn = cv2.getRotationMatrix2D((56, 60), angle, 1.2)
    points = geometry.TEMPLATE @ turn[:, :2].T + turn[:, 2] + (x - 56, 140)
    done = geometry.protect(picture, one(points), white)
    assert done.treatments == ("anonymized",)
    assert np.array_equal(done.picture[~done.changed], picture[~done.changed])
    matrix = geometry.similarity(points)
    grid = np.stack(np.meshgrid(np.arange(400), np.arange(400)), -1)
    place = grid @ matrix[:, :2].T + matrix[:, 2]
    centre_x, centre_y, half_x, half_y = covers.HEAD
    radius = np.hypot((place[..., 0] - centre_x) / half_x, (place[..., 1] - centre_y) / half_y)
    assert done.changed[radius < 1].all()
    inner = (place > 8).all(-1) & (place < 103).all(-1) & (radius < 1)
    assert (done.picture[inner] == 255).all()
    head = radius < 0.98
    seen, was = done.picture[head].astype(float).ravel(), picture[head].astype(float).ravel()
    assert seen.std() == 0 or abs(np.corrcoef(seen, was)[0, 1]) < 0.15


@pytest.mark.parametrize(
    ("size", "score", "marks", "expected"),
    [
        (0.2, 1.0, True, "covered_small"),
        (1.0, 0.25, True, "covered_unsure"),
        (1.0, 1.0, False, "covered_no_landmarks"),
    ],
)
def test_what_does_not_suit_the_method_is_covered(
    size: float, score: float, marks: bool, expected: str
) -> None:
    def never(crops: Faces) -> Faces:
        raise AssertionError("the method was called")

    picture = NOISE.integers(0, 256, (300, 300, 3), np.uint8)
    found = one(geometry.TEMPLATE * size + 90, score)
    if not marks:
        found.landmarks[:] = np.nan
    done = geometry.protect(picture, found, never)
    assert done.treatments == (expected,)
    x0, y0, x1, y1 = found.boxes[0].round().astype(int)
    seen, was = done.picture[y0:y1, x0:x1], picture[y0:y1, x0:x1]
    assert (seen == was).mean() < 0.05


def test_background() -> None:
    picture = NOISE.integers(0, 256, (300, 300, 3), np.uint8)
    found = one(geometry.TEMPLATE + 90)
    kept = geometry.protect(picture, found, white)
    black = geometry.protect(picture, found, white, background="black")
    assert (black.picture[~kept.changed] == 0).all()
    assert np.array_equal(black.picture[kept.changed], kept.picture[kept.changed])
    blurred = geometry.protect(picture, found, white, background="blur")
    assert blurred.picture[~kept.changed].std() < picture.std() / 4


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ([np.nan, 0, 5, 5], "finite"),
        ([5, 5, 5, 9], "area"),
        ([9, 9, 5, 5], "area"),
        ([100, 0, 120, 9], "outside"),
        ([-9, 0, 0, 9], "outside"),
    ],
)
def test_wrong_boxes_are_refused(box: list[float], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        faces.given([box], None, (100, 100))


def test_boxes_over_the_edge_are_taken() -> None:
    assert len(faces.given([[-5, -5, 20, 20], [90, 90, 130, 130]], None, (100, 100))) == 2


def test_suppression_keeps_the_best_of_what_overlaps() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [30, 30, 40, 40]], np.float32)
    found = faces.Detections(
        boxes,
        np.zeros((3, 5, 2), np.float32),
        np.array([0.5, 0.9, 0.7], np.float32),
        np.zeros(3, bool),
    )
    assert faces.suppress(found).scores.tolist() == pytest.approx([0.9, 0.7])


@pytest.fixture(scope="module")
def detector() -> faces.CenterFace:
    return faces.CenterFace()


@pytest.fixture(scope="module")
def photographs(shared: Path) -> list[Picture]:
    table = pq.read_table(sorted(glob.glob(f"{shared}/data/lfw_raw/*.parquet"))[0])
    return [decode(row["bytes"]) for row in table["image"][:12].to_pylist()]


def test_faces_of_photographs_are_found_in_a_batch_as_alone(
    detector: faces.CenterFace, photographs: list[Picture]
) -> None:
    together = detector(photographs)
    for found, picture in zip(together, photographs, strict=True):
        assert len(found) >= 1
        middle = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
        assert (np.abs(middle - 124.5).max(1) < 45).any()
        alone = detector([picture])[0]
        assert np.allclose(alone.boxes, found.boxes, atol=0.5)


@pytest.mark.parametrize("shape", [(32, 32), (1, 1), (500, 20_000)])
def test_nothing_is_found_in_black(detector: faces.CenterFace, shape: tuple[int, int]) -> None:
    assert len(detector([np.zeros((*shape, 3), np.uint8)])[0]) == 0


def test_faces_far_out_in_a_large_picture(
    detector: faces.CenterFace, photographs: list[Picture]
) -> None:
    panorama = np.full((500, 6000, 3), 128, np.uint8)
    panorama[200:450, 5700:5950] = photographs[0]
    found = detector([panorama])[0]
    middle = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    assert (np.abs(middle - (5824.5, 324.5)).max(1) < 45).any()


def test_a_second_network_sees_turned_faces_inside() -> None:
    face = drawn(1, seed=11)[0]
    turn = cv2.getRotationMatrix2D((56, 56), 45, 1.0) + np.array([[0, 0, 144], [0, 0, 94]])
    head = cv2.ellipse(np.zeros((112, 112), np.uint8), (56, 56), (50, 56), 0, 0, 360, 255, -1)
    canvas = np.full((300, 400, 3), 120, np.uint8)
    there = cv2.warpAffine(head, turn, (400, 300)) > 127
    canvas[there] = cv2.warpAffine(face, turn, (400, 300))[there]
    network = EdgeFaces(1)
    boxes = network(canvas, network.whole(canvas, 400)[1:], np.zeros((0, 4), np.float32))
    assert len(boxes) == 1
    assert np.abs((boxes[0, :2] + boxes[0, 2:]) / 2 - (200, 150)).max() < 12


def scene(small: bool) -> Picture:
    """A drawn face, and a small one that lies on its side and hardly differs from the wall."""
    canvas = np.full((300, 400, 3), 120, np.uint8)
    head = cv2.ellipse(np.zeros((112, 112), np.uint8), (56, 56), (50, 56), 0, 0, 360, 255, -1)
    placed = ((112, (120, 150), 0, 1.0), (40, (320, 100), 90, 0.15))[: 1 + small]
    for face, (side, (x, y), angle, contrast) in zip(drawn(2, seed=11), placed, strict=False):
        turn = cv2.getRotationMatrix2D((56, 56), angle, side / 112)
        turn[:, 2] += (x - 56, y - 56)
        there = cv2.warpAffine(head, turn, (400, 300)) > 127
        flat = cv2.warpAffine(face, turn, (400, 300), flags=cv2.INTER_AREA).astype(float) - 120
        canvas[there] = (120 + contrast * flat[there]).astype(np.uint8)
    return canvas


def test_a_head_that_is_hardly_seen_is_told_of() -> None:
    plain, doubtful = faces.CenterFace(quick=True)([scene(False), scene(True)])
    of_frames = detector_of_videos(0.2)
    (untold,) = of_frames([scene(True)])
    assert untold.faint is None, "nobody asks about frames"
    assert (untold.boxes == faces.CenterFace(side=1280)([scene(True)])[0].boxes).all()
    assert plain.scores.max() > 0.85 and plain.faint is not None and len(plain.faint) == 0
    assert len(doubtful) == 1 and doubtful.faint is not None
    (place,) = doubtful.faint
    assert np.abs((place[:2] + place[2:4]) / 2 - (320, 100)).max() < 15 and place[4] > 0.04


def test_faint_places_are_weighed_by_all_that_looked() -> None:
    def look(*rows: tuple[float, ...]) -> np.ndarray:
        return np.array(rows, np.float32).reshape(-1, 5)

    picture, none = np.zeros((200, 300, 3), np.uint8), look()
    first = look((10, 10, 50, 50, 0.1), (100, 100, 140, 140, 0.3), (280, 0, 400, 100, 0.9))
    second = look((12, 12, 52, 52, 0.25), (200, 100, 240, 140, 0.2))
    known = look((105, 105, 145, 145, 1))[:, :4]
    boxes, told = faint.places(picture, [first, second], none, known)
    # what is known and what lies beyond the edge is none; what both show is one place
    assert boxes.tolist() == [[12, 12, 52, 52], [200, 100, 240, 140]]
    assert np.allclose(told, [[0.25, 0.1, 0, 40], [0.2, 0, 0, 40]])
    more = faint.places(picture, [first, second], look((200, 100, 240, 140, 0.19)), known)[1]
    alone, both = faint.chances(told)[1], faint.chances(more)[1]
    assert alone < both < 0.5 and faint.chances(told)[0] > alone
    assert faint.doubtful(picture, [none, none], none, known).shape == (0, 5)


def test_thousands_of_faint_places_need_little_memory() -> None:
    """Noise gives them; a table of all by all would be hundreds of MB."""
    spots = np.indices((50, 60)).reshape(2, -1).T.astype(np.float32) * 16
    look = np.column_stack([spots, spots + 12, np.full(len(spots), 0.1, np.float32)])
    none = np.zeros((0, 5), np.float32)
    tracemalloc.start()
    boxes, _ = faint.places(np.zeros((960, 960, 3), np.uint8), [look, none], none, none[:, :4])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(boxes) == 3000 and peak < 20e6
