"""Lance datasets at a version; a unit is a range of a fragment's rows that are not deleted.

Read by Lance itself, in a process of its own, for its threads do not survive a fork.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from ppfr_ops.source.columnar import Columnar, rows_of, wanted
from ppfr_ops.source.reader import Chosen, Listing
from ppfr_ops.source.sandboxed import Counted
from ppfr_ops.source.tables import FRAGMENT, opening, sandbox
from ppfr_ops.source.units import Columns, Plan, damage_ends_it, errors

_BATCH_ROWS = 256


class LanceDataset(Columnar):
    """A Lance dataset; rows that are deleted are no rows."""

    name = "lance"
    what = "fragments of a Lance dataset"
    suffixes = frozenset({FRAGMENT})
    sandbox = sandbox

    def columns(self, listing: Listing, paths: Sequence[str], columns: Columns) -> Chosen:
        return super().columns(listing, [listing.url], columns)

    def schema(self, fs: Any, path: str) -> pa.Schema:
        return _opened(path).schema

    def counted(
        self, listing: Listing, paths: Sequence[str], image: str | None
    ) -> Iterator[tuple[str, Counted]]:
        fragments = {_number(path): path for path in paths}
        with opening("Lance"):
            counts = self.apart(self.counts, listing.fs, listing.url)
        for number, rows in counts:
            path = fragments[number]
            yield path, Counted(rows, listing.files[path].size, None)

    def counts(self, fs: Any, url: str) -> list[tuple[int, int]]:
        """Number and rows of every fragment, without those that are deleted; in the sandbox."""
        return [(each.fragment_id, each.count_rows()) for each in _opened(url).get_fragments()]

    def read_rows(self, fs: Any, plan: Plan, path: str, start: int, stop: int) -> pa.Table:
        with damage_ends_it():
            fragment = _opened(plan.input).get_fragment(_number(path))
            batches = fragment.to_batches(
                columns=wanted(plan),
                offset=start,
                limit=stop - start,
                batch_size=_BATCH_ROWS,
                blob_handling="all_binary",
            )
            return rows_of(plan, batches, 0, stop - start)
        return errors(plan, ["unreadable_row"] * (stop - start))


def _opened(url: str) -> Any:
    """A dataset of Lance by ``URL@VERSION``."""
    import lance

    place, _, version = url.rpartition("@")
    return lance.dataset(place, version=int(version))


def _number(path: str) -> int:
    return int(path.rpartition("/")[2].removesuffix(FRAGMENT))
