"""What a person should look at: the photographs in which the finder may have been wrong."""

import csv
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ppfr_ops.contracts.manifest import PhotographCounts
from ppfr_ops.source.plan import Plan, Unit, record_id, sources
from ppfr_ops.source.sums import marked, sums_of

_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_CONTROL = ("\t", "\r", "\n")
REVIEW = "source_id", "reason", "score", "faces", "source", "row", "verdict", "boxes", "original"


_HELD = {
    "no_face": "no face found",
    "no_face_dropped": "no face found",
    "face_without_box": "a face that no box covers",
}
"""Why a photograph that was held back is looked at, by the code of its dead letter."""

_ASKED, _CERTAIN = 0.04, 0.86
"""How likely a head must be that is not covered, and which score the best face must have, that
nobody has to look. In made scenes nearly all heads that stay bare are in such photographs, and in
others none more than elsewhere: a face that was hard to find is covered (docs/faces.md)."""


@dataclass(frozen=True)
class Doubt:
    """A photograph that a person should look at."""

    source_id: str
    reason: str
    score: float
    """Of the face that is doubted, or how likely there is no head more; 0 where none was found."""
    faces: int


def doubts(
    detections: pa.Table,
    dead_letters: pa.Table,
    sure: float,
    settled: Iterable[str] = (),
    others: Iterable[str] = (),
) -> list[Doubt]:
    """The review queue: worst first.

    Photographs in which nothing was found, or faces that no box of the owner covers. Of others the
    detector tells how likely a head is that is not covered (``doubt``): those where it is
    ``_ASKED``, or no face scores ``_CERTAIN``. Where it does not tell, those in which a face was
    found with a score near the threshold (under ``sure`` and half as much again) or by a second
    look only, or the detector does not see a box's face.

    Args:
        detections, dead_letters: of the whole output.
        settled: ``source_id`` of photographs that have a verdict.
        others: of those that have one that is not known to be of them.
    """
    queue = [Doubt(name, "the verdict is of another picture", 0.0, 0) for name in others]
    done = {*settled, *others}
    for letter in dead_letters.to_pylist():
        if letter["code"] in _HELD and letter["record_id"] not in done:
            queue.append(Doubt(letter["record_id"], _HELD[letter["code"]], 0.0, 0))
    if "doubt" not in detections.column_names:  # of an output of detections/2
        detections = detections.append_column("doubt", pa.nulls(len(detections)))
    names = ("source_id", "score", "second_look", "treatment", "doubt")
    faces: dict[str, list[tuple[float, bool, str]]] = defaultdict(list)
    told: dict[str, float | None] = {}
    for source, *face, doubt in zip(*(detections[n].to_pylist() for n in names), strict=True):
        faces[source].append((face[0], face[1], face[2]))
        told[source] = doubt
    for source, found in faces.items():
        if source in done:
            continue
        doubt = told[source]
        if doubt is not None:
            best = max((score for score, *_ in found), default=0)
            if doubt >= _ASKED or best < _CERTAIN:
                reason = "there may be a head more" if doubt >= _ASKED else "no face is certain"
                count = sum(treatment != "covered_faint" for *_, treatment in found)
                queue.append(Doubt(source, reason, min(1 - doubt, best), count))
            continue
        unsure = [score for score, *_ in found if score < 1.5 * sure]
        seconds = [score for score, second, _ in found if second]
        unseen = [sure for *_, treatment in found if treatment.endswith("_no_landmarks")]
        if unsure or seconds or unseen:
            reason = "the detector is not sure" if unsure else "found by a second look"
            reason = reason if unsure or seconds else "a box in which no face is seen"
            queue.append(Doubt(source, reason, min(unsure + seconds + unseen), len(found)))
    return sorted(queue, key=lambda doubt: (doubt.score, doubt.source_id))


def faint_places(detections: pa.Table) -> dict[str, list[list[float]]]:
    """Where photographs may have a head that is no face found, by ``source_id``: x0, y0, x1, y1,
    and 1 where it is covered, 0 where it is why somebody is asked."""
    found: dict[str, dict[tuple[float, ...], None]] = defaultdict(dict)
    for name in {"doubt", "doubt_box"} - {*detections.column_names}:  # of detections/3 or before
        detections = detections.append_column(name, pa.nulls(len(detections)))
    names = ("source_id", "box", "treatment", "doubt", "doubt_box")
    for source, box, treatment, doubt, place in zip(
        *(detections[name].to_pylist() for name in names), strict=True
    ):
        if treatment == "covered_faint":
            found[source][*box, 1.0] = None
        if place is not None and doubt >= _ASKED:
            found[source][*place, 0.0] = None
    return {source: [list(each) for each in some] for source, some in found.items()}


def counts(
    detections: pa.Table, queue: Sequence[Doubt], settled: Iterable[str], sure: float
) -> PhotographCounts:
    """What was found in photographs, and how many of them wait for a person.

    Args:
        detections, settled, sure: as ``doubts`` has them.
    """
    detections = detections.filter(pc.not_equal(detections["treatment"], "covered_faint"))
    kept = pc.sum(pc.equal(detections["treatment"], "left_alone")).as_py() or 0
    doubted = pc.or_(pc.less(detections["score"], sure), detections["second_look"])
    return PhotographCounts(
        photographs=pc.count_distinct(detections["source_id"]).as_py(),
        faces=len(detections),
        covered=len(detections) - kept,
        left_alone=kept,
        unsure=pc.sum(doubted).as_py() or 0,
        looked_over=len(set(settled)),
        waiting=len(queue),
    )


def places(queue: Sequence[Doubt], plan: Plan) -> dict[str, tuple[str, int]]:
    """File and row of the photographs of a queue, by ``source_id``, if they are there."""
    found: dict[str, tuple[str, int]] = {}
    for unit, names in _units(queue, plan):
        found.update(zip(names, sources(plan, unit), strict=True))
    return found


def _units(queue: Sequence[Doubt], plan: Plan) -> Iterator[tuple[Unit, list[str]]]:
    """The units in which the photographs of a queue are, with the ``source_id`` of every row."""
    wanted = {doubt.source_id for doubt in queue}
    for unit in plan.units:
        names = [record_id(unit.id, row) for row in range(unit.rows)]
        if wanted.intersection(names):
            yield unit, names


def write_review(target: str, queue: Sequence[Doubt], plan: Plan) -> None:
    """Write ``--review-out``, a table to be filled in and given back as ``--verdicts``. It names
    the sources, so it is for the owner alone: mode 0600. ``original`` says of which picture the
    verdict will be."""
    where, marks = dict[str, tuple[str, int]](), dict[str, str]()
    for unit, names in _units(queue, plan):
        where.update(zip(names, sources(plan, unit), strict=True))
        marks.update(zip(names, map(marked, sums_of(plan, unit)), strict=True))
    descriptor = os.open(target, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w", newline="", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o600)  # of one that was there before
        writer = csv.writer(file)
        writer.writerow(REVIEW)
        for doubt in queue:
            name, score = doubt.source_id, f"{doubt.score:.3f}"
            if name in where:
                source, row = where[name]
                told = (name, doubt.reason, score, doubt.faces, inert(source), row)
                writer.writerow((*told, "", "", marks[name]))


def inert(text: str) -> str:
    """A text of anybody's, such as a file's name, that no spreadsheet takes for a formula (CSV
    injection, CWE-1236): what begins like one gets an apostrophe."""
    return f"'{text}" if text.lstrip().startswith(_FORMULA) or text[:1] in _CONTROL else text
