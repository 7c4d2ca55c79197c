"""The owner's file of groups: which rows of an input seem to show the same person.

CSV or Parquet, by the name's ending, one line a row of the input:

======== ========================================================================================
source   the file, relative to the input; of a tar the file, ``#`` and the picture's name in it
row      the row in a Parquet file; the place in a tar; 0 for a picture file
face     of photographs: the number of the face as the detector gives them, from 0
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
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import FACE_SIZE
from ppfr_ops.imaging.geometry import cut, transforms
from ppfr_ops.options import Options, option, owners_file
from ppfr_ops.sanitize.alignment import template_of
from ppfr_ops.sanitize.grouping import Vectors, assign, features_of, group
from ppfr_ops.sanitize.items import Results, decoded
from ppfr_ops.sanitize.options import Template
from ppfr_ops.sanitize.photographs.finder import Finder
from ppfr_ops.sanitize.photographs.options import PhotographOptions
from ppfr_ops.source.labels import label
from ppfr_ops.source.plan import Columns, Plan, Unit, plan, read_unit, sources
from ppfr_ops.source.units import record_id, storable
from ppfr_ops.store.atomic import in_one_step
from ppfr_ops.store.storage import open_store

SCHEMA = pa.schema([("source", pa.string()), ("row", pa.int64()), ("group", pa.string())])

Place = tuple[str, int]
"""Source and row."""

FacePlace = tuple[str, int, int]
"""Source, row and the face's number in the photograph."""


def places_of(plan: Plan, unit: Unit) -> Iterator[Place]:
    """Source and row of every row of a unit, in its order, as a file of groups has them."""
    fs, path = open_store(plan.input)
    folder = re.split(r"[*?\[]", path, maxsplit=1)[0]
    if folder != path or (path in unit.sources and not fs.isdir(path)):
        folder = os.path.dirname(folder)
    start = storable(folder.rstrip("/") + "/")
    for source, row in sources(plan, unit):
        yield source.removeprefix(start), row


def write_groups(
    path: str, places: Sequence[Place | FacePlace], groups: Sequence[int | str | None]
) -> None:
    """Write a file of groups, in one step; a CSV, or Parquet if the name says so.

    Args:
        places: of aligned faces, or of faces in photographs.

    Raises:
        ValueError: not as many groups as places.
        OSError: it cannot be written.
    """
    faces = any(len(place) == 3 for place in places)
    names = ("source", "row", "face") if faces else ("source", "row")
    columns: dict[str, list[object]] = {
        name: [place[number] for place in places] for number, name in enumerate(names)
    }
    columns["group"] = [None if name is None else str(name) for name in groups]
    table = pa.table(columns, schema=_schema(faces))
    with in_one_step(path, mode=0o600) as file:
        if path.endswith(".parquet"):
            pq.write_table(table, file)
        else:
            pacsv.write_csv(table, file)


def _schema(faces: bool) -> pa.Schema:
    return SCHEMA.insert(2, pa.field("face", pa.int64())) if faces else SCHEMA


def read_groups(path: str) -> Mapping[Any, str | None]:
    """What ``write_groups`` wrote, or a person made of it.

    Returns:
        The group by the ``Place`` of every row, or by the ``FacePlace`` of every face if there is a
        column of faces; None: a person of its own.

    Raises:
        UserError: not readable, a column is missing, or a row or face is named twice.
    """
    kinds = {field.name: field.type for field in _schema(True)}
    try:
        if path.endswith(".parquet"):
            table = pq.read_table(path)
        else:
            options = pacsv.ConvertOptions(column_types=kinds, strings_can_be_null=True)
            table = pacsv.read_csv(path, convert_options=options)
        schema = _schema("face" in table.column_names)
        table = table.select(schema.names).cast(schema)
    except (OSError, KeyError, ValueError, pa.ArrowException):
        raise UserError(
            "--groups: no readable CSV or Parquet file with the columns source, row and group"
        ) from None
    where = schema.names[:-1]
    if any(table[name].null_count for name in where):
        raise UserError(f"--groups: a line without {' or '.join(where)}")
    names = [label(name) for name in table["group"].to_pylist()]
    places = list(zip(*(table[name].to_pylist() for name in where), strict=True))
    found = dict(zip(places, names, strict=True))
    if len(found) < len(places):
        raise UserError("--groups: a row of the input is named twice")
    return found


def people_of(path: str, planned: Plan) -> dict[str, dict[int, str]]:
    """Of every photograph, by its id, the people by the number of the face.

    Raises:
        UserError: as ``read_groups``; it has no faces, or none of the input's photographs.
    """
    named: dict[Place, dict[int, str]] = {}
    for place, name in read_groups(path).items():
        if len(place) == 2:
            raise UserError(
                "--groups: of photographs it needs a column face, as ppfr group --faces detect "
                "writes it"
            )
        if name is not None:
            named.setdefault(place[:2], {})[place[2]] = name
    found = {
        record_id(unit.id, number): named[place]
        for unit in planned.units
        for number, place in enumerate(places_of(planned, unit))
        if place in named
    }
    if named and not found:
        raise UserError("--groups: it names no photograph of this input")
    return found


class GroupOptions(Options):
    """What is to be grouped, and where the groups go."""

    input: str = option(
        ...,
        "File, folder, glob or fsspec URL of aligned faces, 112x112, or of photographs.",
        private=True,
    )
    faces: Literal["aligned", "detect"] = option(
        "aligned",
        "aligned: every picture is a face. detect: pictures are photographs, of which every face "
        "gets a group, for ppfr sanitize --faces detect --cover virtual --groups.",
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
    known: str | None = owners_file(
        "An earlier file of groups. Its rows keep their groups; a row that it does not name joins "
        "the group that it is nearest to, or opens one."
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
    if options.faces == "detect":
        return _group_photographs(options, planned)
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
    return _written(options, places, names)


def _written(
    options: GroupOptions, places: Sequence[Place | FacePlace], names: Sequence[str | None]
) -> Grouped:
    try:
        write_groups(options.output, places, names)
    except OSError as error:
        raise UserError(f"--output cannot be written ({type(error).__name__})") from None
    sizes = Counter(name for name in names if name is not None)
    alone = sum(size == 1 for size in sizes.values())
    return Grouped(len(places), len(sizes), alone, names.count(None))


def _group_photographs(options: GroupOptions, planned: Plan) -> Grouped:
    """The same of all faces of photographs that are large and sure enough to be drawn."""
    if options.known is not None:
        raise UserError("--known goes with aligned faces")
    finder = Finder(PhotographOptions(output_faces="in-place"), {})
    places: list[FacePlace] = []
    parts: list[list[Vectors]] = [features_of(np.zeros((0, FACE_SIZE, FACE_SIZE, 3), np.uint8))]
    for unit in planned.units:
        at = list(places_of(planned, unit))
        for photograph in finder.photographs(read_unit(planned, unit), Results(unit.id)):
            matrices = transforms(photograph.faces)
            shown = [n for n, each in enumerate(photograph.treatments) if each == "anonymized"]
            parts.append(features_of(cut(photograph.pixels, [matrices[n] for n in shown])))
            places += [(*at[photograph.row], n) for n in shown]
    vectors = [np.concatenate(encoder) for encoder in zip(*parts, strict=True)]
    return _written(options, places, _named(vectors, [], {}) if places else [])


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
