"""Photographs to faces: whose word counts (owner, detector, reviewer), and what is to be done to
each face.

``imaging.detector`` has the geometry and the detector; ``crops`` and ``pictures`` publish what is
found here.
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import Picture
from ppfr_ops.imaging.codec import orientation
from ppfr_ops.imaging.detector import CenterFace, Checked, Detections, Detector, given
from ppfr_ops.imaging.geometry import Treatment, because, treat
from ppfr_ops.review.verdicts import Review
from ppfr_ops.sanitize.items import Item, Results, decoded
from ppfr_ops.sanitize.photographs.given import Owner, beyond
from ppfr_ops.sanitize.photographs.options import PhotographOptions
from ppfr_ops.source.sums import sum_of

GROUP_PIXELS = 32_000_000
"""Of photographs that are held decoded at once; a larger one is held alone."""

GROUP_PICTURES = 32

_COVERED = 0.15
"""From which chance on a place that is no face is covered as well: a spare patch is cheaper than a
head, and than somebody's minute."""

_UNTOLD: Mapping[str, Any] = {"doubt": None, "doubt_box": None}


@dataclass(frozen=True)
class Photograph(Item):
    """A photograph and what is to be done to each of its faces."""

    faces: Detections = field(default_factory=Detections.empty)
    treatments: tuple[Treatment, ...] = ()
    doubt: Mapping[str, Any] = field(default_factory=lambda: _UNTOLD)
    """``DOUBT_FIELDS``; None: the detector does not tell, or its word does not count."""


def build_detector(options: PhotographOptions, threads: int = 0) -> Detector:
    """The detector.

    Raises:
        UserError: no such module, or nothing in it that can be called.
    """
    if options.detector == "centerface":
        covers = options.cover in ("blur", "mosaic", "solid")  # which need no exact landmarks
        return CenterFace(options.face_threshold, 1024, options.thorough, threads, quick=covers)
    module, _, name = options.detector.partition(":")
    try:
        return Checked(getattr(importlib.import_module(module), name)())
    except Exception as error:
        raise UserError(
            f"--detector {options.detector!r}: expected MODULE:NAME of something that, called "
            f"without arguments, gives a detector ({type(error).__name__})"
        ) from None


def full(items: Sequence[Item]) -> bool:
    """Whether these are as many photographs as may be held at once."""
    pixels = sum(item.pixels.shape[0] * item.pixels.shape[1] for item in items)
    return len(items) > GROUP_PICTURES or pixels > GROUP_PIXELS


