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
from ppfr_ops.source.reader import Cutting, Listing, MissingColumnError, Reader
from ppfr_ops.source.units import (
    FEW_PICTURES,
    IMAGE_SUFFIXES,
    READ_ERROR,
    UNIT_BYTES,
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


def choose_columns(
    listing: Listing, paths: Sequence[str], columns: Columns
) -> tuple[Columns, tuple[pa.Field, ...]]:
    """The columns to keep, with their types: the folder's name, and what labels say.

    Raises:
        MissingColumnError: neither has a column of that name.
        UserError: labels that cannot be used, or folders that cannot be people.
    """
    tables = columns.labels or beside(tuple(listing.files))
    there = [FOLDER_COLUMN]
    if tables and columns.beside:
        labels = read_labels(listing.fs, tables, _pictures_of(listing.root, columns))
        there += labels.columns
        wanted = {columns.identity, *columns.given.values()} & set(labels.columns)
        rows = [labels.of(os.path.normpath(path)) for path in paths]
        unknown = sum(1 for row in rows if row is None or not wanted <= row.keys())
        if unknown and set(columns.beside) - {FOLDER_COLUMN}:
            raise UserError(
                f"the labels say nothing of {unknown} of {len(paths)} pictures: add lines, or take "
                "these pictures away"
            )
    for name in columns.beside:
        if name not in there or name in (columns.given.values() if name == FOLDER_COLUMN else ()):
            raise MissingColumnError(name, there, "a tree of pictures")
    if columns.identity == FOLDER_COLUMN and FOLDER_COLUMN not in there[1:]:
        refuse_unclear(listing.root, paths)
    fields = tuple(pa.field(name, pa.string()) for name in columns.keep)
    return replace(columns, labels=tables if columns.beside else ()), fields


def _pictures_of(root: str, columns: Columns) -> str | None:
    """The folder that names in labels are relative to; None: that of the table."""
    return root if columns.labels_given else None


def cut(
    paths: Sequence[str],
    sizes: Mapping[str, int],
    unit_rows: int,
    root: str,
    key: bytes | None,
    least: int = 1,
    unit_bytes: int | None = UNIT_BYTES,
) -> Iterator[Unit]:
    """Units of the pictures, in order.

    Args:
        sizes: of the files, bytes, as the listing has them; those too large are not read.
        least: units, if there are the rows; not with a key, when units must not change as the
            input grows.
    """
    large = {path for path in paths if sizes[path] > MAX_BYTES}
    held = [0 if path in large else sizes[path] for path in paths]
    most = shared_out(len(paths), unit_rows, least, FEW_PICTURES)
    found = ranges(held, most, unit_bytes)
    if key is not None:
        found = _by_names(paths, held, unit_rows, root, key, unit_bytes)
    for start, stop in found:
        pictures = tuple(paths[start:stop])
        left_out = tuple(place for place, path in enumerate(pictures) if path in large)
        yield Unit("", "images", pictures, start, stop, oversized=left_out)


def _by_names(
    paths: Sequence[str],
    sizes: Sequence[int],
    unit_rows: int,
    root: str,
    key: bytes,
    unit_bytes: int | None,
) -> Iterator[tuple[int, int]]:
    """Ranges that end where a keyed hash of a name says so (content-defined chunking), or where
    they are full: a file more or less changes the units around it and no others."""
    start = held = 0
    for place, path in enumerate(paths, 1):
        held += sizes[place - 1]
        mark = hmac.digest(key, b"cut|" + relative(path, root), "sha256")
        ends = int.from_bytes(mark[:8]) % unit_rows < 2
        full = place - start == unit_rows or (unit_bytes is not None and held > unit_bytes)
        if full or place == len(paths) or (ends and unit_rows > 2):
            yield start, place
            start, held = place, 0


def read(fs: Any, plan: Plan, unit: Unit) -> pa.Table:
    """The pictures of a unit; those that cannot be read with their reason."""
    data: list[bytes | None] = []
    codes: list[str | None] = []
    for place, path in enumerate(unit.sources):
        picture, code = None, None
        if place in unit.oversized:
            code = "too_large"
        else:
            try:
                with open_file(fs, path) as file:
                    picture = file.read(MAX_BYTES + 1)
            except OSError as error:
                if passes(error):
                    raise
                code = "unreadable_file"
        data.append(picture)
        codes.append(code)
    columns = {"image": pa.array(data, pa.large_binary()), READ_ERROR: pa.array(codes, pa.string())}
    told = plan.columns
    labels = None
    if told.labels and set(told.beside) - {FOLDER_COLUMN}:
        labels = read_labels(fs, told.labels, _pictures_of(plan.root, told))
    rows = [_said(labels, path) for path in unit.sources]
    wanted = [("identity", told.identity)] if told.identity else []
    wanted += [(f"given.{role}", name) for role, name in told.given.items()]
    wanted += [(f"keep.{item.name}", item.name) for item in plan.keep]
    for target, name in wanted:
        columns[target] = pa.array([json_text(row.get(name)) for row in rows], pa.string())
    return pa.table(columns)


def _said(labels: Labels | None, path: str) -> Mapping[str, Any]:
    """All columns of a picture."""
    row = None if labels is None else labels.of(os.path.normpath(path))
    return {FOLDER_COLUMN: os.path.basename(os.path.dirname(path)), **(row or {})}


class Images(Reader):
    """A tree of pictures; a unit is a slice of the sorted listing."""

    name = "images"
    what = "pictures"
    suffixes = IMAGE_SUFFIXES
    by_place = False  # where a picture stands in the listing is no part of what it is
    by_path = frozenset({FOLDER_COLUMN})

    def columns(
        self, listing: Listing, paths: Sequence[str], columns: Columns
    ) -> tuple[Columns, tuple[pa.Field, ...]]:
        return choose_columns(listing, paths, columns)

    def cut(self, listing: Listing, paths: Sequence[str], cutting: Cutting) -> Iterator[Unit]:
        sizes = {path: listing.files[path].size for path in paths}
        key, least, most = cutting.key, cutting.least, cutting.unit_bytes
        return cut(paths, sizes, cutting.unit_rows, listing.root, key, least, most)

    def read(self, fs: Any, plan: Plan, unit: Unit) -> pa.Table:
        return read(fs, plan, unit)

    def left_out(
        self, listing: Listing, paths: Sequence[str], columns: Columns
    ) -> Mapping[str, int]:
        """Pictures that tables beside them name, and that are not there."""
        if not columns.labels or columns.labels_given:
            return {}
        named = read_labels(listing.fs, columns.labels, None).paths
        return Counter({GONE: len(set(named) - set(map(os.path.normpath, paths)))})

    def files(self, unit: Unit) -> Sequence[str]:
        return unit.sources

    def sources(self, fs: Any, unit: Unit) -> Iterator[tuple[str, int]]:
        return ((storable(path), 0) for path in unit.sources)

    def first(self, unit: Unit, rows: int) -> Unit:
        return replace(super().first(unit, rows), sources=unit.sources[:rows])
