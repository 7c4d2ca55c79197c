"""Formats whose files are read in ``ppfr_ops.sandbox``: a number in a file can crash the libraries
that read it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, TypeVar

import pyarrow as pa

from ppfr_ops.sandbox import LimitError, Sandbox, sandbox
from ppfr_ops.source.reader import Cutting, Listing, Reader
from ppfr_ops.source.units import Plan, Unit, damage_ends_it, errors, even, shared_out

_SECONDS, _LEAST_SECONDS = 60.0, 10.0
"""That a range of rows may take; half of them half as many, but enough to begin at all."""
_MAX_DEATHS = 8

T = TypeVar("T")


class Counted(NamedTuple):
    """What a file says of its rows."""

    rows: int
    size: int
    """Bytes of all of them, about."""
    damaged: str | None
    """Reason code of what the file loses at its end."""


class Sandboxed(Reader):
    """A format whose files are read by a process that may die."""

    sandbox: ClassVar[Sandbox] = sandbox
    count_seconds: ClassVar[float] = _SECONDS

    def count(self, fs: Any, path: str, image: str | None) -> Counted:
        """Rows of a file; in the sandbox.

        Raises:
            Exception: none of it can be read.
        """
        raise NotImplementedError

    def read_rows(self, fs: Any, plan: Plan, path: str, start: int, stop: int) -> pa.Table:
        """Rows of a file, as ``read`` gives them; in the sandbox."""
        raise NotImplementedError

    def apart(self, method: Callable[..., T], fs: Any, *args: Any, seconds: float = _SECONDS) -> T:
        """Call a method of this format in the sandbox, except where the files are in the memory of
        this process."""
        protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
        if "memory" in protocols:
            return method(fs, *args)
        return self.sandbox.call(_called, self, method.__name__, fs, *args, seconds=seconds)

    def counted(
        self, listing: Listing, paths: Sequence[str], image: str | None
    ) -> Iterator[tuple[str, Counted]]:
        """Every file; none is read before it is asked for."""
        for path in paths:
            found = Counted(0, 0, "unreadable_unit")
            with damage_ends_it():
                seconds = self.count_seconds
                found = self.apart(self.count, listing.fs, path, image, seconds=seconds)
            yield path, found

    def cut(self, listing: Listing, paths: Sequence[str], cutting: Cutting) -> Iterator[Unit]:
        for path, found in self.counted(listing, paths, cutting.image):
            rows = max(0, found.rows - len(listing.deleted.get(path, ())))
            most = shared_out(rows * len(paths), cutting.unit_rows, cutting.least)
            if cutting.unit_bytes is not None:
                most = max(1, min(most, cutting.unit_bytes * found.rows // max(1, found.size)))
            for start, stop in list(even(rows, most)) or [(0, 0)]:
                if start == stop and found.damaged is None:
                    break  # an empty file
                damaged = found.damaged if stop == rows else None
                yield Unit("", self.name, (path,), start, stop, damaged=damaged)

    def read(self, fs: Any, plan: Plan, unit: Unit) -> pa.Table:
        """Rows at which the reading process dies are found by halving; after a few deaths all that
        is left is given up."""
        parts = {-1: errors(plan, [])}
        ranges = [(unit.start, unit.stop, _SECONDS)] if unit.start < unit.stop else []
        deaths = 0
        # What a child needs of a plan; it may have a million units.
        slim = replace(plan, units=(), deleted={})
        while ranges:
            start, stop, seconds = ranges.pop()
            try:
                given = slim, unit.sources[0], start, stop
                parts[start] = self.apart(self.read_rows, fs, *given, seconds=seconds)
            except LimitError:
                deaths += 1
                if deaths >= _MAX_DEATHS or stop - start == 1:
                    parts[start] = errors(plan, ["unreadable_row"] * (stop - start))
                else:
                    middle = (start + stop) // 2
                    less = max(_LEAST_SECONDS, seconds / 2)
                    ranges += [(middle, stop, less), (start, middle, less)]
        return pa.concat_tables([parts[start] for start in sorted(parts)])


def _called(reader: Sandboxed, method: str, *args: Any) -> Any:
    return getattr(reader, method)(*args)
