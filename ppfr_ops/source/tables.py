"""Tables of Delta, Iceberg and Lance: which files a version of them is made of, and which rows of
those files it deleted.

Their own libraries say so, once, when a run is planned. The files of Delta and Iceberg are Parquet
and are read as such, by workers that need none of these libraries.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ppfr_ops.errors import UserError, missing_extra, require
from ppfr_ops.sandbox import Sandbox
from ppfr_ops.source.paths import PathColumns
from ppfr_ops.source.reader import File, Listing
from ppfr_ops.source.units import passes

_SECONDS = 600.0

Deleted = Mapping[str, npt.NDArray[np.int64]]
"""Rows of a file that are deleted, in order, by its path; of files that have some."""

FRAGMENT = ".lance-fragment"
"""Suffix of what stands in a listing for a fragment of a Lance dataset."""

sandbox = Sandbox(4 << 30)
"""A library in Rust has a thread for every CPU, and each takes address space."""


@contextmanager
def in_one_line(what: str, why: str) -> Iterator[None]:
    """What the library of a kind of tables raises, as one line for the user.

    Raises:
        UserError: the table cannot be read or written, or the library is not installed.
    """
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        raise missing_extra(error) or error from None
    except Exception as error:
        if passes(error):
            raise
        raise UserError(f"{what} ({type(error).__name__}): {why}") from None


def opening(kind: str) -> AbstractContextManager[None]:
    """As ``in_one_line``, of a table that is read."""
    why = "is there such a version, and can this version of the library read it?"
    return in_one_line(f"the {kind} table cannot be read at that version", why)


def listing_of_table(kind: str, fs: Any, root: str, url: str, version: int | None) -> Listing:
    """The files of a table.

    Args:
        kind: ``Delta``, ``Iceberg`` or ``Lance``.
        url: of the table, as its library takes it.
        version: of the table; Iceberg: number of a snapshot. None: the newest.

    Raises:
        UserError: there is no such version, or it cannot be read right.
    """
    with opening(kind):
        return _KINDS[kind](fs, root, url, version)


def apart(library: str, ask: Callable[..., Any], *args: Any) -> Any:
    """What a library in Rust says, asked in a process of its own: its threads do not survive a
    fork, and hostile metadata make it panic.

    Raises:
        UserError: it is not installed.
    """
    require(library)
    return sandbox.call(ask, *args, seconds=_SECONDS)


def ask_delta(url: str, version: int | None) -> tuple[int, Any, list[Any], list[Any]]:
    """Version, settings, files and deletion vectors of a table; for the sandbox."""
    from deltalake import DeltaTable

    table = DeltaTable(url, version=version)
    actions = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    vectors = pa.table(table.deletion_vectors()).to_pylist()
    return table.version(), table.metadata().configuration, actions, vectors


def _delta(fs: Any, root: str, url: str, version: int | None) -> Listing:
    number, settings, actions, vectors = apart("deltalake", ask_delta, url, version)
    if settings.get("delta.columnMapping.mode", "none") != "none":
        raise UserError("the Delta table maps column names (delta.columnMapping.mode): not read")
    paths = [f"{root}/{unquote(action['path'])}" for action in actions]
    _refuse_gone(fs, root, paths)
    _refuse_other_keys(root, paths, actions)
    deleted, there = {}, set(paths)
    for row in vectors:
        path = str(fs._strip_protocol(row["filepath"]))
        path = path if path in there else unquote(path)  # told as a URL
        deleted[path] = np.flatnonzero(~np.array(row["selection_vector"]))
    if not deleted.keys() <= there:
        raise UserError("the Delta table has deletion vectors of files that are not in it")
    stamps = [f"{action['size_bytes']}|{action['modification_time']}" for action in actions]
    sizes = [int(action["size_bytes"]) for action in actions]
    return _listing(fs, root, f"{url}@{number}", paths, sizes, stamps, deleted)


def _refuse_other_keys(
    root: str, paths: Iterable[str], actions: Iterable[Mapping[str, Any]]
) -> None:
    """Columns of partitions are in no file: paths have to say what the log says."""
    told = PathColumns(root, ())
    for path, action in zip(paths, actions, strict=True):
        keys = {
            name.removeprefix("partition."): value
            for name, value in action.items()
            if name.startswith("partition.") and value is not None
        }
        values = told.values(path)
        if any(values.get(name) != str(value) for name, value in keys.items()):
            raise UserError(
                "the Delta table has partitions that the paths of its files do not tell "
                f"({', '.join(keys)}): write it anew, without partitions"
            )


def _iceberg(fs: Any, root: str, url: str, version: int | None) -> Listing:
    from pyiceberg.io.pyarrow import _read_all_delete_files
    from pyiceberg.table import StaticTable

    # fsspec's, as all other stores: it takes credentials and endpoint from the environment.
    how = {"py-io-impl": "pyiceberg.io.fsspec.FsspecFileIO"} if "://" in url else {}
    table = StaticTable.from_metadata(_newest_metadata(fs, root, url), how)
    found = table.metadata.snapshot_by_id(version) if version else table.current_snapshot()
    if found is None:
        known = ", ".join(str(each.snapshot_id) for each in table.metadata.snapshots)
        raise UserError(f"the Iceberg table has no such snapshot; there are: {known or 'none'}")
    _refuse_renamed(table.metadata.schemas)
    try:
        tasks = list(table.scan(snapshot_id=found.snapshot_id).plan_files())
    except ValueError:
        raise UserError(
            "the Iceberg table has equality deletes: compact it (rewrite_data_files) first"
        ) from None
    if {str(task.file.file_format).upper().rpartition(".")[2] for task in tasks} - {"PARQUET"}:
        raise UserError("the Iceberg table has files that are no Parquet: not read")

    tasks.sort(key=lambda task: str(task.file.file_path))
    paths = [str(fs._strip_protocol(task.file.file_path)) for task in tasks]
    _refuse_gone(fs, root, paths)
    deleted = {
        str(fs._strip_protocol(path)): np.unique(pa.chunked_array(_chunks(rows)).to_numpy())
        for path, rows in _read_all_delete_files(table.io, tasks).items()
    }
    sizes = [int(task.file.file_size_in_bytes) for task in tasks]
    stamps = list(map(str, sizes))
    there = set(paths)
    kept = {path: rows for path, rows in deleted.items() if path in there}
    return _listing(fs, root, f"{url}@{found.snapshot_id}", paths, sizes, stamps, kept)


def _chunks(rows: Iterable[pa.ChunkedArray | pa.Array]) -> list[pa.Array]:
    return [
        chunk
        for each in rows
        for chunk in (each.chunks if isinstance(each, pa.ChunkedArray) else [each])
    ]


def _newest_metadata(fs: Any, root: str, url: str) -> str:
    """Of a table without its catalog: what its hint names, or the file of the highest number."""
    folder = f"{root}/metadata"
    names = [path.rpartition("/")[2] for path in fs.find(folder)]
    names = [name for name in names if name.endswith(".metadata.json")]
    if fs.exists(f"{folder}/version-hint.text"):
        hint = fs.cat_file(f"{folder}/version-hint.text").decode().strip()
        names = [name for name in names if name in (f"v{hint}.metadata.json", hint)] or names
    numbers = {name: name.lstrip("v").partition("-")[0].partition(".")[0] for name in names}
    known = {name: int(number) for name, number in numbers.items() if number.isdecimal()}
    newest = [name for name, number in known.items() if number == max(known.values())]
    if len(newest) != 1:
        raise UserError(
            "which metadata of the Iceberg table counts is for its catalog to say: "
            f"{len(newest)} files of its folder metadata have the highest number"
        )
    return f"{url}/metadata/{newest[0]}"


def _refuse_renamed(schemas: Iterable[Any]) -> None:
    """Files are read by the names of their columns, Iceberg goes by numbers."""
    names: dict[int, str] = {}
    numbers: dict[str, int] = {}
    for schema in schemas:
        for item in schema.fields:
            same = names.setdefault(item.field_id, item.name) == item.name
            if not same or numbers.setdefault(item.name, item.field_id) != item.field_id:
                raise UserError(
                    f"column {item.name!r} of the Iceberg table was renamed or put in the place of "
                    "another: compact it (rewrite_data_files) into a new table"
                )


def ask_lance(url: str, version: int | None) -> tuple[int, list[tuple[int, int, str]]]:
    """Version, and number, bytes and stamp of every fragment of a dataset; for the sandbox."""
    import lance

    dataset = lance.dataset(url, version=version)
    found = []
    for each in dataset.get_fragments():
        size = sum(file.file_size_bytes or 0 for file in each.metadata.files)
        stamp = json.dumps(each.metadata.to_json(), sort_keys=True, default=str)
        found.append((each.fragment_id, size, stamp))
    return dataset.version, found


def _lance(fs: Any, root: str, url: str, version: int | None) -> Listing:
    number, fragments = apart("lance", ask_lance, url, version)
    paths = [f"{root}/{each:08d}{FRAGMENT}" for each, _, _ in fragments]
    sizes, stamps = [size for _, size, _ in fragments], [stamp for _, _, stamp in fragments]
    return _listing(fs, root, f"{url}@{number}", paths, sizes, stamps, {})


def _listing(
    fs: Any,
    root: str,
    url: str,
    paths: list[str],
    sizes: list[int],
    stamps: list[str],
    deleted: Deleted,
) -> Listing:
    files = {}
    for path, size, stamp in sorted(zip(paths, sizes, stamps, strict=True)):
        gone = deleted[path].tobytes() if path in deleted else b""
        files[path] = File(size, f"{stamp}|{hashlib.sha256(gone).hexdigest()}")
    if len(files) < len(paths):
        raise UserError("the table lists a file twice: write it anew")
    return Listing(fs, root, files, url=url, deleted=deleted)


def _refuse_gone(fs: Any, root: str, paths: list[str]) -> None:
    """A version may outlive its files; one that was moved names files that are elsewhere."""
    if not all(path.startswith(f"{root}/") for path in paths):
        raise UserError(
            "the table names files that lie outside its folder: was it moved or cloned?"
        )
    there = set(fs.find(root))
    if gone := sum(path not in there for path in paths):
        raise UserError(f"{gone} of {len(paths)} files of that version are gone: was it vacuumed?")


_KINDS: dict[str, Callable[[Any, str, str, int | None], Listing]] = {
    "Delta": _delta,
    "Iceberg": _iceberg,
    "Lance": _lance,
}
