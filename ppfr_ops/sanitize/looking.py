"""A look at a part of the input, where no picture of the release depends on a face.

Of a row that can be read three things are noted for the owner: whose photo it is, as a keyed
pseudonym, the columns to keep, and what is kept of its look. The photo itself is let go. On a
sample of the rows the method is measured: a person who is in no release is drawn and held against
the photo. Pictures of the release are drawn in the same way, of other people who do not exist, and
have as little to do with the photo; so what is found here is true of them, and says of no record
which row it came from.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ppfr_ops.contracts import described, versioned
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.sanitize.aligned import FaceRecords
from ppfr_ops.sanitize.items import BatchResult, Item, Results, decoded
from ppfr_ops.sanitize.run_context import RunContext, sampled
from ppfr_ops.sanitize.sanitizer import collected
from ppfr_ops.store.ledger import Tables

CODE_BYTES = 32
"""Of a person's pseudonym."""

FEATURES = "features"
"""Column of what photos are grouped by, where nobody said whose they are."""

LOOK = "look"
"""Column of what is kept of how a photo shows somebody (``imaging.look``)."""

Features = Callable[[Faces], NDArray[np.float32]]
"""Faces to rows of numbers, ``N x D``."""


class PublishNothing(FaceRecords[Item]):
    """A way of publishing that publishes nothing.

    Args:
        features: what is noted of faces to group them by; None: nothing.
    """

    def __init__(self, run: RunContext, features: Features | None = None) -> None:
        super().__init__(run)
        self.features = features
        self.look_schema = self._noted()

    def _noted(self) -> pa.Schema:
        fields = [
            described("row", pa.int32(), "of the unit, from 0"),
            described("person", pa.binary(CODE_BYTES), "pseudonym; null where nobody is named"),
        ]
        if self.features is not None:
            text = "what photos are grouped by: a biometric template"
            fields.append(described(FEATURES, pa.list_(pa.float16()), text))
        if self.run.method.kept_look:
            fields.append(described(LOOK, pa.string(), "bins of the look that is kept"))
        kept = [pa.field(f"keep.{item.name}", item.type) for item in self.run.keep]
        return versioned("look", [*fields, *kept])

    def items(self, table: pa.Table, results: Results[Item]) -> Iterator[Item]:
        for item in decoded(table, results, self.run.template):
            yield replace(item, context={"identity": os.urandom(CODE_BYTES).hex()})

    def sampled(self, items: Sequence[Item]) -> list[int]:
        """Places of the items that something is measured on."""
        return sampled(items, self.run.sample_every) if self.run.measuring.looks else []

    def start(self, batch: list[Item]) -> Any:
        """The batch, and what the method made of some of it."""
        some = [batch[place] for place in self.sampled(batch)]
        return batch, super().start(some) if some else None

    def finish(self, drawn: Any) -> BatchResult:
        """What is noted of what ``start`` gave."""
        batch, some = drawn
        count, places = len(batch), self.sampled(batch)
        metrics = {}
        for name, values in (super().finish(some).metrics if some else {}).items():
            metrics[name] = np.full(count, np.nan, np.float32)
            metrics[name][places] = values
        figures: dict[str, NDArray[Any]] = {}
        faces = np.stack([item.pixels for item in batch])
        if self.features is not None:
            figures[FEATURES] = self.features(faces)
        if self.run.method.kept_look:
            figures[LOOK] = np.array(self.run.method.context_of(faces, ())[LOOK])
        return BatchResult([b""] * count, metrics, figures, reasons=[("", "")] * count)

    def check(self, faces: NDArray[np.uint8]) -> None:
        if self.features is not None:
            self.features(faces)

    def tables(self, table: pa.Table, results: Results[Item]) -> Tables:
        """What was noted of a unit, its rows in order; there are no records."""
        run, items = self.run, results.items
        rows = pa.array([item.row for item in items], pa.int32())
        people: list[bytes | None] = [None] * len(items)
        if run.pseudonymize is not None:
            labels = table["identity"].take(rows).to_pylist()
            hide = run.pseudonymize
            people = [bytes.fromhex(hide(name)) if name else None for name in labels]
        columns = [rows, pa.array(people, pa.binary(CODE_BYTES))]
        if self.features is not None:
            found = [part[FEATURES] for part in results.figures]
            numbers = np.concatenate(found) if found else np.zeros((0, 0))
            columns.append(pa.array(list(numbers.astype(np.float16)), pa.list_(pa.float16())))
        if run.method.kept_look:
            seen = [text for part in results.figures for text in part[LOOK].tolist()]
            columns.append(pa.array(seen, pa.string()))
        columns += [table[f"keep.{item.name}"].take(rows) for item in run.keep]
        places = pa.array(self.sampled(items), pa.int64())
        measured = collected(pa.schema(list(self.metrics_schema)[1:]), results.metrics, len(items))
        ids = pa.array([item.record_id for item in items], pa.string())
        return Tables(
            self.records_schema.empty_table(),
            pa.table([ids, *measured], schema=self.metrics_schema).take(places),
            results.dead_letters(),
            look=pa.table(columns, schema=self.look_schema),
        )
