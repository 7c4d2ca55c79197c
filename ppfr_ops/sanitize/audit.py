"""Does an output account for every row of its input, and were its figures measured on it?

The input is planned anew with the options in the manifest; every planned row has to be published
or a dead letter, once. Then records drawn at random, so that nobody can tell which, are read again
from the input and measured again. Read-only, and no finding names a source.
"""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ppfr_ops.contracts.ledger import Kind, LedgerEntry, Shard
from ppfr_ops.contracts.manifest import Manifest
from ppfr_ops.contracts.metrics import METRICS
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import Picture
from ppfr_ops.imaging.codec import ImageError, decode
from ppfr_ops.imaging.detector import Detections
from ppfr_ops.imaging.geometry import cut, transforms
from ppfr_ops.recognizers import Recognizer
from ppfr_ops.release.findings import Finding
from ppfr_ops.release.publish import owners_manifest
from ppfr_ops.sanitize.measuring import measure
from ppfr_ops.sanitize.originals import planned_anew
from ppfr_ops.sanitize.prepare import owner_key
from ppfr_ops.sanitize.run_context import pseudonyms
from ppfr_ops.source.plan import Columns, Plan, Unit, read_unit, record_id
from ppfr_ops.store.ids import Ids
from ppfr_ops.store.ledger import Ledger
from ppfr_ops.store.shards import read_table

SAMPLE = 200
"""Records that are measured again."""

_UNITS = 10
"""Units that they are drawn from, at most: each is read whole."""

_KEYED = 33
"""Characters of a unit's id that was made with a key; ordinals are shorter."""

_NAMED = 5
"""Rows of a unit that are named; of the others the count."""

_COLUMNS: dict[Kind, list[str]] = {
    "data": ["record_id"],
    "look": ["row"],
    "dead_letters": ["record_id"],
    "detections": ["source_id", "face"],
}

_TOLERANCE = 2e-3
"""Of a metric between two machines; of the PSNR ten times that, dB."""


@dataclass
class Audit:
    """What was found."""

    rows: int = 0
    """Of the input."""
    measured: int = 0
    """Records that were measured again."""
    findings: list[Finding] = field(default_factory=list)


def audit(
    output: str,
    source: str,
    columns: Columns,
    *,
    key: bytes | None = None,
    recognizers: Sequence[Recognizer] = (),
    sample: int = SAMPLE,
) -> Audit:
    """Hold an output against the input that it was made of.

    Args:
        output: fsspec URL or path of the output.
        source: fsspec URL, path or glob of the input, as the run had it.
        columns: where image and identity are in the input; what the run kept is in the manifest.
        key: of the pseudonyms, as it is in the file; needed if the run had one, for ids depend on
            it.
        recognizers: FR models to measure with again, by the names that the run gave them.
        sample: records to measure again; 0: none.

    Raises:
        UserError: no manifest, no input, no key, or another FR model than the run's; one line.
    """
    ledger = Ledger(output)
    manifest = owners_manifest(ledger)
    options = manifest.options
    entries = ledger.entries()
    if key is None and any(len(unit) == _KEYED for unit in entries):
        raise UserError("the run had a key (--identity-key-file): without it no id can be matched")
    digests = {model.name: model.digest for model in manifest.recognizers}
    for recognizer in recognizers:
        if digests.get(recognizer.name) != recognizer.spec.digest():
            raise UserError(f"FR model {recognizer.name!r} is not one that the run measured with")
    if key is not None:
        key = owner_key(key, seeded=options.get("draws") != "system")
    kept, coarse = (tuple(options.get(name, ())) for name in ("keep_columns", "coarsen"))
    columns = replace(columns, keep=kept, coarse=coarse)
    planned = planned_anew(manifest, source, columns, key)
    found = Audit(rows=planned.rows)
    found.findings += _accounted(ledger, entries, planned)
    if sample and not found.findings and options.get("reads_faces", True):
        _measure_again(found, ledger, manifest, entries, planned, key, recognizers, sample)
    return found


def _rows_inside(ids: Ids, unit: Unit, detections: pa.Table | None) -> dict[str, str]:
    """Id of the row that a record is of, by its id outside. A photograph with several faces may
    become several records, whose ids inside go on after the row's."""
    found = ids.rows([record_id(unit.id, row) for row in range(unit.rows)])
    if detections is not None:
        pairs = zip(
            detections["source_id"].to_pylist(), detections["face"].to_pylist(), strict=True
        )
        found |= {ids.record(f"{source}-f{face:03d}"): source for source, face in pairs}
    return found


