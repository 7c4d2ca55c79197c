"""Trees of pictures: slices of the sorted listing as units, and their files."""

import hmac
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from ppfr_ops.errors import UserError
from ppfr_ops.imaging.decoding import MAX_BYTES
from ppfr_ops.source.labels import Labels, beside, json_text, read_labels
from ppfr_ops.source.paths import refuse_unclear
from ppfr_ops.source.reader import Chosen, Cutting, Listing, MissingColumnError, Reader
from ppfr_ops.source.units import (
    FEW_PICTURES,
    IMAGE_SUFFIXES,
    READ_ERROR,
    Columns,
    Plan,
    Unit,
    open_file,
    passes,
    ranges,
    relative,
    shared_out,
    storable,
)

GONE = "named by the labels, and not there"

FOLDER_COLUMN = "folder"
"""The column that a tree of pictures always has: the name of the folder."""


def _pictures_of(root: str, columns: Columns) -> str | None:
    """The folder that names in labels are relative to; None: that of the table."""
    return root if columns.labels_given else None


def _by_names(
    paths: Sequence[str], sizes: Sequence[int], root: str, key: bytes, cutting: Cutting
) -> Iterator[tuple[int, int]]:
    """Ranges that end where a keyed hash of a name says so (content-defined chunking), or where
    they are full: a file more or less changes the units around it and no others."""
    rows, most = cutting.unit_rows, cutting.unit_bytes
    start = held = 0
    for place, path in enumerate(paths, 1):
        held += sizes[place - 1]
        mark = hmac.digest(key, b"cut|" + relative(path, root), "sha256")
        ends = int.from_bytes(mark[:8]) % rows < 2
        full = place - start == rows or (most is not None and held > most)
        if full or place == len(paths) or (ends and rows > 2):
            yield start, place
            start, held = place, 0


def _read(fs: Any, path: str) -> tuple[bytes | None, str | None]:
    """A picture's file; None: and why not."""
    try:
        with open_file(fs, path) as file:
            return file.read(MAX_BYTES + 1), None
    except OSError as error:
        if passes(error):
            raise
        return None, "unreadable_file"


class Images(Reader):
    """A tree of pictures; a unit is a slice of the sorted listing."""

    name = "images"
    what = "pictures"
    suffixes = IMAGE_SUFFIXES
    by_place = False  # where a picture stands in the listing is no part of what it is
    by_path = frozenset({FOLDER_COLUMN})

    def columns(self, listing: Listing, paths: Sequence[str], columns: Columns) -> Chosen:
        """The folder's name, and what labels say."""
        tables = columns.labels or beside(tuple(listing.files))
        there = [FOLDER_COLUMN]
        if tables and columns.beside:
            labels = read_labels(listing.fs, tables, _pictures_of(listing.root, columns))
            there += labels.columns
            wanted = {columns.identity, *columns.given.values()} & set(labels.columns)
            rows = [labels.of(path) for path in paths]
            unknown = sum(1 for row in rows if row is None or not wanted <= row.keys())
            asked = bool(set(columns.beside) - {FOLDER_COLUMN})
            if asked and (twins := len(paths) - len({labels.named(path) for path in paths})):
                raise UserError(
                    f"the labels: {twins} pictures are called as others are but for the form of "
                    "Unicode, and have one line with them: rename them, or add lines"
                )
            if unknown and asked:
                raise UserError(
                    f"the labels say nothing of {unknown} of {len(paths)} pictures: add lines, or "
                    "take these pictures away"
                )
        for name in columns.beside:
            boxes = columns.given.values() if name == FOLDER_COLUMN else ()
            if name not in there or name in boxes:
                raise MissingColumnError(name, there, "a tree of pictures")
        if columns.identity == FOLDER_COLUMN and FOLDER_COLUMN not in there[1:]:
            refuse_unclear(listing.root, paths)
        fields = tuple(pa.field(name, pa.string()) for name in columns.keep)
        return replace(columns, labels=tables if columns.beside else ()), fields

    def cut(self, listing: Listing, paths: Sequence[str], cutting: Cutting) -> Iterator[Unit]:
        sizes = [listing.files[path].size for path in paths]
        held = [0 if size > MAX_BYTES else size for size in sizes]  # what is too large is not read
        most = shared_out(len(paths), cutting.unit_rows, cutting.least, FEW_PICTURES)
        found = ranges(held, most, cutting.unit_bytes)
        if cutting.key is not None:
            found = _by_names(paths, held, listing.root, cutting.key, cutting)
        for start, stop in found:
            large = (place for place, size in enumerate(sizes[start:stop]) if size > MAX_BYTES)
            pictures = tuple(paths[start:stop])
            yield Unit("", self.name, pictures, start, stop, oversized=tuple(large))

    def read(self, fs: Any, plan: Plan, unit: Unit) -> pa.Table:
        found = [
            (None, "too_large") if place in unit.oversized else _read(fs, path)
            for place, path in enumerate(unit.sources)
        ]
        columns = {
            "image": pa.array([data for data, _ in found], pa.large_binary()),
            READ_ERROR: pa.array([code for _, code in found], pa.string()),
        }
        told = plan.columns
        labels = Labels((), {}, {})
        if told.labels and set(told.beside) - {FOLDER_COLUMN}:
            labels = read_labels(fs, told.labels, _pictures_of(plan.root, told))
        rows = [
            {FOLDER_COLUMN: os.path.basename(os.path.dirname(path)), **(labels.of(path) or {})}
            for path in unit.sources
        ]
        wanted = [("identity", told.identity)] if told.identity else []
        wanted += [(f"given.{role}", name) for role, name in told.given.items()]
        wanted += [(f"keep.{item.name}", item.name) for item in plan.keep]
        for target, name in wanted:
            columns[target] = pa.array([json_text(row.get(name)) for row in rows], pa.string())
        return pa.table(columns)

    def left_out(
        self, listing: Listing, paths: Sequence[str], columns: Columns
    ) -> Mapping[str, int]:
        """Pictures that tables beside them name, and that are not there."""
        if not columns.labels or columns.labels_given:
            return {}
        labels = read_labels(listing.fs, columns.labels, None)
        return Counter({GONE: len(labels.rows.keys() - set(map(labels.named, paths)))})

    def files(self, unit: Unit) -> Sequence[str]:
        return unit.sources

    def sources(self, fs: Any, unit: Unit) -> Iterator[tuple[str, int]]:
        return ((storable(path), 0) for path in unit.sources)

    def first(self, unit: Unit, rows: int) -> Unit:
        return replace(super().first(unit, rows), sources=unit.sources[:rows])
