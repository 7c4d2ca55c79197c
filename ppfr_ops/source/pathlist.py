"""Tables of paths: CSV, TSV or JSON lines whose rows name picture files."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ppfr_ops.errors import UserError
from ppfr_ops.source.labels import read_labels
from ppfr_ops.source.reader import Chosen, Cutting, Listing
from ppfr_ops.source.tree import Images
from ppfr_ops.source.units import Columns, Unit, even, shared_out


class PathList(Images):
    """Pictures that tables name, in the tables' order; all have to lie below the input's folder."""

    name = "paths"
    what = "tables of paths"
    suffixes = frozenset({".csv", ".tsv", ".jsonl"})
    fallback = True

    def columns(self, listing: Listing, paths: Sequence[str], columns: Columns) -> Chosen:
        named = list(read_labels(listing.fs, tuple(paths)).rows)
        return super().columns(listing, named, replace(columns, labels=tuple(paths)))

    def companions(self, listing: Listing) -> list[str]:
        return list(read_labels(listing.fs, tuple(self.claims(listing))).rows)

    def left_out(
        self, listing: Listing, paths: Sequence[str], columns: Columns
    ) -> Mapping[str, int]:
        return {}  # what is named and not there is a dead letter

    def cut(self, listing: Listing, paths: Sequence[str], cutting: Cutting) -> Iterator[Unit]:
        named = list(read_labels(listing.fs, tuple(paths)).rows)
        root = os.path.normpath(listing.root)
        strays = sum(1 for path in named if not path.startswith(f"{root}/"))
        if strays:
            raise UserError(
                f"{strays} of {len(named)} paths of the table lie outside its folder; put the "
                "table above the pictures"
            )
        for start, stop in even(
            len(named), shared_out(len(named), cutting.unit_rows, cutting.least)
        ):
            yield Unit("", self.name, tuple(named[start:stop]), start, stop)
