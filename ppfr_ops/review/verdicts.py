"""What people said of photographs: the review queue, filled in."""

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from ppfr_ops.errors import UserError


@dataclass(frozen=True)
class Review:
    """Of a person on one photograph: ``ok``, ``drop``, or ``cover`` these boxes too."""

    kind: Literal["ok", "drop", "cover"]
    boxes: tuple[tuple[float, ...], ...] = ()


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
                raise UserError("the verdicts: expected columns source_id, verdict, boxes")
            for row in reader:
                word = (row["verdict"] or "").strip().lower()
                if not word:  # none yet, or taken back
                    verdicts.pop(row["source_id"], None)
                    continue
                verdicts[row["source_id"]] = _verdict(word, row.get("boxes") or "", reader.line_num)
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


def heeded(verdicts: Mapping[str, Review], ids: Iterable[str]) -> str:
    """The verdicts on these photographs, as a ledger keeps them: ``NUMBER:DIGEST`` of each, apart
    by blanks, where the number is the photograph's place among these; empty where there are
    none."""
    return " ".join(
        f"{number}:{_digest(verdicts[name])}" for number, name in enumerate(ids) if name in verdicts
    )


def by_row(kept: str) -> dict[int, str] | None:
    """Digests of verdicts by the photograph's place, of what ``heeded`` gave; None: it is not known
    which verdict was on which."""
    pairs = [item.partition(":") for item in kept.split()]
    if not all(place.isdecimal() and digest for place, _, digest in pairs):
        return None
    return {int(place): digest for place, _, digest in pairs}


def _digest(verdict: Review) -> str:
    said = json.dumps([verdict.kind, verdict.boxes])
    return hashlib.sha256(said.encode()).hexdigest()[:16]
