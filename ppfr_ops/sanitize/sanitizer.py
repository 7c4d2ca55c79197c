"""A unit's table goes in; records, metrics and dead letters come out. No engine, files or clock.

For every row: decode, anonymize, encode, decode what was encoded, measure, judge. Nothing but the
encoded output of the method is ever put into a record.

A ``Sanitizer`` is composed: a way of publishing says what the items of a unit are, makes their
pictures and puts tables together (``aligned``, ``looking``, ``drawing``, ``photographs.crops``,
``photographs.pictures``); the sanitizer halves batches that fail down to the culprit.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ppfr_ops.contracts.metrics import metrics_schema
from ppfr_ops.contracts.records import IMAGE_TYPE, records_schema
from ppfr_ops.sanitize.items import BatchResult, Failed, I, Results
from ppfr_ops.sanitize.run_context import RunContext, batches
from ppfr_ops.store.ledger import Tables


class PublishingMode(ABC, Generic[I]):
    """A way of publishing: aligned faces, faces of photographs, or photographs.

    Args:
        run: what is common to all records of the run.
        faces, pictures: as ``records_schema`` and ``metrics_schema`` have them.
    """

    look_schema: pa.Schema | None = None
    """Of what is noted of rows; None: nothing is."""

    def __init__(self, run: RunContext, *, faces: bool = False, pictures: bool = False) -> None:
        self.run = run
        self.names = [model.name for model in run.recognizers]
        figures = [item.column for item in run.method.record_figures]
        named = run.pseudonymize is not None
        self.records_schema = records_schema(run.keep, named, faces, figures)
        self.metrics_schema = metrics_schema(self.names, pictures)

    @abstractmethod
    def items(self, table: pa.Table, results: Results[I]) -> Iterator[I]:
        """What becomes a record each; others become dead letters."""

    def batches(self, items: Iterator[I]) -> Iterator[list[I]]:
        """Items that are worked on together."""
        return batches(items, self.run.batch_size)

    @abstractmethod
    def start(self, batch: list[I]) -> Any:
        """The method's part of a batch.

        Raises:
            Failed: with the reason code; the batch is tried again by halves.
        """

    @abstractmethod
    def finish(self, drawn: Any) -> BatchResult:
        """Pictures of what ``start`` gave, encoded, and what was measured on them. May run in
        another thread than ``start``, and while that works on another batch.

        Raises:
            Failed: as ``start``.
        """

    def columns(self, items: Sequence[I]) -> list[pa.Array]:
        """Columns of ``data/`` that this way adds."""
        return []

    def detections(self, results: Results[I]) -> pa.Table | None:
        """Every face that was found; None where none are looked for."""
        return None

    def check(self, faces: NDArray[np.uint8]) -> None:
        """Try whatever it needs beside the method on faces.

        Raises:
            UserError: it does not work.
        """

    def tables(self, table: pa.Table, results: Results[I]) -> Tables:
        """What a unit has become, its rows in order."""
        run = self.run
        rows = pa.array([item.row for item in results.items], pa.int64())
        names = [item.record_id for item in results.items]
        ids = pa.array(names, pa.string())
        paths = [f"{i.record_id}{run.encoding_of(i).suffix}" for i in results.items]
        pictures = pa.StructArray.from_arrays(
            [pa.array(results.images, pa.binary()), pa.array(paths, pa.string())],
            fields=list(IMAGE_TYPE),
        )
        columns: list[pa.Array | pa.ChunkedArray] = [ids, pictures]
        if run.pseudonymize is not None:
            identities = table["identity"].take(rows).to_pylist()
            hidden = []
            for item, name in zip(results.items, identities, strict=True):
                # Nobody knows who a bystander is, so each is a person of their own.
                who = name if name is None or item.named else f"\0{item.record_id}"
                hidden.append(None if who is None else run.pseudonymize(who))
            columns.append(pa.array(hidden, pa.string()))
        columns += self.columns(results.items)
        figures = [item.column for item in run.method.record_figures]
        columns += collected(pa.schema(figures), results.figures, len(names))
        columns += [table[f"keep.{item.name}"].take(rows) for item in run.keep]
        measured = collected(pa.schema(list(self.metrics_schema)[1:]), results.metrics, len(names))
        return Tables(
            pa.table(columns, schema=self.records_schema),
            pa.table([ids, *measured], schema=self.metrics_schema),
            results.dead_letters(),
            self.detections(results),
        )


class Sanitizer(Generic[I]):
    """Sanitizes units in some way."""

    def __init__(self, way: PublishingMode[I]) -> None:
        self.way = way
        self.run = way.run

    def __call__(self, table: pa.Table, unit: str) -> Tables:
        """Sanitize a unit.

        Args:
            table: as ``source.plan.read_unit`` gives it.
            unit: id of the unit, for the dead letters.

        Returns:
            Records, metrics and dead letters, in the order of the rows; every row is in the
            records or in the dead letters.
        """
        results: Results[I] = Results(unit)
        try:
            for batch in self.batches(table, results):
                self.finish(batch, self.start(batch), results)
        finally:
            self.run.forget()
        return self.way.tables(table, results)

    # The steps of ``__call__``, for anyone who takes them in several threads.

    def batches(self, table: pa.Table, results: Results[I]) -> Iterator[list[I]]:
        """The rows of a unit, decoded, in batches; those that cannot be become dead letters."""
        return self.way.batches(self.way.items(table, results))

    def start(self, batch: list[I]) -> Any:
        """The method's part of a batch; what ``finish`` wants. Raises nothing."""
        try:
            return self.way.start(batch)
        except Exception as error:
            return error

    def finish(self, batch: list[I], drawn: Any, results: Results[I]) -> None:
        """Append a batch to the results; a batch that fails is halved down to the culprit."""
        try:
            if isinstance(drawn, Exception):
                raise drawn
            made = self.way.finish(drawn)
        except Failed as failed:
            if len(batch) == 1:
                results.add_dead_letter(batch[0].record_id, batch[0].row, failed.code)
                return
            middle = len(batch) // 2
            for half in (batch[:middle], batch[middle:]):
                self.finish(half, self.start(half), results)
        else:
            results.add(batch, made)

    def add_dead_letters(self, record_ids: Sequence[str], unit: str, code: str) -> Tables:
        """Records that all became dead letters for one and the same reason."""
        results: Results[I] = Results(unit)
        for row, record_id in enumerate(record_ids):
            results.add_dead_letter(record_id, row, code)
        way = self.way
        return Tables(
            way.records_schema.empty_table(),
            way.metrics_schema.empty_table(),
            results.dead_letters(),
            way.detections(results),
            None if way.look_schema is None else way.look_schema.empty_table(),
        )


def collected(
    schema: pa.Schema, parts: Sequence[Mapping[str, NDArray[Any]]], count: int
) -> list[pa.Array]:
    """Figures of several batches as columns; those that no batch has, as null."""
    arrays = []
    for item in schema:
        found = [part[item.name] for part in parts if item.name in part]
        if found:
            arrays.append(column(np.concatenate(found), item.type))
        else:
            arrays.append(pa.nulls(count, item.type))
    return arrays


def column(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    """Figures as Arrow has them; NaN, which is what there is nothing to measure on, as null."""
    rows = values if values.ndim == 1 else list(values)
    found = pa.array(rows, from_pandas=values.dtype.kind == "f")
    return found if found.type == kind else found.cast(kind)
