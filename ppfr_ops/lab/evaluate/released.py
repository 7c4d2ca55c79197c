"""A release and its source as the structure attack has them: labels, places and kept columns."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ppfr_ops.contracts.manifest import ReleaseManifest
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.lab.evaluate.attacks.structure import Ints, Seen, Source
from ppfr_ops.lab.evaluate.data import decoded
from ppfr_ops.release.tables import NAME
from ppfr_ops.sanitize.mapping import pair
from ppfr_ops.source.coarsening import coarsened, parse
from ppfr_ops.source.labels import label
from ppfr_ops.source.sums import Sum, sum_of

_BATCH = 256
_NO_KEPT = frozenset({"record_id", "image", "identity"})


@dataclass(frozen=True)
class Released:
    """What a release shows."""

    seen: Seen
    labels: Sequence[str]
    """Of the pseudonyms, by number."""
    named: bool
    """Whether the release says which records are one person's."""
    kept: tuple[str, ...]
    files: tuple[Any, ...]
    """Paths of Parquet files; of a table of Lance its fragments."""
    manifest: ReleaseManifest | None


@dataclass(frozen=True)
class Known:
    """What the attacker knows of the source."""

    source: Source
    labels: Sequence[str]
    """Of the people, by number."""
    rows: dict[tuple[str, int], int]
    """Row of the source by its file's name and its row in it."""
    files: tuple[Path, ...]


def read_release_folder(folder: str) -> Released:
    """A release: ``OUTPUT``, ``OUTPUT/release``, any folder of Parquet files with record ids, or a
    table of Delta, Iceberg (with its ``catalog.db``) or Lance that it was exported as; its files
    and rows in the order in which the table's own library gives them.

    Raises:
        UserError: there are none, or they cannot be read.
    """
    root = Path(folder)
    root = root / "release" if (root / "release" / "data").is_dir() else root
    shards: list[int] = []
    tables = []
    try:
        files = _files(root)
        for number, file in enumerate(files):
            tables.append(_rows(file))
            shards += [number] * tables[-1].num_rows
        table = pa.concat_tables(tables, promote_options="default")
        ids = table["record_id"].to_pylist()
    except (OSError, KeyError, ValueError, pa.ArrowException):
        raise UserError("--release: no Parquet files with a column record_id") from None
    kept = tuple(name for name in table.column_names if name not in _NO_KEPT)
    named = "identity" in table.column_names
    whose = table["identity"].to_pylist() if named else ids
    whose = [record if name is None else name for name, record in zip(whose, ids, strict=True)]
    labels, numbers = _numbered(whose)
    seen = Seen(np.array(shards), numbers, _tuples(table, kept), ids)
    return Released(seen, labels, named, kept, tuple(files), _manifest(root))


def _files(root: Path) -> list[Any]:
    """Paths of Parquet files, of Lance its fragments."""
    if (root / "_delta_log").is_dir():
        from deltalake import DeltaTable

        return list(DeltaTable(str(root)).file_uris())
    if (root / "catalog.db").is_file():
        from pyiceberg.catalog.sql import SqlCatalog

        catalog = SqlCatalog("ppfr", uri=f"sqlite:///{root.resolve()}/catalog.db")
        tasks = catalog.load_table(NAME).scan().plan_files()
        return [task.file.file_path.removeprefix("file://") for task in tasks]
    if (root / "_versions").is_dir():
        import lance

        return list(lance.dataset(str(root)).get_fragments())
    data = root / "data" if (root / "data").is_dir() else root
    return sorted(data.glob("*.parquet"))


def _rows(file: Any, pictures: bool = False) -> pa.Table:
    """The pictures of a file, or all other columns."""
    reads = file if hasattr(file, "to_table") else None
    names = (reads.schema if reads else pq.read_schema(file)).names
    chosen = [name for name in names if (name == "image") == pictures]
    return reads.to_table(chosen) if reads else pq.ParquetFile(file).read(chosen)


def _manifest(root: Path) -> ReleaseManifest | None:
    try:
        return ReleaseManifest.model_validate_json((root / "manifest.json").read_bytes())
    except (OSError, ValueError):
        return None


def _tuples(table: pa.Table, names: Sequence[str]) -> list[Hashable]:
    columns = [[repr(value) for value in table[name].to_pylist()] for name in names]
    return list(zip(*columns, strict=True)) if columns else [()] * table.num_rows


