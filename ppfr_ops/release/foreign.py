"""What an encoded picture holds beside its pixels, and whether it is marked as what it is.

This module needs Python's standard library alone: it is a part of the verifier that lies in every
release (``release.standalone``).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ppfr_ops.imaging.marks import SOURCE_TYPES, without_mark

_JPEG_ALLOWED = {0xD8, 0xDB, 0xC0, 0xC1, 0xC2, 0xC4, 0xDA, 0xDD}
_PNG_ALLOWED = {b"IHDR", b"IDAT", b"IEND", b"PLTE"}
_WEBP_ALLOWED = {b"VP8 ", b"VP8L"}


class Mark(NamedTuple):
    """How the pictures of a release are marked."""

    source_type: str
    everywhere: bool
    """False: whole photographs, of which those without a drawn face have no mark."""


def mark_of(options: Mapping[str, Any], draws_faces: bool) -> Mark | None:
    """The mark that the pictures of a release bear, by what its manifest says; None: they bear
    none.

    Args:
        options: of the manifest. Releases without the option ``mark`` were made before there were
            marks.
        draws_faces: of the manifest's method.
    """
    if not (draws_faces and options.get("mark")):
        return None
    in_place = options.get("output_faces") == "in-place"
    return Mark(SOURCE_TYPES[in_place], not in_place)


def foreign_part(data: bytes, mark: Mark | None = None) -> str | None:
    """What an encoded picture holds beside its pixels (EXIF, XMP, a comment, a thumbnail, an ICC
    profile, bytes after its end) and its mark, or that it does not bear it; None if all is well."""
    if mark is None:
        return _beside_pixels(data)
    bare = without_mark(data, mark.source_type)
    found = _beside_pixels(data if bare is None else bare)
    if found is None and bare is None and mark.everywhere:
        return f"is not marked as {mark.source_type}"
    return found


def _beside_pixels(data: bytes) -> str | None:
    if data[:2] == b"\xff\xd8":
        return _foreign_in_jpeg(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _foreign_in_chunks(data, 8, _PNG_ALLOWED, png=True)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _foreign_in_chunks(data, 12, _WEBP_ALLOWED, png=False)
    return "not a JPEG, PNG or WebP picture"


def _foreign_in_jpeg(data: bytes) -> str | None:
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return "damaged JPEG"
        marker = data[position + 1]
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        body = data[position + 4 : position + 2 + length]
        if marker == 0xE0:
            if body[:5] != b"JFIF\0" or len(body) != 14:
                return "application data in segment APP0"
        elif marker not in _JPEG_ALLOWED:
            name = f"APP{marker - 0xE0}" if 0xE0 <= marker <= 0xEF else f"0x{marker:02X}"
            return f"metadata in segment {'COM' if marker == 0xFE else name}"
        position += 2 + length
        if marker == 0xDA:
            position = _end_of_scan(data, position)
            if data[position : position + 2] == b"\xff\xd9":
                return "bytes after the end" if position + 2 < len(data) else None
    return "truncated JPEG"


def _end_of_scan(data: bytes, position: int) -> int:
    """Where the next marker stands that is neither a stuffed byte nor a restart."""
    while True:
        position = data.find(b"\xff", position)
        if position < 0 or position + 1 >= len(data):
            return len(data)
        following = data[position + 1]
        if following != 0x00 and not 0xD0 <= following <= 0xD7:
            return position
        position += 2


def _foreign_in_chunks(data: bytes, start: int, allowed: set[bytes], png: bool) -> str | None:
    position = start
    while position + 8 <= len(data):
        if png:
            length, name = (
                int.from_bytes(data[position : position + 4], "big"),
                data[position + 4 :][:4],
            )
            position += 12 + length
        else:
            name, length = data[position:][:4], int.from_bytes(data[position + 4 :][:4], "little")
            position += 8 + length + length % 2
        if name not in allowed:
            return f"metadata in chunk {name.decode('latin-1')!r}"
        if name == b"IEND":
            break
    return None if position == len(data) else "bytes after the end"
