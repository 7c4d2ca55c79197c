"""Delta, Iceberg and Lance: read at a version, without the rows that it deleted; and written."""

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from test_increments import faces, run, shards

from ppfr_ops.cli.export import main as export
from ppfr_ops.errors import UserError
from ppfr_ops.sandbox import Sandbox
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.prepare import prepare
from ppfr_ops.source.listing import listing_of
from ppfr_ops.source.parquet import ParquetLists
from ppfr_ops.source.plan import Columns, Plan, plan, read_unit, sources
from ppfr_ops.store.ledger import NO_DATE
from ppfr_ops.store.storage import open_store

deltalake = pytest.importorskip("deltalake")
lance = pytest.importorskip("lance")
pytest.importorskip("pyiceberg")

WHO = Columns(identity="who", keep=("age",))


def rows_of(*numbers: int) -> pa.Table:
    return pa.table(
        {
            "image": [b"%03d" % number for number in numbers],
            "who": [f"p {number % 3}/é" for number in numbers],
            "age": pa.array(numbers, pa.int32()),
        }
    )


def seen(place: Path | str, columns: Columns = WHO, **options: Any) -> list[int]:
    """The rows of a table as they are read, which have to agree in all their columns."""
    chosen = plan(str(place), columns, **options)
    table = pa.concat_tables([read_unit(chosen, unit) for unit in chosen.units])
    assert table["read_error"].null_count == len(table) == chosen.rows
    numbers = [int(data) for data in table["image"].to_pylist()]
    assert table["keep.age"].to_pylist() == numbers
    assert table["identity"].to_pylist() == [f"p {number % 3}/é" for number in numbers]
    for unit in chosen.units:
        assert len(list(sources(chosen, unit))) == unit.rows
    return sorted(numbers)


def ids(chosen: Plan) -> set[str]:
    return {unit.id for unit in chosen.units}


def ten(place: Path, kind: str) -> Any:
    """A table of rows 0 to 9, then 10 to 19 too, then without those of ``p 1``, then compacted."""
    if kind == "delta":
        for first in (0, 10):
            deltalake.write_deltalake(place, rows_of(*range(first, first + 10)), mode="append")
        table = deltalake.DeltaTable(place)
        table.delete("who = 'p 1/é'")
        table.optimize.z_order(["age"])
        return [0, 1, 2, table.version()]
    if kind == "lance":
        for first in (0, 10):
            lance.write_dataset(rows_of(*range(first, first + 10)), place, mode="append")
        data = lance.dataset(place)
        data.delete("who = 'p 1/é'")
        data.optimize.compact_files()
        return [1, 2, 3, data.version]
    table = iceberg(place)
    versions = []
    for first in (0, 10):
        table.append(rows_of(*range(first, first + 10)))
        versions.append(table.current_snapshot().snapshot_id)
    table.delete("who == 'p 1/é'")
    versions.append(table.current_snapshot().snapshot_id)
    return [*versions, versions[-1]]


def iceberg(place: Path, location: str | None = None, **how: str) -> Any:
    from pyiceberg.catalog.sql import SqlCatalog

    place.parent.mkdir(parents=True, exist_ok=True)
    catalog = SqlCatalog(
        "c", uri=f"sqlite:///{place.parent}/catalog.db", warehouse=f"file://{place.parent}", **how
    )
    catalog.create_namespace("n")
    location = location or f"file://{place}"
    return catalog.create_table("n.t", schema=rows_of(1).schema, location=location)


