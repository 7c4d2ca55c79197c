"""A few bytes may ask a decoder for gigabytes or minutes: they get neither."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pictures import jpeg, saved
from PIL import Image

from ppfr_ops.imaging import decoding
from ppfr_ops.imaging.codec import ImageError, decode
from ppfr_ops.sandbox import LimitError, sandbox

GIGABYTE = 2**30


def peak() -> int:
    """Of the process that decodes, bytes."""
    assert sandbox._process is not None
    status = Path(f"/proc/{sandbox._process.pid}/status").read_text()
    return next(int(x.split()[1]) * 1024 for x in status.splitlines() if x.startswith("VmHWM"))


def tiff(**tags: int) -> bytes:
    """A TIFF of 112 x 112 px, deflated, with these tags as given."""
    names = {"width": 256, "length": 257, "tile_width": 322, "tile_length": 323, "strip": 278}
    body = zlib.compress(bytes(1000))
    entries = {256: 112, 257: 112, 259: 8, 262: 1, 277: 1, 258: 8}
    entries |= {names[name]: value for name, value in tags.items()}
    tiled = "tile_width" in tags
    entries |= {324 if tiled else 273: 8, 325 if tiled else 279: len(body)}
    table = b"".join(struct.pack("<HHII", tag, 4, 1, entries[tag]) for tag in sorted(entries))
    start = 8 + len(body)
    return (
        struct.pack("<2sHI", b"II", 42, start)
        + body
        + struct.pack("<H", len(entries))
        + table
        + bytes(4)
    )


def png_of_empty_chunks(count: int) -> bytes:
    data = saved(Image.new("RGB", (112, 112)), "PNG")
    empty = struct.pack(">I", 0) + b"abCd" + struct.pack(">I", zlib.crc32(b"abCd"))
    return data[:33] + empty * count + data[33:]


def progressive_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes over and over again."""
    picture = np.random.default_rng(1).integers(0, 255, (512, 512, 3), np.uint8)
    data = saved(Image.fromarray(picture), "JPEG", progressive=True, quality=20)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


@pytest.mark.parametrize(
    "tags",
    [
        {"tile_width": 26_752, "tile_length": 26_752},
        {"tile_width": 65_536 * 16, "tile_length": 16 * 512},
        {"width": 60_000, "length": 60_000},
    ],
)
def test_tiles_and_sizes_beyond_the_limit_are_refused(tags: dict[str, int]) -> None:
    data = tiff(**tags)
    assert len(data) < 1200
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert caught.value.code == "too_large" and peak() < GIGABYTE


def test_frames_are_not_counted_to_the_end() -> None:
    first = Image.new("L", (8, 8))
    data = saved(first, "TIFF", save_all=True, append_images=[first] * 200)
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert caught.value.code == "several_frames"


@pytest.mark.parametrize(
    ("make", "count"), [(png_of_empty_chunks, 1_000_000), (progressive_scans, 400)]
)
def test_slow_pictures_are_given_up(
    make: Callable[[int], bytes], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "DECODE_SECONDS", 0.3)
    monkeypatch.setattr(decoding, "_SMALL_BYTES", 10_000)
    data = make(count)
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert caught.value.code == "too_slow"
    assert decode(jpeg()).shape == (112, 112, 3)


def test_a_large_picture_is_decoded_within_a_gigabyte() -> None:
    side = int(decoding.MAX_PIXELS**0.5)
    assert decode(saved(Image.new("RGB", (side, side)), "JPEG")).shape == (side, side, 3)
    assert peak() < GIGABYTE


def test_the_sandbox_bounds_memory_and_time_and_survives() -> None:
    for function, argument, what in (
        (bytearray, 2**31, "memory"),
        (sum, range(10**11), "time"),
        (os._exit, 1, "crash"),
    ):
        with pytest.raises(LimitError) as caught:
            sandbox.call(function, argument, seconds=0.2)
        assert caught.value.what == what
        assert sandbox.call(len, b"abc", seconds=1) == 3


def test_what_the_sandbox_says_of_an_error_quotes_nothing() -> None:
    with pytest.raises(RuntimeError) as caught:
        sandbox.call(int, "Jane Doe", seconds=1)
    assert "Jane" not in str(caught.value) and "ValueError" in str(caught.value)
