"""Kept columns made coarser before anything is published: ``--coarsen age:bins=10``.

====================== ===========================================================================
``bins=10``            a number becomes the lower end of its bin of this width: 30 for 30 to 39
``first=2``            a text keeps its first characters
``only=x|y``           of a text or number these values are kept, others become null
``by=month``           a date or time becomes the first of its ``year``, ``quarter``, ``month`` or
                       ``day``
====================== ===========================================================================

A value that is kept describes the person of the original, not the picture that is published.
"""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ppfr_ops.errors import UserError

_UNITS = ("year", "quarter", "month", "day")
_WAYS = {"bins": "WIDTH", "first": "CHARACTERS", "only": "VALUE|VALUE", "by": "|".join(_UNITS)}


@dataclass(frozen=True)
class Kept:
    """A column to keep, and how coarse: ``way`` is one of those above, or None: as it is."""

    name: str
    way: str | None = None
    value: str = ""

    def __str__(self) -> str:
        return self.name if self.way is None else f"{self.name}:{self.way}={self.value}"


def parse(text: str, columns: frozenset[str] = frozenset()) -> Kept:
    """What ``--coarsen`` was given, or the plain name of a column.

    Args:
        text: ``NAME`` or ``NAME:WAY=VALUE``; a name may hold colons.
        columns: of the input, if known: one whose whole name is the text is taken as it is.

    Raises:
        UserError: there is no such way, or its value makes no sense.
    """
    name, colon, rest = text.rpartition(":")
    way, equals, value = rest.partition("=")
    if not colon or not equals or text in columns or not way.isidentifier():
        return Kept(text)
    sound = {
        "bins": _positive(value),
        "first": value.isdigit() and int(value) > 0,
        "only": bool(value),
        "by": value in _UNITS,
    }
    if not sound.get(way):
        ways = ", ".join(f"{name}={form}" for name, form in _WAYS.items())
        raise UserError(f"--coarsen {text}: expected NAME or NAME: with one of {ways}")
    return Kept(name, way, value)


def _positive(text: str) -> bool:
    try:
        return 0 < float(text) < float("inf")
    except ValueError:
        return False


def coarsened(column: pa.ChunkedArray | pa.Array, kept: Kept) -> pa.ChunkedArray | pa.Array:
    """A column as coarse as it is to be; of the same type and length, null where it was null.

    Raises:
        UserError: the column's type has no such bins.
    """
    kind = column.type
    if kept.way == "bins" and _number(kind):
        width = float(kept.value)
        ends = pc.multiply(pc.floor(pc.divide(pc.cast(column, pa.float64()), width)), width)
        # A bin's lower end may lie below the least number that the type has.
        return pc.cast(ends, kind, safe=False)
    if kept.way == "first" and pa.types.is_string(kind):
        return pc.utf8_slice_codeunits(column, 0, int(kept.value))
    if kept.way == "only" and (_number(kind) or pa.types.is_string(kind)):
        wanted = set(kept.value.split("|"))
        texts = pc.cast(column, pa.string())
        found = pc.is_in(texts, value_set=pa.array(sorted(wanted), pa.string()))
        return pc.if_else(found, column, pa.scalar(None, kind))
    if kept.way == "by" and (pa.types.is_date(kind) or pa.types.is_timestamp(kind)):
        return pc.cast(pc.floor_temporal(column, unit=kept.value), kind)
    if kept.way is None:
        return column
    raise UserError(f"--coarsen {kept}: a column of type {kind} cannot be made coarser by that")


def _number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