class Finder:
    """Photographs to faces, by owner, detector and reviewer.

    Args:
        verdicts: by ``source_id``.
        threads: of the detector; 0: as it likes.
    """

    def __init__(
        self, options: PhotographOptions, verdicts: Mapping[str, Review], threads: int = 0
    ) -> None:
        self.options = options
        self.verdicts = verdicts
        self.detect = build_detector(options, threads)

    def __call__(
        self,
        items: Sequence[Item],
        known: Sequence[Mapping[str, str | None]],
        said: Sequence[Review | None],
    ) -> list[Photograph | tuple[str, str]]:
        """Faces of a group of photographs.

        Args:
            known: for every item what the owner says, JSON by role (``PhotographOptions.given``),
                and under ``orientation`` how the stored picture is turned, if that matters.
            said: for every item the verdict on it.

        Returns:
            For every item the photograph, or reason code and detail of why there is none.
        """
        detected: Mapping[int, Detections | None] = {}
        options = self.options
        if options.unboxed != "leave" or not {"boxes", "landmarks"} <= options.given.keys():
            detected = dict(enumerate(self._detect([item.pixels for item in items])))
        return [
            self._found(item, row, detected.get(number, Detections.empty()), said[number])
            for number, (item, row) in enumerate(zip(items, known, strict=True))
        ]

    def photographs(self, table: pa.Table, results: Results[Any]) -> Iterator[Photograph]:
        """The photographs of a unit, group by group; those of which there is nothing to publish
        are buried.

        Args:
            table: as ``source.plan.read_unit`` gives it.
        """
        group: list[Item] = []
        for item in decoded(table, results, None):
            if group and full([*group, item]):
                yield from self._group(group, table, results)
                group = []
            group.append(item)
        if group:
            yield from self._group(group, table, results)

    def _group(
        self, group: list[Item], table: pa.Table, results: Results[Any]
    ) -> Iterator[Photograph]:
        roles = list(self.options.given)
        known = [
            {role: table[f"given.{role}"][item.row].as_py() for role in roles} for item in group
        ]
        if roles and self.options.boxes_frame == "stored":
            for item, row in zip(group, known, strict=True):
                row["orientation"] = str(orientation(table["image"][item.row].as_py()))
        said = [self._verdict(item, table["image"][item.row].as_py()) for item in group]
        for item, found in zip(group, self(group, known, said), strict=True):
            if isinstance(found, Photograph):
                yield found
            else:
                results.add_dead_letter(item.record_id, item.row, *found)

    def _verdict(self, item: Item, data: bytes) -> Review | None:
        said = self.verdicts.get(item.record_id)
        return said if said is not None and said.binds(sum_of(data)) else None

    def check(self, faces: Sequence[Picture]) -> None:
        """Run the detector.

        Raises:
            UserError: it fails.
        """
        try:
            self.detect(list(faces))
        except Exception as error:
            raise UserError(f"--detector: it fails ({type(error).__name__})") from None

    def _detect(self, pictures: Sequence[Picture]) -> list[Detections | None]:
        """None where the detector fails."""
        try:
            return list(self.detect(pictures))
        except Exception:
            if len(pictures) == 1:
                return [None]
            return [faces for picture in pictures for faces in self._detect([picture])]

    def _found(
        self,
        item: Item,
        known: Mapping[str, str | None],
        detected: Detections | None,
        verdict: Review | None,
    ) -> Photograph | tuple[str, str]:
        if verdict is not None and verdict.kind == "drop":
            return "rejected", ""
        if detected is None:
            return "detector_failed", ""
        try:
            spare, doubt = self._spare(detected)
            every = Detections.join([detected, spare])
            faces, treatments, bare = self._treated(item, known, every, verdict)
            treatments[len(detected) : len(every)] = ["covered_faint"] * len(spare)
        except (ValueError, TypeError) as error:
            # Only what ``detector.given`` and ``given`` say is known to hold numbers at most.
            return "wrong_boxes", str(error) if type(error) is ValueError else "not boxes"
        if bare and verdict is None:
            return "face_without_box", f"{bare}"
        options = self.options
        sure = verdict is not None and verdict.kind == "ok"
        if len(faces) == 0 and not (sure and options.output_faces == "in-place"):
            code = {"quarantine": "no_face", "drop": "no_face_dropped"}.get(options.no_face)
            if code is not None:
                return code, ""
        return Photograph(
            item.record_id,
            item.row,
            item.pixels,
            item.context,
            item.format,
            faces,
            tuple(treatments),
            doubt,
        )

    def _spare(self, detected: Detections) -> tuple[Detections, Mapping[str, Any]]:
        """What may be a head, and is covered in whole photographs; and ``Photograph.doubt``."""
        options, faint = self.options, detected.faint
        if faint is None or {"boxes", "regions"} & options.given.keys():
            return Detections.empty(), _UNTOLD
        likely = faint[:, 4] >= _COVERED
        if options.output_faces == "crops" or len(detected) == 0:
            likely[:] = False
        boxes, count = faint[likely, :4], int(likely.sum())
        points = np.full((count, 5, 2), np.nan, np.float32)
        scores = np.minimum(faint[likely, 4], np.float32(options.face_threshold))
        rest = faint[~likely]
        best = rest[rest[:, 4].argmax()].tolist() if len(rest) else [None, 0.0]
        doubt = {"doubt": best[-1], "doubt_box": best[:4] if len(rest) else None}
        return Detections(boxes, points, scores, np.ones(count, bool)), doubt

    def _treated(
        self,
        item: Item,
        known: Mapping[str, str | None],
        detected: Detections,
        verdict: Review | None,
    ) -> tuple[Detections, list[Treatment], int]:
        """The faces by everybody's word, what is to be done to each, and how many are to hold the
        photograph back.

        Raises:
            ValueError, TypeError: what the owner gave are no boxes, landmarks or regions.
        """
        faces, options = detected, self.options
        height, width = item.pixels.shape[:2]
        turned = int(known.get("orientation") or 1)
        owner = Owner(options.boxes_format, (width, height), turned)
        if options.boxes_column is not None:
            faces = owner.faces(known, detected)
        regions = owner.boxes(known.get("regions") or "[]")
        more = given(verdict.boxes if verdict else (), None, (width, height))
        if options.boxes_column is not None and options.unboxed != "leave":
            bare = beyond(Detections.join([faces, regions, more]), detected)
        else:
            bare = beyond(faces, Detections.empty())
        if options.unboxed == "cover":
            faces = Detections.join([faces, detected.take(bare)])
        otherwise: Literal["covered", "pixelated"] = (
            "pixelated" if options.output_faces == "crops" else "covered"
        )
        treatments = treat(faces, options.smallest_face, options.face_sure, otherwise)
        for number, box in enumerate(faces.boxes):
            middle = (box[:2] + box[2:]) / 2
            within = (regions.boxes[:, :2] <= middle) & (middle <= regions.boxes[:, 2:])
            if within.all(1).any():
                treatments[number] = "left_alone"
        faces = Detections.join([faces, more])
        treatments += [because(otherwise, "by_verdict")] * len(more)
        if options.output_faces == "crops":
            shown = [i for i, treatment in enumerate(treatments) if treatment != "left_alone"]
            faces = faces.take(np.array(shown, np.intp))
            treatments = [treatments[i] for i in shown]
        return faces, treatments, len(bare) if options.unboxed == "hold" else 0