@pytest.mark.parametrize("kind", ["delta", "iceberg", "lance"])
def test_a_table_is_read_at_a_version_without_what_it_deleted(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "tables" / "faces"
    first, second, third, last = ten(place, kind)
    kept = [number for number in range(20) if number % 3 != 1]
    assert seen(f"{place}@{first}") == list(range(10))
    assert seen(f"{place}@{second}", unit_rows=3) == list(range(20))
    assert seen(f"{place}@{third}", unit_rows=4) == kept
    assert seen(f"{place}@{last}") == seen(place) == kept
    with pytest.raises(UserError, match=r"no such snapshot|cannot be read at that version"):
        plan(f"{place}@99", WHO)
    with pytest.raises(UserError, match=r"holds a table of .*give the table's own folder"):
        plan(str(tmp_path / "tables"), WHO)
    with pytest.raises(UserError, match="no column 'agee'"):
        plan(str(place), Columns(keep=("agee",)))
    # What was appended is new; what was there before keeps its names and stamps.
    before, after = (plan(f"{place}@{each}", WHO, key=b"k" * 32) for each in (first, second))
    assert ids(before) < ids(after) and len(after.units) == 2
    stamps = {unit.id: unit.source for unit in after.units}
    assert all(stamps[unit.id] == unit.source for unit in before.units)
    later = plan(f"{place}@{third}", WHO, key=b"k" * 32)
    assert not {unit.source for unit in after.units} & {unit.source for unit in later.units}


def test_tables_are_read_from_an_object_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moto = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{moto.get_host_and_port()[1]}")
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "test")
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.setenv(name, "us-east-1")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    # Processes that were started before do not know of it.
    monkeypatch.setattr("ppfr_ops.source.parquet.Parquet.sandbox", Sandbox())
    rust = Sandbox(4 << 30)
    monkeypatch.setattr("ppfr_ops.source.tables.sandbox", rust)
    monkeypatch.setattr("ppfr_ops.source.lance_table.LanceDataset.sandbox", rust)
    try:
        open_store("s3://lake")[0].mkdir("lake")
        for first in (0, 10):
            rows = rows_of(*range(first, first + 10))
            deltalake.write_deltalake("s3://lake/delta", rows, mode="append")
            lance.write_dataset(rows, "s3://lake/lance", mode="append")
        assert seen("s3://lake/delta@0") == seen("s3://lake/lance@1") == list(range(10))
        assert seen("s3://lake/delta") == seen("s3://lake/lance") == list(range(20))
        how = {"py-io-impl": "pyiceberg.io.fsspec.FsspecFileIO"}
        table = iceberg(tmp_path / "faces", "s3://lake/ice", **how)
        table.append(rows)
        assert seen("s3://lake/ice") == list(range(10, 20))
    finally:
        moto.stop()


def test_a_later_version_brings_rows_in_and_takes_deleted_ones_out(tmp_path: Path) -> None:
    place, pictures = tmp_path / "in", faces(24, 7)
    for first in (0, 12):
        numbers = [first] * 6 + [first + 1] * 6
        table = pa.table({"image": pictures[first : first + 12], "n": numbers})
        deltalake.write_deltalake(place, table, mode="append")
    options = ["--incremental", "--propagate-deletions", "--allow-deletions", "12"]
    options += ["--keep-column", "n"]
    assert run(tmp_path, *options).exit_code == 0
    assert released(tmp_path / "out") == [0] * 6 + [1] * 6 + [12] * 6 + [13] * 6
    deltalake.DeltaTable(place).delete("n = 1")
    deltalake.write_deltalake(place, table, mode="append")
    kept = shards(tmp_path)
    assert run(tmp_path, *options).exit_code == 0
    assert released(tmp_path / "out") == [0] * 6 + [12] * 12 + [13] * 12
    # The part that nothing happened to was left as it was.
    assert len(kept.items() & shards(tmp_path).items()) == 1


def released(output: Path) -> list[int]:
    data = (output / "release" / "data").glob("*.parquet")
    return sorted(n for path in data for n in pq.read_table(path)["n"].to_pylist())


