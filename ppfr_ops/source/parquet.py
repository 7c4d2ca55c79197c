"""Parquet files: row ranges as units, and their rows."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from ppfr_ops.errors import UserError
from ppfr_ops.source.columnar import Columnar, of_lists, rows_of, wanted
from ppfr_ops.source.picture_types import is_list
from ppfr_ops.source.reader import Chosen, Listing
from ppfr_ops.source.sandboxed import Counted
from ppfr_ops.source.units import (
    Columns,
    Plan,
    Unit,
    damage_ends_it,
    errors,
    most_rows,
    open_file,
    suffix,
)

_MOST_BARE = 10_000
"""Files without a suffix that are looked into."""


class Parquet(Columnar):
    """Parquet files; a unit is a range of a file's rows."""

    name = "parquet"
    what = "Parquet files"
    suffixes = frozenset({".parquet", ".parq", ".pq"})
    lists = "parquet-lists"
    count_seconds = 10.0  # of a footer alone
    batch_rows = 256

    def claims(self, listing: Listing) -> list[str]:
        """Those without a suffix too, as some writers leave them, by their first bytes."""
        named = set(super().claims(listing))
        bare = [path for path in listing.files if not suffix(path)][:_MOST_BARE]
        for path in bare:
            with damage_ends_it(), open_file(listing.fs, path) as file:
                if file.read(4) == b"PAR1":
                    named.add(path)
        return sorted(named)

    def schema(self, fs: Any, path: str) -> pa.Schema:
        with open_file(fs, path) as file:
            return pq.read_schema(file)

    def count(self, fs: Any, path: str, image: str | None) -> Counted:
        with open_file(fs, path) as file:
            size = _held(fs, file)
            groups, agree = self.groups(pq.read_metadata(file), size, image)
        return Counted(sum(groups), size, None if agree else "contradictory_unit")

    def groups(
        self, metadata: pq.FileMetaData, size: int, image: str | None
    ) -> tuple[list[int], bool]:
        """Records of every row group, and whether all that the file says of them agrees, so that
        none can be missing. None of its numbers is believed by itself.

        The file's own total is not needed. A row group's rows are what most of its columns without
        repetition say; where columns differ, the larger number counts, and what is not there will
        be dead letters.

        Args:
            size: of the file, bytes.

        Raises:
            ValueError: more than the file can hold.
        """
        schema = metadata.schema
        places = range(metadata.num_columns)
        flat = [place for place in places if schema.column(place).max_repetition_level == 0]
        groups = []
        agree = True
        for place in range(metadata.num_row_groups):
            group = metadata.row_group(place)
            claims = Counter([group.num_rows, *(group.column(i).num_values for i in flat)])
            rows = max(claims, key=lambda claim: (claims[claim], claim))
            groups.append(max(0, rows))
            agree &= len(claims) == 1 and rows >= 0
        if sum(groups) > most_rows(size):
            raise ValueError("more rows than it can hold")
        return groups, agree and metadata.num_rows <= sum(groups)

    def read_rows(self, fs: Any, plan: Plan, path: str, start: int, stop: int) -> pa.Table:
        parts: list[pa.Table] = []
        with damage_ends_it(), open_file(fs, path) as file:
            size = _held(fs, file)
            # A buffer makes pyarrow stream pages; without one it holds whole column chunks.
            opened = pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
            image, *others = wanted(plan)
            schema = opened.schema_arrow
            if any(schema.get_field_index(name) < 0 for name in (image, *others)):
                return errors(plan, ["missing_column"] * (stop - start))
            if self.lists and is_list(schema.field(image).type):
                raise ValueError("a row is no record")
            leaves = [_leaf(opened.metadata, image), *others]
            first = 0
            for group, rows in enumerate(self.groups(opened.metadata, size, image)[0]):
                begin, end = max(start - first, 0), min(stop - first, rows)
                if begin < end:
                    batches = opened.iter_batches(self.batch_rows, [group], leaves)
                    parts.append(rows_of(plan, batches, begin, end))
                first += rows
        done = sum(part.num_rows for part in parts)
        return pa.concat_tables([*parts, errors(plan, ["unreadable_row"] * (stop - start - done))])

    def read(self, fs: Any, plan: Plan, unit: Unit) -> pa.Table:
        deleted = plan.deleted.get(unit.sources[0])
        if deleted is None or unit.start == unit.stop:
            return super().read(fs, plan, unit)
        # Of every row that counts its place in the file: it comes after so many that do not.
        places = np.arange(unit.start, unit.stop)
        places += np.searchsorted(deleted - np.arange(len(deleted)), places, side="right")
        first = int(places[0])
        whole = super().read(fs, plan, replace(unit, start=first, stop=int(places[-1]) + 1))
        return whole.take(pa.array(places - first))


class ParquetLists(Parquet):
    """Parquet files whose rows hold lists of pictures, ``list<binary>``, or
    ``list<struct{bytes}>`` as Hugging Face has sequences of images: every picture is a record, and
    has the row's labels. A list of none is a record without a picture."""

    name = "parquet-lists"
    what = "Parquet files of lists of pictures"
    auto = False
    lists = ""
    batch_rows = 16

    def columns(self, listing: Listing, paths: Sequence[str], columns: Columns) -> Chosen:
        if listing.deleted:  # by the rows' places, and here pictures are counted
            raise UserError(
                "rows of the table are deleted, and lists of pictures cannot be read without them: "
                "rewrite its files first (delta: REORG TABLE ... APPLY (PURGE))"
            )
        return super().columns(listing, paths, columns)

    def schema(self, fs: Any, path: str) -> pa.Schema:
        return of_lists(super().schema(fs, path))

    def groups(
        self, metadata: pq.FileMetaData, size: int, image: str | None
    ) -> tuple[list[int], bool]:
        leaf = _paths(metadata).index(_leaf(metadata, image or ""))
        groups = [metadata.row_group(place) for place in range(metadata.num_row_groups)]
        counts = [max(0, group.column(leaf).num_values, group.num_rows) for group in groups]
        if sum(counts) > most_rows(size):
            raise ValueError("more records than it can hold")
        return counts, True


def _held(fs: Any, file: IO[bytes]) -> int:
    """Bytes of a file; without its holes, which cost anyone who made it nothing."""
    size = file.seek(0, os.SEEK_END)
    blocks = os.fstat(file.fileno()).st_blocks if isinstance(fs, LocalFileSystem) else 0
    # Some file systems count no blocks.
    return min(size, 512 * blocks) if blocks else size


def _paths(metadata: pq.FileMetaData) -> Sequence[str]:
    """Of the columns, as Parquet has them: with dots, inside lists and structs."""
    return [metadata.schema.column(place).path for place in range(metadata.num_columns)]


def _leaf(metadata: pq.FileMetaData, image: str) -> str:
    """The path of the column that holds the bytes of the pictures."""
    paths = _paths(metadata)
    if image in paths:
        return image
    found = [path for path in paths if path.startswith(f"{image}.")]
    return min((path for path in found if path.endswith(".bytes")), key=len, default=found[0])
