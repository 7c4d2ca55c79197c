"""The members of a tar, by its headers alone.

``tarfile`` believes what a header says: a negative size sends it back to where it was, and it takes
a zero block for the end. Here the place in the file only ever rises, an archive may follow another,
and nothing is read that a header merely promises.
"""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

_BLOCK = tarfile.BLOCKSIZE
_MAX_NAME_BYTES = 2**16
_MAX_PAX_BYTES = 2**20
_MAX_PADDING = 64 * 2**20
"""Zeros that are passed over in search of another archive."""
_LONG_NAME, _LONG_LINK, _PAX, _GLOBAL_PAX, _SPARSE = b"L", b"K", b"x", b"g", b"S"
_LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE)


class BrokenError(Exception):
    """The tar breaks off, or goes on with something that is no tar."""


@dataclass(frozen=True)
class Member:
    """A file in a tar, or a link to one."""

    name: str
    """Bytes that are no UTF-8 as ``\\xNN``."""
    offset: int
    """Where its headers begin."""
    start: int
    """Where its body begins."""
    size: int
    """Of its body, bytes."""
    whole: bool = True
    """False: a link, or sparse: the body is not the file."""


@dataclass
class _Extension:
    """What headers before a header say of it."""

    name: str | None = None
    size: int | None = None
    sparse: bool = False


def members(file: IO[bytes], offset: int) -> Iterator[Member]:
    """Files and links from ``offset`` bytes on, in order.

    Raises:
        BrokenError: after the last whole member.
        OSError: the file cannot be read.
    """
    end = file.seek(0, os.SEEK_END)
    place = first = offset
    extension = _Extension()
    while True:
        file.seek(place)
        block = file.read(_BLOCK)
        if len(block) < _BLOCK:
            raise BrokenError
        if not any(block):
            if extension != _Extension():
                raise BrokenError
            following = _after_zeros(file, place, end)
            if following is None:
                return
            place = first = following
            continue
        info = _header(block)
        start = place + _BLOCK
        stored = _stored(info) if extension.size is None else extension.size
        stop = start + -(-stored // _BLOCK) * _BLOCK
        if stored < 0 or start + stored > end:
            raise BrokenError
        if info.type == _LONG_NAME:
            extension.name = _text(_body(file, start, stored, _MAX_NAME_BYTES).rstrip(b"\0"))
        elif info.type == _PAX:
            _read_pax(_body(file, start, stored, _MAX_PAX_BYTES), extension)
        elif info.type not in (_LONG_LINK, _GLOBAL_PAX):
            if info.type == _SPARSE:
                start, stop = _after_map(file, block, start, stored)
            if info.isreg() or info.type in (*_LINKS, _SPARSE):
                whole = info.isreg() and not extension.sparse and info.type != _SPARSE
                name = extension.name if extension.name is not None else info.name
                yield Member(name, first, start, stored, whole)
            extension = _Extension()
            place = first = stop
            continue
        place = stop


def _header(block: bytes) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "backslashreplace")
    except (tarfile.TarError, ValueError, OverflowError):
        raise BrokenError from None
    if info.type == tarfile.AREGTYPE and info.name.endswith("/"):
        info.type = tarfile.DIRTYPE
    return info


def _stored(info: tarfile.TarInfo) -> int:
    """Bytes that follow the header; those that ``tarfile`` knows to have none may still claim."""
    known = info.type in tarfile.SUPPORTED_TYPES
    return 0 if known and not info.isreg() and info.type not in _WITH_BODY else info.size


_WITH_BODY = (_LONG_NAME, _LONG_LINK, _PAX, _GLOBAL_PAX, _SPARSE, tarfile.SOLARIS_XHDTYPE)


def _body(file: IO[bytes], start: int, size: int, most: int) -> bytes:
    if size > most:
        raise BrokenError
    file.seek(start)
    return file.read(size)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _read_pax(body: bytes, extension: _Extension) -> None:
    """Records ``LENGTH KEY=VALUE\\n``."""
    place = 0
    while place < len(body) and body[place]:
        digits, blank, _ = body[place : place + 20].partition(b" ")
        if not blank or not digits.isdigit() or int(digits) <= len(digits) + 1:
            raise BrokenError
        record = body[place + len(digits) + 1 : place + int(digits)]
        if not record.endswith(b"\n"):
            raise BrokenError
        key, _, value = record[:-1].partition(b"=")
        if key == b"path":
            extension.name = _text(value)
        elif key == b"size":
            if not value.isdigit() or len(value) > 30:
                raise BrokenError
            extension.size = int(value)
        elif key.startswith(b"GNU.sparse"):
            extension.sparse = True
            if key == b"GNU.sparse.name":
                extension.name = _text(value)
        place += int(digits)


def _after_map(file: IO[bytes], block: bytes, start: int, stored: int) -> tuple[int, int]:
    """Where the body of an old GNU sparse member begins and ends: after the rest of its map."""
    more = block[482]
    while more:
        file.seek(start)
        extra = file.read(_BLOCK)
        if len(extra) < _BLOCK:
            raise BrokenError
        more = extra[504]
        start += _BLOCK
    return start, start + -(-stored // _BLOCK) * _BLOCK


def _after_zeros(file: IO[bytes], place: int, end: int) -> int | None:
    """The next block that is not zero; None: there is none. Zeros without end are damage."""
    passed = 0
    while place < end:
        file.seek(place)
        chunk = file.read(min(2**20, end - place))
        if not chunk:
            break
        rest = chunk.lstrip(b"\0")
        if rest:
            return place + (len(chunk) - len(rest)) // _BLOCK * _BLOCK
        place += len(chunk)
        passed += len(chunk)
        if passed > _MAX_PADDING and place < end:
            raise BrokenError
    return None
