"""Lance datasets at a version; a unit is a range of a fragment's rows that are not deleted.

Read by Lance itself, in a process of its own, for its threads do not survive a fork.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import pyarrow as pa

from ppfr_ops.sandbox import LimitError, Sandbox
from ppfr_ops.source.parquet import checked, chosen_of
from ppfr_ops.source.reader import Cutting, Listing, Reader
from ppfr_ops.source.tables import FRAGMENT, opening
from ppfr_ops.source.units import Columns, Plan, Unit, damage_ends_it, errors, even, shared_out

_SECONDS = 60.0
_BATCH_ROWS = 256

sandbox = Sandbox(4 << 30)
"""Lance has a thread for every CPU, and each takes address space."""


class LanceDataset(Reader):
    """A Lance dataset; rows that are deleted are no rows."""

    name = "lance"
    what = "fragments of a Lance dataset"
    suffixes = frozenset({FRAGMENT})

    def columns(
        self, listing: Listing, paths: Sequence[str], columns: Columns
    ) -> tuple[Columns, tuple[pa.Field, ...]]:
        return chosen_of(listing.fs, [listing.url], columns, schema_of, self.what)

    def cut(self, listing: Listing, paths: Sequence[str], cutting: Cutting) -> Iterator[Unit]:
        fragments = {_number(path): path for path in paths}
        with opening("Lance"):
            counts = sandbox.call(count, listing.url, seconds=_SECONDS)
        for number, rows in counts:
            path = fragments[number]
            size = listing.files[path].size
            most = shared_out(rows * len(paths), cutting.unit_rows, cutting.least)
            if cutting.unit_bytes is not None:
                most = max(1, min(most, cutting.unit_bytes * rows // max(1, size)))
            for start, stop in even(rows, most):
                yield Unit("", self.name, (path,), start, stop)

    def read(self, fs: Any, plan: Plan, unit: Unit) -> pa.Table:
        slim = replace(plan, units=())
        where = (plan.input, _number(unit.sources[0]), unit.start, unit.stop)
        try:
            return sandbox.call(read_rows, slim, *where, seconds=_SECONDS)
        except LimitError:
            return errors(plan, ["unreadable_row"] * (unit.stop - unit.start))


def opened(url: str) -> Any:
    """A dataset of Lance by ``URL@VERSION``."""
    import lance

    place, _, version = url.rpartition("@")
    return lance.dataset(place, version=int(version))


def _number(path: str) -> int:
    return int(path.rpartition("/")[2].removesuffix(FRAGMENT))


def count(url: str) -> list[tuple[int, int]]:
    """Number and rows of every fragment, without those that are deleted; for the sandbox."""
    return [(each.fragment_id, each.count_rows()) for each in opened(url).get_fragments()]


def schema_of(fs: Any, url: str) -> pa.Schema:
    """Of a dataset; for the sandbox."""
    return opened(url).schema


def read_rows(plan: Plan, url: str, fragment: int, start: int, stop: int) -> pa.Table:
    """Rows of a fragment, as they are counted without those that are deleted; for the sandbox."""
    image = cast(str, plan.columns.image)
    wanted = list(dict.fromkeys([image, *plan.columns.beside]))
    parts: list[pa.Table] = []
    with damage_ends_it():
        batches = (
            opened(url)
            .get_fragment(fragment)
            .to_batches(
                columns=wanted,
                offset=start,
                limit=stop - start,
                batch_size=_BATCH_ROWS,
                blob_handling="all_binary",
            )
        )
        for batch in batches:
            parts += checked(plan, pa.Table.from_batches([batch]), image)
    done = sum(part.num_rows for part in parts)
    parts.append(errors(plan, ["unreadable_row"] * (stop - start - done)))
    return pa.concat_tables(parts)
