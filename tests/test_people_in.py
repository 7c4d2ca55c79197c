"""Which pixels show a person: what MediaPipe itself says, on drawn faces and at any size."""

import cv2
import numpy as np
import pytest

from ppfr_ops.imaging.people_in import person_in
from ppfr_ops.sample import faces

FACES = faces(4, seed=3)

THEIRS = np.array(
    [
        [[239, 864, 606, 147], [403, 994, 999, 425], [414, 1000, 1000, 486], [48, 913, 937, 254]],
        [[473, 999, 973, 217], [666, 994, 1000, 525], [507, 1000, 1000, 488], [116, 981, 847, 179]],
        [[96, 440, 557, 130], [326, 999, 992, 501], [429, 1000, 1000, 396], [101, 981, 916, 73]],
        [[157, 977, 932, 272], [257, 997, 1000, 487], [343, 1000, 1000, 516], [40, 886, 953, 203]],
    ]
)
"""Thousandths: means of MediaPipe 0.10.14's masks of ``FACES`` at 256 px, in 4 x 4 squares."""


def test_masks_are_those_of_mediapipe() -> None:
    masks = [person_in(cv2.resize(face, (256, 256))) for face in FACES]
    found = np.array(masks).reshape(4, 4, 64, 4, 64).mean((2, 4))
    assert np.abs(found - THEIRS / 1000).max() < 0.005


def test_a_face_is_a_person_and_what_is_around_is_none() -> None:
    for face in FACES:
        mask = person_in(face)
        assert mask[42:70, 42:70].mean() > 0.8
        for corner in (mask[:14, :14], mask[:14, -14:], mask[-14:, :14], mask[-14:, -14:]):
            assert corner.mean() < 0.3


@pytest.mark.parametrize(("width", "height"), [(448, 224), (900, 1500), (60, 90)])
def test_a_mask_is_of_the_pictures_size(width: int, height: int) -> None:
    face = cv2.resize(FACES[0], (width, height), interpolation=cv2.INTER_AREA)
    kept = face.copy()
    mask = person_in(face)
    assert mask.shape == (height, width) and mask.dtype == np.float32
    assert mask.min() >= 0 and mask.max() <= 1 and (face == kept).all()
    assert mask[3 * height // 8 : 5 * height // 8, 3 * width // 8 : 5 * width // 8].mean() > 0.8


@pytest.mark.parametrize("shape", [(300, 500), (1, 1), (2, 700)])
def test_nobody_is_in_an_empty_picture(shape: tuple[int, int]) -> None:
    mask = person_in(np.full((*shape, 3), 128, np.uint8))
    assert mask.shape == shape and mask.max() < 0.1
