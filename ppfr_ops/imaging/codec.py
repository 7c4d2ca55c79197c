"""Pixels to stored pictures and back; nothing is written but pixels and, on request, marks."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from ppfr_ops.imaging.arrays import Faces, Picture
from ppfr_ops.imaging.decoding import ImageError, decode, orientation
from ppfr_ops.imaging.marks import with_mark

if TYPE_CHECKING:
    from ppfr_ops.imaging.credentials import Credentials
    from ppfr_ops.imaging.invisible import InvisibleMark

__all__ = ["Encoding", "ImageError", "decode", "format_of", "orientation"]


Format = Literal["jpeg", "png", "webp"]


def format_of(data: bytes) -> Format:
    """The format of an encoded picture, of those that are written here; png for any other."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else "png"


@dataclass(frozen=True)
class Encoding:
    """How published pictures are stored. Takes arrays only, and writes pixels and marks only.

    JPEG is written without chroma subsampling. Quality counts for JPEG and lossy WebP.
    ``source_type`` is what the mark in each picture says that it is (``imaging.marks``); None:
    there is no mark. ``credentials`` sign what bears it; ``invisible`` marks the pixels of all.
    """

    format: Format = "jpeg"
    quality: int = 95
    source_type: str | None = None
    credentials: "Credentials | None" = None
    invisible: "InvisibleMark | None" = None

    def __post_init__(self) -> None:
        if self.format not in ("jpeg", "png", "webp"):
            raise ValueError(f"unknown image format {self.format!r}; there are: jpeg, png, webp")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality is 1 to 100, got {self.quality}")

    @property
    def suffix(self) -> str:
        """Of a file name, with the dot."""
        return {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}[self.format]

    def encode(self, picture: Picture, marked: bool = True) -> bytes:
        """Encode.

        Args:
            picture: uint8 ``H x W x 3``, RGB.
            marked: False: without source type and credentials, for what they would not be true of.

        Raises:
            ValueError: another shape or dtype.
        """
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(f"expected uint8 H x W x 3, got {picture.dtype} {picture.shape}")
        if self.invisible is not None:
            picture = self.invisible.embed(picture)
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
        encoded = bytes(data.tobytes())
        if self.source_type is None or not marked:
            return encoded
        encoded = with_mark(encoded, self.source_type)
        if self.credentials is None:
            return encoded
        return self.credentials.signed(encoded, self.format)

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
