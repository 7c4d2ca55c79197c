"""The mark inside a published picture that says what it is: IPTC's digital source type, as XMP.

The mark has the same bytes wherever it stands, so it tells nothing of order, source, time or
person. This module needs Python's standard library alone: it is a part of the verifier that lies in
every release (``release.standalone``).
"""

import zlib

SOURCE_TYPES = ("trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia")
"""Of IPTC's vocabulary: a picture drawn by a trained model; a photograph with parts that were."""

_VOCABULARY = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_PNG_XMP = b"XML:com.adobe.xmp\0\0\0\0\0"
_JFIF_END = 20
"""Bytes of a JPEG up to the end of its JFIF header."""
_IHDR_END = 33
"""Bytes of a PNG up to the end of its first chunk."""


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
        f' Iptc4xmpExt:DigitalSourceType="{_VOCABULARY}{source_type}"/>'
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
