"""WebDataset tars: runs of samples as units, and their members."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any

import pyarrow as pa

from ppfr_ops.errors import UserError
from ppfr_ops.imaging.decoding import MAX_BYTES
from ppfr_ops.source.archive import BrokenError, Member, members
from ppfr_ops.source.labels import json_text, parsed_json
from ppfr_ops.source.paths import in_archive
from ppfr_ops.source.reader import Cutting, Listing, MissingColumnError, Reader, Record, table_of
from ppfr_ops.source.units import (
    IMAGE_SUFFIXES,
    UNIT_BYTES,
    Columns,
    Plan,
    Unit,
    damage_ends_it,
    errors,
    open_file,
    ranges,
    storable,
    suffix,
)

MAX_TEXT_BYTES = 2**22
"""Of a member with fields; a larger one counts as damaged."""


_ASKED = 100
"""Samples of a tar that are asked for their columns."""


@dataclass
class _Sample:
    key: str
    offset: int
    members: dict[str, Member]

    @property
    def size(self) -> int:
        return sum(min(member.size, MAX_BYTES) for member in self.members.values())

    @property
    def name(self) -> str:
        pictures = _pictures(self, None) or list(self.members)
        return self.members[pictures[0]].name


def _samples(
    file: IO[bytes], offset: int, count: int | None = None, last_dot: bool = False
) -> Iterator[_Sample]:
    """Runs of members that share a key: the path up to the first dot of the file name, as
    WebDataset has it. A member whose suffix its sample has already begins another.

    Raises:
        BrokenError: after the last whole sample, if the archive is damaged there. The sample that
            the break is in may lack members, so it is not handed out.
    """
    current: _Sample | None = None
    done = 0
    for member in members(file, offset):
        folder, _, name = member.name.rpartition("/")
        if hidden(member.name):
            continue
        stem, _, ending = name.rpartition(".") if last_dot else name.partition(".")
        key, ending = f"{folder}/{stem}", ending.lower()
        if current is None or current.key != key or ending in current.members:
            if current is not None:
                yield current
                done += 1
                if done == count:
                    return
            current = _Sample(key, member.offset, {})
        current.members[ending] = member
    if current is not None:
        yield current


def hidden(name: str) -> bool:
    """Whether a member is no data: ``._1.jpg`` and ``__MACOSX/`` of a Mac, ``.wds_meta``."""
    parts = name.split("/")
    return any(part.startswith((".", "_")) and part not in (".", "..") for part in parts)


def cut(
    fs: Any,
    paths: Sequence[str],
    unit_rows: int,
    reader: "WebDataset",
    unit_bytes: int | None = UNIT_BYTES,
) -> Iterator[Unit]:
    """Units of the files, in order; none is read before it is asked for."""
    for path in paths:
        offsets: list[int] = []
        sizes: list[int] = []
        damaged: str | None = "unreadable_unit"
        with damage_ends_it(), reader.opened(fs, path) as file:
            try:
                for sample in reader.samples(file, 0):
                    offsets.append(sample.offset)
                    sizes.append(sample.size)
                damaged = None
            except BrokenError:
                damaged = "truncated_unit" if offsets else "unreadable_unit"
        for start, stop in list(ranges(sizes, unit_rows, unit_bytes)) or [(0, 0)]:
            if start == stop and damaged is None:
                break  # an empty archive
            last = stop == len(offsets)
            offset = offsets[start] if offsets else 0
            left = damaged if last else None
            yield Unit("", reader.name, (path,), start, stop, offset, left)


def read(fs: Any, plan: Plan, unit: Unit, reader: "WebDataset") -> pa.Table:
    """The samples of a unit; those that cannot be read with their reason."""
    count = unit.stop - unit.start
    lost = errors(plan, ["unreadable_row"])
    rows: list[pa.Table] = []
    # A second handle reads bodies, so that the scan keeps its place.
    with (
        damage_ends_it(),
        reader.opened(fs, unit.sources[0]) as file,
        reader.opened(fs, unit.sources[0]) as body,
    ):
        for sample in reader.samples(file, unit.offset, count):
            row = lost
            with damage_ends_it():
                row = table_of(plan, [_record(plan, sample, _reader(body))])
            rows.append(row)
    return pa.concat_tables([*rows[:count], *[lost] * (count - len(rows)), lost.slice(0, 0)])


def names(fs: Any, unit: Unit, reader: "WebDataset") -> Iterator[tuple[str, str]]:
    """Of every sample of a unit its key and the name of its picture, or of what it has; empty where
    the tar breaks off now."""
    left = unit.stop - unit.start
    with suppress(BrokenError, OSError), reader.opened(fs, unit.sources[0]) as file:
        for sample in reader.samples(file, unit.offset, left):
            yield sample.key, sample.name
            left -= 1
    yield from [("", "")] * left


def _reader(file: IO[bytes]) -> Callable[[Member], bytes]:
    def body(member: Member) -> bytes:
        file.seek(member.start)
        data = file.read(member.size)
        if len(data) < member.size:
            raise EOFError
        return data

    return body


def _pictures(sample: _Sample, wanted: str | None) -> list[str]:
    """The members that are pictures, by suffix."""
    if wanted is not None:
        return [name for name in sample.members if name.lower() == wanted.lower()]
    return [name for name in sample.members if suffix(f"x.{name}") in IMAGE_SUFFIXES]


def _record(plan: Plan, sample: _Sample, read: Callable[[Member], bytes]) -> Record:
    pictures = _pictures(sample, plan.columns.image)
    image, code = None, None
    if len(pictures) > 1:
        code = "several_images"
    elif pictures:
        picture = sample.members[pictures[0]]
        if not picture.whole:
            code = "unreadable_file"
        elif picture.size > MAX_BYTES:
            code = "too_large"
        else:
            image = read(picture)
    return Record(image, code, _values(sample, read) if plan.columns.beside else {})


def _values(sample: _Sample, read: Callable[[Member], bytes]) -> dict[str, str | None]:
    """The members ``json`` (its top-level keys), ``cls`` and ``txt`` as strings.

    Raises:
        BrokenError, ValueError, RecursionError: one of them is damaged.
    """
    values: dict[str, str | None] = {}
    # As WebDataset decodes: by what stands after the last dot of an extension.
    texts = {name.rpartition(".")[2]: member for name, member in sample.members.items()}
    texts = {name: member for name, member in texts.items() if name in ("cls", "txt", "json")}
    if not all(member.whole and member.size <= MAX_TEXT_BYTES for member in texts.values()):
        raise BrokenError
    for name in texts.keys() - {"json"}:
        values[name] = read(texts[name]).decode("utf-8", "backslashreplace").strip()
    if "json" in texts:
        parsed = parsed_json(read(texts["json"]))
        for key, value in parsed.items() if isinstance(parsed, dict) else ():
            values[key] = json_text(value)
    return values


class WebDataset(Reader):
    """WebDataset tars; a unit is a run of samples."""

    name = "webdataset"
    what = "WebDataset tars"
    suffixes = frozenset({".tar"})
    last_dot = False

    @contextmanager
    def opened(self, fs: Any, path: str) -> Iterator[IO[bytes]]:
        """A tar for reading, unpacked."""
        with open_file(fs, path) as file:
            yield file

    def samples(self, file: IO[bytes], offset: int, count: int | None = None) -> Iterator[_Sample]:
        return _samples(file, offset, count, self.last_dot)

    def columns(
        self, listing: Listing, paths: Sequence[str], columns: Columns
    ) -> tuple[Columns, tuple[pa.Field, ...]]:
        there: set[str] = set()
        pictures = several = samples = 0
        for path in dict.fromkeys((*paths[:3], paths[-1])):
            with damage_ends_it(), self.opened(listing.fs, path) as file:
                body = _reader(file)
                for sample in islice(self.samples(file, 0), _ASKED):
                    samples += 1
                    found = _pictures(sample, columns.image)
                    pictures += bool(found)
                    several += len(found) > 1
                    if columns.beside:
                        with damage_ends_it():
                            there |= _values(sample, body).keys()
        if samples and not pictures and columns.image is not None:
            raise UserError(f"--image-column {columns.image!r}: no sample has such a member")
        if samples and 2 * several > samples and columns.image is None:
            raise UserError(
                "the samples of the tars hold several pictures each; --image-column names the "
                "extension of one; where names have dots (clip.0001.jpg), --input-format tar"
            )
        for name in columns.beside if samples else ():
            if name not in there:
                raise MissingColumnError(name, sorted(there) or ["none"], "the tars' samples")
        return columns, tuple(pa.field(name, pa.string()) for name in columns.keep)

    def cut(self, listing: Listing, paths: Sequence[str], cutting: Cutting) -> Iterator[Unit]:
        return cut(listing.fs, paths, cutting.unit_rows, self, cutting.unit_bytes)

    def read(self, fs: Any, plan: Plan, unit: Unit) -> pa.Table:
        return read(fs, plan, unit, self)

    def sources(self, fs: Any, unit: Unit) -> Iterator[tuple[str, int]]:
        source = storable(unit.sources[0])
        for row, (key, _) in enumerate(names(fs, unit, self), unit.start):
            yield f"{source}#{key}", row

    def row_paths(self, fs: Any, unit: Unit) -> Sequence[str]:
        return [in_archive(unit.sources[0], name) for _, name in names(fs, unit, self)]

    def asked_paths(self, listing: Listing, paths: Sequence[str]) -> Iterator[str]:
        for path in dict.fromkeys((*paths[:3], paths[-1])):
            with damage_ends_it(), self.opened(listing.fs, path) as file:
                for sample in islice(self.samples(file, 0), _ASKED):
                    yield in_archive(path, sample.name)


class Tar(WebDataset):
    """Tars in which a sample's name goes to the last dot, as no WebDataset has it."""

    name = "tar"
    what = "tars"
    auto = False
    last_dot = True
