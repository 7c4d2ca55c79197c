"""The owner's mapping: which record was made of which row of the input, and whether a row that is
given later is still the one that went in.

Parquet, a line a record, of rows that are dead letters too:

============ ====================================================================================
record_id    the record's id outside. Where no record is of a row there is a line for every row that
             was looked at, and ``identity``, the pseudonym of its person, stands here instead
source_id    its id inside
source, row  its file, and the row in it
original     what the row's picture was: HMAC-SHA-256 of the sha256 of its bytes as they were read,
             under the text of the first column; 128 bits, hex; null where there was none
============ ====================================================================================

Names and rows alone would fit any other files that are called the same. ``original`` is keyed by an
id that is random, so that it is found in no list of known pictures.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ppfr_ops.errors import UserError
from ppfr_ops.sanitize import release_plan
from ppfr_ops.sanitize.job import Job
from ppfr_ops.sanitize.prefetch import prefetch
from ppfr_ops.source.plan import Unit, record_id, sources
from ppfr_ops.source.sums import Sum, keyed, sums_of
from ppfr_ops.store.atomic import in_one_step
from ppfr_ops.store.ledger import Ledger
from ppfr_ops.store.shards import read_table

KEYS = ("record_id", "identity")
_AHEAD = 2
"""Units that are read before their lines are written."""


def write_mapping(job: Job) -> int:
    """Write the mapping. Mode 0600, complete or not there at all.

    Returns:
        Its rows.
    """
    ledger = Ledger(job.options.output)
    first = KEYS[job.independent]
    texts = [(name, pa.string()) for name in (first, "source_id", "source")]
    schema = pa.schema([*texts, ("row", pa.int64()), ("original", pa.string())])
    rows = 0
    found = release_plan.people_of_rows(ledger) if job.independent else {}
    sums = prefetch(map(partial(sums_of, job.plan), job.plan.units), _AHEAD)
    with (
        in_one_step(str(job.options.mapping), mode=0o600) as file,
        pq.ParquetWriter(file, schema) as writer,
    ):
        for unit, pictures in zip(job.plan.units, sums, strict=True):
            lines = list(_lines(job, ledger, unit, found, pictures))
            columns = [list(column) for column in zip(*lines, strict=True)] or [[]] * len(schema)
            writer.write_table(pa.table(columns, schema=schema))
            rows += len(lines)
    return rows


def _lines(
    job: Job,
    ledger: Ledger,
    unit: Unit,
    found: Mapping[str, Mapping[int, str | None]],
    pictures: Sequence[Sum],
) -> Iterator[tuple[str | None, str, str, int, str | None]]:
    names = [(record_id(unit.id, row), *found) for row, found in enumerate(sources(job.plan, unit))]
    if job.independent:
        entry = ledger.entry(unit.id)
        shard = None if entry is None else entry.shards.get("look")
        data = None if shard is None else ledger.read_bytes(*shard.path.split("/"))
        seen = [] if data is None else read_table(data, ["row", "person"]).to_pylist()
        people = {item["row"]: item["person"] and item["person"].hex() for item in seen}
        people |= found.get(unit.id, {})
        for row, person in people.items():
            yield person, *names[row], keyed(person or "", pictures[row])
        return
    faces = _faces(ledger, unit.id)
    for (inside, source, row), picture in zip(names, pictures, strict=True):
        for name in (inside, *faces.get(inside, ())):
            outside = ledger.ids.record(name)
            yield outside, name, source, row, keyed(outside, picture)


def _faces(ledger: Ledger, unit: str) -> dict[str, list[str]]:
    """Ids inside of the faces that were cut out of photographs, by the photograph's."""
    entry = ledger.entry(unit)
    shard = None if entry is None else entry.shards.get("detections")
    found: dict[str, list[str]] = {}
    if shard is not None:
        data = ledger.fs.cat_file(ledger.path(shard.path))
        for row in read_table(data, ["source_id", "face"]).to_pylist():
            found.setdefault(row["source_id"], []).append(f"{row['source_id']}-f{row['face']:03d}")
    return found


def pair(
    mapping: str,
    rows: Mapping[tuple[str, int], int],
    sums: Sequence[Sum],
    wanted: Callable[[str], bool],
    log: Callable[[str], None],
) -> list[tuple[str, int]]:
    """What records, or people, go with which rows of an input, by the owner's mapping. Rows that
    are not the ones that went in are left out, and told of.

    Args:
        rows: number of every row by its file's name, without folder, and its row in it.
        sums: of the picture of each, by number; None where it has none.
        wanted: whether a record or person is one of those in question.
        log: is told a line about what does not fit, or cannot be checked.

    Returns:
        Name and number.

    Raises:
        UserError: the mapping is not readable, of another release or input, or most rows are not
            the ones that went in.
    """
    try:
        table = pq.read_table(mapping)
        key = next((name for name in KEYS if name in table.column_names), KEYS[0])
        names, files, places = (table[name].to_pylist() for name in (key, "source", "row"))
        marked = "original" in table.column_names
        marks = table["original"].to_pylist() if marked else [None] * len(names)
    except (OSError, KeyError, ValueError, pa.ArrowException):
        raise UserError("--mapping: no readable record_id or identity, source, row") from None
    pairs: list[tuple[str, int]] = []
    held, others, unknown = set[int](), set[int](), set[int]()
    for name, file, place, mark in zip(names, files, places, marks, strict=True):
        number = rows.get((Path(file).name, place))
        if number is None or name is None or not wanted(name):
            continue
        now = keyed(name, sums[number])
        if mark is not None and now is not None and mark != now:
            others.add(number)
            continue
        (unknown if mark is None or now is None else held).add(number)
        pairs.append((name, number))
    total = len(held | others | unknown)
    if not total:
        raise UserError("--mapping: it is of another release or source")
    if others:
        told = (
            f"{len(others):,} of the {total:,} rows of the input that --mapping names are not the "
            "ones that went in"
        )
        if 2 * len(others) >= total:
            raise UserError(f"{told}: is it another input, with files that are called the same?")
        log(f"{told}: left out")
    if unknown:
        log(
            f"whether {len(unknown):,} of the rows of the input are the ones that went in is not "
            "checked: no picture of theirs to compare in --mapping (ppfr sanitize --mapping FILE "
            "writes one that has it) or in the input"
        )
    return pairs