@pytest.fixture(scope="module")
def released_faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of 24 records in three shards, with people and a column that was kept."""
    folder = tmp_path_factory.mktemp("made")
    numbers = list(range(24))
    columns = {"image": faces(24, 3), "who": [f"p{n % 5}" for n in numbers], "n": numbers}
    (folder / "in").mkdir()
    pq.write_table(pa.table(columns), folder / "in" / "0.parquet")
    options = ["--unit-rows", "8", "--identity-column", "who", "--keep-column", "n"]
    assert run(folder, *options).exit_code == 0
    return folder / "out"


def opened(kind: str, place: Path) -> pa.Table:
    """A table, by its own library alone."""
    if kind == "delta":
        return deltalake.DeltaTable(place).to_pyarrow_table()
    if kind == "lance":
        return lance.dataset(place).to_table()
    from pyiceberg.catalog.sql import SqlCatalog

    catalog = SqlCatalog("ppfr", uri=f"sqlite:///{place}/catalog.db")
    return catalog.load_table("release.records").scan().to_arrow()


@pytest.mark.parametrize("kind", ["delta", "iceberg", "lance"])
def test_a_release_is_opened_as_a_table_by_its_library(
    released_faces: Path, tmp_path: Path, kind: str
) -> None:
    place = tmp_path / "faces"
    done = CliRunner().invoke(export, [str(released_faces), str(place), "--to", kind])
    assert done.exit_code == 0 and "24 rows" in done.output, done.output
    shards = sorted((released_faces / "release" / "data").glob("*.parquet"))
    assert len(shards) == 3
    rows = pa.concat_tables([pq.read_table(path) for path in shards]).to_pylist()
    there = opened(kind, place).to_pylist()
    key = "record_id"
    assert sorted(there, key=lambda row: row[key]) == sorted(rows, key=lambda row: row[key])
    if kind == "lance":
        assert there == rows  # the order of a release is drawn, and kept
    else:
        copies = sorted(place.glob("*.parquet"))
        assert [path.read_bytes() for path in copies] == [path.read_bytes() for path in shards]
        assert {path.stat().st_mtime for path in copies} == {NO_DATE}
    # It is a table that the tool itself reads.
    assert plan(str(place), Columns(identity="identity", keep=("n",))).rows == 24
    again = CliRunner().invoke(export, [str(released_faces), str(place), "--to", kind])
    assert again.exit_code == 2 and "not empty" in again.output


def test_folders_of_partitions_are_columns_of_delta(tmp_path: Path) -> None:
    place = tmp_path / "faces"
    deltalake.write_deltalake(place, rows_of(*range(9)), partition_by=["who"])
    assert seen(place) == list(range(9))
    assert seen(place, WHO, unit_rows=2) == list(range(9))
    log = place / "_delta_log" / f"{0:020d}.json"
    log.write_text(
        log.read_text().replace('"partitionValues":{"who":"p 0', '"partitionValues":{"who":"q')
    )
    with pytest.raises(UserError, match="partitions that the paths of its files do not tell"):
        plan(str(place), WHO)


@pytest.mark.parametrize("partitions", [None, ["kind"]])
def test_deletion_vectors_of_delta_are_honoured(
    tmp_path: Path, partitions: list[str] | None
) -> None:
    rows = rows_of(*range(20)).append_column("kind", pa.array(["a b"] * 20))
    deltalake.write_deltalake(tmp_path, rows, partition_by=partitions)
    before = plan(str(tmp_path), WHO, key=b"k" * 32)
    add = json.loads((tmp_path / "_delta_log" / f"{0:020d}.json").read_text().splitlines()[-1])[
        "add"
    ]
    gone = [0, 1, 5, 6, 7, 13, 19]
    vector = {
        "storageType": "i",
        "pathOrInlineDv": z85(bitmap(gone)),
        "sizeInBytes": len(bitmap(gone)),
        "cardinality": len(gone),
    }
    features = {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
    actions = [
        {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **features}},
        {"remove": {"path": add["path"], "dataChange": True, "deletionTimestamp": 1}},
        {"add": {**add, "deletionVector": vector}},
    ]
    log = tmp_path / "_delta_log" / f"{1:020d}.json"
    log.write_text("\n".join(map(json.dumps, actions)))
    kept = [number for number in range(20) if number not in gone]
    for unit_rows in (1, 2, 3, 7, 13, 100):
        assert seen(tmp_path, unit_rows=unit_rows) == kept
    assert seen(tmp_path, limit=4) == kept[:4]
    assert seen(f"{tmp_path}@0") == list(range(20))
    after = plan(str(tmp_path), WHO, key=b"k" * 32)
    assert ids(before).isdisjoint(ids(after))
    assert before.units[0].source.files == after.units[0].source.files  # type: ignore[union-attr]


def test_lists_of_pictures_of_a_table_that_has_deleted_rows_are_refused(tmp_path: Path) -> None:
    """Rows are deleted by their places, and of lists the pictures are counted."""
    lists = pa.array([[b"1", b"2", b"3"], [b"4"], [b"5", b"6"]], pa.list_(pa.binary()))
    pq.write_table(pa.table({"image": lists}), tmp_path / "a.parquet")
    listing = listing_of(str(tmp_path))
    paths = list(listing.files)
    assert ParquetLists().columns(listing, paths, Columns())[0].image == "image"
    with_deleted = replace(listing, deleted={paths[0]: np.array([1])})
    with pytest.raises(UserError, match="rows of the table are deleted"):
        ParquetLists().columns(with_deleted, paths, Columns())


def bitmap(rows: list[int]) -> bytes:
    """As Delta has it: magic number, count of maps, key, and a map of pyroaring's."""
    from pyroaring import BitMap

    return struct.pack("<IQI", 1681511377, 1, 0) + BitMap(rows).serialize() + bytes(2)


