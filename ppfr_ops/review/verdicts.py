"""What people said of photographs: the review queue, filled in. A verdict is of a picture, not of a
name: what it says is done only if the picture is the one that it was given on."""

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np

from ppfr_ops.contracts.ledger import LedgerEntry
from ppfr_ops.errors import UserError
from ppfr_ops.source.sums import Sum, is_of
from ppfr_ops.source.units import record_id

_OTHER = ":other"


@dataclass(frozen=True)
class Review:
    """Of a person on one photograph: ``ok``, ``drop``, or ``cover`` these boxes too."""

    kind: Literal["ok", "drop", "cover"]
    boxes: tuple[tuple[float, ...], ...] = ()
    original: str = ""
    """A mark (``source.sums``) of the picture that it was given on; empty: nobody knows."""

    def is_of(self, picture: Sum) -> bool:
        """Whether it was given on this picture. ``drop`` needs no picture to be right."""
        return is_of(self.original, picture) or (self.kind == "drop" and not self.original)

    def binds(self, picture: Sum) -> bool:
        """Whether it is done what it says. Nothing is published by a ``drop`` that is of another
        picture, so that one is."""
        return self.kind == "drop" or self.is_of(picture)


def read_verdicts(path: str) -> dict[str, Review]:
    """The review queue, filled in; by ``source_id``.

    Raises:
        UserError: not such a file, or a verdict of another kind; says in which line.
    """
    verdicts: dict[str, Review] = {}
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if not {"source_id", "verdict"} <= set(reader.fieldnames or ()):
                raise UserError(
                    "the verdicts: expected columns source_id, verdict, boxes, original"
                )
            for row in reader:
                word = (row["verdict"] or "").strip().lower()
                if not word:  # none yet, or taken back
                    verdicts.pop(row["source_id"], None)
                    continue
                said = _verdict(word, row.get("boxes") or "", reader.line_num)
                verdicts[row["source_id"]] = replace(said, original=row.get("original") or "")
    except FileNotFoundError:
        raise UserError(
            "--verdicts: there is no such file; ppfr review writes it with the first verdict"
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"the verdicts cannot be read ({type(error).__name__})") from None
    return verdicts


def _verdict(word: str, boxes: str, line: int) -> Review:
    if word in ("ok", "drop"):
        return Review(cast(Literal["ok", "drop"], word))
    if word != "cover":
        raise UserError(f"the verdicts, line {line}: expected ok, drop or cover")
    try:
        found = np.asarray(json.loads(boxes), float).reshape(-1, 4)
    except (ValueError, TypeError):
        raise UserError(
            f"the verdicts, line {line}: cover needs boxes as [[x0, y0, x1, y1], …]"
        ) from None
    return Review("cover", tuple(tuple(box) for box in found.tolist()))


def listed(
    verdicts: Mapping[str, Review], ids: Iterable[str], pictures: Sequence[Sum] | None = None
) -> str:
    """The verdicts on these photographs, as a ledger keeps them: ``NUMBER:DIGEST`` of each, apart
    by blanks, where the number is the photograph's place among these, and ``:other`` behind it
    where it is not known to be of this picture; empty where there are none.

    Args:
        pictures: of each; None: which verdict is of another is not asked.
    """
    found = []
    for number, name in enumerate(ids):
        said = verdicts.get(name)
        if said is not None:
            here = pictures is None or said.is_of(pictures[number])
            found.append(f"{number}:{digest_of(said)}{'' if here else _OTHER}")
    return " ".join(found)


def without_pictures(kept: str) -> str:
    """What ``listed`` gave, as it gives it without pictures."""
    return kept.replace(_OTHER, "")


def of_others(entries: Iterable[LedgerEntry]) -> dict[str, str]:
    """Digests of the verdicts that are not known to be of the photograph that bears the name, by
    ``source_id``."""
    return {
        record_id(entry.unit, place): digest.removesuffix(_OTHER)
        for entry in entries
        for place, digest in (by_row(entry.verdicts) or {}).items()
        if digest.endswith(_OTHER)
    }


def by_row(kept: str) -> dict[int, str] | None:
    """Digests of verdicts by the photograph's place, of what ``listed`` gave; None: it is not known
    which verdict was on which."""
    pairs = [item.partition(":") for item in kept.split()]
    if not all(place.isdecimal() and digest for place, _, digest in pairs):
        return None
    return {int(place): digest for place, _, digest in pairs}


def digest_of(verdict: Review) -> str:
    said = json.dumps([verdict.kind, verdict.boxes, verdict.original])
    return hashlib.sha256(said.encode()).hexdigest()[:16]
