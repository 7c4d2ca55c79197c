"""Bytes to uint8 RGB and back: limits before decoding, orientation, colour, nothing but pixels."""

import io
import struct
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from ppfr_ops.imaging.arrays import Faces, Picture

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
"""What is decoded; Pillow knows more, some of which start other programs."""

MAX_PIXELS = 100_000_000
MAX_BYTES = 256 * 2**20


class ImageError(ValueError):
    """A picture that cannot be used.

    ``code`` is one of ``ppfr_ops.contracts.dead_letters.REASONS``; the text holds numbers at most.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def decode(
    data: bytes, *, max_pixels: int = MAX_PIXELS, size: tuple[int, int] | None = None
) -> Picture:
    """Decode a picture.

    EXIF orientation is applied; a colour profile is converted to sRGB, and ignored if broken;
    alpha is composited on black, so that nothing comes to light that was transparent; 16 bits are
    scaled to 8; grey, palette and CMYK become RGB; of a phone's MPO the first picture counts.

    Args:
        data: JPEG, PNG, WebP, BMP, GIF, TIFF or AVIF.
        max_pixels: limit on width times height, checked before a pixel is decoded.
        size: (width, height) that the picture must have once upright; checked before decoding too.

    Returns:
        uint8 ``H x W x 3``, RGB.

    Raises:
        ImageError: not decodable, too large, animated, or of another size.
    """
    if not data:
        raise ImageError("empty")
    if len(data) > MAX_BYTES:
        raise ImageError("too_large", f"{len(data)} bytes, allowed: {MAX_BYTES}")
    Image.init()  # Pillow loads the rarer formats only then, and a name it lacks is a KeyError
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return _pixels(image, max_pixels, size)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError("not_an_image") from None
    except Image.DecompressionBombError:
        raise ImageError("too_large", f"more than {max_pixels} pixels") from None
    except Exception:
        # Decoders raise whatever they like on hostile bytes, and their texts may quote them.
        raise ImageError("damaged_image") from None


def _pixels(image: Image.Image, max_pixels: int, size: tuple[int, int] | None) -> Picture:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError("too_large", f"{width} x {height} px, allowed: {max_pixels} in all")
    turned = _orientation(image) >= 5
    upright = (height, width) if turned else (width, height)
    if size is not None and upright != size:
        raise ImageError(
            "wrong_size", f"{upright[0]} x {upright[1]} px, needed: {size[0]} x {size[1]}"
        )
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise ImageError("several_frames", f"{getattr(image, 'n_frames', 1)} frames")
    profile = image.info.get("icc_profile")
    image.load()
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
        return Image.fromarray(np.rint(wide / 257).astype(np.uint8), "L").convert("RGB")
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
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    if len(profile) > 2**22:
        return None
    try:
        transform = _transform(bytes(profile), image.mode)
        return ImageCms.applyTransform(image, transform)
    except (ImageCms.PyCMSError, ValueError, OSError):
        return None


@lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")


@dataclass(frozen=True)
class Encoding:
    """How published pictures are stored. Takes arrays only, and writes pixels only.

    JPEG is written without chroma subsampling. Quality counts for JPEG and lossy WebP.
    """

    format: Literal["jpeg", "png", "webp"] = "jpeg"
    quality: int = 95

    def __post_init__(self) -> None:
        if self.format not in ("jpeg", "png", "webp"):
            raise ValueError(f"unknown image format {self.format!r}; there are: jpeg, png, webp")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality is 1 to 100, got {self.quality}")

    @property
    def suffix(self) -> str:
        """Of a file name, with the dot."""
        return {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}[self.format]

    def encode(self, picture: Picture) -> bytes:
        """Encode.

        Args:
            picture: uint8 ``H x W x 3``, RGB.

        Raises:
            ValueError: another shape or dtype.
        """
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(f"expected uint8 H x W x 3, got {picture.dtype} {picture.shape}")
        flags = {
            "jpeg": [
                cv2.IMWRITE_JPEG_QUALITY,
                self.quality,
                cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
                cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
            ],
            "png": [cv2.IMWRITE_PNG_COMPRESSION, 3],
            "webp": [cv2.IMWRITE_WEBP_QUALITY, self.quality],
        }[self.format]
        done, data = cv2.imencode(self.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), flags)
        if not done:
            raise ValueError("the encoder failed")
        return bytes(data.tobytes())

    @staticmethod
    def decode(data: bytes) -> Picture:
        """Decode what ``encode`` wrote."""
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if picture is None:
            raise ValueError("not a picture that was encoded here")
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)

    def round_trip(self, faces: Faces) -> Faces:
        """Encode and decode: what a reader of the output gets; uint8 ``N x H x W x 3``."""
        return np.stack([self.decode(self.encode(face)) for face in faces]) if len(faces) else faces
