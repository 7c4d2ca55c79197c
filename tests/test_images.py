"""Bytes in, upright sRGB out; pixels in, nothing but pixels out."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import DEAD, FACE, HANDLED, alpha_png, exif, grey_16_bit, jpeg, real_icc, saved
from PIL import Image

from ppfr_ops.contracts.dead_letters import REASONS
from ppfr_ops.imaging.codec import Encoding, ImageError, decode

SIZE = (112, 112)


@pytest.mark.parametrize("name", HANDLED)
def test_odd_but_good_pictures_become_the_face(name: str) -> None:
    picture = decode(HANDLED[name](), size=SIZE)
    assert picture.shape == (112, 112, 3) and picture.dtype == np.uint8
    # The right half of the face, which all of them show; colours may have gone.
    seen, truth = picture[:, 56:].mean(2), FACE[:, 56:].mean(2)
    assert np.corrcoef(seen.ravel(), truth.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("name", DEAD)
def test_bad_pictures_are_refused_with_a_reason(name: str) -> None:
    make, code = DEAD[name]
    data = make()
    if data is None:
        return
    with pytest.raises(ImageError) as caught:
        decode(data, size=SIZE)
    assert caught.value.code == code
    assert code in REASONS
    assert "Jane" not in str(caught.value) and caught.value.__cause__ is None


def test_transparent_parts_become_black_and_hide_their_colour() -> None:
    picture = decode(alpha_png())
    assert (picture[:, :56] == 0).all()
    assert (picture[:, 56:] == FACE[:, 56:]).all()


def test_sixteen_bits_are_scaled() -> None:
    expected = np.asarray(Image.fromarray(FACE).convert("L"))
    assert (decode(grey_16_bit()) == expected[..., None]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    tall = np.zeros((112, 56, 3), np.uint8)
    tall[:30, :30] = 255
    stored = {
        1: tall,
        2: tall[:, ::-1],
        3: tall[::-1, ::-1],
        4: tall[::-1],
        5: tall.swapaxes(0, 1),
        6: np.rot90(tall, 1),
        7: np.rot90(tall.swapaxes(0, 1), 2),
        8: np.rot90(tall, -1),
    }[orientation]
    data = saved(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif(orientation))
    assert (decode(data, size=(56, 112)) == tall).all()


def test_a_colour_profile_is_converted_to_srgb() -> None:
    profile = bytearray(real_icc())
    # Exchange what red and blue mean, in the profile's table of tags.
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    converted = decode(saved(Image.fromarray(FACE), "PNG", icc_profile=bytes(profile)))
    assert np.abs(converted.astype(int) - FACE[..., ::-1]).mean() < 2


@given(st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_bytes_give_a_picture_or_an_image_error(data: bytes) -> None:
    for blob in (data, b"\xff\xd8\xff" + data, b"\x89PNG\r\n\x1a\n" + data, jpeg()[:500] + data):
        try:
            decode(blob)
        except ImageError as error:
            assert error.code in REASONS


@given(st.integers(2, 4000), st.binary(min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
def test_damage_inside_a_jpeg_never_raises_anything_else(place: int, junk: bytes) -> None:
    data = bytearray(jpeg())
    data[place : place + len(junk)] = junk
    try:
        assert decode(bytes(data)).shape[2] == 3
    except ImageError as error:
        assert error.code in REASONS


@pytest.mark.parametrize("encoding", [Encoding(f, 95) for f in ("jpeg", "png", "webp")])
def test_encoder_writes_pixels_and_nothing_else(encoding: Encoding) -> None:
    data = encoding.encode(FACE)
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == SIZE
        told = {"jfif", "jfif_version", "jfif_unit", "jfif_density", "loop", "background"}
        assert set(image.info) <= told and not image.getexif()
    assert b"EXIF" not in data and b"XMP " not in data and b"ICCP" not in data
    error = np.abs(encoding.decode(data).astype(int) - FACE).mean()
    assert error == 0 if encoding.format == "png" else error < 3
    assert (decode(data) == encoding.decode(data)).mean() > 0.99


def test_encoder_takes_arrays_only() -> None:
    for wrong in (FACE.astype(np.float32), FACE[..., 0], FACE[..., :2]):
        with pytest.raises(ValueError, match="expected uint8"):
            Encoding().encode(wrong)
    with pytest.raises(ValueError, match="quality is 1 to 100"):
        Encoding(quality=0)
