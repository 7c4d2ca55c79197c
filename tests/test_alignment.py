"""Aligned faces that are not aligned: said, refused, or warped right by a known template."""

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from pictures import jpeg
from PIL import Image

from ppfr_ops import sanitize_batch
from ppfr_ops.errors import UserError
from ppfr_ops.imaging import detector
from ppfr_ops.imaging.arrays import Picture
from ppfr_ops.imaging.detector import Detections
from ppfr_ops.imaging.geometry import TEMPLATE
from ppfr_ops.imaging.templates import KNOWN, recognised, shape_of, warped
from ppfr_ops.sample import faces
from ppfr_ops.sanitize.groups import GroupOptions, group_input
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.prepare import prepare


def size_of(name: str, side: int) -> tuple[int, int]:
    return round(side * shape_of(name)), side


def cropped(face: Picture, name: str, side: int = 224) -> Picture:
    """An aligned face as another template has it."""
    width, height = size_of(name, side)
    points = np.column_stack([KNOWN[name] * (width, height), np.ones(5)])
    matrix = np.linalg.lstsq(points, TEMPLATE.astype(np.float64), rcond=None)[0].T
    back = cv2.invertAffineTransform(matrix)
    made = cv2.warpAffine(face, back, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return made.astype(np.uint8)


@pytest.mark.parametrize("name", KNOWN)
def test_known_templates_are_recognised_and_warped_back(name: str) -> None:
    noise = np.random.default_rng(0).normal(0, 0.02, (9, 5, 2))
    assert recognised(KNOWN[name] + noise, size_of(name, 224)) == name
    face = faces(1)[0]
    back = warped(cropped(face, name), name)
    inner = np.s_[35:95, 35:78]
    assert np.abs(back[inner].astype(int) - face[inner]).mean() < 6
    assert recognised(KNOWN[name][None] + (0.25, 0), size_of(name, 224)) is None
    assert recognised(KNOWN[name] + 20 * noise, size_of(name, 224)) is None


class Seen:
    """A detector that sees one face, by a template, in what it is shown with a margin."""

    def __init__(self, points: np.ndarray) -> None:
        self.points = points

    def __call__(self, pictures: Sequence[Picture]) -> list[Detections]:
        found = []
        for picture in pictures:
            height, width = picture.shape[:2]
            edge = min(height, width) // 4  # the margin is half of the shorter side
            inner = (width - 2 * edge, height - 2 * edge)
            marks = (self.points * inner + edge)[None].astype(np.float32)
            box = np.array([[0, 0, width, height]], np.float32)
            found.append(Detections(box, marks, np.ones(1, np.float32), np.zeros(1, bool)))
        return found


def options(folder: Path, **more: object) -> SanitizeOptions:
    return SanitizeOptions(
        input=str(folder),
        output=str(folder.with_name("out")),
        method=str(more.pop("method", "pixelate")),
        **more,  # type: ignore[arg-type]
    )


def written(folder: Path, pictures: Sequence[Picture]) -> Path:
    folder.mkdir()
    for number, picture in enumerate(pictures):
        (folder / f"{number}.jpg").write_bytes(jpeg(picture))
    return folder


def test_what_is_said_and_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path / "in", [cropped(face, "celeba") for face in faces(5)])
    monkeypatch.setattr(detector, "CenterFace", lambda **_: Seen(KNOWN["celeba"]))
    with pytest.raises(UserError, match=r"183 x 224 px .* celeba.*--align auto .*--faces detect"):
        prepare(options(folder))
    job = prepare(options(folder, align="auto"))
    assert job.options.align == "celeba" and "template celeba" in job.notices[0]
    monkeypatch.setattr(detector, "CenterFace", lambda **_: Seen(KNOWN["celeba"] + 0.3))
    with pytest.raises(UserError, match="these are photographs, the first of 183 x 224"):
        prepare(options(folder, align="auto"))


def test_faces_of_112_that_are_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path / "in", faces(5))
    assert prepare(options(folder)).options.align == "off"  # the drawn faces: nothing is found
    monkeypatch.setattr(detector, "CenterFace", lambda **_: Seen(KNOWN["arcface"]))
    assert not prepare(options(folder)).notices
    monkeypatch.setattr(detector, "CenterFace", lambda **_: Seen(KNOWN["arcface"] + 0.2))
    with pytest.raises(UserError, match=r"eyes of the first 5 faces .*--faces detect.*--align off"):
        prepare(options(folder))
    job = prepare(options(folder, method="natural"))  # its pictures do not depend on it
    assert job.options.align == "off" and "eyes" in job.notices[0]
    assert not prepare(options(folder, align="off")).notices


def test_batches_name_the_template() -> None:
    crop = cropped(faces(1)[0], "ffhq", 256)
    row = {"image": [crop, faces(1)[0][:, :100]]}
    found = sanitize_batch(row, method="pixelate", metrics="none", align="ffhq")
    assert found["dead_letter"] == [None, "wrong_size"]
    data = found["image"][0]["bytes"]
    assert Image.open(io.BytesIO(data)).size == (112, 112)
    with pytest.raises(UserError, match="name the template"):
        sanitize_batch(row, method="pixelate", align="auto")


def test_groups_of_faces_by_another_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(tmp_path / "in", [cropped(face, "celeba") for face in faces(4)])
    monkeypatch.setattr(detector, "CenterFace", lambda **_: Seen(KNOWN["celeba"]))
    for align, unread in (("auto", 0), ("celeba", 0), ("off", 4)):
        target = str(tmp_path / f"{align}.csv")
        found = group_input(GroupOptions(input=str(folder), output=target, align=align))
        assert (found.rows, found.unread) == (4, unread), align
