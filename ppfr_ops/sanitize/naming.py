"""Whose photo each row is, where no column of the input says it.

The owner's file of groups says it, or it is found out who seems to be the same person
(``grouping``); what was found of a row once stays.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from ppfr_ops.sanitize.grouping import WEIGHTS, Vectors, assign, features_of, group
from ppfr_ops.sanitize.groups import places_of, read_groups
from ppfr_ops.sanitize.job import Job
from ppfr_ops.sanitize.looking import CODE_BYTES, FEATURES
from ppfr_ops.sanitize.run_context import pseudonyms

Names = Sequence[str | None]
"""Of the rows of a unit that were looked at; None: of somebody who has no other photo."""

GROUPS_SCHEMA = pa.schema(
    [
        ("unit", pa.string()),
        ("row", pa.int32()),
        ("group", pa.string()),
        ("person", pa.binary(CODE_BYTES)),
    ]
)
"""What was said of every row, and the pseudonym."""


def features(faces: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Vectors:
    """What is noted of faces to group them by, every encoder's side by side, ``N x D``."""
    return np.concatenate(features_of(faces), 1)


def name_rows(
    job: Job, looked: Mapping[str, pa.Table], known: Mapping[str, Names]
) -> dict[str, Names]:
    """Name the rows of all units.

    Args:
        looked: what was noted of each unit.
        known: of units that are as they were when they were named.
    """
    if job.options.groups is not None:
        return _by_file(job, job.options.groups, looked, known)
    new = [unit for unit in looked if unit not in known]
    vectors = _vectors([looked[unit][FEATURES] for unit in new])
    if known:
        before = _vectors([looked[unit][FEATURES] for unit in known])
        groups = [int(name or 0) for names in known.values() for name in names]
        found = assign(vectors, before, np.array(groups, np.int64))
    else:
        found = group(vectors)
    numbers = iter(found.tolist())
    named: dict[str, Names] = dict(known)
    for unit in new:
        named[unit] = [str(next(numbers)) for _ in range(looked[unit].num_rows)]
    return named


def groups_table(job: Job, looked: Mapping[str, pa.Table], names: Mapping[str, Names]) -> pa.Table:
    """Rows with their groups and pseudonyms, as ``GROUPS_SCHEMA``."""
    assert job.pseudonym_key is not None
    hide = pseudonyms(job.pseudonym_key)
    everybody = {name for some in names.values() for name in some if name}
    codes = {name: bytes.fromhex(hide(f"group|{name}")) for name in everybody}
    parts = []
    for unit, table in looked.items():
        own = names[unit]
        people = [codes[name] if name else None for name in own]
        columns = [[unit] * table.num_rows, table["row"].combine_chunks(), list(own), people]
        parts.append(pa.table(columns, schema=GROUPS_SCHEMA))
    return pa.concat_tables(parts) if parts else GROUPS_SCHEMA.empty_table()


def _by_file(
    job: Job, path: str, looked: Mapping[str, pa.Table], known: Mapping[str, Names]
) -> dict[str, Names]:
    groups = read_groups(path)
    named: dict[str, Names] = {}
    planned = {unit.id: number for number, unit in enumerate(job.plan.units)}
    for unit, table in looked.items():
        if unit in planned:
            places = list(places_of(job.plan, job.plan.units[planned[unit]]))
            named[unit] = [groups.get(places[row]) for row in table["row"].to_pylist()]
        else:  # gone from the input, and still published
            named[unit] = known.get(unit, [None] * table.num_rows)
    return named


def _vectors(columns: Sequence[pa.Array | pa.ChunkedArray]) -> list[Vectors]:
    """Of all rows, one array an encoder."""
    rows = [np.stack(column.to_numpy(zero_copy_only=False)) for column in columns if len(column)]
    if not rows:
        return [np.zeros((0, 128), np.float32)] * len(WEIGHTS)
    return np.split(np.concatenate(rows).astype(np.float32), len(WEIGHTS), axis=1)
