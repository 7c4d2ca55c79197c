"""What an evaluation is given: faces, pairs of them, what was published for them.

Faces stay in memory; names and places serve to resolve pairs and mappings and are never written.
"""

import hashlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import FACE_SIZE, Faces
from ppfr_ops.imaging.codec import ImageError, decode
from ppfr_ops.sanitize.mapping import pair
from ppfr_ops.source.sums import Sum, sum_of

GROUP_ATTRIBUTES = ("age", "gender", "ethnicity")
_AGES = (0, 13, 20, 35, 50, 65)
"""First years of age groups."""
_NAMES = {"gender": ("male", "female"), "ethnicity": ("White", "Black", "Asian", "Indian", "other")}


@dataclass(frozen=True)
class FaceSet:
    """Aligned faces in memory.

    ``images`` uint8 ``N x 112 x 112 x 3`` RGB; ``names`` only to resolve pairs, never written out;
    ``identities`` where the data has them; ``attributes`` integer columns, None for a missing
    label.
    """

    images: Faces
    names: list[str]
    identities: list[str] | None
    attributes: dict[str, list[int | None]]
    origins: list[tuple[str, int]]
    """File and row; never written out."""
    sums: list[Sum]
    """sha256 of the pictures as they are stored; never written out."""

    def __len__(self) -> int:
        return len(self.images)

    def sha256(self) -> str:
        return pixels_sha256(self.images)

    def keep(self, mask: NDArray[np.bool_]) -> "FaceSet":
        """Only the faces where ``mask`` is True."""

        def some(values: list[Any]) -> list[Any]:
            return [value for value, kept in zip(values, mask, strict=True) if kept]

        return FaceSet(
            self.images[mask],
            some(self.names),
            None if self.identities is None else some(self.identities),
            {name: some(values) for name, values in self.attributes.items()},
            some(self.origins),
            some(self.sums),
        )


def pixels_sha256(images: Faces) -> str:
    """sha256 of the decoded pixels, hex."""
    return hashlib.sha256(images.tobytes()).hexdigest()


def decoded(rows: list[dict[str, Any] | None], what: str) -> Faces:
    """The pictures of image structs. Raises UserError: one is no aligned face."""
    images = np.empty((len(rows), FACE_SIZE, FACE_SIZE, 3), np.uint8)
    for i, row in enumerate(rows):
        try:
            images[i] = decode((row or {}).get("bytes") or b"", size=(FACE_SIZE, FACE_SIZE))
        except ImageError as error:
            detail = f" ({error.detail})" if error.detail else ""
            raise UserError(
                f"{what}, row {i}: {error.code.replace('_', ' ')}{detail}, needed: an aligned face "
                f"of {FACE_SIZE}x{FACE_SIZE} px"
            ) from None
    return images


def _table(path: str, what: str) -> tuple[pa.Table, list[tuple[str, int]]]:
    """A Parquet file or folder, and the file and row that every row comes from."""
    try:
        files = sorted(pads.dataset(path, format="parquet").files)
        tables = [pq.read_table(file) for file in files]
        table = pa.concat_tables(tables, promote_options="default")
    except (OSError, ValueError):
        raise UserError(f"{what}: no readable Parquet data in {path}") from None
    if "image" not in table.column_names or not pa.types.is_struct(
        table.schema.field("image").type
    ):
        raise UserError(f"{what}: no column image: struct<bytes, path> in {path}")
    if table.num_rows == 0:
        raise UserError(f"{what}: no faces in {path}")
    origins = [(f, row) for f, part in zip(files, tables, strict=True) for row in range(len(part))]
    return table, origins


def read_faces(path: str, what: str) -> FaceSet:
    """Aligned faces from a Parquet file or folder (``image: struct<bytes, path>``, and where there
    are any ``identity``, ``age``, ``gender``, ``ethnicity``).

    Raises:
        UserError: nothing there, no such columns, or a picture that is no aligned face.
    """
    table, origins = _table(path, what)
    rows = table.column("image").to_pylist()
    identities = table.column("identity").to_pylist() if "identity" in table.column_names else None
    attributes = {
        name: table.column(name).to_pylist()
        for name in GROUP_ATTRIBUTES
        if name in table.column_names
    }
    names = [(row or {}).get("path") or "" for row in rows]
    sums = [sum_of((row or {}).get("bytes")) for row in rows]
    return FaceSet(decoded(rows, what), names, identities, attributes, origins, sums)


def read_sanitized(
    path: str, mapping: str | None, gallery: FaceSet, log: Callable[[str], None]
) -> tuple[Faces, NDArray[np.bool_]]:
    """What ``ppfr sanitize`` published for the gallery.

    Args:
        path: its output folder, the release in it, or a Parquet folder with ``record_id`` and
            ``image``.
        mapping: its mapping (``sanitize.mapping``).
        gallery: the originals.
        log: is told what of the gallery does not fit.

    Returns:
        uint8 ``N x 112 x 112 x 3`` in the order of the gallery, and ``N``: False where nothing was
        published.

    Raises:
        UserError: not readable, not of this gallery, or there is no mapping.
    """
    places = (Path(path) / "release" / "data", Path(path) / "data")
    data = next((str(place) for place in places if place.is_dir()), path)
    table, _ = _table(data, "sanitized")
    if "record_id" not in table.column_names:
        raise UserError("sanitized: no column record_id")
    table = table.sort_by("record_id")
    owner = places_of(table.column("record_id").to_pylist(), mapping, gallery, log)
    mine = np.flatnonzero(owner >= 0)
    published = np.zeros_like(gallery.images)
    there = np.zeros(len(gallery), bool)
    where = owner[mine]
    published[where] = decoded(table.column("image").take(pa.array(mine)).to_pylist(), "sanitized")
    there[where] = True
    return published, there


