"""Commit, resume, sweep: how a unit's shards get into the output exactly once.

The commit point is the creation of the unit's ledger entry, which succeeds for one copy only. A
unit's files are staged first under a name of their own, then the entry that names that copy is
created, then the files are moved to their final names; anyone who finds an entry whose files have
not all been moved yet moves them. In a store that has no renames the files are put in their places
at once, under names that no other copy has, and those that no entry names are swept up before
anything is signed. So a death at any moment leaves either nothing that counts or something that
the next run completes, and a late copy of a committed unit changes nothing.

    OUTPUT/release/data/ID.parquet                   final once an entry names it; what leaves
    OUTPUT/release/manifest.json, files.pq …    written when all is done (``release``)
    OUTPUT/evidence/metrics|dead_letters|detections/UNIT.parquet   the owner's part of a unit
    OUTPUT/evidence/ledger/run.json                  what run this output belongs to
    OUTPUT/evidence/ledger/secret.json               of the ids outside (``ids``), or that it was
                                                     thrown away
    OUTPUT/evidence/look/UNIT.parquet                what was noted of rows that were looked at
    OUTPUT/evidence/ledger/plan/                     which records a release has (``release_plan``)
    OUTPUT/evidence/ledger/units/UNIT.json           the entries
    OUTPUT/evidence/ledger/entries.parquet           a copy of all of them, to be read at once
    OUTPUT/evidence/ledger/attempts/UNIT.first       who was the first to begin work on a unit
    OUTPUT/evidence/ledger/attempts/UNIT.FENCE-HOW-N another beginning
    OUTPUT/evidence/ledger/lease/FENCE.json          which run is at work (``lease``)
    OUTPUT/evidence/ledger/account/                  what people have spent (``account``)
    OUTPUT/evidence/ledger/last.json                 the last run: when, how much was planned
    OUTPUT/evidence/ledger/tombstones/UNIT.json      deleted upstream
    OUTPUT/evidence/earlier/                         of units that are done again (``earlier``)
    OUTPUT/evidence/staging/                         files of copies not committed yet
    OUTPUT/evidence/set_aside/                       what was damaged, for the owner to look at

Nothing that is read here is believed: a document that is damaged, or says what it must not, is set
aside with a line that names it, and counts as not there.
"""

import contextlib
import hashlib
import io
import os
import re
import secrets
from collections.abc import Container, Iterator, Mapping

import pyarrow as pa

from ppfr_ops.contracts.ledger import (
    ALL_KINDS,
    COPY,
    RELEASED,
    SHARD_PLACES,
    UNIT,
    Kind,
    LedgerEntry,
    Shard,
    Source,
    Stage,
    shard_path,
)
from ppfr_ops.store.documents import ATTEMPTS, LEDGER, Attempts, Documents, unit_of
from ppfr_ops.store.entries import HashSet
from ppfr_ops.store.folder import EVIDENCE, RELEASE, LedgerError, Listed, is_remote
from ppfr_ops.store.ids import new_secret, publish
from ppfr_ops.store.shards import Tables, concatenate, read_table, statistics, to_write, write_table

__all__ = ["LEDGER", "Attempts", "Ledger", "LedgerError", "Tables", "concatenate", "read_table"]

DOCUMENTS = ("README.md", "croissant.json")
"""What ``ppfr report`` writes into the release."""

_OURS = re.compile(
    rf"{RELEASE}/(data/{RELEASED.pattern}\.parquet|manifest\.json|manifest\.sig|files\.pq"
    rf"|SHA256SUMS|photographs/[\s\S]+|README\.md|croissant\.json|verify\.py)"
    rf"|{EVIDENCE}/((ledger|staging|set_aside)/.*|manifest\.json"
    rf"|report\.html|annex\.html|intruder\.json|seal\.json|seal\.[0-9a-f]{{16}}\.parquet"
    rf"|privacy_audit\.json"
    rf"|(metrics|dead_letters|detections|look|photographs)/{UNIT.pattern}(\.{COPY.pattern})?\.parquet"
    rf"|earlier/{UNIT.pattern}\.(json|[a-z_]+\.parquet))"
)
"""Everything in an output that is ours, and that ``--overwrite`` removes."""

