"""Write originals that come back from the vault, or open them all and show none."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ppfr_ops.contracts.records import IMAGE_TYPE
from ppfr_ops.contracts.vault import FAILURES_SCHEMA, ORIGINALS_SCHEMA
from ppfr_ops.store.files import Files
from ppfr_ops.vault.recovery import REASONS, Count, Failure, Opened, Progress, RestoreRequest


def erase(
    opened: Opened,
    wish: RestoreRequest,
    target: str,
    *,
    as_files: bool = False,
    progress: Progress = lambda unit, count: None,
) -> tuple[Count, list[Failure]]:
    """Take protection off: write originals, whole units at a time, mode 0600.

    Args:
        target: folder for ``UNIT.parquet`` (``ORIGINALS_SCHEMA``), and ``dead_letters.parquet`` if
            an original could not be had.
        as_files: a file for every original instead, named after its record.
    """
    files, count, failures = Files(target), Count(), []
    for unit in sorted(opened.units):
        rows: list[tuple[str, bytes]] = []
        for entry, found in opened.originals(unit, wish):
            count.add(found)
            if isinstance(found, Failure):
                failures.append(found)
            elif as_files:
                files.put(found, f"{entry}{_suffix(found)}")
            else:
                rows.append((entry, found))
        if rows:
            with files.writing(f"{unit}.parquet") as file:
                _write_originals(file, rows)
        progress(unit, count)
    if failures:
        letters = [
            {"record_id": f.entry, "unit": f.unit, "code": f.code, "message": REASONS[f.code]}
            for f in failures
        ]
        with files.writing("dead_letters.parquet") as file:
            _write(file, pa.Table.from_pylist(letters, FAILURES_SCHEMA))
    files.remove_draft_folder()
    return count, failures


def check(
    opened: Opened, progress: Progress = lambda unit, count: None
) -> tuple[Count, list[Failure]]:
    """Open every published record's original, in memory, and show none."""
    count, failures = Count(), []
    for unit in sorted(opened.units):
        for _, found in opened.originals(unit, RestoreRequest()):
            count.add(found)
            if isinstance(found, Failure):
                failures.append(found)
        progress(unit, count)
    return count, failures


def _write_originals(file: Any, rows: Sequence[tuple[str, bytes]]) -> None:
    names = [name for name, _ in rows]
    pictures = pa.array([data for _, data in rows], pa.binary())
    paths = pa.array([f"{name}{_suffix(data)}" for name, data in rows])
    images = pa.StructArray.from_arrays([pictures, paths], fields=list(IMAGE_TYPE))
    _write(file, pa.table([names, images], schema=ORIGINALS_SCHEMA))


def _write(file: Any, table: pa.Table) -> None:
    pq.write_table(table, file, compression="zstd", use_dictionary=False, row_group_size=256)


_MAGIC: Mapping[bytes, str] = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG": ".png",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}


def _suffix(data: bytes) -> str:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    return next((s for magic, s in _MAGIC.items() if data.startswith(magic)), ".bin")
