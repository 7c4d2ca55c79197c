"""InsightFace's verification sets (``lfw.bin``): pairs of pictures, pickled.

Nothing is unpickled: of the pickle's instructions those are gone through that make lists and tuples
of bytes and booleans, and any other ends it.
"""

from collections.abc import Iterator
from typing import IO

from ppfr_ops.imaging.decoding import MAX_BYTES
from ppfr_ops.source.archive import BrokenError
from ppfr_ops.source.filerows import FileRows
from ppfr_ops.source.reader import Listing, Record
from ppfr_ops.source.units import Plan, Unit, damage_ends_it, open_file

Place = tuple[int, int]

_LENGTHS = {b"C": 1, b"U": 1, b"B": 4, b"T": 4, b"\x8e": 8}
"""Bytes of the length of what an instruction holds."""
_SKIPPED = {
    b"\x80": 1,
    b"\x95": 8,
    b"]": 0,
    b"(": 0,
    b"e": 0,
    b"a": 0,
    b"t": 0,
    b"\x86": 0,
    b"l": 0,
}
_PUT, _GET = {b"q": 1, b"r": 4}, {b"h": 1, b"j": 4}


class Verification(FileRows):
    """``.bin`` files; a row a picture, with the number of its pair and whether the pair is of one
    person."""

    name = "verification"
    what = "InsightFace verification sets"
    suffixes = frozenset({".bin"})

    def claims(self, listing: Listing) -> list[str]:
        found = []
        for path in super().claims(listing):
            with damage_ends_it(), open_file(listing.fs, path) as file:
                head = file.read(2)
                if head[:1] == b"\x80" and head[1:] in (b"\2", b"\3", b"\4", b"\5"):
                    found.append(path)
        return found

    def rows(self, file: IO[bytes], image: str | None) -> Iterator[tuple[int, int]]:
        for place in _places(file):
            if isinstance(place, tuple):
                yield 0, place[1]

    def records(self, file: IO[bytes], plan: Plan, unit: Unit) -> Iterator[Record | None]:
        pictures: list[Place] = []
        same: list[bool] = []
        try:
            for found in _places(file):
                if isinstance(found, tuple):
                    pictures.append(found)
                else:
                    same.append(found)
        except BrokenError:
            same = []
        told = 2 * len(same) == len(pictures)
        for number, (place, length) in enumerate(pictures[unit.start :], unit.start):
            values = {"pair": str(number // 2)}
            if told:
                values["same"] = str(same[number // 2])
            if length > MAX_BYTES:
                yield Record(None, "too_large", values)
                continue
            file.seek(place)
            yield Record(file.read(length), None, values)


def _places(file: IO[bytes]) -> Iterator[Place | bool]:
    """Where every picture lies, and the booleans, in order."""
    end = file.seek(0, 2)
    file.seek(0)
    memo: dict[int, Place | bool | None] = {}
    last: Place | bool | None = None
    while True:
        code = file.read(1)
        if code == b".":
            return
        if code in _LENGTHS:
            length = _number(file, _LENGTHS[code])
            place = file.tell()
            if place + length > end:
                raise BrokenError
            file.seek(place + length)
            last = (place, length)
            yield last
        elif code in (b"\x88", b"\x89"):
            last = code == b"\x88"
            yield last
        elif code == b"I":
            line = file.read(3)
            if line not in (b"00\n", b"01\n"):
                raise BrokenError
            last = line == b"01\n"
            yield last
        elif code in _PUT:
            memo[_number(file, _PUT[code])] = last
        elif code == b"\x94":
            memo[len(memo)] = last
        elif code in _GET:
            last = memo.get(_number(file, _GET[code]))
            if last is not None:
                yield last
        elif code in _SKIPPED:
            if len(file.read(_SKIPPED[code])) < _SKIPPED[code]:
                raise BrokenError
            if code == b"]":
                last = None
        else:
            raise BrokenError


def _number(file: IO[bytes], width: int) -> int:
    data = file.read(width)
    if len(data) < width:
        raise BrokenError
    return int.from_bytes(data, "little")
