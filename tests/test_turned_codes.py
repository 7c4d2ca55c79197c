"""Virtual codes, and the method that draws them."""

import pickle

import numpy as np
import pytest

from ppfr_ops.errors import UserError
from ppfr_ops.methods.base import Context
from ppfr_ops.methods.codes import check_key, person
from ppfr_ops.methods.stochastic_local import SHIPPED, StochasticLocal, identity

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
SIZE = 128


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def photos(people: int, each: int, likeness: float = 0.6) -> np.ndarray:
    """Features of ``each`` photos of everybody, ``people * each x 128``."""
    rng = np.random.default_rng(0)
    person = np.repeat(unit(rng.normal(size=(people, SIZE))), each, 0)
    photo = unit(rng.normal(size=(people * each, SIZE)))
    return unit(likeness**0.5 * person + (1 - likeness) ** 0.5 * photo)


def cosines(codes: np.ndarray) -> np.ndarray:
    codes = unit(codes)
    return codes @ codes.T


def test_virtual_people_come_from_the_label() -> None:
    codes = identity.virtual(KEY, [b"a", b"b", b"a"], SIZE)
    assert np.array_equal(codes[0], codes[2])
    assert abs(cosines(codes)[0, 1]) < 0.4
    assert not np.allclose(codes, identity.virtual(OTHER, [b"a", b"b", b"a"], SIZE))
    assert identity.virtual(KEY, [], SIZE).shape == (0, SIZE)


def test_variation_is_what_photos_differ_by() -> None:
    features = photos(60, 4)
    whose = [str(i // 4).encode() for i in range(len(features))]
    alike = []
    for variation in (0.0, 0.5, 1.0):
        codes = identity.virtual(KEY, whose, SIZE, features, variation)
        scores = cosines(codes)
        alike.append(np.diag(scores, 1)[::4].mean())
        others = scores[::4, ::4][~np.eye(60, dtype=bool)]
        assert np.abs(others.mean()) < 0.02
        assert others.std() < 0.15
    assert alike[0] == pytest.approx(1, abs=1e-4)
    assert 1 > alike[1] > alike[2] > 0.3


def test_a_face_without_label_is_a_person_of_its_own() -> None:
    draw, other = np.zeros(8, np.float32), np.ones(8, np.float32)
    assert person(None, draw) == person("", draw)
    assert person(None, draw) != person(None, other)
    assert person("a", draw) == person("a", other)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        check_key(b"short")
    with pytest.raises(ValueError, match="needs the features"):
        identity.virtual(KEY, [b"a"], SIZE, None, 0.5)
    method = StochasticLocal(identity="virtual")
    faces, draws = np.zeros((1, 112, 112, 3), np.uint8), np.zeros((1, method.draw_size), np.float32)
    with pytest.raises(UserError, match="needs the secret"):
        method(faces, draws, Context({"identity": ["a"]}))
    with pytest.raises(ValueError, match="wants 'identity'"):
        StochasticLocal(identity="virtual").with_secrets({"identity-key": KEY})(faces, draws)
    with pytest.raises(ValueError, match="needs weights of version 2"):
        old = StochasticLocal(identity="virtual", weights=SHIPPED)
        old.with_secrets({"identity-key": KEY})(faces, draws, Context({"identity": ["a"]}))


def test_the_key_is_shown_nowhere() -> None:
    method = StochasticLocal(identity="virtual").with_secrets({"identity-key": KEY})
    shown = repr(method) + str(method.options()) + method.model_dump_json() + method.digest()
    assert KEY.hex() not in shown
    assert repr(KEY) not in shown
    assert KEY not in pickle.dumps(method)
    assert not pickle.loads(pickle.dumps(method))._secrets
    assert method.digest() == StochasticLocal(identity="virtual").digest()


def test_what_is_drawn_does_not_hang_on_batch_or_order() -> None:
    rng = np.random.default_rng(2)
    faces = rng.integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    method = StochasticLocal(identity="virtual", variation=1.0).with_secrets({"identity-key": KEY})
    draws = rng.standard_normal((3, method.draw_size), dtype=np.float32)
    whole = method(faces, draws, Context({"identity": ["a", "b", None]}))
    turned = method(
        faces[::-1].copy(), draws[::-1].copy(), Context({"identity": [None, "b", "a"]})
    )[::-1]
    assert np.abs(whole.astype(int) - turned).max() <= 1
    alone = method(faces[:1], draws[:1], Context({"identity": ["a"]}))
    assert np.abs(whole[:1].astype(int) - alone).max() <= 1
    still = StochasticLocal(identity="virtual", variation=0.0).with_secrets({"identity-key": KEY})
    one = still(faces[:1], draws[:1], Context({"identity": ["a"]}))
    assert np.array_equal(
        one, still(faces[1:2], draws[:1], Context({"identity": ["a"]}))
    )  # no face in it
