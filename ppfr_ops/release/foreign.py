"""What an encoded picture holds beside its pixels, and whether it is marked as what it is.

This module needs Python's standard library alone: it is a part of the verifier that lies in every
release (``release.standalone``).
"""

import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from ppfr_ops.imaging.marks import SOURCE_TYPES, store_fault, without_credentials, without_mark

_FRAME, _HUFFMAN, _QUANTIZATION, _SCAN = 0xC0, 0xC4, 0xDB, 0xDA
_JPEG_ALLOWED = {_FRAME, _HUFFMAN, _QUANTIZATION, _SCAN}
"""Of a baseline JPEG, as all are written here: of one frame and one scan, and without restarts."""
_PNG_ALLOWED = {b"IHDR", b"IDAT", b"IEND"}
_WEBP_ALLOWED = {b"VP8 ", b"VP8L"}
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Of a PNG, by colour type."""
_INFLATED_AT_ONCE = 1 << 20


class Mark(NamedTuple):
    """How the pictures of a release are marked."""

    source_type: str
    everywhere: bool
    """False: whole photographs, of which those without a drawn face have no mark."""
    credentials: bool = False
    """Whether what bears the mark bears Content Credentials, too."""
    training: str | None = None
    """What they say, as in ``imaging.marks.assertions``."""


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
    training = options.get("c2pa_training")
    return Mark(SOURCE_TYPES[in_place], not in_place, bool(options.get("c2pa")), training)


def foreign_part(data: bytes, mark: Mark | None = None) -> str | None:
    """What an encoded picture holds beside its pixels (EXIF, XMP, a comment, a thumbnail, an ICC
    profile, bytes after its end or between the parts that it needs) and its mark, or that it does
    not bear it; None if all is well."""
    if mark is None:
        return _beside_pixels(data)
    if mark.credentials and (split := without_credentials(data)) is not None:
        data, store = split
        if without_mark(data, mark.source_type) is None:
            return "has Content Credentials and is not marked"
        fault = store_fault(store, mark.source_type, mark.training)
        if fault is not None:
            return fault
    elif mark.credentials and without_mark(data, mark.source_type) is not None:
        return "has no Content Credentials"
    bare = without_mark(data, mark.source_type)
    found = _beside_pixels(data if bare is None else bare)
    if found is None and bare is None and mark.everywhere:
        return f"is not marked as {mark.source_type}"
    return found


def _beside_pixels(data: bytes) -> str | None:
    if data[:2] == b"\xff\xd8":
        return _foreign_in_jpeg(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _foreign_in_png(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _foreign_in_webp(data)
    return "not a JPEG, PNG or WebP picture"


def _foreign_in_jpeg(data: bytes) -> str | None:
    position, tables = 2, set[int]()
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return "damaged JPEG"
        marker = data[position + 1]
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        body = data[position + 4 : position + 2 + length]
        if length < 2:
            return "damaged JPEG"
        if marker == 0xE0:
            if body[:5] != b"JFIF\0" or len(body) != 14 or position != 2:
                return "application data in segment APP0"
        elif marker not in _JPEG_ALLOWED:
            name = f"APP{marker - 0xE0}" if 0xE0 <= marker <= 0xEF else f"0x{marker:02X}"
            return f"metadata in segment {'COM' if marker == 0xFE else name}"
        elif not _fills(marker, body, tables):
            return f"more than it needs in segment 0x{marker:02X}"
        position += 2 + length
        if marker == _SCAN:
            position = _end_of_scan(data, position)
            if data[position : position + 2] == b"\xff\xd9":
                return "bytes after the end" if position + 2 < len(data) else None
            return "more than one scan" if position + 2 < len(data) else "truncated JPEG"
    return "truncated JPEG"


def _end_of_scan(data: bytes, position: int) -> int:
    """Where the next marker stands that is no stuffed byte."""
    while True:
        position = data.find(b"\xff", position)
        if position < 0 or position + 1 >= len(data):
            return len(data)
        if data[position + 1] != 0x00:
            return position
        position += 2


def _fills(marker: int, body: bytes, seen: set[int]) -> bool:
    """Whether a segment holds what belongs into it, and nothing more: one frame, and each table
    once, of which a frame with three components has use for two of a kind. ``seen``, marker and
    number of what came before, is added to."""
    found, place = [0], 0
    if marker == _QUANTIZATION:
        found = []
        while place < len(body):
            found.append(body[place] & 0x0F)
            place += 129 if body[place] >> 4 else 65
    elif marker == _HUFFMAN:
        found = []
        while place < len(body):
            found.append(body[place])
            place += 17 + sum(body[place + 1 : place + 17])
    elif marker == _SCAN:
        place = 4 + 2 * min(sum(body[:1]), 3)
    else:
        place = 6 + 3 * min(sum(body[5:6]), 3)
    numbers = {marker << 8 | number for number in found}
    fits = place == len(body) and len(numbers) == len(found) and seen.isdisjoint(numbers)
    seen |= numbers
    return fits and all(number in (0, 1, 0x10, 0x11) for number in found)


def _foreign_in_png(data: bytes) -> str | None:
    position, header = 8, b""
    inflater, pixels = zlib.decompressobj(), 0
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        name = data[position + 4 : position + 8]
        body = memoryview(data)[position + 8 : position + 8 + length]
        if name not in _PNG_ALLOWED:
            return f"metadata in chunk {name.decode('latin-1')!r}"
        if (name == b"IHDR") != (position == 8) or (name == b"IHDR" and length != 13):
            return "damaged PNG"
        position += 12 + length
        if name == b"IHDR":
            header = bytes(body)
        elif not length and name == b"IDAT":
            return "damaged PNG"
        elif name == b"IEND":
            if length:
                return "bytes in its last chunk"
            break
        else:
            try:
                pixels += _inflated(inflater, body, _pixel_bytes(header) - pixels)
            except (zlib.error, ValueError):
                return "damaged PNG, or bytes after its pixels"
    else:
        return "truncated PNG"
    if position != len(data):
        return "bytes after the end"
    whole = inflater.eof and pixels == _pixel_bytes(header)
    return None if whole else "damaged PNG, or bytes after its pixels"


def _pixel_bytes(header: bytes) -> int:
    """Of the rows of a PNG, each with its filter; ValueError: of a kind that is not published."""
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    depth, colour, *rest = header[8:13]
    if colour not in _CHANNELS or rest != [0, 0, 0]:
        raise ValueError
    return height * (1 + (width * depth * _CHANNELS[colour] + 7) // 8)


def _inflated(inflater: "zlib._Decompress", body: memoryview, left: int) -> int:
    """Bytes that a chunk unfolds to; ValueError: more than are left, or something follows."""
    count, data = 0, bytes(body)
    while data:
        count += len(inflater.decompress(data, _INFLATED_AT_ONCE))
        if count > left or inflater.unused_data or (inflater.eof and inflater.unconsumed_tail):
            raise ValueError
        if inflater.eof:
            break
        data = inflater.unconsumed_tail
    return count


def _foreign_in_webp(data: bytes) -> str | None:
    position, pictures = 12, 0
    while position + 8 <= len(data):
        name = data[position : position + 4]
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        if name not in _WEBP_ALLOWED:
            return f"metadata in chunk {name.decode('latin-1')!r}"
        pictures += 1
        if length % 2 and any(data[position + 8 + length : position + 9 + length]):
            return "bytes after the end"
        position += 8 + length + length % 2
    whole = position == len(data) and int.from_bytes(data[4:8], "little") == len(data) - 8
    return None if whole and pictures == 1 else "bytes after the end"
