"""Which records a release has, where its pictures depend on no face, and in which shard each lies.

When every unit was looked at (``looking``), the plan of the release is made from how often each
person is there and what columns are kept; nothing else of the input goes in. Each person gets as
many records as ``group_sizes`` says; a record is a person and a number; its id is a keyed
permutation of the two. Sorted by id, which is random to everybody without the key, all records are
cut into shards of equal size. So neither order, nor shards, nor sizes tell what the input was like.

Within a person, rows are ordered by the values of their kept columns, and then shuffled by the key.
A picture that is drawn besides has the kept values of some row of the person's, drawn at random:
left empty, they would say which those pictures are.

A release that grows gets another epoch: new rows are mixed among themselves into shards of their
own. When rows are taken back, or other ones, all is dealt anew; a person's number of pictures
shrinks by what was taken back, before sizes are rounded, and what stays looks as it did.

    OUTPUT/evidence/ledger/plan/EPOCH.json           what the epoch is; makes it count
    OUTPUT/evidence/ledger/plan/EPOCH.rows.parquet   its records, a row group a shard
    OUTPUT/evidence/ledger/plan/EPOCH.people.parquet everybody, as of this epoch
    OUTPUT/evidence/ledger/plan/EPOCH.units.parquet  what was looked at, as of this epoch
    OUTPUT/evidence/ledger/plan/EPOCH.groups.parquet whose photo each row is, where no column of
                                                     the input says it
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from ppfr_ops.contracts.ledger import LedgerEntry, is_shard
from ppfr_ops.sanitize.dealing import Dealt, People, deal
from ppfr_ops.sanitize.increments import superseded
from ppfr_ops.sanitize.job import Job
from ppfr_ops.sanitize.looking import FEATURES
from ppfr_ops.sanitize.naming import GROUPS_SCHEMA, Names, groups_table, name_rows
from ppfr_ops.source.units import Unit, Units, even, shared_out
from ppfr_ops.store.ledger import LEDGER, Ledger, LedgerError, read_table

PLACE = (*LEDGER, "plan")
_LATEST = ("people", "units", "groups")
_NAMED = ("unit", "group")
_UNITS = pa.schema([("unit", pa.string()), ("sha256", pa.string())])


class Epoch(BaseModel):
    """``EPOCH.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    first: int
    """Epochs from this one on are in force."""
    records: int
    shards: int
    added: int
    """Records beyond one a row."""
    left_out: int
    """Rows without a record."""


def epochs(ledger: Ledger) -> list[Epoch]:
    """Those in force, in order."""
    found: dict[int, Epoch] = {}
    for name in ledger.names(*PLACE):
        if name.endswith(".json"):
            try:
                epoch = Epoch.model_validate(ledger.read(*PLACE, name))
            except ValidationError:
                raise LedgerError(
                    f"the plan of the release is damaged ({name!a}); --overwrite begins anew"
                ) from None
            found[epoch.number] = epoch
    if not found:
        return []
    return [found[number] for number in range(found[max(found)].first, max(found) + 1)]


def shard_ids(epoch: Epoch) -> list[str]:
    """Ids inside of the shards of an epoch."""
    return [f"s{epoch.number:04x}{shard:08x}" for shard in range(epoch.shards)]


def missing_shards(ledger: Ledger, entries: Mapping[str, LedgerEntry]) -> list[str]:
    """Shards of the plan that have no entry."""
    wanted = (unit for epoch in epochs(ledger) for unit in shard_ids(epoch))
    return [unit for unit in wanted if unit not in entries]


