"""The attackers: they learn what can be learned, stop where nothing can, and resume."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ppfr_ops import sample
from ppfr_ops.contracts.evaluation import Point
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.imaging.measures import ssim
from ppfr_ops.lab.evaluate.attacks.attackers import ATTACKERS
from ppfr_ops.lab.evaluate.attacks.networks import NETS, mean_face
from ppfr_ops.lab.evaluate.attacks.recovery import RecoveryAttack, flattened, to_tensor
from ppfr_ops.lab.evaluate.publishing import Publisher
from ppfr_ops.methods.registry import create


@pytest.fixture(scope="module")
def faces() -> Faces:
    return sample.faces(120, seed=0)


def show(faces: Faces, index: np.ndarray, rng: np.random.Generator) -> Faces:
    return 255 - faces


def noise(faces: Faces, index: np.ndarray, rng: np.random.Generator) -> Faces:
    return rng.integers(0, 256, faces.shape, dtype=np.uint8)


def score(recovered: Faces, faces: Faces) -> float:
    return float(ssim(to_tensor(recovered), to_tensor(faces)).mean())


@pytest.mark.parametrize("net", NETS)
def test_every_attacker_has_a_million_parameters_and_starts_at_the_mean_face(
    net: str, faces: Faces
) -> None:
    attack = RecoveryAttack(net, batch=8)
    assert attack.parameters >= 1_000_000
    attack.train(faces, noise, steps=1)
    recovered = attack.recover(faces[:4])
    floor = score(np.repeat(mean_face(faces)[None], 4, 0), faces[:4])
    assert score(recovered, faces[:4]) == pytest.approx(floor, abs=0.05)


def test_it_recovers_an_inverted_face_and_nothing_from_noise(faces: Faces) -> None:
    test = faces[:20]
    floor = score(np.repeat(mean_face(faces)[None], 20, 0), test)
    attack = RecoveryAttack("unet", batch=8, seed=3)
    curve = attack.train(faces[20:], show, steps=30, points=3)
    assert [point.step for point in curve] == [10, 20, 30]
    assert score(attack.recover(255 - test), test) > floor + 0.4 * (1 - floor)
    attack = RecoveryAttack("unet", batch=8, seed=3)
    attack.train(faces[20:], noise, steps=12, points=3)
    seen = np.random.default_rng(0).integers(0, 256, test.shape, dtype=np.uint8)
    assert score(attack.recover(seen), test) < floor + 0.03


def test_a_stopped_attack_goes_on(tmp_path: Path, faces: Faces) -> None:
    class Stopped(Exception):
        pass

    def stop(point: Point) -> None:
        if point.step == 4:
            raise Stopped

    path = tmp_path / "attack.pt"
    with pytest.raises(Stopped):
        RecoveryAttack(batch=8).train(
            faces, show, steps=8, points=4, checkpoint=path, on_point=stop
        )
    calls: list[int] = []
    again = RecoveryAttack(batch=8)
    curve = again.train(
        faces, show, 8, points=4, checkpoint=path, on_point=lambda point: calls.append(point.step)
    )
    assert [point.step for point in curve] == [2, 4, 6, 8] and calls == [6, 8]
    # done: nothing is trained any more, the weights are there
    third = RecoveryAttack(batch=8)
    assert third.train(faces, show, 8, points=4, checkpoint=path) == curve
    np.testing.assert_array_equal(third.recover(faces[:2]), again.recover(faces[:2]))
    with pytest.raises(ValueError, match="another configuration"):
        RecoveryAttack(batch=8, seed=1).train(faces, show, 8, checkpoint=path)
    torch.save({"identity": {}, "step": 4}, path)  # as an earlier version wrote it
    with pytest.raises(ValueError, match="another configuration"):
        RecoveryAttack(batch=8).train(faces, show, 8, checkpoint=path)


def test_a_time_limit_ends_it(faces: Faces) -> None:
    curve = RecoveryAttack(batch=8).train(faces, show, steps=10_000, seconds=1.0, points=1000)
    assert curve[-1].step < 200


def test_the_view_must_have_the_planes_announced(faces: Faces) -> None:
    with pytest.raises(ValueError, match="planes"):
        RecoveryAttack(channels=6, batch=8).train(faces, show, steps=1)


def test_what_the_attacker_knows_besides_is_used(faces: Faces) -> None:
    def told(faces: Faces, index: np.ndarray, rng: np.random.Generator) -> tuple:
        small = faces.reshape(len(faces), 8, 14, 8, 14, 3).mean((2, 4), dtype=np.float32)
        return noise(faces, index, rng), small.reshape(len(faces), -1)

    test = faces[:20]
    floor = score(np.repeat(mean_face(faces)[None], 20, 0), test)
    attack = RecoveryAttack("unet", context=192, batch=8, seed=1)
    attack.train(faces[20:], told, steps=40, points=4)
    seen, known = told(test, np.arange(20), np.random.default_rng(0))
    assert score(attack.recover(seen, known), test) > floor + 0.02
    with pytest.raises(ValueError, match="context"):
        attack.recover(seen)
    with pytest.raises(ValueError, match="no context"):
        RecoveryAttack("residual", context=8)


def test_global_random_state_is_left_alone(faces: Faces) -> None:
    before = torch.random.get_rng_state()
    RecoveryAttack(batch=8).train(faces, show, steps=1)
    assert torch.equal(before, torch.random.get_rng_state())


def test_flattened() -> None:
    def curve(*values: float) -> list[Point]:
        return [
            Point(step=10 * (i + 1), seconds=0, val_ssim=v, val_psnr=0)
            for i, v in enumerate(values)
        ]

    assert flattened(curve(0.5, 0.7, 0.8, 0.85, 0.852))[0]
    rising, rise = flattened(curve(0.5, 0.6, 0.7, 0.8, 0.9))
    assert not rising and rise == pytest.approx(0.1)
    assert flattened(curve(0.5)) == (False, None)


def test_views(faces: Faces) -> None:
    publisher = Publisher(create("signed-field"), Encoding("png"))
    x, index = faces[:3], np.arange(3)

    def rng() -> np.random.Generator:
        return np.random.default_rng(5)

    fresh = publisher.fresh()
    assert (fresh(x, index, rng()) == fresh(x, index, rng())).all()
    one = np.repeat(x[:1], 3, 0)
    drawn = fresh(one, index, rng())
    assert (drawn[0] != drawn[1]).any()
    told = SimpleNamespace(
        method=publisher, mean_face=mean_face(faces), settings=SimpleNamespace(seed=0)
    )
    fixed = ATTACKERS["fixed"].view(told)
    held = fixed(one, index, rng())
    assert (held[0] == held[1]).all() and (held == fixed(one, index, rng())).all()
    leaked = ATTACKERS["leaked"].view(told)(one, index, rng())
    assert leaked.shape == (3, 112, 112, 6)
    assert (leaked[0, ..., 3:] != leaked[1, ..., 3:]).any()  # the probe shows the draw
    mean = publisher.averaged(8, rng(), x)
    assert mean.shape == (3, 112, 112, 6) and mean.dtype == np.float32
    plain = Publisher(create("blur"), Encoding("png")).averaged(4, rng(), x)
    blurred = create("blur")(x, np.zeros((3, 0), np.float32))
    np.testing.assert_allclose(plain[..., :3], blurred)
    assert np.abs(plain[..., 3:]).max() < 1


def test_a_float_view_is_attacked_like_the_same_in_bytes(faces: Faces) -> None:
    def floats(faces: Faces, index: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return show(faces, index, rng).astype(np.float32)

    curves = []
    for view in (show, floats):
        attack = RecoveryAttack("unet", batch=8, seed=3)
        curves.append([p.val_ssim for p in attack.train(faces, view, steps=4, points=4)])
    assert curves[0] == curves[1]
    seen = floats(faces[:4], np.arange(4), np.random.default_rng(0))
    before = seen.copy()
    attack.recover(seen)
    assert np.array_equal(seen, before)
