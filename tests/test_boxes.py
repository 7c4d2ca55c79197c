"""Boxes of the owner in any convention, turned and cut faces: nothing is published bare unsaid."""

import json
from typing import Any

import cv2
import numpy as np
import pytest
from pictures import exif, jpeg
from test_photographs import PLACES, build, codes, photograph, unit

from ppfr_ops import sample
from ppfr_ops.imaging import geometry
from ppfr_ops.imaging.arrays import Picture
from ppfr_ops.imaging.codec import decode
from ppfr_ops.imaging.detector import CenterFace, Detections, given
from ppfr_ops.imaging.edges import YUNET, EdgeFaces
from ppfr_ops.imaging.views import View, moved
from ppfr_ops.review.queue import doubts
from ppfr_ops.review.verdicts import Review
from ppfr_ops.source.sums import marked, sum_of

X, Y = PLACES[0]
CORNERS = [X, Y, X + 112, Y + 112]


def said(box: list[float], **options: Any) -> tuple[list[str], dict[str, str], Any]:
    """Treatments, codes, and tables of a photograph (300 x 200) with one face and this box."""
    table = unit([photograph(1)], boxes=[json.dumps([box])])
    tables = build("in-place", boxes_column="b", **options)(table, "u")
    return tables.detections["treatment"].to_pylist(), codes(tables), tables


@pytest.mark.parametrize(
    ("form", "box"),
    [
        ("xyxy", CORNERS),
        ("xywh", [X, Y, 112, 112]),
        ("cxcywh", [X + 56, Y + 56, 112, 112]),
        ("xyxy-relative", [X / 300, Y / 200, (X + 112) / 300, (Y + 112) / 200]),
        ("xywh-relative", [X / 300, Y / 200, 112 / 300, 112 / 200]),
        ("cxcywh-relative", [(X + 56) / 300, (Y + 56) / 200, 112 / 300, 112 / 200]),
    ],
)
def test_boxes_in_their_convention_and_in_another(form: str, box: list[float]) -> None:
    treatments, dead, tables = said(box, boxes_format=form)
    assert treatments == ["anonymized"] and not dead
    assert np.allclose(tables.detections["box"][0].as_py(), CORNERS, atol=0.01)
    for other in ("xyxy", "xywh", "cxcywh", "xyxy-relative", "xywh-relative", "cxcywh-relative"):
        if other != form:
            treatments, dead, tables = said(box, boxes_format=other)
            after = decode(tables.records["image"][0].as_py()["bytes"]) if treatments else None
            bare = after is None or (after[Y + 30 : Y + 90, X + 30 : X + 80] != 128).mean() < 0.5
            # Held back, or the face is covered all the same.
            assert dead or not bare, other


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ([0.1, 0.1, 0.5, 0.6], "shares of the picture"),
        ([10, 10, 11, 40], "smaller than 3 px"),
        ([290, 190, 600, 600], "mostly outside"),
    ],
)
def test_boxes_that_cannot_be(box: list[float], reason: str) -> None:
    _, dead, tables = said(box)
    assert dead == {"u-000000": "wrong_boxes"}
    assert reason in tables.dead_letters["message"][0].as_py()
    _, dead, tables = said([20, 30, 132, 142], boxes_format="xyxy-relative")
    assert "in px? --boxes-format" in tables.dead_letters["message"][0].as_py()


def test_a_face_that_no_box_covers() -> None:
    elsewhere = [200.0, 10.0, 240.0, 50.0]
    treatments, dead, tables = said(elsewhere)
    assert not treatments and dead == {"u-000000": "face_without_box"}
    (doubt,) = doubts(tables.detections, tables.dead_letters, 0.35)
    assert (doubt.source_id, doubt.reason) == ("u-000000", "a face that no box covers")
    treatments, dead, _ = said(elsewhere, unboxed="cover")
    assert treatments == ["covered_no_landmarks", "anonymized"] and not dead
    treatments, dead, tables = said(elsewhere, unboxed="leave")
    assert treatments == ["covered_no_landmarks"] and not dead
    assert tables.metrics["residual_faces"].to_pylist() == [1]
    assert doubts(tables.detections, tables.dead_letters, 0.35)[0].reason.startswith("a box in")
    table = unit([photograph(1)], boxes=[json.dumps([elsewhere])])
    mark = marked(sum_of(table["image"][0].as_py()))
    sanitizer = build("in-place", {"u-000000": Review("ok", original=mark)}, boxes_column="b")
    assert not codes(sanitizer(table, "u")), "a person said that it is all right"


def test_regions_to_leave_alone_need_no_box() -> None:
    table = unit([photograph(2)], boxes=["[[150, 60, 262, 172]]"], regions=[json.dumps([CORNERS])])
    options = {"boxes_column": "b", "keep_regions_column": "r"}
    assert not codes(build("in-place", **options)(table, "u"))


