"""Commit, resume, sweep: how a unit's shards get into the output exactly once.

The commit point is the creation of the unit's ledger entry, which succeeds for one copy only. A
unit's files are staged first under a name of their own, then the entry that names that copy is
created, then the files are moved to their final names; whoever finds an entry whose files have not
all been moved yet moves them. So a death at any moment leaves either nothing that counts or
something that the next run completes, and a late copy of a committed unit changes nothing.

    OUTPUT/data|metrics|dead_letters/UNIT.parquet    committed, complete, final
    OUTPUT/_ledger/run.json                          what run this output belongs to
    OUTPUT/_ledger/units/UNIT.json                   the entries
    OUTPUT/_ledger/attempts/UNIT.N                   work begun and not committed yet
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

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from pydantic import ValidationError

from schemas.ledger import KINDS, Kind, LedgerEntry, Shard, Statistic

ROW_GROUP = 256
"""Rows a row group: what a reader of one record has to fetch."""

OWN = (*KINDS, "_ledger", "_staging", "manifest.json")
"""Everything in an output that is ours, and that ``--overwrite`` removes."""


class LedgerError(ValueError):
    """The output holds something that this run must not touch; one line that says what."""


@dataclass(frozen=True)
class Tables:
    """What a unit became. All three have their schema from ``schemas``."""

    records: pa.Table
    metrics: pa.Table
    dead_letters: pa.Table

    def of(self, kind: Kind) -> pa.Table:
        return {
            "data": self.records,
            "metrics": self.metrics,
            "dead_letters": self.dead_letters,
        }[kind]


def concatenate(parts: Sequence[Tables]) -> Tables:
    """The parts of a unit, in order."""
    return Tables(
        pa.concat_tables([part.records for part in parts]),
        pa.concat_tables([part.metrics for part in parts]),
        pa.concat_tables([part.dead_letters for part in parts]),
    )


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
    """

    def __init__(self, output: str) -> None:
        self.fs, root = fsspec.core.url_to_fs(output, use_listings_cache=False)
        self.root = root.rstrip("/")
        self.local = isinstance(self.fs, LocalFileSystem)

    def path(self, *parts: str) -> str:
        return "/".join((self.root, *parts))

    # -- a run ------------------------------------------------------------------------------

    def open(self, settings: Mapping[str, str], overwrite: bool = False) -> None:
        """Begin a run or take up an earlier one, and clear away what died in between.

        Args:
            settings: digests of what shapes the output; an earlier run must agree on all.
            overwrite: remove what an earlier run left, rather than go on with it.

        Raises:
            LedgerError: the output belongs to something else, or to a run with other settings.
        """
        begun = self._read_json("_ledger", "run.json")
        if begun is None and any(
            not path.startswith(self.path("_staging/")) for path in self.fs.find(self.root)
        ):
            raise LedgerError("the output folder is not empty, and not of an earlier run")
        if begun is not None and overwrite:
            for name in OWN:
                if self.fs.exists(self.path(name)):
                    self.fs.rm(self.path(name), recursive=True)
            begun = None
        if begun is None:
            for kind in (*KINDS, "_ledger/units", "_ledger/attempts", "_staging"):
                self.fs.makedirs(self.path(kind), exist_ok=True)
            self._put(json.dumps(dict(settings), indent=1).encode(), "_ledger", "run.json")
        elif begun != dict(settings):
            changed = sorted(
                key for key in begun | dict(settings) if begun.get(key) != settings.get(key)
            )
            raise LedgerError(
                f"the output holds a run with another {', '.join(changed)}; "
                "give the same options to go on with it, or --overwrite to begin anew"
            )
        self.recover()

    def recover(self) -> None:
        """Complete what was committed and remove what was not. For the driver, before any work."""
        for path in self._list("_ledger", "units"):
            entry = self.entry(os.path.basename(path).removesuffix(".json"))
            if entry is None or not self._complete(entry):
                self._remove(path)
        self.sweep()

    def sweep(self) -> None:
        """Remove the files of copies that never were committed, and of attempts that were."""
        entries = self.entries()
        for path in self._list("_staging"):
            self._remove(path)
        for path in self._list("_ledger", "attempts"):
            if _unit_of(path) in entries:
                self._remove(path)
        for kind in KINDS:
            for path in self._list(kind):
                if os.path.basename(path).removesuffix(".parquet") not in entries:
                    self._remove(path)

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

    # -- a unit -----------------------------------------------------------------------------

    def committed(self, unit: str) -> LedgerEntry | None:
        """The unit's entry, its files in place; None if the unit is still to be done."""
        entry = self.entry(unit)
        return entry if entry is not None and self._complete(entry) else None

    def attempt(self, unit: str) -> int:
        """Note that work on a unit begins; returns how often it began before, in vain."""
        marks = self._list("_ledger", "attempts")
        before = sum(_unit_of(path) == unit for path in marks)
        self._put(b"", "_ledger", "attempts", f"{unit}.{secrets.token_hex(4)}")
        return before

    def commit(
        self, unit: str, tables: Tables, rows_in: int, *, method_digest: str, settings_digest: str
    ) -> LedgerEntry:
        """Publish a unit.

        Returns:
            The entry that counts: an earlier copy's, if one was committed first.
        """
        copy = secrets.token_hex(8)
        shards: dict[Kind, Shard] = {}
        for kind in KINDS:
            shards[kind] = self._stage(unit, copy, kind, tables.of(kind))
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
        )
        text = entry.model_dump_json(indent=1).encode()
        if not self._create(text, "_ledger", "units", f"{unit}.json"):
            for kind in KINDS:
                self._remove(self._staged(unit, copy, kind))
            earlier = self.entry(unit)
            if earlier is None:
                raise LedgerError(f"the ledger entry of unit {unit} is damaged; run again")
            entry = earlier
        self._complete(entry)
        for path in self._list("_ledger", "attempts"):
            if _unit_of(path) == unit:
                self._remove(path)
        return entry

    # -- files ------------------------------------------------------------------------------

    def _staged(self, unit: str, copy: str, kind: Kind) -> str:
        return self.path("_staging", f"{unit}.{copy}.{kind}.parquet")

    def _stage(self, unit: str, copy: str, kind: Kind, table: pa.Table) -> Shard:
        target = self._staged(unit, copy, kind)
        with self.fs.open(target, "wb") as file:
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
            with contextlib.suppress(FileNotFoundError):
                self._move(self._staged(entry.unit, entry.copy_id, kind), final)
            if self._size(final) != shard.bytes:
                return False
        return True

    def _move(self, source: str, target: str) -> None:
        if self.local:
            os.replace(source, target)
            _sync_folder(os.path.dirname(target))
        else:
            self.fs.mv(source, target)

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


def _unit_of(mark: str) -> str:
    return os.path.basename(mark).rpartition(".")[0]


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
