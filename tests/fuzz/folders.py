"""Inputs that are folders: tables of Lance, Delta and Iceberg, and tables of paths beside pictures.

A case is such a folder as a tar, with one of its files changed. The libraries put names and times
of their own into what they write, so case N of another process may differ in them: what fails is
kept in ``corpus/``. They write in a process of their own, for their threads do not survive a fork.
"""

import csv
import fcntl
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pyarrow as pa
from mutations import NAME, ROWS, bodies, mutated

_MEMORY = Path("/dev/shm")
PLACE = (_MEMORY if _MEMORY.is_dir() else Path("/tmp")) / f"ppfr-fuzz-{os.getuid()}" / "table"
"""Where a folder stands while it is checked: Iceberg's metadata name their files in full."""

DATA = (".parquet", ".lance", ".jpg")
"""Files of rows or pictures; others say which of them there are."""


def _rows(first: int, last: int) -> pa.Table:
    people = [f"{NAME} {place % 3}" for place in range(first, last)]
    ages = pa.array(range(first, last), pa.int64())
    return pa.table({"image": list(bodies()[first:last]), "identity": people, "age": ages})


def _lance(place: Path) -> None:
    import lance

    lance.write_dataset(_rows(0, 5), place)
    more = pa.concat_tables([_rows(5, ROWS), _rows(0, 1)])
    lance.write_dataset(more, place, mode="append").delete(f"age = 0 and identity = '{NAME} 0'")
    lance.write_dataset(_rows(0, 1), place, mode="append")


def _delta(place: Path) -> None:
    import deltalake

    for first, last in ((0, 5), (5, ROWS), (0, 1)):
        deltalake.write_deltalake(place, _rows(first, last), mode="append")
    table = deltalake.DeltaTable(place)
    table.delete("age = 0")
    deltalake.write_deltalake(place, _rows(0, 1), mode="append")
    table.update_incremental()
    table.create_checkpoint()


def _iceberg(place: Path) -> None:
    from pyiceberg.catalog.sql import SqlCatalog

    with tempfile.TemporaryDirectory() as name:
        catalog = SqlCatalog("c", uri=f"sqlite:///{name}/c.db", warehouse=f"file://{name}")
        catalog.create_namespace("n")
        table = catalog.create_table("n.t", schema=_rows(0, 1).schema, location=f"file://{place}")
        for first, last in ((0, 5), (5, ROWS)):
            table.append(_rows(first, last))


def _paths(ending: str, place: Path) -> None:
    rows = []
    for number, body in enumerate(bodies()):
        folder = place / "x"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:02d}.jpg").write_bytes(body)
        rows.append(
            {"path": f"x/{number:02d}.jpg", "identity": f"{NAME} {number % 3}", "age": number}
        )
    with (place / f"a.{ending}").open("w", newline="") as file:
        if ending == "jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            table = csv.DictWriter(file, list(rows[0]), delimiter=",\t"[ending == "tsv"])
            table.writeheader()
            table.writerows(rows)


_WRITERS: dict[str, Callable[[Path], None]] = {
    "csv": lambda place: _paths("csv", place),
    "delta": _delta,
    "iceberg": _iceberg,
    "jsonl": lambda place: _paths("jsonl", place),
    "lance": _lance,
    "tsv": lambda place: _paths("tsv", place),
}
FOLDERS = frozenset(_WRITERS)
FORMATS = frozenset({"lance", "parquet", "paths"})
"""As which they are read."""
TABLES_OF_PATHS = frozenset({"csv", "jsonl", "tsv"})


@contextmanager
def standing(files: dict[str, bytes]) -> Iterator[Path]:
    """A folder of these files at ``PLACE``, for one process at a time."""
    PLACE.parent.mkdir(mode=0o700, exist_ok=True)
    with (PLACE.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(PLACE, ignore_errors=True)
        try:
            for name, data in files.items():
                path = PLACE / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            yield PLACE
        finally:
            shutil.rmtree(PLACE, ignore_errors=True)


def unpacked(data: bytes) -> dict[str, bytes]:
    """The files of a case, by their paths."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = {info.name: tar.extractfile(info) for info in tar}
        return {name: file.read() for name, file in found.items() if file is not None}


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@cache
def seed(kind: str) -> dict[str, bytes]:
    """The files of a sound folder."""
    if kind in TABLES_OF_PATHS:
        return unpacked(_write(kind))
    where = os.pathsep.join([str(Path(__file__).parent.parent), *filter(None, sys.path)])
    made = subprocess.run(
        [sys.executable, __file__, kind],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": where},
        check=True,
        timeout=300,
    )
    return unpacked(made.stdout)


def _write(kind: str) -> bytes:
    with standing({}) as place:
        _WRITERS[kind](place)
        return packed(
            {
                str(path.relative_to(place)): path.read_bytes()
                for path in sorted(place.rglob("*"))
                if path.is_file()
            }
        )


def folder(kind: str, rng: random.Random) -> bytes:
    """One file changed, emptied or taken away; as often one that says which rows there are as one
    of rows."""
    files = dict(seed(kind))
    data = rng.random() < 0.4
    names = sorted(name for name in files if name.endswith(DATA) == data)
    newest = [name for name in names if name.endswith((".manifest", ".metadata.json"))]
    if newest and rng.random() < 0.5:  # of older ones nothing is read; Lance counts downwards
        names = [newest[0] if kind == "lance" else newest[-1]]
    name = rng.choice(names)
    roll = rng.random()
    if roll < 0.05:
        del files[name]
    elif roll < 0.1:
        files[name] = b""
    elif roll < 0.5:
        end = rng.choice((20, 200, 1000))
        before, last = files[name][:-end], files[name][-end:]
        files[name] = before + mutated(last, rng, rng.choice(list(files.values())))
    else:
        files[name] = mutated(files[name], rng, rng.choice(list(files.values())))
    return packed(files)


def whole_table(kind: str, files: dict[str, bytes]) -> bool:
    """Whether all that says which rows there are is as it was."""
    told = {name: data for name, data in seed(kind).items() if not name.endswith(DATA)}
    return all(files.get(name) == data for name, data in told.items())


if __name__ == "__main__":
    sys.stdout.buffer.write(_write(sys.argv[1]))