# -- every row ------------------------------------------------------------------------------


def _accounted(
    ledger: Ledger, published: Mapping[str, LedgerEntry], planned: Plan
) -> Iterator[Finding]:
    there = {unit.id for unit in planned.units}
    if not any(unit in published for unit in there):
        yield Finding("manifest.json", "none of its units is of this input, or the key is another")
        return
    for unit in planned.units:
        if unit.id not in published:
            yield Finding("manifest.json", f"unit {unit.id}: {unit.rows} rows of the input missing")
        else:
            yield from _rows_of(ledger, unit, published[unit.id])
    for name, entry in published.items():
        if name not in there and entry.stage != "draw":
            yield Finding("manifest.json", f"unit {name} is of nothing that the input holds")


def _rows_of(ledger: Ledger, unit: Unit, published: LedgerEntry) -> Iterator[Finding]:
    if ledger.thrown_away():
        return  # nothing is known of rows any more but how many there were
    done: Kind = "data" if published.stage == "whole" else "look"
    path = published.shards[done].path
    found: dict[Kind, pa.Table] = {}
    for kind, shard in published.shards.items():
        if kind == "metrics":
            continue
        try:
            found[kind] = _read(ledger, shard, _COLUMNS[kind])
        except (OSError, pa.ArrowException):
            yield Finding(shard.path, "cannot be read")
            return
    inside: dict[str, str] = {}
    if done == "look":
        records = [record_id(unit.id, row) for row in found[done]["row"].to_pylist()]
    else:
        inside = _rows_inside(ledger.ids, unit, found.get("detections"))
        records = found[done]["record_id"].to_pylist()
    dead = found["dead_letters"]["record_id"].to_pylist() if "dead_letters" in found else []
    counted = Counter([*records, *dead])
    expected = {record_id(unit.id, row) for row in range(unit.rows)}
    rows = {inside.get(record, record) for record in records}
    rows |= {"-".join(letter.split("-")[:2]) for letter in dead}
    missing, foreign = sorted(expected - rows), sorted(rows - expected)
    twice = sorted(record for record, count in counted.items() if count > 1)
    for names, what in (
        (missing, "a row of the input, neither published nor a dead letter"),
        (foreign, "no such row in the input"),
        (twice, "there more than once"),
    ):
        for record in names[:_NAMED]:
            yield Finding(path, f"record {record}: {what}")
        if len(names) > _NAMED:
            yield Finding(path, f"and {len(names) - _NAMED} more: {what}")


def _read(ledger: Ledger, shard: Shard, columns: list[str] | None = None) -> pa.Table:
    return read_table(ledger.fs.cat_file(ledger.path(shard.path)), columns)


# -- a sample, measured again ---------------------------------------------------------------


