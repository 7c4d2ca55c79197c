"""Aligned faces: a row is a face of 112x112 and becomes a record."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.methods.base import Output
from ppfr_ops.sanitize.items import BatchResult, Failed, I, Item, Results, decoded
from ppfr_ops.sanitize.measuring import Metrics, SecondDraw
from ppfr_ops.sanitize.sanitizer import PublishingMode
from ppfr_ops.source.plan import READ_ERROR


@dataclass
class DrawnFaces(Generic[I]):
    """A batch that the method is done with, and what is made of it."""

    items: list[I]
    originals: Faces
    output: Output
    again: SecondDraw | None
    """Some of them by another draw; None: that is not measured."""
    images: list[bytes] = field(default_factory=list)
    figures: dict[str, NDArray[Any]] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=dict)


class FaceRecords(PublishingMode[I]):
    """Makes and measures the pictures of faces, a record a face."""

    def draw(self, faces: Faces, items: Sequence[I], draw: int) -> Output:
        """Faces of a batch to what is published of them, by the draw of that number."""
        return self.run.publish(faces, [item.record_id for item in items], items, draw)

    # Method, encoder and models are others' code: whatever they raise is one record's failure.

    def start(self, items: list[I]) -> DrawnFaces[I]:
        """As ``PublishingMode.start``."""
        try:
            originals = np.stack([item.pixels for item in items])
            output = self.draw(originals, items, 0)
            return DrawnFaces(items, originals, output, self._again(originals, items))
        except Exception:
            raise Failed("method_failed") from None

    def finish(self, drawn: DrawnFaces[I]) -> BatchResult:
        """As ``PublishingMode.finish``."""
        run, stage = self.run, "encoder_failed"
        try:
            drawn.images = [run.encoding.encode(face) for face in drawn.output.faces]
            drawn.figures = {name: np.array(each) for name, each in drawn.output.figures.items()}
            again = drawn.again
            if again is not None and again.faces is not None:
                drawn.again = SecondDraw(again.places, run.encoding.round_trip(again.faces))
            stage = "not_measured"
            drawn.metrics = self._measured(drawn)
            stage = "method_failed"
            if run.criteria.requirements:
                shortfalls = run.criteria.shortfall(drawn.metrics)
                run.criteria.redraw(shortfalls, lambda over, draw: self._redrawn(drawn, over, draw))
        except Failed:
            raise
        except Exception:
            raise Failed(stage) from None
        reasons = [run.criteria.reason(drawn.metrics, n) for n in range(len(drawn.items))]
        return BatchResult(drawn.images, drawn.metrics, drawn.figures, reasons=reasons)

    def _again(self, originals: Faces, items: list[I]) -> SecondDraw | None:
        run = self.run
        if not run.measuring.compares_draws:
            return None
        places = run.compared(items)
        faces = None
        if places and run.method.draw_size > 0:
            faces = self.draw(originals[places], [items[place] for place in places], 1).faces
        return SecondDraw(np.array(places, np.int64), faces)

    def _measured(self, batch: DrawnFaces[I]) -> Metrics:
        try:
            return self._compare(batch.originals, batch.images, batch.again)
        except Exception:
            # Where a record must not be held back for what it shows, nor must it for this.
            if self.run.method.selects or len(batch.items) > 1:
                raise
            return self.run.measuring.nothing(1)

    def _redrawn(self, batch: DrawnFaces[I], over: list[int], draw: int) -> NDArray[np.float64]:
        """Replace, in place, what falls short by a fresh draw that falls less short."""
        run = self.run
        items = [batch.items[place] for place in over]
        fresh = self.draw(batch.originals[over], items, draw)
        stage = "encoder_failed"
        try:
            images = [run.encoding.encode(face) for face in fresh.faces]
            again = None if batch.again is None else batch.again.of(over)
            stage = "not_measured"
            metrics = self._compare(batch.originals[over], images, again)
        except Exception:
            raise Failed(stage) from None
        before = run.criteria.shortfall(
            {name: values[over] for name, values in batch.metrics.items()}
        )
        after = run.criteria.shortfall(metrics)
        for number, place in enumerate(over):
            if after[number] < before[number]:
                batch.images[place] = images[number]
                for target, source in ((batch.metrics, metrics), (batch.figures, fresh.figures)):
                    for name, values in source.items():
                        target[name][place] = values[number]
        return np.minimum(before, after)

    def _compare(
        self, originals: Faces, images: Sequence[bytes], again: SecondDraw | None
    ) -> Metrics:
        """Every metric on what a reader of the output decodes."""
        run = self.run
        if not run.measuring.looks:
            return {}
        seen = np.stack([run.encoding.decode(data) for data in images])
        return run.measuring.compare(originals, seen, again)


def _without_unlabelled(table: pa.Table) -> pa.Table:
    """A unit with the reason where a row has no identity."""
    place = table.column_names.index(READ_ERROR)
    fine = pc.or_(pc.is_valid(table["identity"]), pc.is_valid(table[READ_ERROR]))
    reasons = pc.if_else(fine, table[READ_ERROR], "unlabelled")
    return table.set_column(place, READ_ERROR, reasons)


class AlignedFaces(FaceRecords[Item]):
    """Publishes a record a row."""

    def items(self, table: pa.Table, results: Results[Item]) -> Iterator[Item]:
        wants = [name for name in self.run.method.needed_context() if name != "look"]
        given = self.run.method.guarantee()
        if given is not None and given.unit == "person":
            table = _without_unlabelled(table)
        for item in decoded(table, results, self.run.template, wants):
            yield replace(item, context=self.run.context(item.context))
