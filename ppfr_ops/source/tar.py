"""WebDataset tars: runs of samples as units, and their members."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import IO, Any

from ppfr_ops.errors import UserError
from ppfr_ops.imaging.decoding import MAX_BYTES
from ppfr_ops.source.archive import BrokenError, Member, members
from ppfr_ops.source.filerows import ASKED, FileRows
from ppfr_ops.source.labels import json_text, parsed_json
from ppfr_ops.source.paths import in_archive
from ppfr_ops.source.reader import Chosen, Cutting, Listing, Record, as_texts, few
from ppfr_ops.source.units import (
    IMAGE_SUFFIXES,
    Columns,
    Plan,
    Unit,
    damage_ends_it,
    storable,
    suffix,
)

MAX_TEXT_BYTES = 2**22
"""Of a member with fields; a larger one counts as damaged."""
_FIELDS = ("cls", "txt", "json")
_IMAGE = "image"


@dataclass
class _Sample:
    key: str
    offset: int
    members: dict[str, Member] = field(default_factory=dict)
    """By what stands behind the key, in small letters."""
    bodies: dict[str, bytes] = field(default_factory=dict)
    """Of the first picture, and of the last member of each of the fields."""
    found: int = 0
    """Pictures that came by."""

    @property
    def size(self) -> int:
        return sum(min(member.size, MAX_BYTES) for member in self.members.values())

    @property
    def name(self) -> str:
        pictures = self.pictures(None) or list(self.members)
        return self.members[pictures[0]].name

    def pictures(self, wanted: str | None) -> list[str]:
        """The members that are pictures."""
        return [name for name in self.members if _is_picture(name, wanted)]

    def hold(self, file: IO[bytes], name: str, columns: Columns) -> None:
        """Read a member, as long as it is asked for and can be what it is called."""
        member = self.members[name]
        # As WebDataset decodes: by what stands after the last dot of an extension.
        kind = name.rpartition(".")[2]
        asked = [(kind, MAX_TEXT_BYTES)] if columns.beside and kind in _FIELDS else []
        if _is_picture(name, columns.image):
            self.found += 1
            if self.found == 1:  # of several none is needed
                asked.append((_IMAGE, MAX_BYTES))
        for part, most in asked:
            self.bodies.pop(part, None)
            if member.whole and member.size <= most:
                file.seek(member.start)
                self.bodies[part] = file.read(member.size)
                if len(self.bodies[part]) < member.size:
                    raise BrokenError

    def record(self, columns: Columns) -> Record:
        """Raises:
        BrokenError, ValueError, RecursionError: its fields are damaged.
        """
        pictures = [self.members[name] for name in self.pictures(columns.image)]
        values = self.values() if columns.beside else {}
        code = None
        if len(pictures) > 1:
            code = "several_images"
        elif pictures and _IMAGE not in self.bodies:
            code = "too_large" if pictures[0].whole else "unreadable_file"
        return Record(None if code else self.bodies.get(_IMAGE), code, values)

    def values(self) -> dict[str, str | None]:
        """The members ``json`` (its top-level keys), ``cls`` and ``txt`` as strings.

        Raises:
            BrokenError, ValueError, RecursionError: one of them is damaged.
        """
        there = {name.rpartition(".")[2] for name in self.members}.intersection(_FIELDS)
        if not there <= self.bodies.keys():
            raise BrokenError
        values: dict[str, str | None] = {
            name: self.bodies[name].decode("utf-8", "backslashreplace").strip()
            for name in there - {"json"}
        }
        parsed = parsed_json(self.bodies["json"]) if "json" in there else None
        for key, value in parsed.items() if isinstance(parsed, dict) else ():
            values[key] = json_text(value)
        return values


def _is_picture(name: str, wanted: str | None) -> bool:
    if wanted is not None:
        return name == wanted.lower()
    return suffix(f"x.{name}") in IMAGE_SUFFIXES


def hidden(name: str) -> bool:
    """Whether a member is no data: ``._1.jpg`` and ``__MACOSX/`` of a Mac, ``.wds_meta``."""
    parts = name.split("/")
    return any(part.startswith((".", "_")) and part not in (".", "..") for part in parts)


class WebDataset(FileRows):
    """WebDataset tars; a unit is a run of samples."""

    name = "webdataset"
    what = "WebDataset tars"
    suffixes = frozenset({".tar"})
    last_dot = False

    def samples(
        self, file: IO[bytes], offset: int, columns: Columns | None = None
    ) -> Iterator[_Sample]:
        """Runs of members that share a key: the path up to the first dot of the file name, as
        WebDataset has it. A member whose suffix its sample has already begins another.

        Args:
            columns: that members are read for, as they come by; None: none is.

        Raises:
            BrokenError: after the last whole sample, if the archive is damaged there. The sample
                that the break is in may lack members, so it is not handed out.
        """
        current: _Sample | None = None
        for member in members(file, offset):
            folder, _, name = member.name.rpartition("/")
            if hidden(member.name):
                continue
            stem, _, ending = name.rpartition(".") if self.last_dot else name.partition(".")
            key, ending = f"{folder}/{stem}", ending.lower()
            if current is None or current.key != key or ending in current.members:
                if current is not None:
                    yield current
                current = _Sample(key, member.offset)
            current.members[ending] = member
            if columns is not None:
                current.hold(file, ending, columns)
        if current is not None:
            yield current

    def columns(self, listing: Listing, paths: Sequence[str], columns: Columns) -> Chosen:
        there: set[str] = set()
        pictures = several = samples = 0
        no_picture = replace(columns, image="")
        for path in few(paths):
            with damage_ends_it(), self.opened(listing.fs, path) as file:
                for sample in islice(self.samples(file, 0, no_picture), ASKED):
                    samples += 1
                    found = sample.pictures(columns.image)
                    pictures += bool(found)
                    several += len(found) > 1
                    if columns.beside:
                        with damage_ends_it():
                            there |= sample.values().keys()
        if samples and not pictures and columns.image is not None:
            raise UserError(f"--image-column {columns.image!r}: no sample has such a member")
        if samples and 2 * several > samples and columns.image is None:
            raise UserError(
                "the samples of the tars hold several pictures each; --image-column names the "
                "extension of one; where names have dots (clip.0001.jpg), --input-format tar"
            )
        return as_texts(columns, there if samples else None, "the tars' samples")

    def rows(self, file: IO[bytes], image: str | None) -> Iterator[tuple[int, int]]:
        return ((sample.offset, sample.size) for sample in self.samples(file, 0))

    def cut(self, listing: Listing, paths: Sequence[str], cutting: Cutting) -> Iterator[Unit]:
        return super().cut(listing, paths, replace(cutting, least=1))

    def records(self, file: IO[bytes], plan: Plan, unit: Unit) -> Iterator[Record | None]:
        for sample in self.samples(file, unit.offset, plan.columns):
            record = None
            with damage_ends_it():
                record = sample.record(plan.columns)
            yield record

    def sources(self, fs: Any, unit: Unit) -> Iterator[tuple[str, int]]:
        source = storable(unit.sources[0])
        for row, (key, _) in enumerate(self._names(fs, unit), unit.start):
            yield f"{source}#{key}", row

    def row_paths(self, fs: Any, unit: Unit) -> Sequence[str]:
        return [in_archive(unit.sources[0], name) for _, name in self._names(fs, unit)]

    def _names(self, fs: Any, unit: Unit) -> Iterator[tuple[str, str]]:
        """Of every sample of a unit its key and the name of its picture, or of what it has; empty
        where the tar breaks off now."""
        left = unit.stop - unit.start
        with suppress(BrokenError, OSError), self.opened(fs, unit.sources[0]) as file:
            for sample in islice(self.samples(file, unit.offset), left):
                yield sample.key, sample.name
                left -= 1
        yield from [("", "")] * left

    def asked_paths(self, listing: Listing, paths: Sequence[str]) -> Iterator[str]:
        for path in few(paths):
            with damage_ends_it(), self.opened(listing.fs, path) as file:
                for sample in islice(self.samples(file, 0), ASKED):
                    yield in_archive(path, sample.name)


class Tar(WebDataset):
    """Tars in which a sample's name goes to the last dot, as no WebDataset has it."""

    name = "tar"
    what = "tars"
    auto = False
    last_dot = True
