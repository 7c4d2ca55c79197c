"""A verdict on one photograph of a unit: the others are taken over as they were published.

To everybody else the unit is a new one: one commit, one entry, the counts of all its records.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ppfr_ops.contracts.dead_letters import DEAD_LETTERS_SCHEMA
from ppfr_ops.contracts.ledger import LedgerEntry, Source
from ppfr_ops.contracts.records import released
from ppfr_ops.review.verdicts import by_row
from ppfr_ops.sanitize.accounts import account_of
from ppfr_ops.sanitize.items import Results
from ppfr_ops.sanitize.job import Job
from ppfr_ops.sanitize.sanitizer import PublishingMode
from ppfr_ops.source.plan import Unit, record_id
from ppfr_ops.store.earlier import earlier
from ppfr_ops.store.ids import Ids
from ppfr_ops.store.ledger import Ledger
from ppfr_ops.store.shards import Tables


@dataclass(frozen=True)
class Unchanged:
    """Of a unit."""

    tables: Tables
    """What is taken over, as it was stored."""
    left: list[int]
    """Rows that are to be done."""


def takes_over(job: Job) -> bool:
    """Whether a unit that is done again may keep some of its records. Not where something goes with
    all of them: originals in a vault, or what was spent of a budget."""
    return job.options.photographs is not None and job.vault is None and account_of(job) is None


def unchanged(
    job: Job,
    unit: Unit,
    source: Source | None,
    ledger: Ledger,
    way: PublishingMode[Any],
    verdicts: str,
) -> Unchanged | None:
    """What is taken over; None: all is to be done.

    Args:
        source: fingerprint of the unit as it was read.
        way: how its records are published.
        verdicts: on its photographs, as the ledger will keep them.
    """
    if job.verdicts is None or not takes_over(job):
        return None
    found = earlier(ledger, unit.id)
    if found is None or not _is_of(found[0], job, unit, source):
        return None
    entry, tables = found
    before, now = by_row(entry.verdicts), by_row(verdicts)
    if tables.detections is None or before is None or now is None or not _fits(way, tables):
        return None
    names = [record_id(unit.id, row) for row in range(unit.rows)]
    inside = _inside(ledger.ids, names, tables.detections)
    published = {inside[name] for name in tables.records["record_id"].to_pylist()}
    reviews = job.verdicts
    letters = (tables.dead_letters[name].to_pylist() for name in ("record_id", "code"))
    codes = job.options.retry_dead_letters
    retried = {_photograph(name) for name, code in zip(*letters, strict=True) if code in codes}

    def stays(row: int, name: str) -> bool:
        if name in retried:
            return False
        if row in before or row not in now:
            return before.get(row) == now.get(row)
        # To hear that it may be published as it was changes nothing about it.
        return reviews[name].kind == "ok" and name in published

    kept = {name for row, name in enumerate(names) if stays(row, name)}
    left = [row for row, name in enumerate(names) if name not in kept]
    return Unchanged(_part(tables, inside, kept.__contains__), left)


def _is_of(entry: LedgerEntry, job: Job, unit: Unit, source: Source | None) -> bool:
    """Whether a unit is made of what it was made of then, and in the same way."""
    if source is None or entry.source is None or source.content is None:
        return False
    same = entry.source.content == source.content and entry.rows_in == unit.rows
    return same and entry.stage == "whole" and entry.method_digest == job.method_digest


def _fits(way: PublishingMode[Any], tables: Tables) -> bool:
    """Whether the shards have the columns that they would have today."""
    seen = way.detections(Results(""))
    return seen is not None and all(
        table is not None and table.schema.equals(schema)
        for table, schema in (
            (tables.records, released(way.records_schema)),
            (tables.metrics, way.metrics_schema),
            (tables.dead_letters, DEAD_LETTERS_SCHEMA),
            (tables.detections, seen.schema),
        )
    )


def _inside(ids: Ids, names: list[str], detections: pa.Table) -> dict[str, str]:
    """Photographs by the ids of their records outside."""
    faces = (detections[name].to_pylist() for name in ("record_id", "source_id"))
    return ids.rows(names) | dict(zip(*faces, strict=True))


def _photograph(name: str) -> str:
    """Id inside of a photograph, from its own or that of one of its faces."""
    return "-".join(name.split("-")[:2])


def _part(tables: Tables, inside: Mapping[str, str], wanted: Callable[[str], bool]) -> Tables:
    """What there is of some photographs."""

    def of(table: pa.Table, photograph: Callable[[str], str]) -> pa.Table:
        names = table["record_id"].to_pylist()
        return table.filter(pa.array([wanted(photograph(name)) for name in names], pa.bool_()))

    seen = tables.detections
    return Tables(
        of(tables.records, inside.__getitem__),
        of(tables.metrics, inside.__getitem__),
        of(tables.dead_letters, _photograph),
        None if seen is None else of(seen, inside.__getitem__),
    )