def places_of(
    records: list[str], mapping: str | None, gallery: FaceSet, log: Callable[[str], None]
) -> NDArray[np.int64]:
    """For every record id, in their order, the place of its original in the gallery; -1 where it
    comes from elsewhere.

    Raises:
        UserError: the mapping is not readable, not of this gallery, or there is none: the records
            of a release stand in a random order, so nothing else says which is which.
    """
    if mapping is None:
        raise UserError(
            "only --mapping says which record was made of which face; run the command that made "
            "the output once more with --mapping FILE to write it"
        )
    rows = {(Path(file).name, row): i for i, (file, row) in enumerate(gallery.origins)}
    if len(rows) < len(gallery):
        raise UserError("mapping: files of the gallery share a name")
    found = dict(pair(mapping, rows, gallery.sums, set(records).__contains__, log))
    return np.array([found.get(record, -1) for record in records], np.int64)


def read_released(path: str, identity_column: str) -> tuple[list[str], Faces, list[str | None]]:
    """A release's records: ids, faces uint8 ``N x 112 x 112 x 3``, and whose each is, as far as
    the release says so.

    Raises:
        UserError: not readable, no record ids, or a picture that is no aligned face.
    """
    table, _ = _table(path, "release")
    if "record_id" not in table.column_names:
        raise UserError("release: no column record_id")
    table = table.sort_by("record_id")
    ids = table.column("record_id").to_pylist()
    people: list[str | None] = [None] * len(ids)
    if identity_column in table.column_names:
        people = [None if p is None else str(p) for p in table.column(identity_column).to_pylist()]
    return ids, decoded(table.column("image").to_pylist(), "release"), people


@dataclass(frozen=True)
class Pairs:
    """Comparisons: indices into a gallery, ``same`` True for genuine, ``folds``."""

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    same: NDArray[np.bool_]
    folds: NDArray[np.int64]

    def images(self) -> NDArray[np.int64]:
        """Indices of all images that take part, sorted."""
        return np.unique(np.concatenate([self.a, self.b]))

    def keep(self, mask: NDArray[np.bool_]) -> "Pairs":
        """For a gallery of which only the faces where ``mask`` is True are left."""
        place = np.cumsum(mask) - 1
        rows = mask[self.a] & mask[self.b]
        return Pairs(place[self.a[rows]], place[self.b[rows]], self.same[rows], self.folds[rows])

    def first(self, per_fold: int) -> "Pairs":
        """At most ``per_fold`` pairs of every fold, genuine and impostor alternating."""
        keep: list[int] = []
        for fold in np.unique(self.folds):
            for same, count in ((True, per_fold - per_fold // 2), (False, per_fold // 2)):
                keep += list(np.flatnonzero((self.folds == fold) & (self.same == same))[:count])
        rows = np.sort(np.array(keep))
        return Pairs(self.a[rows], self.b[rows], self.same[rows], self.folds[rows])


def read_pairs(path: str, gallery: FaceSet) -> Pairs:
    """Pairs from a Parquet file ``a, b: string (image.path), same: bool, fold: int``.

    Raises:
        UserError: no such file or columns, images that the gallery lacks, one fold, or one kind.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid):
        raise UserError(f"pairs: no readable Parquet file {path}") from None
    lacking = {"a", "b", "same", "fold"} - set(table.column_names)
    if lacking:
        raise UserError(f"pairs: column {', '.join(sorted(lacking))} missing in {path}")
    index = {name: i for i, name in enumerate(gallery.names)}
    columns = {name: table.column(name).to_pylist() for name in ("a", "b", "same", "fold")}
    missing = {name for side in "ab" for name in columns[side] if name not in index}
    if missing:
        raise UserError(f"pairs: {len(missing)} of the images named are not in the gallery")
    if any(value is None for value in columns["same"] + columns["fold"]):
        raise UserError("pairs: same or fold is null in some rows")
    folds = np.array(columns["fold"], np.int64)
    same = np.array(columns["same"], bool)
    if len(np.unique(folds)) < 2:
        raise UserError("pairs: only one fold; the threshold needs at least two")
    if same.all() or not same.any():
        raise UserError("pairs: need both genuine (same) and impostor pairs")
    for fold in np.unique(folds):
        if same[folds == fold].all() or not same[folds == fold].any():
            raise UserError(f"pairs: fold {fold} has only one kind of pair")
    a, b = (np.array([index[name] for name in columns[side]]) for side in "ab")
    return Pairs(a, b, same, folds)


def names_of_groups(attribute: str, ages: Sequence[int] = _AGES) -> tuple[str, ...]:
    """Of the groups by ``age`` (their first years), ``gender`` or ``ethnicity``."""
    if attribute != "age":
        return _NAMES[attribute]
    return (*(f"{low}-{high - 1}" for low, high in pairwise(ages)), f"{ages[-1]}+")


def group_names(
    attribute: str, values: list[int | None], ages: Sequence[int] = _AGES
) -> list[str | None]:
    """Groups of faces by values as UTKFace has them; None where there is no label."""
    names = dict(enumerate(names_of_groups(attribute, ages)))
    places = [v if v is None or attribute != "age" else bisect_right(ages, v) - 1 for v in values]
    return [None if p is None or p < 0 else names.get(p, str(p)) for p in places]


def evenly(count: int, wanted: int) -> NDArray[np.int64]:
    """At most ``wanted`` indices below ``count``, evenly spread."""
    if wanted >= count:
        return np.arange(count)
    return np.linspace(0, count - 1, wanted).round().astype(np.int64)


def rows_of(identities: Sequence[str]) -> dict[str, list[int]]:
    """Places of everybody's photos, in the order given."""
    found: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(identities):
        found[name].append(place)
    return found