class Upright:
    """A detector that knows where the face is in a picture that a camera stored turned."""

    def __call__(self, pictures: Any) -> list[Detections]:
        points = (geometry.TEMPLATE + np.array([X, Y])).astype(np.float32)
        box = np.array([CORNERS], np.float32)
        found = Detections(box, points[None], np.ones(1, np.float32), np.zeros(1, bool))
        return [found if each.shape[:2] == (200, 300) else Detections.empty() for each in pictures]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_of_the_stored_picture(orientation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_photographs.Marked", Upright)
    upright = photograph(1)
    turns = {1: 0, 2: 0, 3: 2, 4: 2, 5: 3, 6: 1, 7: 1, 8: 3}  # quarters that undo the EXIF's
    stored = np.rot90(upright, turns[orientation])
    mask = np.zeros((200, 300), bool)
    mask[Y : Y + 112, X : X + 112] = True
    mask = np.rot90(mask, turns[orientation])
    if orientation in (2, 4, 5, 7):
        stored, mask = stored[:, ::-1], mask[:, ::-1]
    rows, columns = np.nonzero(mask)
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    data = jpeg(np.ascontiguousarray(stored), exif=exif(orientation))
    assert np.abs(decode(data).astype(int) - upright).mean() < 8
    table = unit([upright], boxes=[json.dumps([[int(v) for v in box]])])
    table = table.set_column(1, "image", [[data]])
    tables = build("in-place", boxes_column="b", boxes_frame="stored")(table, "u")
    assert tables.detections["treatment"].to_pylist() == ["anonymized"]
    assert np.allclose(tables.detections["box"][0].as_py(), CORNERS, atol=1.1)
    if orientation in (3, 6):  # what cameras write
        wrong = codes(build("in-place", boxes_column="b")(table, "u"))
        assert wrong, "taken for the upright picture's, and held back"


def faces_on_grey(angles: dict[tuple[int, int], float], scale: float = 1.4) -> Picture:
    """A drawn face around these places, turned by these angles, degrees."""
    picture = np.full((480, 640, 3), 120, np.uint8)
    (face,) = sample.faces(1, seed=11)
    for (x, y), angle in angles.items():
        turn = cv2.getRotationMatrix2D((56, 56), angle, scale)
        turn[:, 2] += np.array([x, y]) - 56
        pasted = cv2.warpAffine(face, turn, (640, 480))
        there = cv2.warpAffine(np.full((112, 112), 255, np.uint8), turn, (640, 480)) > 128
        picture[there] = pasted[there]
    return picture


def test_turned_faces_beside_an_upright_one_are_found() -> None:
    angles = {(120, 120): 0.0, (320, 240): 180.0, (520, 120): 90.0, (520, 360): 270.0}
    (found,) = CenterFace()([faces_on_grey(angles)])
    middle = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    for (x, y), angle in angles.items():
        near = np.hypot(*(middle - (x, y)).T)
        assert near.min() < 40, angle
        marks = found.landmarks[near.argmin()]
        down = marks[3:].mean(0) - marks[:2].mean(0)  # from the eyes to the mouth
        wanted = np.array([np.sin(np.radians(angle)), np.cos(np.radians(angle))])
        assert down @ wanted / np.hypot(*down) > 0.7, angle


def test_landmarks_that_do_not_fit_their_box_are_not_believed() -> None:
    marks = (geometry.TEMPLATE * 0.3 + (10, 10)).astype(np.float32)
    box = np.array([[100, 100, 200, 230]], np.float32)
    strange = Detections(box, marks[None], np.ones(1, np.float32), np.zeros(1, bool))
    assert geometry.treat(strange) == ["covered_no_landmarks"]
    picture = np.random.default_rng(1).integers(0, 256, (300, 300, 3), np.uint8)
    done = geometry.protect(picture, strange, lambda crops: crops)
    inner = done.changed[115:215, 115:185]
    assert inner.all()


def test_a_face_cut_by_the_edge_is_found() -> None:
    for x, y in ((8, 240), (632, 240), (320, 5)):
        (found,) = CenterFace()([faces_on_grey({(x, y): 0.0})])
        middle = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
        assert len(found) and np.hypot(*(middle - (x, y)).T).min() < 50, (x, y)


def test_a_turned_face_that_the_edge_cuts_is_looked_at_closely() -> None:
    """Its score in the pictures as a whole is not enough."""
    for x, y, angle in ((-4, 240, 145.0), (320, -4, 320.0)):
        (found,) = CenterFace()([faces_on_grey({(x, y): angle, (320, 240): 0.0})])
        middle = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
        face = np.hypot(*(middle - (x, y)).T).argmin()
        assert np.hypot(*(middle[face] - (x, y))) < 50, (x, y)
        assert not found.second.all(), "the upright one was seen at once"


def test_a_turned_half_face_that_only_another_network_sees_is_covered_and_queued() -> None:
    for x, y, angle in ((320, -12, 40.0), (320, 492, 240.0)):
        picture = faces_on_grey({(x, y): angle, (320, 240): 0.0})
        (found,) = CenterFace()([picture])
        middle = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
        face = np.hypot(*(middle - (x, y)).T).argmin()
        assert np.hypot(*(middle[face] - (x, y))) < 50 and found.second[face], (x, y)
        done = geometry.protect(picture, found, lambda crops: crops)
        assert done.treatments[face] in ("covered_no_landmarks", "covered_unsure")
        there = (picture != 120).any(2)
        there[100:380] = False
        assert done.changed[there].mean() > 0.9, (x, y)
        edges = EdgeFaces()
        seen = edges.whole(picture, 1024)[1:]
        assert len(edges(picture, seen, found.boxes[:0]))
        assert not len(edges(picture, seen, found.boxes)), "what is known is not found again"


def test_the_picture_is_turned_by_quarters_that_show_another_network_something() -> None:
    picture, detector = faces_on_grey({}), CenterFace()
    box = np.array([[100, 100, 180, 200]], np.float32)
    nothing, same, other = (
        np.array([[x, 100, x + 70, 190, 0.2] for x in each], np.float32).reshape(-1, 5)
        for each in ([], [105], [400])
    )

    def turned(score: float, *seen: np.ndarray) -> list[View]:
        known = given(box, None, (640, 480)).take(np.arange(1 if score else 0))
        known.scores[:] = score
        return detector._turned(picture, seen, known)

    assert len(turned(0.9, other, nothing, same, nothing)) == 0, "upright it has been seen"
    assert len(turned(0.9, nothing, same, other, nothing)) == 1
    assert len(turned(0.3, same, same, nothing, same)) == 3, "what is unsure is not known"
    assert len(turned(0.0, nothing, nothing, nothing, nothing)) == 3


def test_the_other_network_is_read_as_opencv_reads_it() -> None:
    picture = faces_on_grey({(320, 240): 10.0, (150, 200): 0.0})
    theirs = cv2.FaceDetectorYN.create(str(YUNET), "", (640, 480), 0.08)
    _, wanted = theirs.detect(np.ascontiguousarray(picture[..., ::-1]))
    (found,) = EdgeFaces()._seen(picture, [View(moved(1.0), 480, 640)])
    assert len(found) == len(wanted) >= 2
    np.testing.assert_allclose(found[:, :2], wanted[:, :2], atol=0.1)
    np.testing.assert_allclose(found[:, 2:4] - found[:, :2], wanted[:, 2:4], atol=0.1)
    np.testing.assert_allclose(found[:, 4], wanted[:, -1], atol=1e-3)
    np.testing.assert_allclose(found[:, 5:], wanted[:, 4:14], atol=0.1)


def test_what_one_network_is_sure_of_the_other_is_not_asked() -> None:
    detector, large = CenterFace(quick=True), faces_on_grey({(150, 150): 0.0, (350, 200): 0.0})
    network, sizes = detector._network, list[tuple[int, ...]]()

    class Counted:
        def run(self, names: None, fed: dict[str, np.ndarray]) -> list[np.ndarray]:
            sizes.append(next(iter(fed.values())).shape[2:])
            return network.run(names, fed)

    detector._network = Counted()
    (found,) = detector([large[:400, :500]])
    assert len(found) == 2 and (found.scores > 0.8).all() and not found.second.any()
    assert not sizes, "small, and nothing else in it"
    (same,) = detector([large])
    assert (480, 640) in sizes, "in a large picture faces may be too small for the first"
    assert len(same) == 2 and not same.second.any()
    detector._edges._network, sizes[:] = Blind(detector._edges._network), []
    (found,) = detector([large[:400, :500]])
    assert (416, 512) in sizes and len(found) == 2, "it sees nothing, so the other looks"
    detector, sizes[:] = CenterFace(), []
    network, detector._network = detector._network, Counted()
    detector([large[:400, :500]])
    assert (416, 512) in sizes, "its landmarks are the better ones"


class Blind:
    """A network that scores nothing."""

    def __init__(self, network: Any) -> None:
        self.network = network

    def run(self, names: None, fed: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [0 * each for each in self.network.run(names, fed)]


def test_what_is_found_does_not_depend_on_what_is_looked_at_beside_it() -> None:
    detector = CenterFace(threads=1)
    pictures = [
        faces_on_grey({(320, 240): 0.0, (0, 240): 145.0}),
        faces_on_grey({(100, 100): 90.0})[:300, :300],
        faces_on_grey({(150, 150): 0.0})[:300, :300],
    ]
    for alone, beside in zip(pictures, detector(pictures), strict=True):
        (found,) = detector([alone])
        for name in ("boxes", "landmarks", "scores", "second"):
            assert np.array_equal(getattr(found, name), getattr(beside, name), equal_nan=True)


def test_mirror_images_beyond_the_edge_are_no_faces() -> None:
    for thorough in (False, True):
        (found,) = CenterFace(thorough=thorough)([faces_on_grey({(100, 240): 0.0})])
        assert len(found) == 1
    picture = faces_on_grey({(75, 75): 0.0})[:160, :160]
    (found,) = CenterFace(thorough=True)([picture])
    assert ((found.boxes[:, :2] < 160) & (found.boxes[:, 2:] > 0)).all()
