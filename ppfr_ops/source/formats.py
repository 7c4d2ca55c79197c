"""Formats by name: those of the project, and those of installed packages (entry points of the group
``ppfr.formats``: name of the format = ``module:Class``)."""

import importlib
from collections import Counter
from functools import cache
from importlib.metadata import entry_points

from ppfr_ops.errors import UserError
from ppfr_ops.source.listing import said
from ppfr_ops.source.reader import Listing, Reader
from ppfr_ops.source.units import suffix

GROUP = "ppfr.formats"

_READERS = (
    "ppfr_ops.source.arrow:ArrowFiles",
    "ppfr_ops.source.hdf5:HDF5",
    "ppfr_ops.source.lists:ParquetLists",
