"""Zips of pictures, and tars that are compressed as a whole."""

import gzip
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, cast

import pyarrow as pa

from ppfr_ops.imaging.decoding import MAX_BYTES
from ppfr_ops.source.archive import BrokenError
from ppfr_ops.source.filerows import FileRows
from ppfr_ops.source.paths import refuse_unclear
from ppfr_ops.source.reader import Listing, Record
from ppfr_ops.source.tar import WebDataset, hidden
from ppfr_ops.source.units import (
    IMAGE_SUFFIXES,
    Columns,
    Plan,
    damage_ends_it,
    open_file,
    storable,
    suffix,
)

_LEAST, _MOST_TIMES = 2**26, 100
"""Bytes that a compressed tar may come to at any rate, and how many times its own."""


class Zip(FileRows):
    """Zips; a row a picture, in the order of their names."""

    name = "zip"
    what = "zips of pictures"
    suffixes = frozenset({".zip"})

    def columns(
        self, listing: Listing, paths: Sequence[str], columns: Columns
    ) -> tuple[Columns, tuple[pa.Field, ...]]:
        found = super().columns(listing, paths, columns)
        if columns.identity == "folder":
            names: list[str] = []
            for path in paths:
                with damage_ends_it(), open_file(listing.fs, path) as file:
                    names += [info.filename for info in _pictures(file)[1]]
            refuse_unclear("", names)
        return found

    def rows(self, file: IO[bytes], image: str | None) -> Iterator[tuple[int, int]]:
        for info in _pictures(file)[1]:
            yield 0, min(info.file_size, MAX_BYTES)

    def records(
        self, file: IO[bytes], plan: Plan, start: int, offset: int
    ) -> Iterator[Record | None]:
        archive, pictures = _pictures(file)
        for info in pictures[start:]:
            folder = storable(os.path.basename(os.path.dirname(info.filename)))
            data, code = None, "unreadable_file"
            if info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                with damage_ends_it(), archive.open(info) as member:
                    data = member.read(MAX_BYTES + 1)
                    if len(data) > MAX_BYTES:
                        data, code = None, "too_large"
            yield Record(data, None if data is not None else code, {"folder": folder})


def _pictures(file: IO[bytes]) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]:
    """Raises:
    BrokenError: it is no zip.
    """
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, UnicodeDecodeError):
        raise BrokenError from None
    found = [
        info
        for info in archive.infolist()
        if suffix(info.filename) in IMAGE_SUFFIXES and not hidden(info.filename)
    ]
    return archive, sorted(found, key=lambda info: (info.filename, info.header_offset))


class CompressedTar(WebDataset):
    """WebDataset tars behind gzip. To reach a unit, what is before it is unpacked too."""

    name = "tar.gz"
    what = "compressed tars"
    suffixes = frozenset({".tgz"})

    def claims(self, listing: Listing) -> list[str]:
        return [path for path in listing.files if path.lower().endswith((".tar.gz", ".tgz"))]

    @contextmanager
    def opened(self, fs: Any, path: str) -> Iterator[IO[bytes]]:
        with open_file(fs, path) as file:
            size = file.seek(0, 2)
            file.seek(0)
            with gzip.GzipFile(fileobj=file, mode="rb") as plain:
                yield cast("IO[bytes]", _Bounded(plain, max(_LEAST, _MOST_TIMES * size)))


class _Bounded:
    """A file that is unpacked as it is read, up to a size."""

    def __init__(self, file: gzip.GzipFile, most: int) -> None:
        self._file, self._most = file, most
        self._end: int | None = None

    def read(self, size: int) -> bytes:
        if self._file.tell() + size > self._most + _LEAST:
            raise BrokenError
        try:
            return self._file.read(size)
        except (OSError, EOFError, zlib.error):
            raise BrokenError from None

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET:
            if place > self._most:
                raise BrokenError
            return self._file.seek(place)
        # Its end, or where it breaks off.
        while self._end is None:
            try:
                if not self._file.read(2**20):
                    self._end = self._file.tell()
            except (OSError, EOFError, zlib.error):
                self._end = self._file.tell()
            if self._file.tell() > self._most:
                raise BrokenError
        return self._end
