"""The numbers in a Parquet footer, to be replaced one by one (Thrift's compact protocol)."""

from collections.abc import Iterator
from dataclasses import dataclass

_STRUCT, _LIST, _SET, _MAP, _BINARY, _DOUBLE, _BYTE = 12, 9, 10, 11, 8, 7, 3
_INTEGERS = (4, 5, 6)


@dataclass(frozen=True)
class Number:
    """An integer of the footer: field numbers (and list places) that lead to it, and its bytes."""

    path: tuple[int, ...]
    start: int
    stop: int
    value: int


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def byte(self) -> int:
        self.place += 1
        return self.data[self.place - 1]

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def struct(self, path: tuple[int, ...]) -> Iterator[Number]:
        field = 0
        while head := self.byte():
            delta, kind = head >> 4, head & 15
            field = field + delta if delta else unzigzag(self.varint())
            yield from self.value(kind, (*path, field))

    def value(self, kind: int, path: tuple[int, ...]) -> Iterator[Number]:
        if kind in _INTEGERS:
            start = self.place
            number = unzigzag(self.varint())
            yield Number(path, start, self.place, number)
        elif kind == _BINARY:
            length = self.varint()
            self.place += length
        elif kind in (_LIST, _SET):
            head = self.byte()
            count = head >> 4 if head >> 4 != 15 else self.varint()
            for place in range(count):
                # Booleans are a byte each in a list, and none as a field.
                if head & 15 in (1, 2):
                    self.byte()
                else:
                    yield from self.value(head & 15, (*path, place))
        elif kind == _STRUCT:
            yield from self.struct(path)
        elif kind == _DOUBLE:
            self.place += 8
        elif kind == _BYTE:
            self.byte()
        elif kind == _MAP:
            raise ValueError("no footer has a map")


def unzigzag(value: int) -> int:
    return (value >> 1) ^ -(value & 1)


def varint(value: int) -> bytes:
    """An integer as the compact protocol has it, zigzag."""
    value = (value << 1) ^ (value >> 63) if value < 0 else value << 1
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def footer(file: bytes) -> bytes:
    length = int.from_bytes(file[-8:-4], "little")
    return file[-8 - length : -8]


def numbers(file: bytes) -> list[Number]:
    """Every integer in the footer of a Parquet file."""
    return list(_Reader(footer(file)).struct(()))


def replaced(file: bytes, number: Number, value: int) -> bytes:
    """The file with another integer in that place."""
    old = footer(file)
    new = old[: number.start] + varint(value) + old[number.stop :]
    body = file[: -8 - len(old)]
    return body + new + len(new).to_bytes(4, "little") + file[-4:]


FILE_ROWS = (3,)
"""Path of the number of rows in the file."""


def group_rows(group: int) -> tuple[int, ...]:
    """Path of the number of rows of a row group."""
    return (4, group, 3)
