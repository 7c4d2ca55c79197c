"""Columns that are copied as they are (``--keep-column``): only of types in which no picture hides.

An allow-list of types, without the metadata of their fields, and a look at the values: what is
longer than a label, or a picture in letters, makes its row a dead letter.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ppfr_ops.errors import UserError
from ppfr_ops.source.units import READ_ERROR

LONGEST_TEXT = 1000
"""Characters of a text; a picture of a face needs more."""

MOST_NUMBERS = 2048
"""Numbers in a value, all lists in it together: the length of a template; a picture has more."""

_MAGIC = (
    *(b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP"),
    *(b"\0\0\0\x1cftyp", b"\0\0\0 ftyp", b"<svg"),
)
_LEAST = 24
"""Characters from which on a text may be a picture; ``BM`` alone is somebody's initials."""

_BASE64 = re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{24,}")
_HEX = re.compile(r"(?:(?<=0x)|(?<=\\x)|(?<![0-9A-Za-z]))[0-9a-fA-F]{24,}")
_ESCAPED = re.compile(r"(?:\\x[0-9a-fA-F]{2}){3,}")
"""Pictures as letters, within a text."""

_SCALARS = (
    *(pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal),
    *(pa.types.is_date, pa.types.is_time, pa.types.is_timestamp, pa.types.is_duration),
)
_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
_PIXELS = (pa.types.is_uint8, pa.types.is_int8, pa.types.is_uint16, pa.types.is_int16)


def kept_field(field: pa.Field) -> pa.Field:
    """A column as it may be copied: dictionaries unpacked, no metadata at any depth.

    Raises:
        UserError: its type is not on the allow-list.
    """
    kind = _kept(field.type, inside=False)
    if kind is None:
        raise UserError(
            f"--keep-column {field.name!r}: {field.type} is not copied, for a picture may hide in "
            "it; numbers, booleans, texts, dates, and structs and lists of these are"
        )
    return pa.field(field.name, kind)


def _kept(kind: pa.DataType, inside: bool) -> pa.DataType | None:
    """None if it may not be copied; ``inside`` a list small integers may be pixels."""
    if pa.types.is_dictionary(kind):
        return _kept(kind.value_type, inside)
    if any(test(kind) for test in _TEXTS):
        return pa.string()
    if any(test(kind) for test in _SCALARS):
        return None if inside and any(test(kind) for test in _PIXELS) else kind
    if any(test(kind) for test in _LISTS):
        value = _kept(kind.value_type, inside=True)
        return None if value is None else pa.list_(value)
    if pa.types.is_struct(kind):
        fields = []
        for index in range(kind.num_fields):
            part = kind.field(index)
            found = _kept(part.type, inside)
            if found is None:
                return None
            fields.append(pa.field(part.name, found))
        return pa.struct(fields)
    return None


def refuse_pictures(table: pa.Table) -> pa.Table:
    """A unit's table in which rows whose kept values may hold a picture, or are of no calendar, are
    marked as unreadable for that reason, and keep none of these values."""
    kept = [name for name in table.column_names if name.startswith("keep.")]
    bad: dict[int, str] = {}
    for name in (name for name in kept if _may_hide(table.schema.field(name).type)):
        for row, cell in enumerate(table[name]):
            try:
                value = cell.as_py()
            except (ValueError, ArithmeticError):  # a time that neither Python nor Parquet has
                bad[row] = "unreadable_row"
            else:
                if value is not None and _hides(value):
                    bad.setdefault(row, "kept_picture")
    if not bad:
        return table
    sound = pa.array([row not in bad for row in range(table.num_rows)])
    for name in kept:
        place, field = table.column_names.index(name), table.schema.field(name)
        emptied = pc.if_else(sound, table[name], pa.scalar(None, field.type))
        table = table.set_column(place, field, emptied)
    errors = table[READ_ERROR].to_pylist()
    codes = [bad.get(row, error) for row, error in enumerate(errors)]
    place = table.column_names.index(READ_ERROR)
    return table.set_column(place, table.schema.field(place), pa.array(codes, pa.string()))


def _may_hide(kind: pa.DataType) -> bool:
    nested = (kind.field(index).type for index in range(kind.num_fields))
    long = pa.types.is_string(kind) or pa.types.is_list(kind)
    return long or pa.types.is_temporal(kind) or any(map(_may_hide, nested))


def _hides(value: Any) -> bool:
    texts = [item for item in _leaves(value) if isinstance(item, str)]
    numbers = sum(1 for item in _leaves(value) if not isinstance(item, str))
    return (
        numbers > MOST_NUMBERS
        or sum(map(len, texts)) > LONGEST_TEXT
        or any(looks_like_picture(text) for text in texts)
    )


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif value is not None:
        yield value


def looks_like_picture(text: str) -> bool:
    """Whether a text is the beginning of a picture, or holds one: its bytes as letters, in base64
    or hex, in quotes or in JSON, or as Python or a database prints them."""
    flat = "".join(text.split())
    if len(flat) < _LEAST:
        return False
    plain = [flat[:32].encode("latin-1", "ignore"), text[:32].encode("utf-8", "ignore")]
    candidates = [item for item in plain if item[:2] != b"BM"]  # words may begin like that
    letters = flat.replace("-", "+").replace("_", "/")
    candidates += [_decoded(base64.b64decode, run[:32]) for run in _BASE64.findall(letters)]
    candidates += [_decoded(bytes.fromhex, run[:32]) for run in _HEX.findall(flat)]
    printed = [run.replace("\\x", "") for run in _ESCAPED.findall(flat)]
    candidates += [_decoded(bytes.fromhex, run) for run in printed]
    return "\\x89PNG" in flat or any(found.startswith(_MAGIC) for found in candidates)


def _decoded(decode: Callable[[str], bytes], text: str) -> bytes:
    try:
        return decode(text)
    except (ValueError, binascii.Error):
        return b""