_LASTING = (f"{EVIDENCE}/ledger/lease/", f"{EVIDENCE}/ledger/account/")
"""What ``--overwrite`` leaves."""

_KEYS = ("secret.json", "release_key.json")
"""Of the ids outside, and of virtual people (``sanitize.identity``)."""

NO_DATE = 315_532_800
"""1980-01-01: when a file of a release was written tells in which order the work was done, or which
part of the release came later."""

DAMAGED = (
    "a shard is not what was committed, or gone, and what it was made of is no longer in the "
    "input, or was thrown away"
)
"""Why a unit is kept."""


class Ledger(Documents):
    """The ledger of one output.

    Args:
        output: any fsspec URL or local path of a folder.
        fence: of the lease that this run holds; nothing is committed once another run has a
            higher one, or the output was removed. None: do not look.
    """

    # -- a run ------------------------------------------------------------------------------

    def check(
        self, settings: Mapping[str, str], overwrite: bool = False, growing: bool = False
    ) -> None:
        """Find out whether ``open`` would refuse; changes nothing.

        Raises:
            LedgerError: the output belongs to something else, or to a run with other settings.
            StoreError: the store does not let us in.
        """
        if is_remote(self.fs):
            self.fs.check(self.root)
        self.refuse_links()
        begun = self._begun(settings)
        if begun is None:
            paths = self.fs.find(self.root)
            if any(not _OURS.fullmatch(path[len(self.root) + 1 :]) for path in paths):
                raise LedgerError("the output folder is not empty, and not of an earlier run")
        elif not overwrite:
            apart = {"input", "--groups"} if growing else set()
            keys = {*begun, *settings} - apart
            changed = sorted(key for key in keys if begun.get(key) != settings.get(key))
            if changed:
                raise LedgerError(
                    f"the output holds a run with another {', '.join(changed)}; "
                    "give the same options to go on with it, or --overwrite to begin anew"
                )

    def open(
        self,
        settings: Mapping[str, str],
        overwrite: bool = False,
        growing: bool = False,
        seed: int | None = None,
        planned: Container[str] | None = None,
    ) -> None:
        """Begin a run or take up an earlier one, and clear away what died in between.

        Args:
            settings: digests of what shapes the output; an earlier run must agree on all.
            overwrite: remove what an earlier run left, rather than go on with it.
            growing: the input, and what is said of it, may be another than the earlier run's.
            seed: for tests only: the same ids in every run.
            planned: units that the run can do again; None: all.

        Raises:
            LedgerError: the output belongs to something else, or to a run with other settings; or
                what is damaged cannot be made again.
        """
        self.check(settings, overwrite, growing)
        self.still_mine()
        self.planned = None if overwrite else planned
        self.close_evidence()
        if overwrite:
            # The lease is of this run, and its number must never fall; what is spent stays spent.
            for path in self.fs.find(self.root):
                name = path[len(self.root) + 1 :]
                if _OURS.fullmatch(name) and not name.startswith(_LASTING):
                    self.remove_path(path)
        self._ids = None
        begun = self._begun(settings)
        if begun is None and not self.committed_ids():
            # Nothing is published yet, so a key that lies there is of no use but to anyone who put
            # it there and knows it.
            for name in _KEYS:
                self.remove(*LEDGER, name)
        whole = self.secret() is not None or self.thrown_away()
        if begun is None or not whole:
            self._refuse_to_forget("run.json" if whole else "secret.json", settings, whole)
        if not whole:
            if self.exists(*LEDGER, "secret.json"):
                self.set_aside("the secret of the ids is damaged", *LEDGER, "secret.json")
            secret = new_secret(seed)
            self.create({"secret": secret.hex()}, *LEDGER, "secret.json")
            # Not what it said: a creation that is tried again, for a lost answer, finds itself.
            if self.secret() != secret:
                raise LedgerError("the output changes while it is opened; run again")
        if begun is None or not whole:
            self._retire_unless_of(settings, whole)
        if begun != dict(settings):
            if begun is None and self.exists(*LEDGER, "run.json"):
                self.set_aside("the settings of the run are damaged", *LEDGER, "run.json")
            if self.local:
                for kind in ALL_KINDS[:3]:
                    self.make_folder(os.path.dirname(self.path(shard_path(kind, "u"))))
                for name in ("units", "attempts"):
                    self.make_folder(self.path(*LEDGER, name))
                self.make_folder(self.path(EVIDENCE, "staging"))
            self.write(dict(settings), *LEDGER, "run.json")
        self.recover()

    def recover(self) -> None:
        """Complete what was committed and remove what was not. For the driver, before any work."""
        entries = self._restored(self.entries())
        lying = HashSet((path, file.size) for path, file in self.shards_there())
        for name in self.names(*LEDGER, "units"):
            unit = name.removesuffix(".json")
            entry = entries.get(unit)
            if entry is None:
                self.set_aside(f"the ledger entry {name!a} is damaged", *LEDGER, "units", name)
            elif any(
                (shard.path, shard.bytes) not in lying for shard in entry.shards.values()
            ) and not self._complete(entry):
                if self.can_redo(unit):
                    self.noticed.append(f"unit {unit}: a shard is missing or cut; done again")
                    self.still_mine()
                    self.remove(*LEDGER, "units", name)
                    del entries[unit]
                else:
                    self.kept[unit] = DAMAGED
        if is_remote(self.fs):
            self.fs.abort_uploads(self.root)
        self.sweep(entries)

    def shards_there(self) -> Iterator[tuple[str, Listed]]:
        """What a listing tells of every shard, with its path in the output."""
        for folder in SHARD_PLACES:
            for name, file in self.listing(*folder.split("/")):
                if file.plain:
                    yield f"{folder}/{name}", file

    def sweep(self, entries: Mapping[str, LedgerEntry]) -> None:
        """Remove the files of copies that never were committed, and of attempts that were.

        Args:
            entries: all that are valid.

        Raises:
            LedgerError: another run has taken over the output.
        """
        self.still_mine()
        gone = self.paths(EVIDENCE, "staging")
        gone += [path for path in self.paths(*ATTEMPTS) if unit_of(path) in entries]
        wanted = HashSet(
            shard.path for entry in entries.values() for shard in entry.shards.values()
        )
        for folder in SHARD_PLACES:
            for name in self.names(*folder.split("/")):
                path = f"{folder}/{name}"
                if path not in wanted and _OURS.fullmatch(path):
                    gone.append(self.path(path))
        self.remove_all(gone)

    # -- a unit -----------------------------------------------------------------------------

    def begin(self, unit: str) -> LedgerEntry | Attempts:
        """Note that work on a unit begins; returns its entry if it is done already, else how often
        it began before, in vain. One request to a store where nobody began before: then it is not
        done, unless the marks of a run that is over were swept up, and what is done once more for
        that is dropped when it is to be committed."""
        if not self.local and self._is_first(unit, self._mark(unit)):
            return Attempts()
        return self.committed(unit) or self.attempt(unit)

    def committed(self, unit: str) -> LedgerEntry | None:
        """The unit's entry, its files in place; None if the unit is still to be done."""
        entry = self.entry(unit)
        return entry if entry is not None and self._complete(entry) else None

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
        respelled: int = 0,
        copy_id: str | None = None,
        stage: Stage = "whole",
        paths: Mapping[str, str] | None = None,
        unchanged: Tables | None = None,
    ) -> LedgerEntry:
        """Publish a unit.

        Args:
            unchanged: what goes with it as it was stored before (``sanitize.unchanged``).
            paths: where the release holds files: below its folder of photographs, without suffix,
                by id inside; the records' shard stays outside of the release then.
            copy_id: of this copy of the work, where something else bears it too (the vault's
                shard); None: a new one.
            tables: as a sanitizer gives them, with the ids of the inside; of ``draw``, as they are
                to be stored.
            verdicts: those of people that were heeded.
            respelled: rows whose label was not read as it is stored.
            source: fingerprint of what it was made of, for incremental runs.

        Returns:
            The entry that counts: an earlier copy's, if one was committed first.

        Raises:
            LedgerError: another run has taken over the output, or it was removed.
        """
        copy = copy_id or new_copy_id()
        shards: dict[Kind, Shard] = {}
        stored = publish(tables, self.ids, paths, unchanged) if stage == "whole" else tables
        for kind, table in stored.items().items():
            optional = kind == "dead_letters" or (stage != "whole" and kind != "look")
            if optional and not table.num_rows:
                continue  # so most units have none
            outside = {"as_files": True} if kind == "data" and paths is not None else {}
            shards[kind] = self._write_shard(unit, copy, kind, table, **outside)
        records, dead = stored.records.num_rows, stored.dead_letters.num_rows
        codes = stored.dead_letters["code"].value_counts().to_pylist()
        entry = LedgerEntry(
            unit=unit,
            copy_id=copy,
            rows_in=rows_in,
            records=records,
            dead_letters={item["values"]: item["counts"] for item in codes},
            shards=shards,
            method_digest=method_digest,
            settings_digest=settings_digest,
            metrics=statistics(stored.metrics),
            stage=stage,
            extra_faces=records + dead - rows_in if stage == "whole" else 0,
            respelled=respelled,
            verdicts=verdicts,
            source=source,
        )
        if self.fenced_off():
            self._drop(entry)
            raise LedgerError("another run has taken over this output, or it was removed")
        counted = self._create_entry(entry)
        self._alone.discard(unit)
        return counted

    def _create_entry(self, entry: LedgerEntry) -> LedgerEntry:
        """The commit. An entry of an earlier copy counts, unless its files are gone: then anyone
        who wrote it was stopped for so long that another run swept them up."""
        place = (*LEDGER, "units", f"{entry.unit}.json")
        text = entry.model_dump_json(indent=1).encode()
        for _ in range(3):
            counted = entry
            if not self.create_bytes(text, *place):
                earlier = self.entry(entry.unit)
                if earlier is None:
                    if self.exists(*place):
                        name = f"the ledger entry of unit {entry.unit} is damaged"
                        self.set_aside(name, *place)
                    continue
                counted = earlier
            # A creation that is tried again, because its answer got lost, finds itself.
            mine = counted.copy_id == entry.copy_id
            # What was put in its place a moment ago lies there, or is missed before all is signed.
            if (counted is entry and not self.local) or self._complete(counted):
                if not mine:
                    self._drop(entry)
                return counted
            self.remove(*place)
            if mine:
                break
        raise LedgerError(f"the files of unit {entry.unit} were removed; run again")

    # -- files ------------------------------------------------------------------------------

    def _staged(self, unit: str, copy: str, kind: Kind) -> str:
        return self.path(EVIDENCE, "staging", f"{unit}.{copy}.{kind}.parquet")

    def _drop(self, entry: LedgerEntry) -> None:
        """Remove the shards of a copy that does not count."""
        for kind, shard in entry.shards.items():
            staged = self._staged(entry.unit, entry.copy_id, kind)
            self.remove_path(staged if self.local else self.path(shard.path))

    def _write_shard(
        self, unit: str, copy: str, kind: Kind, table: pa.Table, as_files: bool = False
    ) -> Shard:
        """Stage a shard; put it in its place, where staging would mean to copy it."""
        name = unit if self.local else f"{unit}.{copy}"
        released = kind == "data" and not as_files
        path = shard_path(kind, self.ids.unit(name) if released else name, as_files)
        target = self._staged(unit, copy, kind) if self.local else self.path(path)
        if self.local:
            self.make_folder(os.path.dirname(target))
        # An object is put in one piece (in parts from 100 MB on), so that it can be put again.
        with to_write(target, kind) if self.local else io.BytesIO() as file:
            size, digest = write_table(table, file)
            md5 = None
            if self.local:
                os.fsync(file.fileno())
            else:
                data = file.getvalue()
                md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
                self.fs.pipe_file(target, data)
        if self.local and kind == "data":
            os.utime(target, (NO_DATE, NO_DATE))
        return Shard(path=path, rows=table.num_rows, bytes=size, sha256=digest, md5=md5)

    def _complete(self, entry: LedgerEntry) -> bool:
        """Move what is still staged; False if a file is missing or of the wrong size."""
        for kind, shard in entry.shards.items():
            if self.size(shard.path) == shard.bytes:
                continue
            # A retry may find the file moved by the try before it.
            with contextlib.suppress(FileNotFoundError):
                staged = self._staged(entry.unit, entry.copy_id, kind)
                self.move(staged, self.path(shard.path))
            if self.size(shard.path) != shard.bytes:
                return False
        return True


def new_copy_id() -> str:
    """Tells the copies of the work on a unit apart."""
    return secrets.token_hex(8)
