"""Pictures as the world has them: one of each kind that a dataset should not hold, and does."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

from ppfr_ops.sample import faces

FACE = faces(1, seed=3)[0]
PLANTED = b"PLANTED-Jane-Doe-52.5200N"
"""Sits in every metadata block that a picture can have; must be in no output."""


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(face: np.ndarray = FACE, **options: Any) -> bytes:
    return saved(Image.fromarray(face), "JPEG", quality=95, subsampling=0, **options)


def exif(orientation: int = 1) -> bytes:
    """EXIF with GPS, a comment and an artist."""
    block = Image.Exif()
    block[0x0112] = orientation
    block[0x010E] = PLANTED.decode()
    block[0x013B] = PLANTED.decode()
    block.get_ifd(0x8825)[0x001D] = PLANTED.decode()
    block.get_ifd(0x8769)[0x9286] = PLANTED
    return block.tobytes()


def with_metadata() -> bytes:
    """A JPEG with EXIF, GPS, XMP, ICC text, a thumbnail, a comment and bytes after its end."""
    data = jpeg(exif=exif(), comment=PLANTED, xmp=b"<x:xmpmeta>" + PLANTED + b"</x:xmpmeta>")
    thumbnail = (
        b"\xff\xed" + struct.pack(">H", len(PLANTED) + 2 + 14) + b"Photoshop 3.0\0" + PLANTED
    )
    return data[:2] + thumbnail + data[2:] + PLANTED


def png_with_text() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", PLANTED.decode())
    info.add_itxt("XML:com.adobe.xmp", PLANTED.decode())
    return saved(Image.fromarray(FACE), "PNG", pnginfo=info, exif=exif())


def animated_gif() -> bytes:
    first, second = Image.fromarray(FACE), Image.fromarray(255 - FACE)
    return saved(first, "GIF", save_all=True, append_images=[second])


def bomb(side: int = 50_000) -> bytes:
    """A PNG of two and a half thousand million pixels in a few hundred bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checked = kind + body
        return struct.pack(">I", len(body)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(100_000), 9)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", body), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def alpha_png() -> bytes:
    """Transparent on the left half, where a colour hides."""
    alpha = np.full((112, 112, 1), 255, np.uint8)
    alpha[:, :56] = 0
    return saved(Image.fromarray(np.concatenate([FACE, alpha], 2)), "PNG")


def grey_16_bit() -> bytes:
    grey = np.asarray(Image.fromarray(FACE).convert("L")).astype(np.uint16) * 257
    return saved(Image.fromarray(grey), "PNG")


def real_icc() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


HANDLED: dict[str, Callable[[], bytes]] = {
    "png with alpha": alpha_png,
    "16-bit png": grey_16_bit,
    "cmyk jpeg": lambda: saved(Image.fromarray(FACE).convert("CMYK"), "JPEG", quality=95),
    "greyscale jpeg": lambda: saved(Image.fromarray(FACE).convert("L"), "JPEG", quality=95),
    "palette png": lambda: saved(Image.fromarray(FACE).quantize(), "PNG"),
    "still gif": lambda: saved(Image.fromarray(FACE), "GIF"),
    "exif-rotated jpeg": lambda: jpeg(np.rot90(FACE).copy(), exif=exif(6)),
    "jpeg with a broken icc profile": lambda: jpeg(icc_profile=b"broken" * 30),
    "jpeg with an icc profile": lambda: jpeg(icc_profile=real_icc()),
    "jpeg with broken exif": lambda: jpeg(exif=b"Exif\0\0II*\0" + b"\xff" * 40),
    "webp": lambda: saved(Image.fromarray(FACE), "WEBP", lossless=True),
    "bmp": lambda: saved(Image.fromarray(FACE), "BMP"),
    "jpeg full of metadata": with_metadata,
    "png full of metadata": png_with_text,
}
"""Becomes the face, or what is left of it."""

DEAD: dict[str, tuple[Callable[[], bytes | None], str]] = {
    "truncated jpeg": (lambda: jpeg()[:2000], "damaged_image"),
    "zero bytes": (lambda: b"", "empty"),
    "null": (lambda: None, "no_bytes"),
    "text": (lambda: b"this is no picture, " + PLANTED, "not_an_image"),
    "animated gif": (animated_gif, "several_frames"),
    "decompression bomb": (bomb, "too_large"),
    "1x1 image": (lambda: saved(Image.new("RGB", (1, 1)), "PNG"), "wrong_size"),
    "photograph": (lambda: saved(Image.new("RGB", (640, 480)), "JPEG"), "wrong_size"),
    "float tiff": (lambda: saved(Image.new("F", (112, 112)), "TIFF"), "unsupported_pixels"),
    "png cut short": (lambda: alpha_png()[:400], "damaged_image"),
}
"""Becomes a dead letter with that code."""
