"""Columns of a Parquet file by Python's standard library alone, as far as a release needs it: flat
or in structs, stored plainly, not compressed. What is stored in another way is said to be, not
guessed.

This module is a part of the verifier that lies in every release (``release.standalone``).
"""

import io
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

_LARGEST_FOOTER = 1 << 28
_LARGEST_HEAD = 1 << 16
"""Bytes of what stands before a page."""
_PLAIN, _UNCOMPRESSED, _DATA_PAGE = 0, 0, 0
_WIDTHS = {1: 4, 2: 8, 3: 12, 4: 4, 5: 8}
"""Bytes of a value by physical type; 6 is of any length, 7 of that in the schema."""


class Unreadable(ValueError):
    """It is not a Parquet file, or damaged."""


class Unsupported(ValueError):
    """It may be one, but not stored as this module can read it."""


class Leaf(NamedTuple):
    """A column."""

    path: str
    """Names from the top, with dots."""
    kind: int
    width: int
    optional: int
    """Levels at which a value may be null."""


class Footer(NamedTuple):
    rows: int
    leaves: list[Leaf]
    groups: list[dict[int, Any]]
    notes: dict[str, str]
    """Key and value."""

    @property
    def columns(self) -> list[str]:
        """Names at the top, in order."""
        return list(dict.fromkeys(leaf.path.split(".")[0] for leaf in self.leaves))


def read_footer(file: BinaryIO, size: int) -> Footer:
    """
    Raises:
        Unreadable: there is none, or it is damaged.
    """
    try:
        if size < 12:
            raise Unreadable
        file.seek(size - 8)
        length, magic = struct.unpack("<I4s", file.read(8))
        if magic != b"PAR1" or length > min(size - 12, _LARGEST_FOOTER):
            raise Unreadable
        file.seek(size - 8 - length)
        found = _struct(io.BytesIO(file.read(length)))
        notes = {item[1].decode(): item.get(2, b"").decode() for item in found.get(5, [])}
        return Footer(found[3], _leaves(found[2]), found[4], notes)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError, EOFError):
        raise Unreadable from None


def is_filled(file: BinaryIO, size: int, footer: Footer) -> bool:
    """Whether a file holds pages and its footer, one behind the other, and nothing besides."""
    try:
        # Of no rows there may be a chunk of no bytes, which lies nowhere.
        every = [chunk[3] for group in footer.groups for chunk in group[1]]
        chunks = [chunk for chunk in every if chunk[5] or chunk[7]]
        # A dictionary stands before the pages.
        starts = sorted(
            (chunk.get(11) or chunk[9], chunk[7], chunk[5], bool(chunk.get(11))) for chunk in chunks
        )
        place = 4
        for start, length, values, dictionary in starts:
            end, found = start + length, 0
            if start != place:
                return False
            while place < end:
                file.seek(place)
                head = io.BytesIO(file.read(min(end - place, _LARGEST_HEAD)))
                page = _struct(head)
                values_of = page.get(5) or page.get(8)
                if values_of is None and not (dictionary and place == start):
                    return False
                if values_of is not None and values and values_of[1] < 1:
                    return False
                found += 0 if values_of is None else values_of[1]
                place += head.tell() + max(0, page[3])
            if place != end or found != values:
                return False
        file.seek(size - 8)
        return place == size - 8 - int.from_bytes(file.read(4), "little")
    except (LookupError, TypeError, ValueError, AttributeError, EOFError, RecursionError):
        return False


def read_column(file: BinaryIO, footer: Footer, path: str) -> Iterator[bytes | None]:
    """The values of a column, as they are stored; None where there is none.

    Raises:
        Unsupported: it is compressed or encoded.
        Unreadable: it is damaged, or there is no such column.
    """
    try:
        number = [leaf.path for leaf in footer.leaves].index(path)
        for group in footer.groups:
            yield from _chunk(file, footer.leaves[number], group[1][number][3], group[3])
    except Unsupported:
        raise
    except (LookupError, TypeError, ValueError, struct.error, EOFError, RecursionError):
        raise Unreadable from None


