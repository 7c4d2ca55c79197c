"""The learned anonymizer: the network, its file, its promises on made pictures."""

import json

import numpy as np
import pytest
import torch

from ppfr_ops.draws import seeded_draws, system_draws
from ppfr_ops.imaging import measures as metrics
from ppfr_ops.methods.registry import create
from ppfr_ops.methods.stochastic_local import SHIPPED, Codes, Model, StochasticLocal
from ppfr_ops.methods.stochastic_local import save_weights as save
from ppfr_ops.methods.stochastic_local.networks import (
    DrawLayout,
    Generator,
    IdentityEncoder,
    lowpass,
)


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    from ppfr_ops.sample import faces as make

    return make(8, seed=0)


def tensor(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def test_lowpass_is_opencvs_gaussian() -> None:
    import cv2

    image = np.random.default_rng(0).random((112, 112, 3), np.float32)
    ours = lowpass(torch.from_numpy(image).permute(2, 0, 1)[None], 3.0)[0].permute(1, 2, 0)
    theirs = cv2.GaussianBlur(image, (19, 19), 3.0, borderType=cv2.BORDER_REFLECT_101)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)


def test_draw_parts_cover_the_draw_without_overlap() -> None:
    draws = torch.arange(2 * DrawLayout.SIZE).view(2, -1).float()
    field, warp, pose, noise = DrawLayout.split(draws)
    parts = [part.flatten(1) for part in (field, warp, pose, *noise)]
    assert torch.equal(torch.cat(parts, 1), draws)


def test_shipped_weights_are_small_and_say_what_made_them() -> None:
    assert SHIPPED.stat().st_size <= 8 * 2**20
    about = Model(SHIPPED).about
    assert about["config"]["bottleneck"] and "dlib" in about["surrogates"]
    assert "faceres" not in json.dumps(about)


def test_every_draw_is_another_picture_and_the_same_draw_the_same(faces: np.ndarray) -> None:
    method = create("stochastic-local")
    ids = [str(i) for i in range(len(faces))]
    first = seeded_draws(1)(ids, method.draw_size, 0)
    again = method(faces, first)
    assert np.array_equal(method(faces, first), again)
    other = method(faces, system_draws(ids, method.draw_size))
    likeness = metrics.disclosure(tensor(again), tensor(other))
    assert likeness.mean() < 0.75  # drawn faces; real ones are measured in the model card
    assert metrics.luminance(tensor(again)).std((1, 2, 3)).min() > 0.10


def test_the_picture_depends_on_the_face_through_its_code_alone(faces: np.ndarray) -> None:
    method = create("stochastic-local")
    assert isinstance(method, StochasticLocal)
    model = method.model()
    draws = torch.from_numpy(seeded_draws(0)(["a"], method.draw_size, 0))
    code = model.encode(faces[:1])
    assert code.shape == (1, 128)
    assert model.generator.face is None
    with torch.inference_mode():
        drawn = model.generator(code, draws)
        with_face = model.generator(code, draws, faces=tensor(faces[:1]))
    assert torch.equal(drawn, with_face)


def test_a_face_and_its_mirror_image_have_one_code(faces: np.ndarray) -> None:
    model = create("stochastic-local").model()
    codes, mirrored = (model.encode(f) for f in (faces, np.ascontiguousarray(faces[:, :, ::-1])))
    likeness = torch.nn.functional.cosine_similarity(codes, mirrored)
    assert likeness.min() > 0.99
    assert torch.nn.functional.cosine_similarity(codes, mirrored.roll(1, 0)).max() < 0.98


def test_mirrored_draws_mirror_the_features() -> None:
    torch.manual_seed(0)
    net = Generator(mirror=True).eval()
    draws = torch.randn(2, DrawLayout.SIZE)
    place = DrawLayout.split(draws)[2]
    place[:, 4] = torch.tensor([1.0, -1.0])  # a view of draws
    signal = net.features(torch.randn(1, 128).expand(2, -1), draws)
    mirrored, plain = net.veil(signal, draws, field=0, warp=0, pose=0)
    assert torch.allclose(plain[0], signal[1, 0].sigmoid())
    assert torch.allclose(mirrored[0], signal[0, 0].sigmoid().flip(1))


def test_batches_do_not_matter_beyond_rounding(faces: np.ndarray) -> None:
    ids = [str(i) for i in range(len(faces))]
    whole, single = create("stochastic-local"), create("stochastic-local", {"batch": 1})
    draws = seeded_draws(3)(ids, whole.draw_size, 0)
    difference = whole(faces, draws).astype(int) - single(faces, draws)
    assert np.abs(difference).mean() < 2.0


def test_own_weights_round_trip_and_foreign_files_are_refused(tmp_path, faces) -> None:
    torch.manual_seed(0)
    generator = Generator(sigma=3.0, field=0.1)
    path = tmp_path / "own.safetensors"
    save(path, IdentityEncoder(), Codes(), generator, {"config": {}})
    model = Model(path)
    assert model.generator.sigma == 3.0
    torch.testing.assert_close(model.generator.c28.weight, generator.c28.weight, atol=1e-2, rtol=0)
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"not weights")
    with pytest.raises(ValueError, match="no readable safetensors"):
        create("stochastic-local", {"weights": str(bad)})(
            faces, np.zeros((8, DrawLayout.SIZE), "f")
        )
    with pytest.raises(FileNotFoundError):
        Model(tmp_path / "none.safetensors")


def test_manifest_options_hold_no_path() -> None:
    method = create("stochastic-local", {"weights": str(SHIPPED)})
    assert method.options() == {"strength": "standard"}
    assert method.digest() == create("stochastic-local").digest()


def test_the_encoder_is_the_shared_network(shared) -> None:
    from ppfr_ops.recognizers import Recognizer, RecognizerSpec
    from ppfr_ops.sample import faces as make

    images = make(4, seed=1)
    spec = RecognizerSpec.parse(f"dlib={shared / 'models' / 'dlib.onnx'}")
    expected = torch.from_numpy(Recognizer(spec).embed(images))
    found = Model(SHIPPED).encoder(tensor(images) * 255)
    assert (found * expected).sum(1).min() > 0.995  # eight bits a weight, bfloat16
