"""Zips of pictures, and tars that are compressed as a whole."""

import gzip
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any, cast

from ppfr_ops.errors import UserError
from ppfr_ops.imaging.decoding import MAX_BYTES
from ppfr_ops.source.archive import BrokenError
from ppfr_ops.source.filerows import FileRows
from ppfr_ops.source.listing import HIDDEN
from ppfr_ops.source.paths import in_archive, refuse_unclear
from ppfr_ops.source.reader import Chosen, Listing, Record
from ppfr_ops.source.tar import WebDataset, hidden
from ppfr_ops.source.units import (
    IMAGE_SUFFIXES,
    Columns,
    Plan,
    Unit,
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
    by_path = frozenset({"folder"})

    def columns(self, listing: Listing, paths: Sequence[str], columns: Columns) -> Chosen:
        found = super().columns(listing, paths, columns)
        if columns.identity == "folder":
            try:
                refuse_unclear("", list(_all_names(listing, paths, whole=False)))
            except UserError:
                # Only names that their members confirm may refuse the input.
                refuse_unclear("", list(_all_names(listing, paths, whole=True)))
        return found

    def left_out(
        self, listing: Listing, paths: Sequence[str], columns: Columns
    ) -> Mapping[str, int]:
        """Members that are no pictures."""
        found: Counter[str] = Counter()
        for path in paths:
            with damage_ends_it(), open_file(listing.fs, path) as file:
                archive, pictures = _pictures(file)
                names = {_name(info) for info in archive.infolist() if not info.is_dir()}
                for name in names - {_name(info) for info in pictures}:
                    found[HIDDEN if hidden(name) else suffix(name) or "without suffix"] += 1
        return found

    def rows(self, file: IO[bytes], image: str | None) -> Iterator[tuple[int, int]]:
        archive, pictures = _pictures(file)
        for info in pictures:
            yield 0, min(info.file_size, MAX_BYTES)
        if not _complete(file, archive):
            raise BrokenError

    def records(self, file: IO[bytes], plan: Plan, unit: Unit) -> Iterator[Record | None]:
        archive, pictures = _pictures(file)
        for info in pictures[unit.start :]:
            folder: str | None = storable(os.path.basename(os.path.dirname(_name(info))))
            data, code = None, "unreadable_file"
            if info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                with damage_ends_it(), archive.open(info) as member:
                    data = member.read(MAX_BYTES + 1)
                    if len(data) > MAX_BYTES:
                        data, code = None, "too_large"
            if data is None and not _confirmed(file, info):
                folder = None
            yield Record(data, None if data is not None else code, {"folder": folder})

    def row_paths(self, fs: Any, unit: Unit) -> Sequence[str]:
        path, names = unit.sources[0], []
        with damage_ends_it(), open_file(fs, path) as file:
            for info in _pictures(file)[1][unit.start : unit.stop]:
                names.append(in_archive(path, _name(info)))
        return [*names, *[path] * (unit.stop - unit.start - len(names))]

    def asked_paths(self, listing: Listing, paths: Sequence[str]) -> Iterator[str]:
        """Of all that their members confirm; others are dead letters."""
        for path in paths:
            for name in _all_names(listing, [path], whole=True):
                yield in_archive(path, name)

    def sources(self, fs: Any, unit: Unit) -> Iterator[tuple[str, int]]:
        for row, path in enumerate(self.row_paths(fs, unit), unit.start):
            yield storable(path), row


def _all_names(listing: Listing, paths: Sequence[str], whole: bool) -> Iterator[str]:
    for path in paths:
        with damage_ends_it(), open_file(listing.fs, path) as file:
            for info in _pictures(file)[1]:
                if not whole or _confirmed(file, info):
                    yield _name(info)


def _pictures(file: IO[bytes]) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]:
    """Raises:
    BrokenError: it is no zip.
    """
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, UnicodeDecodeError):
        raise BrokenError from None
    found = [info for info in archive.infolist() if _is_picture(file, info)]
    return archive, sorted(found, key=lambda info: (_name(info), info.header_offset))


def _name(info: zipfile.ZipInfo) -> str:
    """Of a member; some programs of Windows write its folders as they call them there."""
    return info.filename.replace("\\", "/")


def _is_picture(file: IO[bytes], info: zipfile.ZipInfo) -> bool:
    if suffix(_name(info)) in IMAGE_SUFFIXES and not hidden(_name(info)):
        return True
    # A picture must not be lost because its name is damaged.
    return not _confirmed(file, info)


def _confirmed(file: IO[bytes], info: zipfile.ZipInfo) -> bool:
    """Whether a member begins where the directory says so, with the same name."""
    file.seek(max(0, info.header_offset))
    head = file.read(30)
    if len(head) < 30 or head[:4] != b"PK\3\4":
        return False
    name = file.read(int.from_bytes(head[26:28], "little"))
    return name in (_encoded(info.orig_filename, "utf-8"), _encoded(info.orig_filename, "cp437"))


def _encoded(name: str, code: str) -> bytes | None:
    try:
        return name.encode(code)
    except UnicodeEncodeError:
        return None


def _complete(file: IO[bytes], archive: zipfile.ZipFile) -> bool:
    """Whether the directory holds as many members as its end says."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 22 - 2**16))
    tail = file.read()
    claimed = int.from_bytes(tail[tail.rfind(b"PK\5\6") :][10:12], "little")
    return claimed in (len(archive.infolist()) % 2**16, 2**16 - 1)


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
