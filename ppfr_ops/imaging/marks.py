"""The mark inside a published picture that says what it is: IPTC's digital source type, as XMP; and
the form of Content Credentials (C2PA), which ``imaging.credentials`` writes.

The mark has the same bytes wherever it stands, so it tells nothing of order, source, time or
person. This module needs Python's standard library alone: it is a part of the verifier that lies in
every release (``release.standalone``).
"""

import re
import zlib
from collections.abc import Iterator
from typing import Any

SOURCE_TYPES = ("trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia")
"""Of IPTC's vocabulary: a picture drawn by a trained model; a photograph with parts that were."""

_VOCABULARY = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_PNG_XMP = b"XML:com.adobe.xmp\0\0\0\0\0"
_JFIF_END = 20
"""Bytes of a JPEG up to the end of its JFIF header."""
_IHDR_END = 33
"""Bytes of a PNG up to the end of its first chunk."""


def iptc(source_type: str) -> str:
    """A source type's name in IPTC's vocabulary."""
    return _VOCABULARY + source_type


def packet(source_type: str) -> bytes:
    """The XMP packet for a source type.

    Raises:
        ValueError: none of ``SOURCE_TYPES``.
    """
    if source_type not in SOURCE_TYPES:
        raise ValueError(f"no source type that is written here: {source_type!r}")
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about=""'
        ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
        f' Iptc4xmpExt:DigitalSourceType="{iptc(source_type)}"/>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    ).encode()


def with_mark(data: bytes, source_type: str) -> bytes:
    """A picture with its mark: a segment APP1 after the JFIF header, a chunk iTXt after IHDR, or
    the chunks VP8X and XMP around those of a WebP.

    Args:
        data: a JPEG, PNG or WebP without any metadata, as ``imaging.codec`` writes them.

    Raises:
        ValueError: another kind of file.
    """
    text = packet(source_type)
    if data[:4] == b"\xff\xd8\xff\xe0":
        body = _XMP + text
        segment = b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body
        return data[:_JFIF_END] + segment + data[_JFIF_END:]
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return data[:_IHDR_END] + _png_chunk(b"iTXt", _PNG_XMP + text) + data[_IHDR_END:]
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        width, height = _webp_size(data[12:])
        sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        header = _riff_chunk(b"VP8X", b"\x04\0\0\0" + sides)
        return _riff(header + data[12:] + _riff_chunk(b"XMP ", text))
    raise ValueError("not a JPEG, PNG or WebP picture as they are written here")


def without_mark(data: bytes, source_type: str) -> bytes | None:
    """A picture as it was before ``with_mark``; None if exactly this mark is not in its place."""
    text = packet(source_type)
    try:
        if data[:4] == b"\xff\xd8\xff\xe0":
            bare = data[:_JFIF_END] + data[_JFIF_END + 4 + len(_XMP) + len(text) :]
        elif data[:8] == b"\x89PNG\r\n\x1a\n":
            bare = data[:_IHDR_END] + data[_IHDR_END + 12 + len(_PNG_XMP) + len(text) :]
        else:
            bare = _riff(data[30 : len(data) - len(_riff_chunk(b"XMP ", text))])
        return bare if with_mark(bare, source_type) == data else None
    except ValueError:
        return None


# -- Content Credentials (C2PA) -------------------------------------------------------------

