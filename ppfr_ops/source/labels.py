"""Labels: of one value one text, however files store it; and tables that say of pictures what is in
them: ``metadata.csv``, ``.jsonl`` or ``.parquet`` of an imagefolder, CelebA's lines of name and
label.
"""

import codecs
import csv
import io
import json
import math
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from ppfr_ops.errors import UserError
from ppfr_ops.sandbox import LimitError, sandbox
from ppfr_ops.source.reader import stamp_of
from ppfr_ops.source.units import open_file, storable

NAMES = ("file_name", "path", "image_path", "filepath", "filename", "file", "image", "image_id")
"""Columns of a table that may hold the pictures' names, the first that is there."""

BESIDE = (
    *("metadata.csv", "metadata.jsonl", "metadata.tsv", "metadata.parquet"),
    "identity_CelebA.txt",
)
"""Tables that are looked for beside the pictures, or in a folder above them."""

MAX_TABLE_BYTES = 2**30
_TAKES = {"memory": "memory", "time": "time", "crash": "of what reads it"}
_CODINGS = ((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
            (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip
"""By the mark that a text begins with; that of UTF-16 begins that of UTF-32."""
csv.field_size_limit(MAX_TABLE_BYTES)
_WHOLE = re.compile(r"([+-]?\d+)\.0+")
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)
"""What nobody sees of a text: controls, soft hyphens, marks of direction, joiners, fillers. Not
what chooses among forms of a Chinese character (U+E0100 and on): names differ by it."""


def label(value: Any) -> str | None:
    """A label as text. ``1``, ``1.0`` and ``"1"`` are one, for files of one dataset store it in
    either way, and so is a name as ``spelled`` has it; NaN and texts of nothing are null."""
    text = spelled(stored_text(value))
    if text is not None and (match := _WHOLE.fullmatch(text)):
        text = str(int(match[1]))
    return None if text in ("nan", "NaN") else text


def stored_text(value: Any) -> str | None:
    """A label as text, spelled as it is stored; of a number its value, and NaN is null."""
    if isinstance(value, bytes):
        text = value.rstrip(b"\0").decode("utf-8", "backslashreplace")
        # A number in bytes is no name: signs that nobody sees in a name tell people apart.
        number = _CONTROL.search(text.rstrip()) or (value.strip() and spelled(text) is None)
        value = value.hex() if number else text
    if isinstance(value, float | Decimal):
        if not math.isfinite(value):
            return None
        return str(int(value)) if value == int(value) else str(value)
    return None if value is None else storable(str(value))


def spelled(name: str | None) -> str | None:
    """A name in one form of Unicode, with one space between its words and without signs that nobody
    sees; null if nothing is left. Folders ``1`` and ``1.0`` stay two, as no numbers are."""
    seen = " ".join(_UNSEEN.sub("", storable(name or "")).split())
    return unicodedata.normalize("NFC", seen) or None


def respelled(text: str | None) -> bool:
    """Whether a label as it is stored has blanks, signs that nobody sees or a form of Unicode that
    ``spelled`` takes from it, so that it may have become another one."""
    return bool(text) and spelled(text) != text


def parsed_json(text: str | bytes) -> Any:
    """JSON in which no key says two things.

    Raises:
        ValueError, RecursionError: it is none.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key twice")
        return found

    return json.loads(text, object_pairs_hook=once)


def json_text(value: Any) -> str | None:
    """A value of JSON as a column has it: an object is one, in whatever order it is written."""
    if isinstance(value, list | dict | float | int):
        return storable(json.dumps(value, sort_keys=True, default=stored_text))
    return stored_text(value)


def beside(files: Sequence[str]) -> tuple[str, ...]:
    """The tables in a listing that say of its pictures what is in them."""
    return tuple(path for path in files if os.path.basename(path) in BESIDE)


class Labels(NamedTuple):
    """What tables say of pictures."""

    columns: tuple[str, ...]
    rows: Mapping[str, Mapping[str, Any]]
    """By the picture's path, in order."""
    composed: Mapping[str, str]
    """Paths beyond ASCII, by their composed form (NFC): a Mac decomposes the names of files."""

    def of(self, path: str) -> Mapping[str, Any] | None:
        """The row of a picture, however its path is written; None: there is none."""
        return self.rows.get(self.named(path))

    def named(self, path: str) -> str:
        """The path of a picture as the tables have it, if they name it."""
        place = os.path.normpath(path)
        return place if place in self.rows else self.composed.get(_composed(place), place)


def read_labels(fs: Any, paths: tuple[str, ...], pictures: str | None = None) -> Labels:
    """Tables, kept while they do not change.

    Args:
        pictures: folder that the names are relative to; None: the table's own.

    Raises:
        UserError: one cannot be read, names no pictures, or two of its rows contradict each other.
    """
    try:
        stamps = tuple(stamp_of(fs.info(path)) for path in paths)
    except OSError as error:
        raise UserError(f"the labels cannot be read ({type(error).__name__})") from None
    return _read(fs, paths, pictures, stamps)


@lru_cache(maxsize=2)
def _read(fs: Any, paths: tuple[str, ...], pictures: str | None, stamps: tuple[str, ...]) -> Labels:
    columns: dict[str, None] = {}
    rows: dict[str, dict[str, Any]] = {}
    for path in paths:
        folder = os.path.dirname(path) if pictures is None else pictures
        for name, values in _lines(fs, path):
            place = os.path.normpath(os.path.join(folder, name))
            if rows.setdefault(place, values) != values:
                raise UserError("the labels: two lines of one picture say different things")
            columns.update(dict.fromkeys(values))
    return Labels(tuple(columns), rows, {_composed(p): p for p in rows if not p.isascii()})


def _composed(path: str) -> str:
    return unicodedata.normalize("NFC", path)


def _lines(fs: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        if path.endswith(".parquet"):
            found = sandbox.call(_stored, fs, path, seconds=60.0)
        else:
            found = list(_parsed(_text(fs, path), path))
    except UserError:
        raise
    except csv.Error:
        raise UserError(
            "the labels cannot be read: a quote has no end, or text behind it"
        ) from None
    except LimitError as error:
        raise UserError(f"the labels: a table that takes too much {_TAKES[error.what]}") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"the labels cannot be read ({type(error).__name__})") from None
    if not found:
        return
    name = next((name for name in NAMES if name in found[0]), None)
    if name is None:
        raise UserError(
            f"the labels: no column names the pictures; it is called one of {', '.join(NAMES)}"
        )
    if nameless := sum(1 for row in found if row.get(name) in (None, "")):
        raise UserError(f"the labels: {nameless} of {len(found)} lines name no picture")
    for row in found:
        yield _place(str(row[name])), {key: value for key, value in row.items() if key != name}


def _stored(fs: Any, path: str) -> list[dict[str, Any]]:
    """The rows of a Parquet file; in the sandbox."""
    with open_file(fs, path) as file:
        return list(pq.read_table(file).to_pylist())


def _text(fs: Any, path: str) -> str:
    with open_file(fs, path) as file:
        data = file.read(MAX_TABLE_BYTES + 1)
    if len(data) > MAX_TABLE_BYTES:
        raise UserError("the labels: a table of more than 1 GiB; Parquet holds it better")
    return data.decode(
        next((name for mark, name in _CODINGS if data.startswith(mark)), "utf-8-sig")
    )


def _place(name: str) -> str:
    """A name as a file may have it: what no file can be called costs its own picture, no more."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        name = storable(name)
    return name.replace("\0", "\\0")


def _parsed(text: str, path: str) -> Iterator[dict[str, Any]]:
    ending = os.path.splitext(path)[1].lower()
    if ending in (".jsonl", ".json"):
        for line in text.split("\n"):  # other ends of lines may stand in its texts
            if line.strip():
                row = parsed_json(line)
                if not isinstance(row, dict):
                    raise ValueError
                yield row
        return
    if ending == ".txt":  # CelebA: name and label
        for line in text.splitlines():
            parts = line.split()
            if len(parts) >= 2:
                yield {"file_name": parts[0], "identity": parts[1]}
        return
    first = text.partition("\n")[0]
    heads = {sign: [part.strip('"\r ') for part in first.split(sign)] for sign in ",;\t|"}
    sign = next((sign for sign, head in heads.items() if set(head) & set(NAMES)), ",")
    lines = csv.DictReader(io.StringIO(text, newline=""), delimiter=sign, strict=True)
    if len(set(lines.fieldnames or ())) < len(lines.fieldnames or ()):
        raise UserError("the labels: two columns have the same name")
    for row in lines:
        if None in row or None in row.values():
            raise UserError(
                f"the labels: line {lines.line_num} has not as many fields as the first; what "
                f"holds a {sign!r} has to stand in quotes"
            )
        yield row
