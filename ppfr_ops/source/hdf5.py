"""HDF5 files: a dataset of pictures, and datasets as long beside it.

Links to other files, datasets whose bytes lie in other
files, and filters that are loaded from a plug-in are not followed.
"""

import importlib.util
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa

from ppfr_ops.errors import UserError
from ppfr_ops.source.reader import Chosen, Listing, Record, as_texts, few, table_of
from ppfr_ops.source.sandboxed import Counted, Sandboxed
from ppfr_ops.source.stacks import are_pictures, as_png
from ppfr_ops.source.units import Columns, Plan, damage_ends_it, errors, most_rows, open_file

_PIECE = 2**25
"""Bytes that are read at once."""
_MOST_CHUNK = 2**28
_MOST_TIMES = 1100
"""Its size, that a file unpacks to."""
_MOST_DATASETS = 1000
_FILTERS = {1, 2, 3, 4, 32000}
"""deflate, shuffle, fletcher32, szip, lzf."""


class HDF5(Sandboxed):
    """``.h5`` files: uint8 ``N x H x W``, ``N x H x W x 3`` or ``N x 3 x H x W``, or ``N`` encoded
    pictures; numbers and texts of one dimension that are as long are columns."""

    name = "hdf5"
    what = "HDF5 files"
    suffixes = frozenset({".h5", ".hdf5"})

    def columns(self, listing: Listing, paths: Sequence[str], columns: Columns) -> Chosen:
        if importlib.util.find_spec("h5py") is None:
            raise UserError("HDF5 files need pip install ppfr-sanitizer[formats]")
        there: set[str] = set()
        asked: list[set[str]] = []
        for path in few(paths):
            with damage_ends_it():
                stacks, beside = self.apart(self.names, listing.fs, path, columns.image)
                asked.append(stacks)
                there |= stacks | beside
        # What most of them say, so that a damaged one does not decide for all.
        most = [names for names in asked if 2 * asked.count(names) > len(asked)]
        stacks = set().union(*(most or asked))
        if len(stacks) != 1 and there:
            raise UserError(
                "name the dataset of the pictures (uint8, or encoded pictures) with "
                f"--image-column; there are: {', '.join(sorted(stacks or there))}"
            )
        return as_texts(columns, there - stacks if there else None)

    def count(self, fs: Any, path: str, image: str | None) -> Counted:
        with _datasets(fs, path) as (found, size):
            (name,) = _stacks(found, image)
            shape = found[name].shape
            each = math.prod(shape[1:]) if len(shape) > 1 else max(1, size // max(1, shape[0]))
            most = most_rows(size)
            most = min(most, _MOST_TIMES * size // each) if len(shape) > 1 else most
            rows = min(shape[0], most)
            lost = "truncated_unit" if rows else "unreadable_unit"
            return Counted(rows, rows * each, None if shape[0] <= most else lost)

    def names(self, fs: Any, path: str, image: str | None) -> tuple[set[str], set[str]]:
        """Of the datasets of pictures, and of what can be a column; in the sandbox."""
        with _datasets(fs, path) as (found, _):
            stacks = _stacks(found, image)
            beside = _beside(found, found[stacks[0]].shape[0]) if len(stacks) == 1 else found
            return set(stacks), set(beside)

    def read_rows(self, fs: Any, plan: Plan, path: str, start: int, stop: int) -> pa.Table:
        parts = [errors(plan, [])]
        done = start
        with damage_ends_it(), _datasets(fs, path) as (found, _):
            stack = found[_stacks(found, plan.columns.image)[0]]
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
    return are_pictures(shape, item.dtype)


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
