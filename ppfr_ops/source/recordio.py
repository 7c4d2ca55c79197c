"""InsightFace's RecordIO: ``train.rec`` of MXNet, one record a picture with its label.

Its index is not needed: records are gone through by their own lengths.
"""

import struct
from collections.abc import Iterator
from typing import IO

from ppfr_ops.imaging.decoding import MAX_BYTES
from ppfr_ops.source.archive import BrokenError
from ppfr_ops.source.filerows import FileRows
from ppfr_ops.source.reader import Listing, Record
from ppfr_ops.source.units import Plan, Unit, suffix

_MAGIC = 0xCED7230A
_HEAD = struct.Struct("<IfQQ")
"""Number of labels if they follow, label, id, second id."""
_MOST_LABELS = 4096


class RecordIO(FileRows):
    """``.rec`` files of pictures; records without one, such as InsightFace's of identities, are no
    rows."""

    name = "recordio"
    what = "RecordIO files"
    suffixes = frozenset({".rec"})

    def companions(self, listing: Listing) -> list[str]:
        return [
            path
            for path in listing.files
            if suffix(path) in (".idx", ".lst") or path.endswith("/property")
        ]

    def rows(self, file: IO[bytes], image: str | None) -> Iterator[tuple[int, int]]:
        for offset, labels, parts in _records(file, 0):
            size = sum(length for _, length in parts) - _HEAD.size - 4 * labels
            if size > 0:
                yield offset, size

    def records(self, file: IO[bytes], plan: Plan, unit: Unit) -> Iterator[Record | None]:
        for _, count, parts in _records(file, unit.offset):
            size = sum(length for _, length in parts) - _HEAD.size - 4 * count
            if size <= 0:
                continue
            if size > MAX_BYTES:
                yield Record(None, "too_large")
                continue
            body = struct.pack("<I", _MAGIC).join(_at(file, *part) for part in parts)
            _, label, number, _ = _HEAD.unpack_from(body)
            labels = list(struct.unpack_from(f"<{count}f", body, _HEAD.size)) or [label]
            values = {"label": repr(labels[0]), "id": str(number)}
            if count > 1:
                values["labels"] = repr(labels)
            yield Record(body[_HEAD.size + 4 * count :], values=values)


def _records(file: IO[bytes], offset: int) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """Offset, number of labels that follow the head, and places of the parts of every record."""
    end = file.seek(0, 2)
    place = offset
    parts: list[tuple[int, int]] = []
    first = offset
    while place < end:
        file.seek(place)
        head = file.read(8)
        if len(head) < 8:
            raise BrokenError
        magic, word = struct.unpack("<II", head)
        kind, length = word >> 29, word & (2**29 - 1)
        if magic != _MAGIC or place + 8 + length > end or kind > 3:
            raise BrokenError
        if (kind in (0, 1) and parts) or (kind in (2, 3) and not parts):
            raise BrokenError
        parts.append((place + 8, length))
        place += 8 + -(-length // 4) * 4
        if kind in (0, 3):
            start, length = parts[0]
            count = struct.unpack("<I", _at(file, start, 4))[0] if length >= 4 else 0
            if count > _MOST_LABELS:
                raise BrokenError
            yield first, count, parts
            parts, first = [], place
    if parts:
        raise BrokenError


def _at(file: IO[bytes], place: int, length: int) -> bytes:
    file.seek(place)
    data = file.read(length)
    if len(data) < length:
        raise BrokenError
    return data