def read_source(path: str, identity_column: str, release: Released) -> Known:
    """The source: who stands in which row, and the columns that the release kept, as coarse as its
    manifest says.

    Args:
        path: Parquet file or folder.

    Raises:
        UserError: not readable, or without a column that is needed.
    """
    root = Path(path)
    files = sorted(root.glob("**/*.parquet")) if root.is_dir() else [root]
    wanted = {name: parse(name) for name in release.kept}
    if release.manifest is not None:
        told = release.manifest.options.get("keep_columns", [])
        wanted |= {parse(str(text)).name: parse(str(text)) for text in told}
    names = [identity_column, *release.kept]
    try:
        tables = [pq.read_table(file, columns=names) for file in files]
        table = pa.concat_tables(tables, promote_options="default")
        for name in release.kept:
            place = table.column_names.index(name)
            table = table.set_column(place, name, coarsened(table[name], wanted[name]))
        who = table[identity_column].to_pylist()
    except (OSError, KeyError, ValueError, pa.ArrowException):
        raise UserError(f"--source: no Parquet files with the columns {', '.join(names)}") from None
    places = [
        (file.name, row)
        for file, part in zip(files, tables, strict=True)
        for row in range(part.num_rows)
    ]
    own = [label(name) or f"row {place}" for name, place in zip(who, places, strict=True)]
    labels, people = _numbered(own)
    blocks = [number for number, part in enumerate(tables) for _ in range(part.num_rows)]
    rows = {place: number for number, place in enumerate(places)}
    source = Source(people, np.array(blocks), _tuples(table, release.kept))
    return Known(source, labels, rows, tuple(files))


def joined(versions: Sequence[tuple[Released, Known]]) -> tuple[Released, Known]:
    """Versions of a release, oldest first, and what each was made of, laid side by side: as one in
    which rows and records say which version they are of. A pseudonym is the same in all."""
    releases, sources = zip(*versions, strict=True)
    last: Released = releases[-1]
    shown = [found.seen for found in releases]
    known = [found.source for found in sources]
    labels, pseudonyms = _numbered([r.labels[n] for r in releases for n in r.seen.pseudonyms])
    names, people = _numbered([k.labels[n] for k in sources for n in k.source.people])
    starts = np.cumsum([0, *(len(source.people) for source in known)]).tolist()
    rows = {
        place: start + row
        for found, start in zip(sources, starts[:-1], strict=True)
        for place, row in found.rows.items()
    }
    seen = Seen(
        _stacked([part.shards for part in shown]),
        pseudonyms,
        _by_version([part.kept for part in shown]),
        [record for part in shown for record in part.ids],
    )
    source = Source(
        people, _stacked([part.files for part in known]), _by_version([p.kept for p in known])
    )
    files = tuple(file for found in releases for file in found.files)
    originals = tuple(file for found in sources for file in found.files)
    return (
        replace(last, seen=seen, labels=labels, files=files),
        Known(source, names, rows, originals),
    )


def _numbered(names: Sequence[Any]) -> tuple[list[str], Ints]:
    """Names that there are, sorted, and the place of each in them."""
    found, numbers = np.unique(np.array(names, object).astype(str), return_inverse=True)
    return found.tolist(), numbers.reshape(-1)


def _stacked(parts: Sequence[Ints]) -> Ints:
    """Numbers of one part after those of the other."""
    starts = np.cumsum([0, *(int(part.max()) + 1 for part in parts)])[:-1]
    return np.concatenate([part + start for part, start in zip(parts, starts, strict=True)])


def _by_version(parts: Sequence[Sequence[Hashable]]) -> list[Hashable]:
    return [(number, value) for number, part in enumerate(parts) for value in part]


def faces_in(files: Sequence[Any], what: str = "--structure-pictures") -> Faces:
    """The pictures of ``Released.files``, in order, uint8 ``N x 112 x 112 x 3``.

    Raises:
        UserError: one is no aligned face.
    """
    try:
        rows = [row for file in files for row in _rows(file, True)["image"].to_pylist()]
    except (OSError, KeyError, ValueError, pa.ArrowException):
        raise UserError(f"{what}: no pictures") from None
    return decoded(rows, what)


def read_truth(
    mapping: str, release: Released, known: Known, log: Callable[[str], None]
) -> dict[int, int]:
    """The person of every pseudonym, by number, from the owner's mapping: of records or, where no
    record is of a row, of pseudonyms.

    Args:
        log: is told what of the source does not fit.

    Raises:
        UserError: not readable, or of another release or source.
    """
    seen = release.seen
    number: dict[str, int] = {label: place for place, label in enumerate(release.labels)}
    number |= dict(zip(seen.ids, seen.pseudonyms.tolist(), strict=True))
    votes: dict[int, Counter[int]] = defaultdict(Counter)
    for name, place in pair(mapping, known.rows, _sums(known), number.__contains__, log):
        votes[number[name]][int(known.source.people[place])] += 1
    return {name: counts.most_common(1)[0][0] for name, counts in votes.items()}


def _sums(known: Known) -> list[Sum]:
    """Of the pictures of the source, as far as it has any."""
    sums: list[Sum] = []
    for file in known.files:
        with pq.ParquetFile(file) as opened:
            if "image" not in opened.schema_arrow.names:
                sums += [None] * opened.metadata.num_rows
                continue
            for batch in opened.iter_batches(_BATCH, columns=["image"]):
                for cell in batch["image"].to_pylist():
                    data = cell.get("bytes") if isinstance(cell, dict) else cell
                    sums.append(sum_of(data if isinstance(data, bytes) else None))
    return sums
