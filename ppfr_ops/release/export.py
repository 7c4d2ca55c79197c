"""The pictures of a release, whatever its form: one after the other, as a folder of files, or as a
contact sheet."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import Literal

import cv2
import numpy as np

from ppfr_ops.contracts.manifest import SUMS, ReleaseManifest
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import Picture
from ppfr_ops.release.files import PHOTOGRAPHS, read_lists, sums_text
from ppfr_ops.release.listing import Unlisted, files_of
from ppfr_ops.store.files import inside
from ppfr_ops.store.folder import RELEASE, Folder
from ppfr_ops.store.shards import read_table

CELL = 256
"""Side of a picture on a contact sheet, px."""

_GAP, _ACROSS = 8, 6


class Release:
    """A release that somebody has, with or without its evidence.

    Args:
        output: an output or a release.

    Raises:
        UserError: there is no manifest, or its list is not what it says.
    """

    def __init__(self, output: str) -> None:
        self.folder = Folder(output)
        self.place = (RELEASE,) if self.folder.exists(RELEASE, "manifest.json") else ()
        found = self.folder.model(ReleaseManifest, *self.place, "manifest.json")
        if found is None:
            raise UserError("no readable manifest.json: not an output, or its run has not finished")
        self.manifest = found
        try:
            self.shards, self.sums = read_lists(self.folder, found, *self.place)
        except Unlisted as fault:
            raise UserError(f"the list of the release {fault}; see ppfr verify") from None

    def pictures(self) -> Iterator[tuple[str, str | None, bytes]]:
        """Name (of a record its id with a suffix), pseudonym of the person if there is a column of
        them, and encoded picture; nothing is given that is not what the manifest says.

        Raises:
            UserError: a file is not what the manifest says.
        """
        if self.sums is not None:
            for path, digest in self.sums.items():
                data = self._read(path, digest)
                yield path.removeprefix(f"{PHOTOGRAPHS}/"), None, data
            return
        for _, data in self.shards_data():
            table = read_table(data)
            named = "identity" in table.column_names
            people = table["identity"].to_pylist() if named else [None] * len(table)
            for cell, person in zip(table["image"], people, strict=True):
                yield cell["path"].as_py(), person, cell["bytes"].as_py()

    def shards_data(self) -> Iterator[tuple[str, bytes]]:
        """Path and bytes of every shard of records; nothing that is not what the manifest says.

        Raises:
            UserError: a file is not what the manifest says.
        """
        for file in files_of(self.manifest, self.shards):
            if file.path.startswith("data/"):
                yield file.path, self._read(file.path, file.sha256)

    def _read(self, path: str, digest: str) -> bytes:
        try:
            data = bytes(self.folder.fs.cat_file(self.folder.path(*self.place, path)))
        except OSError:
            data = b""
        if hashlib.sha256(data).hexdigest() != digest:
            raise UserError(f"{path!a} is not what the manifest says; see ppfr verify")
        return data


def export(
    output: str, target: str, names: Literal["keep", "number"] = "keep", by_person: bool = False
) -> int:
    """Write the pictures of a release as a folder of files, with their ``SHA256SUMS``. Does what an
    earlier call did not come to do; removes nothing.

    Args:
        names: ``keep``: photographs of a release of files as they are called there, records as
            their ids; ``number``: 000001 and so on, in the order of the release.
        by_person: a folder for each pseudonym.

    Returns:
        How many there are.

    Raises:
        UserError: the target lies in the output, or holds something else; the release is damaged.
    """
    if inside(target, output):
        raise UserError("FOLDER must not lie inside the output")
    release, folder = Release(output), Folder(target)
    held = next(folder.tree(), None)
    if held is not None and not folder.exists(SUMS):
        raise UserError("FOLDER holds something else; choose an empty one")
    sums: dict[str, str] = {}
    for number, (name, person, data) in enumerate(release.pictures(), 1):
        called = name if names == "keep" else f"{number:06d}{os.path.splitext(name)[1]}"
        if by_person:
            called = f"{person or 'nobody'}/{called}"
        digest = hashlib.sha256(data).hexdigest()
        if folder.size(called) != len(data) or _digest(folder, called) != digest:
            _write(folder, data, called)
        sums[called] = digest
    _write(folder, sums_text(sums), SUMS)
    return len(sums)


def _write(folder: Folder, data: bytes, name: str) -> None:
    """Whole or not at all; no folder of the project's own is left in the target."""
    path = folder.path(name)
    if not folder.local:
        folder.fs.pipe_file(path, data)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    draft = os.path.join(
        os.path.dirname(path), f".{hashlib.sha256(name.encode()).hexdigest()[:16]}.tmp"
    )
    with open(draft, "wb") as file:
        file.write(data)
    os.replace(draft, path)


def _digest(folder: Folder, name: str) -> str:
    return hashlib.sha256(folder.fs.cat_file(folder.path(name))).hexdigest()


def contact_sheet(columns: Sequence[Sequence[Picture]]) -> Picture:
    """A sheet of pictures.

    Args:
        columns: what stands above each other: before and after, or one alone; uint8
            ``H x W x 3``, RGB, of any size.
    """
    deep = max(len(column) for column in columns)
    cell = CELL + _GAP
    rows = -(-len(columns) // _ACROSS)
    wide = min(_ACROSS, len(columns)) * cell + _GAP
    sheet = np.full((rows * (deep * cell + _GAP) + _GAP, wide, 3), 255, np.uint8)
    for number, column in enumerate(columns):
        row, place = divmod(number, _ACROSS)
        for level, picture in enumerate(column):
            shown = _fitted(picture)
            height, width = shown.shape[:2]
            top = _GAP + row * (deep * cell + _GAP) + level * cell + (CELL - height) // 2
            left = _GAP + place * cell + (CELL - width) // 2
            sheet[top : top + height, left : left + width] = shown
    return sheet


def _fitted(picture: Picture) -> Picture:
    scale = CELL / max(picture.shape[:2])
    size = tuple(max(1, round(side * scale)) for side in picture.shape[1::-1])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, size, interpolation=how), np.uint8)