def shards_of(job: Job, ledger: Ledger) -> Job:
    """The job of drawing the shards of the plan."""
    units = []
    for epoch in epochs(ledger):
        ranges = even(epoch.records, -(-epoch.records // max(1, epoch.shards)) or 1)
        for unit, (start, stop) in zip(shard_ids(epoch), ranges, strict=True):
            units.append(Unit(unit, job.plan.format, (), start, stop))
    return replace(job, plan=replace(job.plan, units=Units(units)), stage="draw")


class PlanReader:
    """Reads shards as they are planned, one after the other; opens each epoch's file once.

    Args:
        ledger: with the plan in force; a reader does not outlive it.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._opened: tuple[str, pq.ParquetFile] | None = None

    def shard(self, unit: Unit) -> pa.Table:
        """``record_id`` and ``identity`` as they are published, and the columns to keep."""
        name, shard = _rows_file(int(unit.id[1:5], 16)), int(unit.id[5:], 16)
        try:
            table = self._file(name).read_row_group(shard)
        except Exception:
            self.close()  # the next attempt opens it anew
            raise
        for place, column in enumerate(("record_id", "identity")):
            texts = [value.hex() for value in table[column].to_pylist()]
            table = table.set_column(place, column, pa.array(texts, pa.string()))
        return table

    def close(self) -> None:
        if self._opened is not None:
            self._opened[1].close(force=True)
            self._opened = None

    def _file(self, name: str) -> pq.ParquetFile:
        if self._opened is None or self._opened[0] != name:
            self.close()
            data = self._ledger.reading(*PLACE, name, part=True)
            self._opened = name, pq.ParquetFile(data, page_checksum_verification=True)
        return self._opened[1]


# -- planning ---------------------------------------------------------------------------------


def plan_release(job: Job, ledger: Ledger) -> str | None:
    """Plan what was looked at since the last plan, and say what was planned; None: that is planned
    already.

    Every unit has to be looked at. Also removes what an earlier plan left behind.
    """
    entries = ledger.entries()
    gone = set(superseded(job, entries)) if job.options.incremental else set()
    looked = {
        unit: entry.shards["look"].sha256
        for unit, entry in entries.items()
        if "look" in entry.shards and unit not in gone
    }
    in_force = epochs(ledger)
    last = in_force[-1] if in_force else None
    before: dict[str, str] = {}
    if last is not None:
        units = _table(ledger, last, "units")
        before = dict(zip(units["unit"].to_pylist(), units["sha256"].to_pylist(), strict=True))
    made = None
    if last is None or before != looked or job.options.groups is not None:
        made = _planned(job, ledger, looked, before, last)
    _clean(ledger)
    return made


def _planned(
    job: Job,
    ledger: Ledger,
    looked: Mapping[str, str],
    before: Mapping[str, str],
    last: Epoch | None,
) -> str | None:
    tables = _tables(ledger, looked)
    unchanged = {unit for unit, sha256 in before.items() if looked.get(unit) == sha256}
    known = {} if last is None else _known(ledger, last, unchanged)
    named = name_rows(job, tables, known) if job.finds_people or job.options.groups else None
    # A corrected file of groups names rows anew that were planned.
    stays = named is None or all(named[unit] == own for unit, own in known.items())
    if last is not None and before == looked and stays:
        return None
    grown = last is not None and stays and before.items() <= looked.items()
    groups = None if named is None else groups_table(job, tables, named)
    rows, fresh = _rows(tables, groups, unchanged if grown else set())
    people = None if last is None else People.of(_table(ledger, last, "people"))
    options = job.options
    dealt = deal(
        rows,
        fresh,
        people,
        ledger.derived("records"),
        k=options.size_anonymity,
        rounding=options.size_rounding,
    )
    epoch = _write(job, ledger, dealt, last, grown, looked, groups)
    what = "new records, mixed among themselves," if grown else "records, mixed,"
    return (
        f"{epoch.records:,} {what} in {epoch.shards:,} shards: {len(dealt.people.codes):,} people, "
        f"of {len(np.unique(dealt.people.published)):,} different sizes; {epoch.added:,} pictures "
        f"drawn besides, {epoch.left_out:,} rows left out"
    )


def _tables(ledger: Ledger, looked: Mapping[str, str]) -> dict[str, pa.Table]:
    """What was noted of every unit, in the order of their ids."""
    entries = ledger.entries()
    units = sorted(looked)
    paths = [ledger.path(entries[unit].shards["look"].path) for unit in units]
    tables = {}
    for unit, data in zip(units, ledger.read_many(paths), strict=True):
        if data is None or hashlib.sha256(data).hexdigest() != looked[unit]:
            ledger.retire(unit)
            raise LedgerError(f"the notes on unit {unit} are damaged; run the same command again")
        tables[unit] = read_table(data)
    return tables


def _known(ledger: Ledger, last: Epoch, unchanged: Collection[str]) -> dict[str, Names]:
    """Groups of the rows of units that are as they were when they were planned; none where a column
    says whose photo a row is."""
    before = _groups(ledger, last)
    if not before.num_rows:
        return {}
    own: dict[str, list[str | None]] = {unit: [] for unit in unchanged}
    for unit, group in zip(*(before[name].to_pylist() for name in _NAMED), strict=True):
        if unit in own:
            own[unit].append(group)
    return dict(own)


def people_of_rows(ledger: Ledger) -> dict[str, dict[int, str | None]]:
    """Pseudonyms of the rows of each unit, where it was found out whose they are, or a file of
    groups said it."""
    found: dict[str, dict[int, str | None]] = {}
    for last in epochs(ledger)[-1:]:
        for row in _groups(ledger, last).to_pylist():
            person = row["person"]
            found.setdefault(row["unit"], {})[row["row"]] = person and person.hex()
    return found


def _groups(ledger: Ledger, epoch: Epoch) -> pa.Table:
    """Whose photo each row is; of no rows where a column of the input says it."""
    if f"{epoch.number:04d}.groups.parquet" not in ledger.names(*PLACE):
        return GROUPS_SCHEMA.empty_table()
    return _table(ledger, epoch, "groups")


def _rows(
    tables: Mapping[str, pa.Table], groups: pa.Table | None, before: Collection[str]
) -> tuple[pa.Table, NDArray[np.bool_]]:
    """What was noted of all rows, and of each whether it was not there before."""
    parts, fresh = [], []
    for unit, table in tables.items():
        beside = [name for name in ("row", FEATURES) if name in table.column_names]
        parts.append(table.drop_columns(beside))
        fresh.append(np.full(table.num_rows, unit not in before))
    rows = pa.concat_tables(parts)
    if groups is not None:
        rows = rows.set_column(0, "person", groups["person"])
    return rows, np.concatenate(fresh)


def _write(
    job: Job,
    ledger: Ledger,
    dealt: Dealt,
    last: Epoch | None,
    grown: bool,
    looked: Mapping[str, str],
    groups: pa.Table | None,
) -> Epoch:
    options = job.options
    number = 0 if last is None else last.number + 1
    most = shared_out(dealt.count, options.rows_per_unit, options.least_units)
    ranges = list(even(dealt.count, most))
    with ledger.writing(*PLACE, _rows_file(number)) as file:
        schema = dealt.rows(0, 0).schema
        with pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer:
            for start, stop in ranges:
                writer.write_table(dealt.rows(start, stop), row_group_size=stop - start)
    names = sorted(looked)
    units = pa.table([names, [looked[name] for name in names]], schema=_UNITS)
    written = {"people": dealt.people.table(), "units": units, "groups": groups}
    for name, table in written.items():
        if table is None:
            continue
        with ledger.writing(*PLACE, f"{number:04d}.{name}.parquet") as file:
            pq.write_table(table, file, compression="zstd", write_page_checksum=True)
    epoch = Epoch(
        number=number,
        first=last.first if last is not None and grown else number,
        records=dealt.count,
        shards=len(ranges),
        added=dealt.added,
        left_out=dealt.left_out,
    )
    ledger.write(epoch.model_dump(), *PLACE, f"{number:04d}.json")
    return epoch


def _clean(ledger: Ledger) -> None:
    """Remove shards and files of plans that are no longer in force, or never were."""
    in_force = epochs(ledger)
    wanted = {unit for epoch in in_force for unit in shard_ids(epoch)}
    for unit in list(ledger.entries()):
        if is_shard(unit) and unit not in wanted:
            ledger.retire(unit)
    last = in_force[-1].number
    kept = {f"{epoch.number:04d}.json" for epoch in in_force}
    kept |= {_rows_file(epoch.number) for epoch in in_force}
    kept |= {f"{last:04d}.{name}.parquet" for name in _LATEST}
    for name in ledger.names(*PLACE):
        if name not in kept:
            ledger.remove(*PLACE, name)


def forget(ledger: Ledger) -> None:
    """Remove who has which records; how many records and shards there are stays."""
    for name in ledger.names(*PLACE):
        if not name.endswith(".json"):
            ledger.remove(*PLACE, name)


def _rows_file(number: int) -> str:
    return f"{number:04d}.rows.parquet"


def _table(ledger: Ledger, epoch: Epoch, name: str) -> pa.Table:
    with ledger.reading(*PLACE, f"{epoch.number:04d}.{name}.parquet") as data:
        return pq.ParquetFile(data, page_checksum_verification=True).read()
