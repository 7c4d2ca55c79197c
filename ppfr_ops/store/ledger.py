"""Commit, resume, sweep: how a unit's shards get into the output exactly once.

The commit point is the creation of the unit's ledger entry, which succeeds for one copy only. A
unit's files are staged first under a name of their own, then the entry that names that copy is
created, then the files are moved to their final names; whoever finds an entry whose files have not
all been moved yet moves them. So a death at any moment leaves either nothing that counts or
something that the next run completes, and a late copy of a committed unit changes nothing.

    OUTPUT/data|metrics|dead_letters/UNIT.parquet    committed, complete, final
    OUTPUT/_ledger/run.json                          what run this output belongs to
    OUTPUT/_ledger/units/UNIT.json                   the entries
    OUTPUT/_ledger/attempts/UNIT.FENCE-HOW-N         work begun and not committed yet
    OUTPUT/_ledger/lease/FENCE.json                  which run is at work (``lease``)
    OUTPUT/_ledger/last.json                         the last run: when, how much was planned
    OUTPUT/_ledger/tombstones/UNIT.json              deleted upstream
    OUTPUT/_staging/                                 files of copies not committed yet
"""

import contextlib
import hashlib
import io
import json
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from pydantic import ValidationError

from ppfr_ops.contracts.ledger import (
    ALL_KINDS,
    KINDS,
    Kind,
    LedgerEntry,
    Shard,
    Source,
    Statistic,
    Tombstone,
)
from ppfr_ops.errors import UserError
from ppfr_ops.store.storage import Patient, open_store

ROW_GROUP = 256
"""Rows a row group: what a reader of one record has to fetch."""

DOCUMENTS = ("README.md", "croissant.json", "report.html")
"""What ``ppfr report`` writes beside the manifest."""

OWN = (*ALL_KINDS, "_ledger", "_staging", "manifest.json", "manifest.sig", *DOCUMENTS)
"""Everything in an output that is ours, and that ``--overwrite`` removes."""


class LedgerError(UserError):
    """The output holds something that this run must not touch; one line that says what."""


@dataclass(frozen=True)
class Attempts:
    """How often work on a unit began before, in vain: it ended with the death of its process."""

    here: int = 0
    """In this run, whose driver lives, so it was the worker alone that died."""
    earlier: int = 0
    """In runs that are over. Driver and workers may have died together, of whatever it was, which
    says nothing about the unit."""


@dataclass(frozen=True)
class Tables:
    """What a unit became. All have their schema from ``schemas``; only units of photographs have
    ``detections``."""

    records: pa.Table
    metrics: pa.Table
    dead_letters: pa.Table
    detections: pa.Table | None = None

    def items(self) -> dict[Kind, pa.Table]:
        tables: dict[Kind, pa.Table | None] = {
            "data": self.records,
            "metrics": self.metrics,
            "dead_letters": self.dead_letters,
            "detections": self.detections,
        }
        return {kind: table for kind, table in tables.items() if table is not None}


def concatenate(parts: Sequence[Tables]) -> Tables:
    """The parts of a unit, in order."""
    return Tables(
        pa.concat_tables([part.records for part in parts]),
        pa.concat_tables([part.metrics for part in parts]),
        pa.concat_tables([part.dead_letters for part in parts]),
        pa.concat_tables([part.detections for part in parts if part.detections is not None])
        if any(part.detections is not None for part in parts)
        else None,
    )


