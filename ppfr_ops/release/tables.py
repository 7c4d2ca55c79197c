"""The records of a release as a table of Delta, Iceberg or Lance: a copy for their own libraries.

Delta and Iceberg get the shards themselves, byte for byte, so that ``release/files.pq`` and with it
the signature speaks of their data files too; Lance has a format of its own.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import pyarrow as pa

from ppfr_ops.errors import UserError
from ppfr_ops.release.export import Release
from ppfr_ops.source.tables import in_one_line
from ppfr_ops.store.files import inside
from ppfr_ops.store.folder import Folder
from ppfr_ops.store.ledger import NO_DATE
from ppfr_ops.store.shards import read_table

Kind = Literal["delta", "iceberg", "lance"]
KINDS: tuple[Kind, ...] = get_args(Kind)

NAME = "release.records"
"""Of the table in an Iceberg catalog."""


def export_table(output: str, target: str, kind: Kind) -> int:
    """Write the records of a release as a table.

    Args:
        output: an output or a release.
        target: a local folder that is not there, or empty.

    Returns:
        How many rows there are.

    Raises:
        UserError: the target lies in the output, or holds something; there are no records; the
            release is damaged; a column has a type that the table cannot have.
    """
    release, folder = Release(output), Folder(target)
    if not folder.local:
        raise UserError("a table is written to a local folder; copy it from there")
    if inside(target, output):
        raise UserError("FOLDER must not lie inside the output")
    if next(folder.tree(), None) is not None:
        raise UserError("FOLDER is not empty; choose another for the table")
    if release.sums is not None:
        raise UserError("a release of picture files has no records that a table could hold")
    why = f"{kind} may have no type as one of the columns that were kept"
    with in_one_line("the table cannot be written", why):
        _WRITERS[kind](release, Path(folder.root).resolve())
    return sum(release.shards["rows"].to_pylist())


def _shards(release: Release, root: Path) -> list[Path]:
    """Copies of the shards, under their names and dates."""
    root.mkdir(parents=True, exist_ok=True)
    copies = []
    for path, data in release.shards_data():
        copy = root / os.path.basename(path)
        copy.write_bytes(data)
        os.utime(copy, (NO_DATE, NO_DATE))
        copies.append(copy)
    return copies


def _delta(release: Release, root: Path) -> None:
    os.environ.setdefault("RUST_LOG", "error")
    from deltalake import convert_to_deltalake

    _shards(release, root)
    convert_to_deltalake(str(root))


def _iceberg(release: Release, root: Path) -> None:
    import pyarrow.parquet as pq
    from pyiceberg.catalog.sql import SqlCatalog

    copies = _shards(release, root)
    catalog = SqlCatalog("ppfr", uri=f"sqlite:///{root}/catalog.db", warehouse=f"file://{root}")
    catalog.create_namespace(NAME.partition(".")[0])
    schema = pq.read_schema(copies[0]).remove_metadata()
    table = catalog.create_table(NAME, schema=schema, location=f"file://{root}")
    table.add_files([f"file://{copy}" for copy in copies])
    catalog.close()


def _lance(release: Release, root: Path) -> None:
    os.environ.setdefault("LANCE_LOG", "error")
    import lance

    tables = (read_table(data) for _, data in release.shards_data())
    first = next(tables, None)
    if first is None:
        raise UserError("the release has no records")

    def batches() -> Iterator[pa.RecordBatch]:
        yield from first.to_batches()
        for table in tables:
            yield from table.to_batches()

    reader = pa.RecordBatchReader.from_batches(first.schema, batches())
    lance.write_dataset(reader, str(root), mode="create")


_WRITERS = {"delta": _delta, "iceberg": _iceberg, "lance": _lance}