def _chunk(file: BinaryIO, leaf: Leaf, chunk: dict[int, Any], rows: int) -> Iterator[bytes | None]:
    if chunk[4] != _UNCOMPRESSED:
        raise Unsupported("compressed")
    if chunk.get(11) is not None:
        raise Unsupported("encoded")
    file.seek(chunk[9])
    data = file.read(chunk[7])
    pages, left = io.BytesIO(data), chunk[5]
    if left != rows or len(data) != chunk[7]:
        raise Unreadable
    while left > 0:
        header = _struct(pages)
        page = pages.read(header[3])
        if header[1] != _DATA_PAGE or header[5][2] != _PLAIN:
            raise Unsupported("encoded")
        count = header[5][1]
        if not 0 < count <= left or len(page) != header[3]:
            raise Unreadable
        left -= count
        yield from _values(page, leaf, count)


def _values(page: bytes, leaf: Leaf, count: int) -> Iterator[bytes | None]:
    there, place = [True] * count, 0
    if leaf.optional:
        length = int.from_bytes(page[:4], "little")
        levels = _levels(page[4 : 4 + length], leaf.optional.bit_length(), count)
        there, place = [level == leaf.optional for level in levels], 4 + length
    for value in there:
        if not value:
            yield None
            continue
        width = leaf.width or _WIDTHS.get(leaf.kind, 0)
        if leaf.kind == 6:
            width = int.from_bytes(page[place : place + 4], "little")
            place += 4
        if (not width and leaf.kind != 6) or place + width > len(page):
            raise Unreadable
        yield page[place : place + width]
        place += width
    if place != len(page):
        raise Unreadable


def _levels(data: bytes, bits: int, count: int) -> list[int]:
    """Runs, and bits in groups of eight."""
    source = io.BytesIO(data)
    found: list[int] = []
    while len(found) < count:
        head = _varint(source)
        if head & 1:
            packed = int.from_bytes(source.read((head >> 1) * bits), "little")
            some = min((head >> 1) * 8, count - len(found))
            found += [packed >> place * bits & (1 << bits) - 1 for place in range(some)]
        else:
            run = min(head >> 1, count - len(found))
            if run == 0:
                raise Unreadable
            found += [int.from_bytes(source.read((bits + 7) // 8), "little")] * run
    return found


def _leaves(elements: list[dict[int, Any]]) -> list[Leaf]:
    """Of the schema, a tree that is written depth first."""
    found: list[Leaf] = []
    rest = iter(elements)

    def below(names: tuple[str, ...], optional: int, children: int) -> None:
        for _ in range(children):
            item = next(rest, None)
            if item is None:
                raise Unreadable
            here = (*names, item[4].decode())
            level = optional + (item.get(3, 0) != 0)
            if item.get(5):
                below(here, level, item[5])
            else:
                found.append(Leaf(".".join(here), item[1], item.get(2, 0), level))

    below((), 0, next(rest)[5])
    return found


# -- Thrift's compact protocol --------------------------------------------------------------


def _varint(source: io.BytesIO) -> int:
    value = shift = 0
    while True:
        byte = source.read(1)
        if not byte or shift > 63:
            raise EOFError
        value |= (byte[0] & 0x7F) << shift
        shift += 7
        if not byte[0] & 0x80:
            return value


def _struct(source: io.BytesIO) -> dict[int, Any]:
    """Fields by number."""
    found: dict[int, Any] = {}
    number = 0
    while True:
        head = source.read(1)
        if not head:
            raise EOFError
        if head == b"\0":
            return found
        step, kind = head[0] >> 4, head[0] & 15
        number = number + step if step else _zigzag(source)
        found[number] = kind == 1 if kind in (1, 2) else _value(source, kind)


def _value(source: io.BytesIO, kind: int) -> Any:
    if kind in (4, 5, 6):
        return _zigzag(source)
    if kind in (1, 2, 3):
        return source.read(1)
    if kind == 7:
        return source.read(8)
    if kind == 8:
        return source.read(_varint(source))
    if kind in (9, 10):
        head = source.read(1)[0]
        count = _varint(source) if head >> 4 == 15 else head >> 4
        if count > len(source.getbuffer()):
            raise Unreadable
        return [_value(source, head & 15) for _ in range(count)]
    if kind == 12:
        return _struct(source)
    raise Unreadable


def _zigzag(source: io.BytesIO) -> int:
    value = _varint(source)
    return value >> 1 ^ -(value & 1)
