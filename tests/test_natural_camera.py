"""How photos are taken: what differs between them is light and colour, not who is in them."""

import numpy as np
import pytest
from numpy.typing import NDArray

from ppfr_ops.imaging.geometry import TEMPLATE
from ppfr_ops.methods.natural import camera

PICTURE = np.clip(
    np.random.default_rng(0).normal(128, 4, (112, 112, 3))
    + 60 * np.exp(-(((np.mgrid[:112, :112] - 56) / 30) ** 2).sum(0))[..., None],
    0,
    255,
).astype(np.uint8)


def draw(seed: int, variation: float = 1.0) -> NDArray[np.float64]:
    given = np.random.default_rng(seed).standard_normal(camera.DRAW)
    return camera.wide(given.astype(np.float32), variation)


def test_without_variation_a_camera_changes_nothing_but_what_enlarging_took() -> None:
    still = draw(1, 0.0)
    picture, points = camera.turned(PICTURE, TEMPLATE, still[:2])
    assert (picture == PICTURE).all() and (points == TEMPLATE).all()
    assert (camera.taken(PICTURE, still[2:]) == camera.taken(PICTURE, draw(2, 0.0)[2:])).all()


@pytest.mark.parametrize("side", [-1.5, 1.5])
def test_light_comes_from_where_it_was_drawn_to_whatever_the_picture_had(side: float) -> None:
    ramp = np.linspace(0.5, 1.5, 112)[None, :, None]
    found = []
    for picture in (PICTURE, (PICTURE * ramp).clip(0, 255).astype(np.uint8)):
        given = np.zeros(camera.DRAW - 2)
        given[3] = side
        inner = camera.taken(picture, given)[20:100, 25:87].mean(2)
        found.append(np.log(inner[:, :31].mean() / inner[:, 31:].mean()))
    assert np.allclose(found, camera.SIDE * side, atol=0.1)


def test_a_head_is_turned_about_its_axis_and_its_landmarks_with_it() -> None:
    for way in (-1.5, 1.5):
        picture, points = camera.turned(PICTURE, TEMPLATE, np.array([way, 0.0]))
        nose, eyes = points[2, 0] - TEMPLATE[2, 0], (points - TEMPLATE)[:2, 0].mean()
        assert np.sign(nose - eyes) == np.sign(way)  # what lies nearer moves farther
        assert np.abs(points - TEMPLATE)[:, 1].max() < 1e-3
        assert (picture != PICTURE).any()


def test_some_photos_have_no_colours_and_none_is_burnt_out() -> None:
    rng = np.random.default_rng(3)
    colourful = (PICTURE * np.array([1.2, 1.0, 0.8])).clip(0, 255).astype(np.uint8)
    grey = 0
    for row in rng.standard_normal((300, camera.DRAW)).astype(np.float32):
        seen = camera.taken(colourful, camera.wide(row, 1.0)[2:]).astype(np.int64)
        grey += int((seen.max(2) - seen.min(2)).max() <= 1)
        assert 20 < seen[camera.INNER].mean() < 220
    assert 1 <= grey <= 25
