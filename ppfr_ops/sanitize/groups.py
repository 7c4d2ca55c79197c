"""The owner's file of groups: which rows of an input seem to show the same person.

CSV or Parquet, by the name's ending, one line a row of the input:

======== ========================================================================================
source   the file, relative to the input; of a tar the file, ``#`` and the picture's name in it
row      the row in a Parquet file; the place in a tar; 0 for a picture file
group    text or number that rows of one person share; empty: a person of their own
======== ========================================================================================

``ppfr group`` writes it, a person corrects it, ``read_groups`` takes it back. It names sources: the
owner's, written with mode 0600.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import FACE_SIZE
from ppfr_ops.options import option
from ppfr_ops.sanitize.alignment import template_of
from ppfr_ops.sanitize.grouping import Vectors, assign, features_of, group
from ppfr_ops.sanitize.items import Results, decoded
from ppfr_ops.sanitize.options import Template
from ppfr_ops.source.labels import label
from ppfr_ops.source.plan import Columns, Plan, Unit, plan, read_unit, sources
from ppfr_ops.source.units import storable
from ppfr_ops.store.atomic import in_one_step
from ppfr_ops.store.storage import open_store

SCHEMA = pa.schema([("source", pa.string()), ("row", pa.int64()), ("group", pa.string())])

Place = tuple[str, int]
"""Source and row."""


def places_of(plan: Plan, unit: Unit) -> Iterator[Place]:
    """Source and row of every row of a unit, in its order, as a file of groups has them."""
    fs, path = open_store(plan.input)
    folder = re.split(r"[*?\[]", path, maxsplit=1)[0]
    if folder != path or (path in unit.sources and not fs.isdir(path)):
        folder = os.path.dirname(folder)
    start = storable(folder.rstrip("/") + "/")
    for source, row in sources(plan, unit):
        yield source.removeprefix(start), row


def write_groups(path: str, places: Sequence[Place], groups: Sequence[int | str | None]) -> None:
    """Write a file of groups, in one step; a CSV, or Parquet if the name says so.

    Raises:
        ValueError: not as many groups as places.
        OSError: it cannot be written.
    """
    columns = [
        [source for source, _ in places],
        [row for _, row in places],
        [None if name is None else str(name) for name in groups],
    ]
    table = pa.table(columns, schema=SCHEMA)
    with in_one_step(path, mode=0o600) as file:
        if path.endswith(".parquet"):
            pq.write_table(table, file)
        else:
            pacsv.write_csv(table, file)


def read_groups(path: str) -> Mapping[Place, str | None]:
    """What ``write_groups`` wrote, or a person made of it.

    Returns:
        The group of every row by its place; None: a person of its own.

    Raises:
        UserError: not readable, a column is missing, or a row is named twice.
    """
    kinds = {field.name: field.type for field in SCHEMA}
    try:
        if path.endswith(".parquet"):
            table = pq.read_table(path, columns=SCHEMA.names)
        else:
            options = pacsv.ConvertOptions(
                column_types=kinds, include_columns=SCHEMA.names, strings_can_be_null=True
            )
            table = pacsv.read_csv(path, convert_options=options)
        table = table.cast(SCHEMA)
    except (OSError, KeyError, ValueError, pa.ArrowException):
        raise UserError(
            "--groups: no readable CSV or Parquet file with the columns source, row and group"
        ) from None
    if table["source"].null_count or table["row"].null_count:
        raise UserError("--groups: a line without source or row")
    names = [label(name) for name in table["group"].to_pylist()]
    places = list(zip(table["source"].to_pylist(), table["row"].to_pylist(), strict=True))
    found = dict(zip(places, names, strict=True))
    if len(found) < len(places):
        raise UserError("--groups: a row of the input is named twice")
    return found


class GroupOptions(BaseModel):
    """What is to be grouped, and where the groups go."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: str = option(
        ..., "File, folder, glob or fsspec URL of aligned faces, 112x112.", private=True
    )
    output: str = option(
        ...,
        "File to write the groups to, CSV or, by its name, Parquet: columns source, row and group. "
        "It names sources: keep it to yourself.",
        private=True,
        metavar="FILE",
    )
    image_column: str | None = option(
        None,
        "Column of the pictures.",
        metavar="NAME",
        default_text="image, or the only column that can be one",
    )
    align: Literal["auto", "off", Template] = option(
        "auto",
        "How the faces are aligned. auto: what another known template aligned, by a look at the "
        "first, is turned into 112x112. A name: that template did. off: take them as they are.",
    )
    known: str | None = option(
        None,
        "An earlier file of groups. Its rows keep their groups; a row that it does not name joins "
        "the group that it is nearest to, or opens one.",
        private=True,
        metavar="FILE",
    )


@dataclass(frozen=True)
class Grouped:
    """What a grouping came to."""

    rows: int
    groups: int
    alone: int
    """Groups of one row."""
    unread: int
    """Rows without a face that could be read; they are in no group."""


def group_input(options: GroupOptions) -> Grouped:
    """Group the faces of an input and write the file of groups.

    Raises:
        UserError: the input or the earlier file cannot be read, or the new one not be written.
    """
    planned = plan(options.input, Columns(options.image_column))
    known = {} if options.known is None else read_groups(options.known)
    template = template_of(planned) if options.align == "auto" else options.align
    places: list[Place] = []
    parts: list[list[Vectors]] = []
    there: list[int] = []
    for unit in planned.units:
        table = read_unit(planned, unit)
        items = list(decoded(table, Results(unit.id), template))
        faces = np.array([item.pixels for item in items], np.uint8)
        parts.append(features_of(faces.reshape(-1, FACE_SIZE, FACE_SIZE, 3)))
        there += [len(places) + item.row for item in items]
        places += places_of(planned, unit)
    vectors = [np.concatenate(encoder) for encoder in zip(*parts, strict=True)]
    names: list[str | None] = [None] * len(places)
    for row, name in zip(
        there, _named(vectors, [places[row] for row in there], known), strict=True
    ):
        names[row] = name
    try:
        write_groups(options.output, places, names)
    except OSError as error:
        raise UserError(f"--output cannot be written ({type(error).__name__})") from None
    sizes = Counter(name for name in names if name is not None)
    alone = sum(size == 1 for size in sizes.values())
    return Grouped(len(places), len(sizes), alone, len(places) - len(there))


def _named(
    vectors: list[Vectors], places: list[Place], known: Mapping[Place, str | None]
) -> list[str]:
    """The group of every face; those of ``known`` are kept, a row that it leaves alone stays so."""
    if not known:
        return [str(number) for number in group(vectors)]
    old = np.array([place in known for place in places])
    taken = set(known.values())
    fresh = (str(number) for number in count() if str(number) not in taken)
    given = [known[place] for place in places if place in known]
    # A row of its own is no group to join.
    labels = {name: number for number, name in enumerate(n for n in dict.fromkeys(given) if n)}
    named = np.array([name is not None for name in given], bool)
    ids = np.array([labels[name] for name in given if name is not None], np.int64)
    found = assign([part[~old] for part in vectors], [part[old][named] for part in vectors], ids)
    texts = dict(enumerate(labels))
    for number in dict.fromkeys(found.tolist()):
        if number not in texts:
            texts[number] = next(fresh)
    joined = iter(found)
    kept = iter(given)
    names = [next(kept) if was else texts[int(next(joined))] for was in old]
    return [next(fresh) if name is None else name for name in names]
