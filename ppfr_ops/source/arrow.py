"""Arrow files, as ``datasets.save_to_disk`` writes them: streams and files of record batches.

To reach a unit, the batches before it are passed over; where files are local, that costs nothing.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import IO, Any

import pyarrow as pa

from ppfr_ops.source.columnar import Columnar, of_lists, records_in, rows_of, wanted
from ppfr_ops.source.reader import Listing
from ppfr_ops.source.sandboxed import Counted
from ppfr_ops.source.units import Plan, damage_ends_it, errors, most_rows, open_file

_MESSAGE = b"\xff" * 4
"""The start of every message, the last, empty one too; before 2019 there was none."""


class ArrowFiles(Columnar):
    """``.arrow`` files; a row a row. ``dataset_info.json`` and the like are not needed."""

    name = "arrow"
    what = "Arrow files (save_to_disk)"
    suffixes = frozenset({".arrow", ".feather"})
    lists = "arrow-lists"

    def companions(self, listing: Listing) -> list[str]:
        names = ("dataset_info.json", "state.json", "dataset_dict.json")
        return [path for path in listing.files if path.rpartition("/")[2] in names]

    def claims(self, listing: Listing) -> list[str]:
        """Not what ``map`` and ``filter`` of datasets keep there: rows of before or after them."""
        stored = {path.rpartition("/")[0] for path in self.companions(listing)}
        parts = [(path, *path.rpartition("/")) for path in super().claims(listing)]
        return [
            path
            for path, folder, _, name in parts
            if not (name.startswith("cache-") and folder in stored)
        ]

    def schema(self, fs: Any, path: str) -> pa.Schema:
        with open_file(fs, path) as file:
            return _opened(file)[0]

    def count(self, fs: Any, path: str, image: str | None) -> Counted:
        rows, size, whole = 0, 0, False
        with damage_ends_it(), open_file(fs, path) as file:
            size = file.seek(0, 2)
            file.seek(0)
            for batch in _opened(file)[1]:
                more = records_in(batch, image)
                if rows + more > most_rows(size):
                    break
                rows += more
            else:
                whole = True
        lost = "truncated_unit" if rows else "unreadable_unit"
        return Counted(rows, size, None if whole else lost)

    def read_rows(self, fs: Any, plan: Plan, path: str, start: int, stop: int) -> pa.Table:
        with damage_ends_it(), open_file(fs, path) as file:
            schema, batches = _opened(file)
            names = wanted(plan)
            if any(schema.get_field_index(name) < 0 for name in names):
                return errors(plan, ["missing_column"] * (stop - start))
            return rows_of(plan, (batch.select(names) for batch in batches), start, stop)
        return errors(plan, ["unreadable_row"] * (stop - start))


class ArrowLists(ArrowFiles):
    """Arrow files whose rows hold lists of pictures, as ``ParquetLists``."""

    name = "arrow-lists"
    what = "Arrow files of lists of pictures"
    auto = False
    lists = ""

    def schema(self, fs: Any, path: str) -> pa.Schema:
        return of_lists(super().schema(fs, path))


def _opened(file: IO[bytes]) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    magic = file.read(6)
    file.seek(0)
    if magic == b"ARROW1":
        reader = pa.ipc.open_file(file)
        batches = (reader.get_batch(n) for n in range(reader.num_record_batches))
        return reader.schema, _sound(file, batches)
    stream = pa.ipc.open_stream(file)
    return stream.schema, _sound(file, stream)


def _sound(file: IO[bytes], batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Batches, as long as each column's bytes are its own.

    Columns are found by their distances from a batch's start, and there is no checksum: bytes that
    were put in or lost, or a distance that changed, would give a number column bytes of names.

    Raises:
        ValueError: a batch does not end where the next message begins, or columns overlap.
    """
    for batch in batches:
        follows = file.read(4)
        file.seek(-len(follows), 1)
        buffers = [buffer for column in batch.columns for buffer in column.buffers() if buffer]
        spans = sorted((buffer.address, buffer.address + buffer.size) for buffer in buffers)
        if follows not in (b"", _MESSAGE) or any(
            start < stop for (_, stop), (start, _) in pairwise(spans)
        ):
            raise ValueError("a batch whose columns' bytes are not their own")
        yield batch