TRAINING = "cawg.training-mining"
_USES = ("ai_generative_training", "ai_inference", "ai_training", "data_mining")
_LARGEST_STORE = 32_000
"""Bytes: certificates take most of it."""
_JUMBF = b"JP\x02\x11\0\0\0\x01"
"""At the beginning of the first and only segment APP11."""
_MANIFEST = re.compile(r"urn:c2pa:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def assertions(source_type: str, training: str | None) -> dict[str, Any]:
    """What Content Credentials say of a picture, by label.

    Args:
        training: ``allowed`` or ``notAllowed``: whether machines may be trained with the picture,
            or mine it for data; None: nothing is said of that.
    """
    action = {"action": "c2pa.created", "digitalSourceType": iptc(source_type)}
    said: dict[str, Any] = {"c2pa.actions.v2": {"actions": [action]}}
    if training is not None:
        said[TRAINING] = {"entries": {f"cawg.{use}": {"use": training} for use in _USES}}
    return said


def without_credentials(data: bytes) -> tuple[bytes, bytes] | None:
    """A picture as it was before Content Credentials were embedded, and these; None if there are
    none in their place."""
    if data[:2] == b"\xff\xd8" and data[_JFIF_END : _JFIF_END + 2] == b"\xff\xeb":
        end = _JFIF_END + 2 + int.from_bytes(data[_JFIF_END + 2 : _JFIF_END + 4], "big")
        body = data[_JFIF_END + 4 : end]
        if body[:8] == _JUMBF:
            return data[:_JFIF_END] + data[end:], body[8:]
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        length = int.from_bytes(data[_IHDR_END : _IHDR_END + 4], "big")
        body, end = data[_IHDR_END + 8 : _IHDR_END + 8 + length], _IHDR_END + 12 + length
        if data[_IHDR_END:end] == _png_chunk(b"caBX", body):
            return data[:_IHDR_END] + data[end:], body
    if data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X":
        last = place = 12
        while place + 8 <= len(data):
            last, length = place, int.from_bytes(data[place + 4 : place + 8], "little")
            place += 8 + length + length % 2
        body = data[last + 8 : last + 8 + int.from_bytes(data[last + 4 : last + 8], "little")]
        if data == _riff(data[12:last] + _riff_chunk(b"C2PA", body)):
            return _riff(data[12:last]), body
    return None


def store_fault(store: bytes, source_type: str, training: str | None) -> str | None:
    """What is wrong with the form of Content Credentials; None if nothing. There has to be one
    manifest, which says what it must and nothing else. That hashes and signatures hold is not
    looked at here."""
    if len(store) > _LARGEST_STORE:
        return "its Content Credentials are larger than they need to be"
    try:
        boxes = list(_boxes(store, "", 0))
    except (ValueError, UnicodeDecodeError, RecursionError):
        return "its Content Credentials are damaged"
    found = dict(boxes)
    manifests = {path.split("/")[2] for path in found if path.count("/") > 1}
    if len(manifests) != 1 or not _MANIFEST.fullmatch(name := manifests.pop()):
        return "its Content Credentials hold more than one manifest, or none"
    place = f"/c2pa/{name}"
    expected = assertions(source_type, training).items()
    said = {f"{place}/c2pa.assertions/{label}": _cbor(data) for label, data in expected}
    parts = ("c2pa.assertions/c2pa.hash.data", "c2pa.claim.v2", "c2pa.signature")
    due = said.keys() | {f"{place}/{part}" for part in parts}
    if found.keys() != due or len(boxes) != len(due):
        return "its Content Credentials say more than they may, or less than they must"
    if any(found[path] != content for path, content in said.items()):
        return f"its Content Credentials do not say that it is {source_type}, or say more"
    return None


def _boxes(data: bytes, path: str, depth: int) -> Iterator[tuple[str, bytes]]:
    """The contents of a store of manifests (JUMBF, ISO/IEC 19566-5), by their places in it."""
    place = 0
    while place < len(data):
        length, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        body = data[place + 8 : place + length]
        if length < 8 or len(body) != length - 8 or kind not in (b"jumb", b"cbor") or depth > 5:
            raise ValueError
        if kind == b"cbor":
            yield path, body
        else:
            head = int.from_bytes(body[:4], "big")
            label, end, salt = body[25:head].partition(b"\0")
            salted = len(salt) == 24 and salt[:8] == b"\0\0\0\x18c2sh"
            if body[4:8] != b"jumd" or not end or not (salted or not salt):
                raise ValueError
            yield from _boxes(body[head:], f"{path}/{label.decode('ascii')}", depth + 1)
        place += length


def _cbor(value: Any) -> bytes:
    """Text, lists and maps of them in CBOR (RFC 8949), keys sorted as the library has them."""
    if isinstance(value, str):
        return _cbor_head(3, len(value)) + value.encode("ascii")
    if isinstance(value, list):
        return _cbor_head(4, len(value)) + b"".join(map(_cbor, value))
    items = sorted(value.items())
    return _cbor_head(5, len(items)) + b"".join(_cbor(part) for pair in items for part in pair)


def _cbor_head(kind: int, count: int) -> bytes:
    return bytes([kind << 5 | count]) if count < 24 else bytes([kind << 5 | 24, count])


def _png_chunk(name: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")


def _riff_chunk(name: bytes, body: bytes) -> bytes:
    return name + len(body).to_bytes(4, "little") + body + b"\0" * (len(body) % 2)


def _riff(chunks: bytes) -> bytes:
    return b"RIFF" + (len(chunks) + 4).to_bytes(4, "little") + b"WEBP" + chunks


def _webp_size(chunk: bytes) -> tuple[int, int]:
    """Width and height, px, by the header of the pixels."""
    if chunk[:4] == b"VP8 " and chunk[11:14] == b"\x9d\x01\x2a":
        sides = int.from_bytes(chunk[14:16], "little"), int.from_bytes(chunk[16:18], "little")
        return sides[0] & 0x3FFF, sides[1] & 0x3FFF
    if chunk[:4] == b"VP8L" and chunk[8:9] == b"\x2f":
        bits = int.from_bytes(chunk[9:13], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    raise ValueError("not a WebP picture as they are written here")
