"""What a drawn person's face has of its own: by the key alone, on every photo, in every size."""

import numpy as np
import pytest
from numpy.typing import NDArray

from ppfr_ops.imaging.geometry import TEMPLATE, align
from ppfr_ops.methods.natural import camera, traits
from ppfr_ops.recognizers import Recognizer, RecognizerSpec
from tests.test_natural import SHARED, draws, method
from tests.test_natural_camera import PICTURE

NAMES = [
    *traits.moves(np.zeros((1, 1)), np.zeros((1, 1))),
    *traits.colours(np.zeros((1, 1)), np.zeros((1, 1))),
]
STILL = np.zeros(2)


def only(**amounts: float) -> traits.Traits:
    return traits.field_of(np.array([amounts.get(n.replace(" ", "_"), 0.0) for n in NAMES]))


def test_key_and_label_decide_and_nothing_else() -> None:
    one, other = draws(2)
    own = method().traits("a", one)
    assert own.shape == (traits.NUMBERS,) and own.dtype == np.float32
    assert (own == method(variation=0.3).traits("a", other)).all()
    assert (own != method().traits("b", one)).any()
    elsewhere = method().with_secrets({"identity-key": bytes(32)})
    assert (own != elsewhere.traits("a", one)).any()
    assert (method().traits(None, one) != method().traits(None, other)).any()


def test_nobody_is_plain_and_nobody_is_beyond_what_faces_are() -> None:
    people = [traits.drawn(bytes(32), f"{n}".encode()) for n in range(300)]
    assert np.allclose(np.linalg.norm(people, axis=1), traits.NUMBERS**0.5, atol=1e-4)
    shift = traits._fitted()["shift"]
    assert 0.5 < np.mean(people @ shift) / (shift @ shift) < 1.5  # not where people crowd
    fields = np.stack([traits.field(person) for person in people])
    inner = fields[:, 12:36, 12:36]
    assert np.abs(inner[..., :2]).max((1, 2, 3)).min() > 0.8
    assert np.abs(inner[..., :2]).max() < 9  # px of 112
    assert np.abs(inner[..., 2:]).max() < 1.2


def test_each_trait_moves_a_face_by_its_unit_and_only_there() -> None:
    eyes = traits.at(only(eyes_apart=1.5)[..., :2], TEMPLATE)
    assert np.allclose(eyes[:2], [[-1.5, 0], [1.5, 0]], atol=0.1)
    assert np.abs(eyes[2:]).max() < 0.4
    nose = traits.at(only(nose_long=1.5)[..., :2], TEMPLATE)
    assert nose[2, 1] == pytest.approx(1.5, abs=0.1) and np.abs(nose[:2]).max() < 0.3
    _, marks = camera.turned(PICTURE, TEMPLATE, STILL, only(nose_long=1.5))
    assert np.allclose(marks - TEMPLATE, nose, atol=1e-3)


def test_colours_change_where_they_are_said_to() -> None:
    seen, marks = camera.turned(PICTURE, TEMPLATE, STILL, only(lips_red=2.0))
    assert (marks == TEMPLATE).all()
    change = seen.astype(int) - camera.turned(PICTURE, TEMPLATE, STILL, only())[0].astype(int)
    red, green, blue = change[90:96, 50:62].mean((0, 1))
    assert red > 5 and green < -5 and blue < -5
    assert np.abs(change[:60]).max() <= 1


@pytest.mark.parametrize("side", [256, 1024])
def test_a_larger_picture_of_a_face_shows_the_same_traits(side: int) -> None:
    styles = method().styles(["a"], draws(1))
    plain, own = (method().render(given, side) for given in (styles[:, :-1], styles))
    assert np.abs(plain.pictures.astype(int) - own.pictures).max() > 30
    small = [method().render(given, 128).landmarks[0] for given in (styles[:, :-1], styles)]
    moved = (own.landmarks - plain.landmarks)[0] * 128 / side
    assert np.allclose(moved, small[1] - small[0], atol=0.35)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared: models")
def test_traits_make_photos_of_one_person_more_alike() -> None:
    """In light and pose that differ; strangers stay as far apart as they were."""
    recogniser = Recognizer(RecognizerSpec.parse(f"sface={SHARED / 'models' / 'sface.onnx'}"), 1)
    who, given, asked = np.repeat(np.arange(12), 3), draws(36), method()
    sights = [asked._best(f"p{n}", draw)[0] for n, draw in zip(who, given, strict=True)]
    alike, strange = [], []
    for shown in (True, False):
        faces: list[NDArray[np.uint8]] = []
        for sight, draw in zip(sights, given, strict=True):
            sight.face = sight.face if shown else None
            faces.append(sight.aligned(camera.wide(draw[-camera.DRAW :], 1.0)))
        templates = recogniser.embed(np.stack(faces))
        pairs = np.triu_indices(len(who), 1)
        cosines, same = (templates @ templates.T)[pairs], (who[:, None] == who)[pairs]
        alike.append(cosines[same].mean())
        strange.append(np.quantile(cosines[~same], 0.99))
    assert alike[0] > alike[1] + 0.02
    assert strange[0] < strange[1] + 0.03


def test_align_takes_the_moved_landmarks() -> None:
    """A trait that is a mere shift of all would be taken out again by the crop."""
    face = np.zeros((traits.SIDE, traits.SIDE, 5), np.float32)
    face[..., 0] = 3.0
    seen, marks = camera.turned(PICTURE, TEMPLATE, STILL, face)
    assert np.allclose(marks - TEMPLATE, [3.0, 0.0], atol=1e-3)
    again = align(seen, marks[None])[0].astype(int)
    assert np.abs(again - PICTURE)[20:92, 20:92].mean() < 6
