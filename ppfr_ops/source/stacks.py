"""Stacks of pictures: NumPy's ``.npy`` and ``.npz``. Nothing is unpickled."""

import io
import math
import zipfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.imaging.decoding import MAX_PIXELS
from ppfr_ops.source.archive import BrokenError
from ppfr_ops.source.filerows import FileRows
from ppfr_ops.source.labels import stored_text
from ppfr_ops.source.reader import Record
from ppfr_ops.source.units import Plan, Unit

_LABELS = "iufbUS"
_MOST_LABEL_BYTES = 2**28
_PNG = Encoding("png")


class Stack(FileRows):
    """``.npy`` and ``.npz``: uint8 ``N x H x W``, ``N x H x W x 3`` or ``N x 3 x H x W``; of an
    ``.npz`` the arrays that are as long and of one dimension are columns."""

    name = "numpy"
    what = "NumPy stacks"
    suffixes = frozenset({".npy", ".npz"})

    def rows(self, file: IO[bytes], image: str | None) -> Iterator[tuple[int, int]]:
        count, size, whole = _stack(_arrays(file), image).held()
        yield from ((0, size) for _ in range(count))
        if not whole:
            raise BrokenError

    def records(self, file: IO[bytes], plan: Plan, unit: Unit) -> Iterator[Record | None]:
        arrays = _arrays(file)
        stack = _stack(arrays, plan.columns.image)
        labels = _labels(arrays, stack, plan)
        for number, picture in enumerate(stack.pictures(unit.start), unit.start):
            values = {name: column[number] for name, column in labels.items()}
            if labels.keys() >= set(plan.columns.beside):
                yield Record(as_png(picture), values=values)
            else:
                yield Record(None, "missing_column", values)


def as_png(picture: NDArray[np.uint8]) -> bytes:
    """A picture of a stack, ``H x W``, ``H x W x 3`` or ``3 x H x W``, as a file."""
    if picture.ndim == 2:
        picture = np.repeat(picture[:, :, None], 3, 2)
    elif picture.shape[2] != 3:
        picture = picture.transpose(1, 2, 0)
    return _PNG.encode(np.ascontiguousarray(picture))


def are_pictures(shape: tuple[int, ...], dtype: Any) -> bool:
    """Whether an array is a stack of such pictures."""
    picture = len(shape) == 3 or (len(shape) == 4 and 3 in (shape[3], shape[1]))
    small = all(side > 0 for side in shape[1:]) and math.prod(shape[1:]) <= 3 * MAX_PIXELS
    return dtype == np.uint8 and picture and small


class _Array:
    """An array in a file, by its header."""

    def __init__(self, name: str, file: IO[bytes], size: int) -> None:
        try:
            version = npy.read_magic(file)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            self.shape, self.fortran, self.dtype = read(file)
        except (ValueError, EOFError, OSError, SyntaxError, RecursionError, MemoryError):
            raise BrokenError from None
        self.name, self.file = name, file
        self.start = file.tell()
        self.left = size - self.start

    @property
    def is_stack(self) -> bool:
        return not self.fortran and are_pictures(self.shape, self.dtype)

    def held(self) -> tuple[int, int, bool]:
        """Pictures that are there, bytes of each, and whether these are all."""
        size = math.prod(self.shape[1:])
        count = min(self.shape[0], self.left // size)
        return count, size, count == self.shape[0]

    def pictures(self, start: int) -> Iterator[Any]:
        count, size, _ = self.held()
        self.file.seek(self.start + start * size)
        for _ in range(start, count):
            data = self.file.read(size)
            if len(data) < size:
                return
            yield np.frombuffer(data, np.uint8).reshape(self.shape[1:])


def _arrays(file: IO[bytes]) -> list[_Array]:
    size = file.seek(0, 2)
    file.seek(0)
    if file.read(4) != b"PK\3\4":
        file.seek(0)
        return [_Array("image", file, size)]
    try:
        archive = zipfile.ZipFile(file)
        infos = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        if len({info.filename for info in infos}) < len(infos):
            raise BrokenError  # two arrays of one name
        # Deflate makes a thousandth of a thing at best, so larger claims are none.
        return [
            _Array(
                info.filename[:-4],
                archive.open(info),
                min(info.file_size, 1100 * min(info.compress_size, size)),
            )
            for info in infos[:1000]
        ]
    except (zipfile.BadZipFile, NotImplementedError, ValueError, RuntimeError, EOFError):
        raise BrokenError from None


def _stack(arrays: list[_Array], image: str | None) -> _Array:
    found = [each for each in arrays if each.is_stack and image in (None, each.name)]
    if len(found) != 1:
        raise BrokenError
    return found[0]


def _labels(arrays: list[_Array], stack: _Array, plan: Plan) -> dict[str, list[str | None]]:
    columns = {}
    for array in arrays:
        flat = array.shape == stack.shape[:1] and array.dtype.kind in _LABELS
        size = math.prod(array.shape) * array.dtype.itemsize
        if flat and size <= min(_MOST_LABEL_BYTES, max(array.left, 0)):
            data = array.file.read(size)
            if len(data) == size:
                values = np.frombuffer(io.BytesIO(data).getbuffer(), array.dtype)
                columns[array.name] = [stored_text(value) for value in values.tolist()]
    return columns
