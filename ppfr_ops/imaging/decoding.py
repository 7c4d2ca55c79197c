"""Foreign bytes to uint8 RGB: limits before decoding, orientation, colour.

A small JPEG or PNG, as aligned faces are, is decoded here; all else in a child process with bounds
on memory and time (``ppfr_ops.sandbox``), for a few bytes can ask a decoder for gigabytes.
"""

import io
import struct
import warnings
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from ppfr_ops.imaging.arrays import Picture
from ppfr_ops.sandbox import LimitError, sandbox

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "PPM", "JPEG2000", "HEIF")
"""What is decoded; Pillow knows more, some of which start other programs."""

MAX_PIXELS = 50_000_000
MAX_BYTES = 128 * 2**20
MAX_PROFILE_BYTES = 2**22
DECODE_SECONDS = 5.0
"""Of processor time, for one picture."""

_SMALL_BYTES = 2**20
_SMALL_PIXELS = 2**18
_SMALL_PROFILE_BYTES = 2**16
_SMALL_PASSES = 2**27
"""Pixels times scans: a progressive JPEG goes over the whole picture in every scan."""
_PLAIN = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_TILE_WIDTH, _TILE_LENGTH, _ROWS_PER_STRIP = 322, 323, 278


class ImageError(ValueError):
    """A picture that cannot be used.

    ``code`` is one of ``ppfr_ops.contracts.dead_letters.REASONS``; the text holds numbers at most.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return ImageError, (self.code, self.detail)


def decode(
    data: bytes, *, max_pixels: int = MAX_PIXELS, size: tuple[int, int] | None = None
) -> Picture:
    """Decode a picture.

    EXIF orientation is applied; a colour profile is converted to sRGB, and ignored if broken;
    alpha is composited on black, so that nothing comes to light that was transparent; 16 bits are
    scaled to 8; grey, palette and CMYK become RGB; of a phone's MPO the first picture counts.

    Args:
        data: JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF, PPM, PGM or JPEG 2000; HEIC with the extra
            ``formats``.
        max_pixels: limit on width times height, checked before a pixel is decoded.
        size: (width, height) that the picture must have once upright; checked before decoding too.

    Returns:
        uint8 ``H x W x 3``, RGB.

    Raises:
        ImageError: not decodable, too large, animated, of another size, or takes more than a
            gigabyte or ``DECODE_SECONDS`` to decode.
    """
    if not data:
        raise ImageError("empty")
    if len(data) > MAX_BYTES:
        raise ImageError("too_large", f"{len(data)} bytes, allowed: {MAX_BYTES}")
    if len(data) <= _SMALL_BYTES and data.startswith(_PLAIN):
        picture = _decoded(data, max_pixels, size, True)
        if picture is not None:
            return picture
    try:
        return sandbox.call(decode_here, data, max_pixels, size, seconds=DECODE_SECONDS)
    except LimitError as error:
        code = {"memory": "too_large", "time": "too_slow", "crash": "damaged_image"}[error.what]
        detail = {"memory": "in memory", "time": "", "crash": "the decoder crashed"}[error.what]
        raise ImageError(code, detail) from None


def orientation(data: bytes) -> int:
    """How a stored picture has to be turned to be upright (EXIF, 1 to 8); 1 where nobody can say.
    Reads headers only."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=_formats(data)) as image:
                tags = getattr(image, "tag_v2", None)  # Pillow turns a TIFF by itself
                value = _orientation(image) if tags is None else tags.get(0x0112, 1)
                return value if value in range(1, 9) else 1
    except Exception:  # as of ``_decoded``
        return 1


def decode_here(data: bytes, max_pixels: int, size: tuple[int, int] | None) -> Picture:
    """As ``decode``, in this process, whatever it takes."""
    picture = _decoded(data, max_pixels, size, False)
    assert picture is not None
    return picture


