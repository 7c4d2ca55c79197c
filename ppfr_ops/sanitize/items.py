"""The rows of a unit on their way: read and decoded, then published, or dead letters."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ppfr_ops.contracts.dead_letters import DEAD_LETTERS_SCHEMA, REASONS
from ppfr_ops.imaging.arrays import FACE_SIZE, Picture
from ppfr_ops.imaging.codec import ImageError, decode, format_of
from ppfr_ops.sanitize.measuring import Metrics
from ppfr_ops.source.units import READ_ERROR


@dataclass(frozen=True)
class Item:
    """What becomes one record: an aligned face, or a photograph; of one row."""

    record_id: str
    row: int
    pixels: NDArray[np.uint8]
    context: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)
    """What the method wants to know of it, by name."""
    format: Literal["jpeg", "png", "webp"] = "png"
    """That it came in, or png for any other."""
    named: bool = field(default=True, kw_only=True)
    """Whether the row's label is of who is in it."""


I = TypeVar("I", bound=Item)  # noqa: E741


class Failed(Exception):
    """A batch failed at some stage; ``code`` says at which."""

    def __init__(self, code: str) -> None:
        self.code = code


@dataclass
class BatchResult:
    """What became of a batch, an entry a record."""

    images: list[bytes]
    metrics: Metrics
    figures: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Of the method."""
    faces: list[Metrics] = field(default_factory=list)
    """Metrics of the faces of every photograph, where records are photographs."""
    reasons: list[tuple[str, str]] = field(default_factory=list)
    """Why a record must not be published, as reason code and detail; empty: it may."""


@dataclass
class Results(Generic[I]):
    """What a unit's rows have become so far."""

    unit: str
    items: list[I] = field(default_factory=list)
    images: list[bytes] = field(default_factory=list)
    metrics: list[Metrics] = field(default_factory=list)
    figures: list[Mapping[str, NDArray[Any]]] = field(default_factory=list)
    faces: list[Metrics] = field(default_factory=list)
    dead: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Row and letter."""

    def add(self, batch: Sequence[I], made: BatchResult) -> None:
        """Take over a batch, and bury what must not be published of it."""
        for item, (code, detail) in zip(batch, made.reasons, strict=True):
            if code:
                self.add_dead_letter(item.record_id, item.row, code, detail)
        kept = [place for place, (code, _) in enumerate(made.reasons) if not code]
        self.items += [batch[place] for place in kept]
        self.images += [made.images[place] for place in kept]
        self.metrics.append({name: values[kept] for name, values in made.metrics.items()})
        self.figures.append({name: values[kept] for name, values in made.figures.items()})
        if made.faces:
            self.faces += [made.faces[place] for place in kept]

    def add_dead_letter(self, record_id: str, row: int, code: str, detail: str = "") -> None:
        reason = REASONS[code]
        message = f"{reason.text}: {detail}" if detail else reason.text
        letter = {
            "record_id": record_id,
            "unit": self.unit,
            "stage": reason.stage,
            "code": code,
            "message": message,
        }
        self.dead.append((row, letter))

    def dead_letters(self) -> pa.Table:
        letters = [letter for _, letter in sorted(self.dead, key=lambda item: item[0])]
        return pa.Table.from_pylist(letters, DEAD_LETTERS_SCHEMA)


def decoded(
    table: pa.Table, results: Results[Any], template: str | None, wants: Sequence[str] = ()
) -> Iterator[Item]:
    """Rows that can be read, as pictures; the others become dead letters.

    Args:
        table: as ``source.plan.read_unit`` gives it.
        template: by which the pictures are aligned faces (``imaging.templates``); off: as FR
            models take them, 112 x 112; None: they are photographs of any size.
        wants: context of the method: ``identity`` is the column of that name, ``X`` is the column
            ``context.X``.
    """
    names = {want: want if want == "identity" else f"context.{want}" for want in wants}
    columns = (table[name] for name in ("record_id", "image", READ_ERROR))
    for row, values in enumerate(zip(*columns, strict=True)):
        record_id, picture, read_error = (value.as_py() for value in values)
        if read_error is not None:
            results.add_dead_letter(record_id, row, read_error)
        elif picture is None:
            results.add_dead_letter(record_id, row, "no_bytes")
        else:
            try:
                pixels = decode(picture) if template is None else _face(picture, template)
            except ImageError as error:
                results.add_dead_letter(record_id, row, error.code, error.detail)
            else:
                context = {want: table[name][row].as_py() for want, name in names.items()}
                yield Item(record_id, row, pixels, context, format_of(picture))


def _face(data: bytes, template: str) -> Picture:
    """The aligned face of 112 x 112 px."""
    if template == "off":
        return decode(data, size=(FACE_SIZE, FACE_SIZE))
    from ppfr_ops.imaging.templates import shape_of, warped

    picture = decode(data)
    height, width = picture.shape[:2]
    if abs(width / height / shape_of(template) - 1) > 0.02:
        raise ImageError("wrong_size", f"{width} x {height} px, which is no crop of {template}")
    return warped(picture, template)