def _measure_again(
    found: Audit,
    ledger: Ledger,
    manifest: Manifest,
    entries: Mapping[str, LedgerEntry],
    planned: Plan,
    key: bytes | None,
    recognizers: Sequence[Recognizer],
    sample: int,
) -> None:
    chance = random.SystemRandom()
    by_id = {unit.id: unit for unit in planned.units}
    filled = [unit for unit, entry in entries.items() if entry.shards["data"].rows]
    chosen = [entries[unit] for unit in chance.sample(filled, min(_UNITS, len(filled)))]
    for left, unit in zip(range(len(chosen), 0, -1), chosen, strict=True):
        share = -(-sample // left)
        tables = {kind: _read(ledger, shard) for kind, shard in unit.shards.items()}
        rows = chance.sample(range(tables["data"].num_rows), min(share, tables["data"].num_rows))
        sample -= len(rows)
        before = read_unit(planned, by_id[unit.unit])
        seen = tables.get("detections")
        inside = _rows_inside(ledger.ids, by_id[unit.unit], seen)
        crops = manifest.options.get("output_faces") == "crops"
        again = _Again(unit.shards, before, tables["data"], tables["metrics"], seen, inside, crops)
        found.measured += len(rows)
        found.findings += again.copied(sorted(rows), key if planned.columns.identity else None)
        found.findings += again.figures(sorted(rows), recognizers)


@dataclass(frozen=True)
class _Again:
    """A unit beside its rows of the input."""

    shards: dict[Kind, Shard]
    before: pa.Table
    data: pa.Table
    metrics: pa.Table
    detections: pa.Table | None
    """Of photographs; the figures of every face are in them."""
    inside: dict[str, str]
    """Ids of rows by the ids of records."""
    crops: bool
    """Records are faces that were cut out of photographs."""

    @property
    def place(self) -> dict[str, int]:
        """Rows of the input by id."""
        return {record: row for row, record in enumerate(self.before["record_id"].to_pylist())}

    def copied(self, rows: Iterable[int], key: bytes | None) -> Iterator[Finding]:
        """Kept columns are as in the input, identities are their pseudonyms, and no picture is
        the original."""
        place = self.place
        pseudonym = pseudonyms(key) if key is not None else None
        kept = [
            name for name in self.data.column_names if f"keep.{name}" in self.before.schema.names
        ]
        for row in rows:
            record = self.data["record_id"][row].as_py()
            source = place[self.inside[record]]
            if self.data["image"][row]["bytes"].as_py() == self.before["image"][source].as_py():
                yield self._finding("data", record, "the picture is the original")
            for name in kept:
                values = self.data[name][row].as_py(), self.before[f"keep.{name}"][source].as_py()
                if repr(values[0]) != repr(values[1]):  # as text: a NaN is like another
                    yield self._finding("data", record, f"column {name!r} is not as in the input")
            if pseudonym is not None:
                who = self.before["identity"][source].as_py()
                if self.data["identity"][row].as_py() != (None if who is None else pseudonym(who)):
                    yield self._finding("data", record, "the pseudonym is not that of the person")

    def figures(self, rows: Sequence[int], recognizers: Sequence[Recognizer]) -> Iterator[Finding]:
        """The metrics on file are those of the pictures. What depends on a draw that is gone
        (``draw_similarity``) cannot be measured again."""
        try:
            told, originals, published = self._faces(rows)
        except ImageError as error:
            yield Finding(self.shards["data"].path, f"cannot be measured again: {error.code}")
            return
        if not told or len({picture.shape for picture in (*originals, *published)}) > 1:
            return
        x, y = np.stack(originals), np.stack(published)
        found: dict[str, NDArray[np.float32]] = dict(measure(x, y))
        for recognizer in recognizers:
            cosine = np.einsum("nd,nd->n", recognizer.embed(x), recognizer.embed(y))
            found[f"id_cosine_{recognizer.name}"] = cosine
        kind: Kind = "metrics" if self.detections is None else "detections"
        for name, values in found.items():
            coarse = name in METRICS and METRICS[name].step >= 1
            allowed = _TOLERANCE * (10 if coarse else 1)
            for row, value in zip(told, values, strict=True):
                if row[name] is not None and not abs(float(value) - row[name]) <= allowed:
                    text = f"{name} is {float(value):.4f}, the file says {row[name]:.4f}"
                    yield self._finding(kind, row["record_id"], text)

    def _faces(self, rows: Sequence[int]) -> tuple[list[Any], list[Picture], list[Picture]]:
        """What is on file of every face, the face before, and the face as it was published."""
        places, told = self.place, []
        originals: list[Picture] = []
        published: list[Picture] = []
        for row in rows:
            record = self.data["record_id"][row].as_py()
            source = places[self.inside[record]]
            before = decode(self.before["image"][source].as_py() or b"")
            after = decode(self.data["image"][row]["bytes"].as_py() or b"")
            if self.detections is None:
                told.append(self.metrics.slice(row, 1).to_pylist()[0])
                originals.append(before)
                published.append(after)
                continue
            found = self.detections.filter(pc.equal(self.detections["record_id"], record))
            matrices = transforms(_read_faces(found))
            told += found.to_pylist()
            originals += list(cut(before, matrices))
            # A crop is the face itself; in a whole photograph it has to be cut out again.
            published += [after] * len(matrices) if self.crops else list(cut(after, matrices))
        return told, originals, published

    def _finding(self, kind: Kind, record: str, text: str) -> Finding:
        return Finding(self.shards[kind].path, f"record {record}: {text}")


def _read_faces(detections: pa.Table) -> Detections:
    count = len(detections)
    marks = [value or [float("nan")] * 10 for value in detections["landmarks"].to_pylist()]
    return Detections(
        np.array(detections["box"].to_pylist(), np.float32).reshape(-1, 4),
        np.array(marks, np.float32).reshape(-1, 5, 2),
        np.ones(count, np.float32),
        np.zeros(count, bool),
    )