def read_table(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """A Parquet file in memory as a table. ``pyarrow.parquet.read_table`` would let go of the
    bytes in a thread of its own, which ends the program with SIGABRT if it is about to exit."""
    return pq.ParquetFile(io.BytesIO(data)).read(columns)


def statistics(metrics: pa.Table) -> dict[str, Statistic]:
    """Count, mean and extremes of every numeric column."""
    result = {}
    for name in metrics.column_names[1:]:
        column = metrics[name].drop_null()
        if len(column):
            extremes = pc.min_max(column).as_py()
            result[name] = Statistic(count=len(column), mean=pc.mean(column).as_py(), **extremes)
    return result


class Ledger:
    """The ledger of one output.

    Args:
        output: any fsspec URL or local path of a folder.
        fence: of the lease that this run holds; nothing is committed once another run has a
            higher one. None: do not look.
    """

    def __init__(self, output: str, fence: int | None = None) -> None:
        self.fs, root = open_store(output)
        self.root = root.rstrip("/")
        self.local = isinstance(self.fs, LocalFileSystem)
        self.fence = fence

    def path(self, *parts: str) -> str:
        return "/".join((self.root, *parts))

    # -- a run ------------------------------------------------------------------------------

    def check(
        self, settings: Mapping[str, str], overwrite: bool = False, growing: bool = False
    ) -> None:
        """Find out whether ``open`` would refuse; changes nothing.

        Raises:
            LedgerError: the output belongs to something else, or to a run with other settings.
            StoreError: the store does not let us in.
        """
        if isinstance(self.fs, Patient):
            self.fs.check(self.root)
        begun = self._read_json("_ledger", "run.json")
        if begun is None:
            ours = (self.path("_staging/"), self.path("_ledger/lease/"))
            if any(not path.startswith(ours) for path in self.fs.find(self.root)):
                raise LedgerError("the output folder is not empty, and not of an earlier run")
        elif not overwrite:
            changed = sorted(
                key
                for key in begun | dict(settings)
                if begun.get(key) != settings.get(key) and not (growing and key == "input")
            )
            if changed:
                raise LedgerError(
                    f"the output holds a run with another {', '.join(changed)}; "
                    "give the same options to go on with it, or --overwrite to begin anew"
                )

    def open(
        self, settings: Mapping[str, str], overwrite: bool = False, growing: bool = False
    ) -> None:
        """Begin a run or take up an earlier one, and clear away what died in between.

        Args:
            settings: digests of what shapes the output; an earlier run must agree on all.
            overwrite: remove what an earlier run left, rather than go on with it.
            growing: the input may be another than that of the earlier run.

        Raises:
            LedgerError: the output belongs to something else, or to a run with other settings.
        """
        self.check(settings, overwrite, growing)
        if overwrite:
            # The lease is of this run, and its number must never fall.
            for path in self.fs.find(self.root):
                name = path.removeprefix(f"{self.root}/")
                if name.partition("/")[0] in OWN and not name.startswith("_ledger/lease/"):
                    self._remove(path)
        if self._read_json("_ledger", "run.json") != dict(settings):
            if self.local:
                for kind in (*KINDS, "_ledger/units", "_ledger/attempts", "_staging"):
                    self.fs.makedirs(self.path(kind), exist_ok=True)
            self._put(json.dumps(dict(settings), indent=1).encode(), "_ledger", "run.json")
        self.recover()

    def recover(self) -> None:
        """Complete what was committed and remove what was not. For the driver, before any work."""
        for path in self._list("_ledger", "units"):
            entry = self.entry(os.path.basename(path).removesuffix(".json"))
            if entry is None or not self._complete(entry):
                self._remove(path)
        if isinstance(self.fs, Patient):
            self.fs.abort_uploads(self.root)
        self.sweep()

    def sweep(self) -> None:
        """Remove the files of copies that never were committed, and of attempts that were."""
        entries = self.entries()
        for path in self._list("_staging"):
            self._remove(path)
        for path in self._list("_ledger", "attempts"):
            if _unit_of(path) in entries:
                self._remove(path)
        for kind in ALL_KINDS:
            for path in self._list(kind):
                if os.path.basename(path).removesuffix(".parquet") not in entries:
                    self._remove(path)

    def committed_ids(self) -> set[str]:
        """Ids of the units that have an entry; reads none of them."""
        names = (os.path.basename(path) for path in self._list("_ledger", "units"))
        return {name.removesuffix(".json") for name in names if name.endswith(".json")}

    def entries(self) -> dict[str, LedgerEntry]:
        """All valid entries by unit id."""
        found = {}
        for path in self._list("_ledger", "units"):
            name = os.path.basename(path)
            if name.endswith(".json") and (entry := self.entry(name[: -len(".json")])):
                found[entry.unit] = entry
        return found

    def entry(self, unit: str) -> LedgerEntry | None:
        raw = self._read_json("_ledger", "units", f"{unit}.json")
        try:
            return None if raw is None else LedgerEntry.model_validate(raw)
        except ValidationError:
            return None

    def write_manifest(self, text: str) -> None:
        self._put(text.encode(), "manifest.json")

    def put_document(self, name: str, text: str) -> None:
        """Write one of ``DOCUMENTS``."""
        self._put(text.encode(), name)

    def read(self, *parts: str) -> dict[str, Any] | None:
        """A JSON document of ours; None if it is not there, or not whole."""
        return self._read_json(*parts)

    def write(self, document: Mapping[str, Any], *parts: str) -> None:
        self._put(json.dumps(dict(document), indent=1).encode(), *parts)

    def create(self, document: Mapping[str, Any], *parts: str) -> bool:
        """Write a document that must not exist yet; False if it does."""
        return self._create(json.dumps(dict(document), indent=1).encode(), *parts)

    def names(self, *parts: str) -> list[str]:
        """What a folder holds, sorted."""
        return [os.path.basename(path.rstrip("/")) for path in self._list(*parts)]

    def remove(self, *parts: str) -> None:
        self._remove(self.path(*parts))

    # -- units that are no more -------------------------------------------------------------

    def retire(self, unit: str) -> None:
        """Take back what was published of a unit; the entry goes first, so that a death in
        between leaves files that count for nothing and are swept up."""
        self.remove("_ledger", "units", f"{unit}.json")
        for kind in ALL_KINDS:
            self.remove(kind, f"{unit}.parquet")

    def bury(self, tombstone: Tombstone) -> None:
        """Note that a unit was deleted upstream."""
        self.write(tombstone.model_dump(), "_ledger", "tombstones", f"{tombstone.unit}.json")

    def tombstones(self) -> dict[str, Tombstone]:
        """By unit id."""
        found = {}
        for name in self.names("_ledger", "tombstones"):
            raw = self.read("_ledger", "tombstones", name)
            if raw is not None:
                stone = Tombstone.model_validate(raw)
                found[stone.unit] = stone
        return found

    def restamp(self, entry: LedgerEntry, source: Source) -> None:
        """Note that a unit's source has another stamp and still the same content."""
        renewed = entry.model_copy(update={"source": source})
        self._put(
            renewed.model_dump_json(indent=1).encode(), "_ledger", "units", f"{entry.unit}.json"
        )

    # -- a unit -----------------------------------------------------------------------------

    def committed(self, unit: str) -> LedgerEntry | None:
        """The unit's entry, its files in place; None if the unit is still to be done."""
        entry = self.entry(unit)
        return entry if entry is not None and self._complete(entry) else None

    def attempt(self, unit: str, apart: bool = False) -> Attempts:
        """Note that work on a unit begins; returns how often it began before, in vain.

        Args:
            apart: whether the unit is being taken apart; these attempts are counted by themselves.
        """
        run, how = f"{self.fence or 0:08d}", "apart" if apart else "whole"
        marks = [_mark_of(path) for path in self._list("_ledger", "attempts")]
        runs = [mark[1] for mark in marks if mark[0] == unit and mark[2] == how]
        self._put(b"", "_ledger", "attempts", f"{unit}.{run}-{how}-{secrets.token_hex(4)}")
        return Attempts(runs.count(run), len(runs) - runs.count(run))

    def forget_attempts(self, unit: str) -> None:
        """The unit is done, or failed in an orderly way: its process lives."""
        for path in self._list("_ledger", "attempts"):
            if _unit_of(path) == unit:
                self._remove(path)

    def commit(
        self,
        unit: str,
        tables: Tables,
        rows_in: int,
        *,
        method_digest: str,
        settings_digest: str,
        source: Source | None = None,
        verdicts: str = "",
        copy_id: str | None = None,
    ) -> LedgerEntry:
        """Publish a unit.

        Args:
            copy_id: of this copy of the work, where something else bears it too (the vault's
                shard); None: a new one.
            verdicts: digest of those of people that were heeded.
            source: fingerprint of what it was made of, for incremental runs.

        Returns:
            The entry that counts: an earlier copy's, if one was committed first.

        Raises:
            LedgerError: another run has taken over the output.
        """
        copy = copy_id or new_copy_id()
        shards: dict[Kind, Shard] = {}
        for kind, table in tables.items().items():
            shards[kind] = self._stage(unit, copy, kind, table)
        codes = tables.dead_letters["code"].value_counts().to_pylist()
        entry = LedgerEntry(
            unit=unit,
            copy_id=copy,
            rows_in=rows_in,
            records=tables.records.num_rows,
            dead_letters={item["values"]: item["counts"] for item in codes},
            shards=shards,
            method_digest=method_digest,
            settings_digest=settings_digest,
            metrics=statistics(tables.metrics),
            extra_faces=tables.records.num_rows + tables.dead_letters.num_rows - rows_in,
            verdicts=verdicts,
            source=source,
        )
        if self.fenced_off():
            for kind in shards:
                self._remove(self._staged(unit, copy, kind))
            raise LedgerError("another run has taken over this output")
        text = entry.model_dump_json(indent=1).encode()
        if not self._create(text, "_ledger", "units", f"{unit}.json"):
            earlier = self.entry(unit)
            # A creation that is tried again, because its answer got lost, finds itself.
            if earlier is None or earlier.copy_id != copy:
                for kind in shards:
                    self._remove(self._staged(unit, copy, kind))
            if earlier is None:
                raise LedgerError(f"the ledger entry of unit {unit} is damaged; run again")
            entry = earlier
        if not self._complete(entry):
            if entry.copy_id == copy:
                self.remove("_ledger", "units", f"{unit}.json")
            raise LedgerError(f"the files of unit {unit} were removed; run again")
        self.forget_attempts(unit)
        return entry

    def fenced_off(self) -> bool:
        """Whether another run has taken over."""
        if self.fence is None:
            return False
        fences = [name.removesuffix(".json") for name in self.names("_ledger", "lease")]
        return any(name.isdigit() and int(name) > self.fence for name in fences)

    # -- files ------------------------------------------------------------------------------

    def _staged(self, unit: str, copy: str, kind: Kind) -> str:
        return self.path("_staging", f"{unit}.{copy}.{kind}.parquet")

    def _stage(self, unit: str, copy: str, kind: Kind, table: pa.Table) -> Shard:
        target = self._staged(unit, copy, kind)
        # An object is put in one piece (in parts from 100 MB on), so that it can be put again.
        with self.fs.open(target, "wb") if self.local else io.BytesIO() as file:
            hashed = _Hashed(file)
            pq.write_table(
                table,
                hashed,
                row_group_size=ROW_GROUP,
                compression="zstd",
                use_dictionary=False,
                store_schema=True,
            )
            hashed.flush()
            if self.local:
                os.fsync(file.fileno())
            else:
                self.fs.pipe_file(target, file.getvalue())
        return Shard(
            path=f"{kind}/{unit}.parquet",
            rows=table.num_rows,
            bytes=hashed.count,
            sha256=hashed.digest.hexdigest(),
        )

    def _complete(self, entry: LedgerEntry) -> bool:
        """Move what is still staged; False if a file is missing or of the wrong size."""
        for kind, shard in entry.shards.items():
            final = self.path(shard.path)
            if self._size(final) == shard.bytes:
                continue
            # A retry may find the file moved by the try before it.
            with contextlib.suppress(FileNotFoundError):
                self._move(self._staged(entry.unit, entry.copy_id, kind), final)
            if self._size(final) != shard.bytes:
                return False
        return True

    def _move(self, source: str, target: str) -> None:
        if self.local:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.replace(source, target)
            _sync_folder(os.path.dirname(target))
        else:
            self.fs.copy(source, target)
            self._remove(source)

    def _size(self, path: str) -> int | None:
        try:
            return int(self.fs.info(path)["size"])
        except FileNotFoundError:
            return None

    def _list(self, *parts: str) -> list[str]:
        try:
            listing: Iterable[str] = self.fs.ls(self.path(*parts), detail=False, refresh=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        here = self.path(*parts).rstrip("/")
        return sorted(path for path in listing if path.rstrip("/") != here)

    def _remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(path)

    def _read_json(self, *parts: str) -> dict[str, Any] | None:
        try:
            value = json.loads(self.fs.cat_file(self.path(*parts)))
        except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
            return None
        return value if isinstance(value, dict) else None

    def _put(self, data: bytes, *parts: str) -> None:
        """Write a file so that no reader ever sees half of it."""
        target = self.path(*parts)
        if self.local:
            temporary = self._write_temporary(data)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.replace(temporary, target)
            _sync_folder(os.path.dirname(target))
        else:
            self.fs.pipe_file(target, data)

    def _create(self, data: bytes, *parts: str) -> bool:
        """Write a file that must not exist yet; False if it does. One of several callers wins."""
        target = self.path(*parts)
        if not self.local:
            try:
                self.fs.pipe_file(target, data, mode="create")
            except FileExistsError:
                return False
            return True
        temporary = self._write_temporary(data)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
        finally:
            os.unlink(temporary)
        _sync_folder(os.path.dirname(target))
        return True

    def _write_temporary(self, data: bytes) -> str:
        temporary = self.path("_staging", f"{secrets.token_hex(8)}.tmp")
        os.makedirs(os.path.dirname(temporary), exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return temporary


def new_copy_id() -> str:
    """Tells the copies of the work on a unit apart."""
    return secrets.token_hex(8)


def _unit_of(mark: str) -> str:
    return os.path.basename(mark).rpartition(".")[0]


def _mark_of(path: str) -> tuple[str, str, str]:
    """Unit, run and kind of an attempt; the last two are empty if the name is not one of ours."""
    unit, _, rest = os.path.basename(path).rpartition(".")
    run, _, how = rest.rpartition("-")[0].partition("-")
    return unit, run, how


def _sync_folder(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Hashed(io.RawIOBase):
    """A file that is written once, front to back, and hashed on the way."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.count = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self._file.write(view)
        self.digest.update(view)
        self.count += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        return self.count

    def flush(self) -> None:
        self._file.flush()