def _decoded(
    data: bytes, max_pixels: int, size: tuple[int, int] | None, small_only: bool
) -> Picture | None:
    """None: the picture is not small enough to be decoded here, and that was asked for."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=_formats(data)) as image:
                _check(image, max_pixels, size)
                return None if small_only and not _is_small(image, data) else _pixels(image)
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise ImageError("not_an_image") from None
    except Image.DecompressionBombError:
        raise ImageError("too_large", f"more than {max_pixels} pixels") from None
    except Exception:
        # Decoders raise whatever they like on hostile bytes, and their texts may quote them.
        raise ImageError("damaged_image") from None


def _formats(data: bytes) -> list[str]:
    """What is tried. Pillow loads its rarer formats only when told to, and a name that it lacks is
    a KeyError."""
    Image.init()
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        try:
            from pillow_heif import register_heif_opener

            register_heif_opener(thumbnails=False, decode_threads=1)
        except ImportError:
            raise ImageError("needs_extra", "formats") from None
        return ["HEIF"]
    return [name for name in FORMATS if name in Image.OPEN]


_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def _is_small(image: Image.Image, data: bytes) -> bool:
    pixels = image.width * image.height
    return (
        pixels <= _SMALL_PIXELS
        and len(image.info.get("icc_profile") or b"") <= _SMALL_PROFILE_BYTES
        and (image.format == "PNG" or pixels * data.count(b"\xff\xda") <= _SMALL_PASSES)
    )


def _check(image: Image.Image, max_pixels: int, size: tuple[int, int] | None) -> None:
    """Limits on what the header says."""
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError("too_large", f"{width} x {height} px, allowed: {max_pixels} in all")
    tags = getattr(image, "tag_v2", {})
    # A decoder needs room for a whole tile or strip, however small the picture is.
    tile = int(tags.get(_TILE_WIDTH, 0)) * int(tags.get(_TILE_LENGTH, 0))
    strip = width * min(int(tags.get(_ROWS_PER_STRIP, 0)), height)
    if max(tile, strip) > max_pixels:
        raise ImageError("too_large", f"a tile of {max(tile, strip)} px, allowed: {max_pixels}")
    upright = (height, width) if _orientation(image) >= 5 else (width, height)
    if size is not None and upright != size:
        raise ImageError(
            "wrong_size", f"{upright[0]} x {upright[1]} px, needed: {size[0]} x {size[1]}"
        )
    if image.format not in ("MPO", "HEIF") and getattr(image, "is_animated", False):
        raise ImageError("several_frames")


def _pixels(image: Image.Image) -> Picture:
    profile = image.info.get("icc_profile")
    tiles = [str(tile[3]) for tile in getattr(image, "tile", ())]
    wide = any("GB" in tile and ";16" in tile for tile in tiles)
    image.load()
    if wide and np.asarray(image)[..., :3].max() < 2**14 // 256:
        # Of colours of 10, 12 or 14 bits Pillow leaves the upper ones: black, or nearly.
        raise ImageError("unsupported_pixels", "channels of 16 bits of which the upper are empty")
    if _orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    return np.asarray(_to_rgb(image, profile), np.uint8)


def _orientation(image: Image.Image) -> int:
    """1 to 8; 1 where there is none, or where the EXIF block is broken."""
    if "exif" not in image.info and not image.info.get("xmp"):
        return 1
    try:
        value = image.getexif().get(0x0112, 1)
    except (ValueError, TypeError, KeyError, SyntaxError, struct.error, OSError):
        return 1
    return value if value in range(1, 9) else 1


def _to_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N"):
        wide = np.asarray(image).astype(np.float32)
        # Cameras of 10, 12 or 14 bits store their numbers as they are; scaled as if of 16 bits they
        # would be black.
        full = next(2**bits - 1 for bits in (8, 10, 12, 14, 16) if wide.max() < 2**bits)
        grey = Image.fromarray(np.rint(wide * (255 / full)).astype(np.uint8), "L")
        return grey.convert("RGB")
    if image.mode in ("I", "F"):
        raise ImageError("unsupported_pixels", f"mode {image.mode}")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        base = Image.new("RGBA", layer.size, (0, 0, 0, 255))
        image = Image.alpha_composite(base, layer).convert("RGB")
    elif image.mode in ("P", "1", "LA", "La", "PA"):
        image = image.convert("RGB")
    if profile:
        converted = _to_srgb(image, profile)
        if converted is not None:
            return converted
    return _without_gamma(image if image.mode == "RGB" else image.convert("RGB"))


def _without_gamma(image: Image.Image) -> Image.Image:
    """What a PNG says in gAMA, if it says nothing better, to sRGB."""
    gamma = image.info.get("gamma")
    if not isinstance(gamma, float | int) or "srgb" in image.info:
        return image
    if not 0.1 <= gamma <= 3 or abs(gamma - _SRGB_GAMMA) < 0.02:
        return image
    light = (np.arange(256) / 255) ** (1 / gamma)
    curve = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return image.point(np.rint(255 * curve).astype(int).tolist() * 3)


_SRGB_GAMMA = 1 / 2.2


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    if len(profile) > MAX_PROFILE_BYTES:
        return None
    try:
        return ImageCms.applyTransform(image, _transform(bytes(profile), image.mode))
    except (ImageCms.PyCMSError, ValueError, OSError):
        return None


@lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
