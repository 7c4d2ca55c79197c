"""Formats by name: those of the project, and those of installed packages (entry points of the group
``ppfr.formats``: name of the format = ``module:Class``)."""

import importlib
from collections import Counter
from functools import cache
from importlib.metadata import entry_points

from ppfr_ops.errors import UserError
from ppfr_ops.source.labels import beside
from ppfr_ops.source.listing import said
from ppfr_ops.source.reader import Listing, Reader
from ppfr_ops.source.units import suffix

GROUP = "ppfr.formats"

_READERS = (
    *("ppfr_ops.source.arrow:ArrowFiles", "ppfr_ops.source.arrow:ArrowLists"),
    *("ppfr_ops.source.hdf5:HDF5", "ppfr_ops.source.lance_table:LanceDataset"),
    *("ppfr_ops.source.parquet:Parquet", "ppfr_ops.source.parquet:ParquetLists"),
    *("ppfr_ops.source.pathlist:PathList", "ppfr_ops.source.recordio:RecordIO"),
    *("ppfr_ops.source.stacks:Stack", "ppfr_ops.source.tar:Tar"),
    *("ppfr_ops.source.tar:WebDataset", "ppfr_ops.source.tree:Images"),
    *("ppfr_ops.source.verification:Verification", "ppfr_ops.source.zipped:CompressedTar"),
    "ppfr_ops.source.zipped:Zip",
)
"""The project's own, as ``module:Class``; to add a format is a file and a line here."""

_registered: dict[str, Reader] = {}


def register(reader: Reader) -> None:
    """Make a format known in this process. Workers are processes of their own: a format that they
    are to know belongs into an installed package, as an entry point of ``ppfr.formats``."""
    _registered[reader.name] = reader


@cache
def _loaded() -> dict[str, Reader]:
    own = [_load(place) for place in _READERS]
    others = [_load(point.value) for point in entry_points(group=GROUP)]
    return {reader.name: reader for reader in [*others, *own]}


def _load(place: str) -> Reader:
    module, _, name = place.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)()
    except Exception as error:
        raise UserError(f"format {place}: cannot be loaded ({type(error).__name__})") from None
    if not isinstance(found, Reader):
        raise UserError(f"format {place}: is not a ppfr_ops.source.reader.Reader")
    return found


def readers() -> dict[str, Reader]:
    """All formats, by name."""
    return {**_loaded(), **_registered}


def reader_of(name: str) -> Reader:
    """A format.

    Raises:
        UserError: there is none of that name.
    """
    found = readers()
    if name not in found:
        raise UserError(f"--input-format {name!r}: there are: auto, {', '.join(sorted(found))}")
    return found[name]


def chosen(listing: Listing, wanted: str) -> tuple[Reader, list[str]]:
    """The format of an input, and its files.

    Args:
        wanted: name of a format, or ``auto``: the only one whose files are there.

    Raises:
        UserError: none, or more than one.
    """
    if wanted != "auto":
        reader = reader_of(wanted)
        paths = reader.claims(listing)
        if not paths:
            raise UserError(f"the input holds no file of the format {wanted}")
        return reader, paths
    found = [(each, each.claims(listing)) for each in readers().values() if each.auto]
    if any(paths for reader, paths in found if reader.name == "images"):
        tables = beside(tuple(listing.files))  # say what is in the pictures
        found = [(each, [path for path in paths if path not in tables]) for each, paths in found]
    present = [(reader, paths) for reader, paths in found if paths and not reader.fallback]
    present = present or [(reader, paths) for reader, paths in found if paths]
    if len(present) > 1:
        names = " and ".join(reader.name for reader, _ in present)
        raise UserError(f"the input holds {names}; choose one with --input-format")
    if not present:
        kinds = Counter(suffix(path) or "without suffix" for path in listing.files)
        there = f"; there are: {said(kinds)}" if kinds else ""
        raise UserError(
            f"the input holds no Parquet file, picture or tar, nor what else is read{there}"
        )
    return present[0]
