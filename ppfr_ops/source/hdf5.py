"""HDF5 files: a dataset of pictures, and datasets as long beside it.

Read in ``ppfr_ops.sandbox``, as Parquet is. Links to other files, datasets whose bytes lie in other
files, and filters that are loaded from a plug-in are not followed.
"""

import importlib.util
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from ppfr_ops.errors import UserError
from ppfr_ops.imaging.decoding import MAX_PIXELS
from ppfr_ops.sandbox import LimitError
from ppfr_ops.source.parquet import apart
from ppfr_ops.source.reader import (
    Cutting,
    Listing,
    MissingColumnError,
    Reader,
    Record,
    table_of,
)
from ppfr_ops.source.stacks import as_png
from ppfr_ops.source.units import (
    Columns,
    Plan,
    Unit,
    damage_ends_it,
    errors,
    in_file,
    open_file,
    shared_out,
)

_SECONDS = 60.0
_PIECE = 2**25
"""Bytes that are read at once."""
_MOST_CHUNK = 2**28
_MOST_ROWS, _LEAST_BYTES, _MOST_TIMES = 2**20, 64, 1100
"""Rows of a file at any rate, bytes of a row at least, how many times its size it unpacks to."""
_MOST_DATASETS = 1000
_FILTERS = {1, 2, 3, 4, 32000}
"""deflate, shuffle, fletcher32, szip, lzf."""