def z85(data: bytes) -> str:
    signs = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    data += bytes(-len(data) % 4)
    words = struct.unpack(f">{len(data) // 4}I", data)
    return "".join(signs[word // 85**power % 85] for word in words for power in (4, 3, 2, 1, 0))


def test_files_of_deletes_of_iceberg_are_honoured(tmp_path: Path) -> None:
    place = tmp_path / "faces"
    table = iceberg(place)
    table.append(rows_of(*range(10)))
    table.append(rows_of(*range(10, 20)))
    path = next(iter(table.scan().plan_files())).file.file_path
    numbers = pq.read_table(path.removeprefix("file://"))["age"].to_pylist()
    delete_rows(table, path, [0, 4, 9])
    kept = [number for number in range(20) if number not in (numbers[0], numbers[4], numbers[9])]
    assert sorted(table.scan().to_arrow()["age"].to_pylist()) == kept
    for unit_rows in (1, 3, 100):
        assert seen(place, unit_rows=unit_rows) == kept


def delete_rows(table: Any, path: str, rows: list[int]) -> None:
    """Write a file of positional deletes, which pyiceberg reads and does not write."""
    from pyiceberg.manifest import (
        DataFile,
        DataFileContent,
        FileFormat,
        ManifestContent,
        ManifestEntry,
        ManifestEntryStatus,
        ManifestWriterV2,
    )
    from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
    from pyiceberg.table.snapshots import Operation
    from pyiceberg.table.update.snapshot import _FastAppendFiles
    from pyiceberg.typedef import Record

    class Deletes(ManifestWriterV2):
        def content(self) -> ManifestContent:
            return ManifestContent.DELETES

        @property
        def _meta(self) -> dict[str, str]:
            return {**super()._meta, "content": "deletes"}

    class Append(_FastAppendFiles):
        def _manifests(self) -> list[Any]:
            number = self._snapshot_id
            out = table.io.new_output(f"{table.location()}/metadata/deletes-m0.avro")
            schema = table.schema()
            with Deletes(UNPARTITIONED_PARTITION_SPEC, schema, out, number, "gzip") as writer:
                writer.add_entry(
                    ManifestEntry.from_args(
                        status=ManifestEntryStatus.ADDED, snapshot_id=number, data_file=file
                    )
                )
            return [*super()._manifests(), writer.to_manifest_file()]

    target = f"{table.location().removeprefix('file://')}/data/deletes.parquet"
    pq.write_table(pa.table({"file_path": [path] * len(rows), "pos": rows}), target)
    file = DataFile.from_args(
        content=DataFileContent.POSITION_DELETES,
        file_path=f"file://{target}",
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=len(rows),
        file_size_in_bytes=Path(target).stat().st_size,
        sort_order_id=None,
        spec_id=0,
    )
    file.spec_id = 0
    with table.transaction() as change:
        Append(Operation.APPEND, change, table.io).commit()


def test_what_would_be_read_wrong_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "ice" / "faces"
    table = iceberg(place)
    table.append(rows_of(1, 2))
    with table.update_schema() as change:
        change.rename_column("who", "whom")
    with pytest.raises(UserError, match=r"'whom?'.*was renamed"):
        plan(str(place), Columns(identity="whom"))
    newest = sorted((place / "metadata").glob("*.metadata.json"))[-1]
    (newest.parent / f"{newest.name.partition('-')[0]}-other.metadata.json").write_text("{}")
    with pytest.raises(UserError, match="is for its catalog to say"):
        plan(str(place), Columns(identity="whom"))

    place = tmp_path / "delta"
    deltalake.write_deltalake(place, rows_of(1, 2))
    Path(deltalake.DeltaTable(place).file_uris()[0]).unlink()
    with pytest.raises(UserError, match="1 of 1 files of that version are gone"):
        plan(str(place), WHO)
    deltalake.write_deltalake(
        tmp_path / "mapped", rows_of(1), configuration={"delta.appendOnly": "true"}
    )
    log = tmp_path / "mapped" / "_delta_log" / f"{0:020d}.json"
    log.write_text(
        log.read_text().replace('"delta.appendOnly":"true"', '"delta.columnMapping.mode":"name"')
    )
    with pytest.raises(UserError, match=r"columnMapping|cannot be read"):
        plan(str(tmp_path / "mapped"), WHO)
    options = SanitizeOptions(input=f"{place}@0", output=f"{place}/out", method="blur")
    with pytest.raises(UserError, match="must not lie inside each other"):
        prepare(options)
    with pytest.raises(UserError, match="no table of which there could be a version 3"):
        (tmp_path / "plain").mkdir()
        plan(f"{tmp_path}/plain@3", WHO)


def test_blobs_of_lance_are_pictures(tmp_path: Path) -> None:
    blob = pa.field("image", pa.large_binary(), metadata={"lance-encoding:blob": "true"})
    schema = pa.schema([blob, ("who", pa.string()), ("age", pa.int32())])
    lance.write_dataset(
        rows_of(*range(5)).cast(schema), tmp_path / "faces", data_storage_version="2.1"
    )
    assert seen(tmp_path / "faces", unit_rows=2) == list(range(5))


def test_a_panic_of_a_library_over_damaged_metadata_is_one_line(tmp_path: Path) -> None:
    """It is no Exception, and would end the driver."""
    lance.write_dataset(rows_of(1, 2), tmp_path / "t")
    (manifest,) = (tmp_path / "t" / "_versions").glob("*.manifest")
    data = bytearray(manifest.read_bytes())
    data[2] = 0xFF
    manifest.write_bytes(data)
    with pytest.raises(UserError, match="cannot be read at that version"):
        plan(str(tmp_path / "t"), WHO)


def test_a_library_that_is_missing_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deltalake.write_deltalake(tmp_path, rows_of(1))
    monkeypatch.setitem(__import__("sys").modules, "deltalake", None)
    with pytest.raises(UserError, match=r"needs deltalake.*pip install 'ppfr-sanitizer\[tables\]'"):
        plan(str(tmp_path), WHO)
