"""Shards of a release whose pictures depend on no face: drawn from the plan of the release.

The method gets blank faces: there is nothing else here. Whom a picture shows is given by the
person's pseudonym, and how it is drawn by a secret of the release and the record's id; so a shard
that is drawn again, by whatever engine, has the same pictures.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from ppfr_ops.imaging.arrays import FACE_SIZE
from ppfr_ops.sanitize.aligned import AlignedFaces
from ppfr_ops.sanitize.items import Item, Results
from ppfr_ops.sanitize.looking import LOOK
from ppfr_ops.store.ledger import Tables

_BLANK = np.zeros((FACE_SIZE, FACE_SIZE, 3), np.uint8)


class PlannedRecords(AlignedFaces):
    """Publishes a record for each row of the plan of a release."""

    def items(self, table: pa.Table, results: Results[Item]) -> Iterator[Item]:
        names = ("identity", LOOK) if LOOK in table.column_names else ("identity",)
        for row, planned in enumerate(table.select(["record_id", *names]).to_pylist()):
            context = {name: planned[name] for name in names}
            yield Item(planned["record_id"], row, _BLANK, context)

    def tables(self, table: pa.Table, results: Results[Item]) -> Tables:
        """With nothing measured, for there is no photo to measure on."""
        made = super().tables(table, results)
        return Tables(made.records, made.metrics.slice(0, 0), made.dead_letters)