class HDF5(Reader):
    """``.h5`` files: uint8 ``N x H x W``, ``N x H x W x 3`` or ``N x 3 x H x W``, or ``N`` encoded
    pictures; numbers and texts of one dimension that are as long are columns."""

    name = "hdf5"
    what = "HDF5 files"
    suffixes = frozenset({".h5", ".hdf5"})

    def columns(
        self, listing: Listing, paths: Sequence[str], columns: Columns
    ) -> tuple[Columns, tuple[pa.Field, ...]]:
        if importlib.util.find_spec("h5py") is None:
            raise UserError("HDF5 files need pip install ppfr-sanitizer[formats]")
        there: set[str] = set()
        asked: list[frozenset[str]] = []
        for path in dict.fromkeys((*paths[:3], paths[-1])):
            with damage_ends_it():
                found = apart(look, listing.fs, path, columns.image, seconds=_SECONDS)
                asked.append(frozenset(found[0]))
                there.update(found[1])
        # What most of them say, so that a damaged one does not decide for all.
        most = [names for names in asked if 2 * asked.count(names) > len(asked)]
        stacks: frozenset[str] = frozenset().union(*(most or asked))
        if len(stacks) != 1 and there:
            raise UserError(
                "name the dataset of the pictures (uint8, or encoded pictures) with "
                f"--image-column; there are: {', '.join(sorted(stacks or there))}"
            )
        for name in columns.beside if there else ():
            if name not in there - stacks:
                raise MissingColumnError(name, sorted(there - stacks) or ["none"])
        return columns, tuple(pa.field(name, pa.string()) for name in columns.keep)

    def cut(self, listing: Listing, paths: Sequence[str], cutting: Cutting) -> Iterator[Unit]:
        for path in paths:
            rows, size, damaged = 0, 1, "unreadable_unit"
            with damage_ends_it():
                rows, size, whole = apart(count, listing.fs, path, cutting.image, seconds=_SECONDS)
                damaged = "" if whole else "truncated_unit" if rows else "unreadable_unit"
            most = shared_out(rows * len(paths), cutting.unit_rows, cutting.least)
            if cutting.unit_bytes is not None:
                most = max(1, min(most, cutting.unit_bytes // size))
            yield from in_file(self.name, path, rows, most, damaged)

    def read(self, fs: Any, plan: Plan, unit: Unit) -> pa.Table:
        slim = replace(plan, units=())
        where = (unit.sources[0], unit.start, unit.stop)
        try:
            return apart(read_rows, fs, slim, *where, seconds=_SECONDS)
        except LimitError:
            return errors(plan, ["unreadable_row"] * (unit.stop - unit.start))


@contextmanager
def _datasets(fs: Any, path: str) -> Iterator[tuple[dict[str, Any], int]]:
    """The datasets of a file that may be read, by name, and the file's size."""
    import h5py

    with open_file(fs, path) as file, h5py.File(file, "r") as opened:
        found: dict[str, Any] = {}

        def visit(name: str, item: Any) -> bool | None:  # links are not visited
            if isinstance(item, h5py.Dataset) and _plain(item):
                found[name] = item
            return True if len(found) == _MOST_DATASETS else None

        opened.visititems(visit)
        yield found, file.seek(0, 2)


def _plain(item: Any) -> bool:
    """Whether all its bytes lie in the file, in pieces that can be held."""
    settings = item.id.get_create_plist()
    filters = {settings.get_filter(place)[0] for place in range(settings.get_nfilters())}
    small = item.chunks is None or math.prod(item.chunks) * item.dtype.itemsize <= _MOST_CHUNK
    return not item.external and not item.is_virtual and filters <= _FILTERS and small


def _is_stack(item: Any) -> bool:
    import h5py

    shape = item.shape
    if shape is None or len(shape) == 1:
        encoded = h5py.check_vlen_dtype(item.dtype)
        return shape is not None and encoded is not None and np.dtype(encoded) == np.uint8
    picture = len(shape) == 3 or (len(shape) == 4 and 3 in (shape[3], shape[1]))
    sides = all(side > 0 for side in shape[1:]) and math.prod(shape[1:]) <= 3 * MAX_PIXELS
    return item.dtype == np.uint8 and picture and sides


def _stacks(found: dict[str, Any], image: str | None) -> list[str]:
    return [name for name in found if image in (None, name) and _is_stack(found[name])]


def _beside(found: dict[str, Any], rows: int) -> dict[str, Any]:
    """Numbers and texts, one a row."""
    import h5py

    return {
        name: item
        for name, item in found.items()
        if item.shape == (rows,)
        and (item.dtype.kind in "iufbS" or h5py.check_string_dtype(item.dtype) is not None)
    }


def look(fs: Any, path: str, image: str | None) -> tuple[list[str], list[str]]:
    """Names of the datasets of pictures, and of all that can be read; for the sandbox."""
    with _datasets(fs, path) as (found, _):
        stacks = _stacks(found, image)
        beside = _beside(found, found[stacks[0]].shape[0]) if len(stacks) == 1 else found
        return stacks, [*stacks, *beside]


def count(fs: Any, path: str, image: str | None) -> tuple[int, int, bool]:
    """Rows of a file, bytes of each, and whether these are all; for the sandbox."""
    with _datasets(fs, path) as (found, size):
        stacks = _stacks(found, image)
        if len(stacks) != 1:
            return 0, 1, False
        shape = found[stacks[0]].shape
        each = math.prod(shape[1:]) if len(shape) > 1 else max(1, size // max(1, shape[0]))
        most = max(_MOST_ROWS, size // _LEAST_BYTES)
        most = min(most, _MOST_TIMES * size // each) if len(shape) > 1 else most
        return min(shape[0], most), each, shape[0] <= most


def read_rows(fs: Any, plan: Plan, path: str, start: int, stop: int) -> pa.Table:
    """Rows of a file; for the sandbox."""
    parts = [errors(plan, [])]
    done = start
    with damage_ends_it(), _datasets(fs, path) as (found, _):
        name = _stacks(found, plan.columns.image)[0]
        stack = found[name]
        beside = _beside(found, stack.shape[0])
        wanted = set(plan.columns.beside)
        if not wanted <= beside.keys():
            return errors(plan, ["missing_column"] * (stop - start))
        columns = {key: beside[key] for key in wanted}
        step = max(1, _PIECE // math.prod(stack.shape[1:])) if stack.ndim > 1 else 16
        while done < stop:
            end = min(stop, done + step)
            parts += _piece(plan, stack, columns, done, end)
            done = end
    return pa.concat_tables([*parts, errors(plan, ["unreadable_row"] * (stop - done))])


def _piece(
    plan: Plan, stack: Any, columns: dict[str, Any], start: int, stop: int
) -> list[pa.Table]:
    """Rows of a file; those that are damaged by themselves."""
    with damage_ends_it():
        texts = {name: [_text(v) for v in item[start:stop]] for name, item in columns.items()}
        pictures = stack[start:stop]
        records = [
            Record(
                as_png(picture) if stack.ndim > 1 else bytes(picture),
                values={name: values[row] for name, values in texts.items()},
            )
            for row, picture in enumerate(pictures)
        ]
        return [table_of(plan, records)]
    if stop - start == 1:
        return [errors(plan, ["unreadable_row"])]
    return [
        part for row in range(start, stop) for part in _piece(plan, stack, columns, row, row + 1)
    ]


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
