"""WebDataset tars: runs of samples as units, and their members."""

import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa

from ppfr_ops.source.units import IMAGE_SUFFIXES, READ_ERROR, Plan, Unit, errors, even, suffix


@dataclass
class _Sample:
    key: str
    offset: int
    members: dict[str, tarfile.TarInfo]


class _Truncated(Exception):
    """The tar breaks off."""


def _samples(file: IO[bytes], offset: int, count: int | None = None) -> Iterator[_Sample]:
    """Runs of members that share a key: the path up to the first dot of the file name.

    Raises:
        _Truncated: after the last whole sample, if the archive ends without its end marker.
    """
    file.seek(offset)
    current: _Sample | None = None
    done = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # or it remembers every header of the archive
                if not member.isfile():
                    continue
                folder, _, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                key = f"{folder}/{stem}"
                if current is None or current.key != key:
                    if current is not None:
                        yield current
                        done += 1
                        if done == count:
                            return
                    current = _Sample(key, member.offset, {})
                current.members[suffix.lower()] = member
            end = tar.offset
    except (tarfile.TarError, OSError, EOFError):
        # The sample that the break is in may lack members, so it is not handed out.
        raise _Truncated from None
    file.seek(end)
    # tarfile takes garbage and a bare end of file for an end; an archive ends with a zero block.
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise _Truncated
    if current is not None:
        yield current


def cut(fs: Any, paths: Sequence[str], unit_rows: int) -> Iterator[Unit]:
    for path in paths:
        offsets: list[int] = []
        damaged = None
        try:
            with fs.open(path, "rb") as file:
                for sample in _samples(file, 0):
                    offsets.append(sample.offset)
        except _Truncated:
            damaged = "truncated_unit" if offsets else "unreadable_unit"
        except OSError:
            offsets, damaged = [], "unreadable_unit"
        ranges = list(even(len(offsets), unit_rows)) or ([(0, 0)] if damaged else [])
        for start, stop in ranges:
            last = stop == len(offsets)
            yield Unit(
                "",
                "webdataset",
                (path,),
                start,
                stop,
                offsets[start] if offsets else 0,
                damaged if last else None,
            )


def read(fs: Any, plan: Plan, unit: Unit) -> pa.Table:
    rows: list[dict[str, Any]] = []
    count = unit.stop - unit.start
    if count:
        try:
            # A second handle reads bodies, so that the scan keeps its place.
            with fs.open(unit.sources[0], "rb") as file, fs.open(unit.sources[0], "rb") as body:
                for sample in _samples(file, unit.offset, count):
                    rows.append(_sample_row(plan, sample, _reader(body)))
        except (_Truncated, OSError):
            pass
    lost = errors(plan, ["unreadable_row"] * (count - len(rows)))
    return pa.concat_tables([pa.Table.from_pylist(rows[:count], lost.schema), lost])


def names(fs: Any, unit: Unit) -> Iterator[str]:
    """The key of every sample of a unit."""
    with fs.open(unit.sources[0], "rb") as file:
        for sample in _samples(file, unit.offset, unit.stop - unit.start):
            yield sample.key


def _reader(file: IO[bytes]) -> Callable[[tarfile.TarInfo], bytes]:
    def body(member: tarfile.TarInfo) -> bytes:
        file.seek(member.offset_data)
        return file.read(member.size)

    return body


def _sample_row(
    plan: Plan, sample: _Sample, read: Callable[[tarfile.TarInfo], bytes]
) -> dict[str, Any]:
    wanted = plan.columns.image
    if wanted is not None:
        pictures = [wanted] if wanted in sample.members else []
    else:
        pictures = [name for name in sample.members if suffix(f"x.{name}") in IMAGE_SUFFIXES]
    row: dict[str, Any] = {"image": None, READ_ERROR: None}
    if len(pictures) > 1:
        row[READ_ERROR] = "several_images"
    elif pictures:
        row["image"] = read(sample.members[pictures[0]])
    names = [(name, f"keep.{name}") for name in plan.columns.keep]
    names += [(name, f"given.{role}") for role, name in plan.columns.given.items()]
    if plan.columns.identity or names:
        values = _sample_values(sample, read)
        if plan.columns.identity:
            row["identity"] = values.get(plan.columns.identity)
        row.update({target: values.get(name) for name, target in names})
    return row


def _sample_values(
    sample: _Sample, read: Callable[[tarfile.TarInfo], bytes]
) -> dict[str, str | None]:
    """The members ``json`` (its top-level keys), ``cls`` and ``txt`` as strings."""
    values: dict[str, str | None] = {}
    for name in ("cls", "txt"):
        if name in sample.members:
            values[name] = read(sample.members[name]).decode("utf-8", "replace").strip()
    if "json" in sample.members:
        try:
            parsed = json.loads(read(sample.members["json"]))
        except ValueError:
            parsed = None
        if isinstance(parsed, dict):
            for key, value in parsed.items():
                if value is not None:
                    values[key] = value if isinstance(value, str) else json.dumps(value)
    return values
