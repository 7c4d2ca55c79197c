"""Photographs as they come: find the faces, then publish each as a record, or the whole picture.

``faces`` has the geometry and the detector; here is what a run does with them: whose word counts
(detector, owner, reviewer), what happens where no face is found, and how the result is measured.
"""

import csv
import hashlib
import importlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ppfr_ops.contracts.detections import FACE_FIELDS, detections_schema
from ppfr_ops.contracts.metrics import MEASURES, metrics_schema
from ppfr_ops.contracts.policy import Bound
from ppfr_ops.contracts.records import records_schema
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import Faces, Picture
from ppfr_ops.imaging.detector import (
    CENTERFACE,
    CenterFace,
    Detections,
    Detector,
    Treatment,
    cover,
    cut,
    given,
    overlap,
    transforms,
    treat,
)
from ppfr_ops.methods.registry import create
from ppfr_ops.sanitize.aligned import (
    Base,
    Failed,
    Item,
    Metrics,
    Results,
    Sanitizer,
    column,
    measure,
)

GROUP_PIXELS = 32_000_000
"""Of photographs that are held decoded at once; a larger one is held alone."""

GROUP_PICTURES = 32

COARSE = ("28", "56")
"""px; blocks of the pixelation that stands in where the method does not fit, and what is tried
next where it shows too much. Coarse pixels of a face of 15 px show about all there was."""

COARSE_LIMIT = 0.55
"""Disclosure from which on a face is pixelated more coarsely, at last to one colour."""

_MEASURES = tuple(item.name for item in MEASURES)


class PhotographOptions(BaseModel):
    """What is to be done with photographs: the options of ``ppfr sanitize --faces detect``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output_faces: Literal["crops", "in-place"] = "crops"
    no_face: Literal["quarantine", "drop", "pass"] = "quarantine"
    background: Literal["keep", "blur", "black"] = "keep"
    face_threshold: float = Field(default=0.2, gt=0, lt=1)
    face_sure: float = Field(default=0.35, ge=0, le=1)
    smallest_face: float = Field(default=32, ge=1)
    thorough: bool = False
    detector: str = "centerface"
    boxes_column: str | None = None
    landmarks_column: str | None = None
    keep_regions_column: str | None = None

    @property
    def given(self) -> dict[str, str]:
        """Columns by what they hold, as ``units.Columns`` wants them."""
        columns = {
            "boxes": self.boxes_column,
            "landmarks": self.landmarks_column,
            "regions": self.keep_regions_column,
        }
        return {role: name for role, name in columns.items() if name is not None}

    def digest(self) -> str:
        """sha256 over the options and the detector, hex."""
        text = self.model_dump_json()
        if self.detector == "centerface":
            text += hashlib.sha256(CENTERFACE.read_bytes()).hexdigest()
        return hashlib.sha256(text.encode()).hexdigest()

    def build_detector(self, threads: int = 0) -> Detector:
        """The detector.

        Raises:
            UserError: no such module, or nothing in it that can be called.
        """
        if self.detector == "centerface":
            return CenterFace(self.face_threshold, thorough=self.thorough, threads=threads)
        module, _, name = self.detector.partition(":")
        try:
            return cast(Detector, getattr(importlib.import_module(module), name)())
        except Exception as error:
            raise UserError(
                f"detector {self.detector!r}: expected MODULE:NAME of something that, called "
                f"without arguments, gives a detector ({type(error).__name__})"
            ) from None


# -- verdicts of people ------------------------------------------------------------------------


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
    verdicts = {}
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if not {"source_id", "verdict"} <= set(reader.fieldnames or ()):
                raise UserError("the verdicts: expected columns source_id, verdict, boxes")
            for row in reader:
                word = (row["verdict"] or "").strip().lower()
                if not word:
                    continue
                verdicts[row["source_id"]] = _verdict(word, row.get("boxes") or "", reader.line_num)
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


def verdict_digest(verdicts: Mapping[str, Review], ids: Iterable[str]) -> str:
    """Digest of the verdicts on these photographs; empty where there are none."""
    heeded = [[name, verdicts[name].kind, verdicts[name].boxes] for name in ids if name in verdicts]
    return hashlib.sha256(json.dumps(heeded).encode()).hexdigest()[:16] if heeded else ""


# -- finding -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Photograph(Item):
    """A photograph and what is to be done to each of its faces."""

    faces: Detections
    treatments: tuple[Treatment, ...]


class Finder:
    """Photographs to faces, by owner, detector and reviewer.

    Args:
        options: of the run.
        verdicts: by ``source_id``.
        threads: of the detector; 0: as it likes.
    """

    def __init__(
        self, options: PhotographOptions, verdicts: Mapping[str, Review], threads: int = 0
    ) -> None:
        self.options = options
        self.verdicts = verdicts
        self.detect = options.build_detector(threads)

    def __call__(
        self, items: Sequence[Item], known: Sequence[Mapping[str, str | None]]
    ) -> list[Photograph | tuple[str, str]]:
        """Faces of a group of photographs.

        Args:
            known: for every item what the owner says, JSON by role (``PhotographOptions.given``).

        Returns:
            For every item the photograph, or reason code and detail of why there is none.
        """
        detected: Mapping[int, Detections | None] = {}
        if not {"boxes", "landmarks"} <= self.options.given.keys():
            detected = dict(enumerate(self._detect([item.pixels for item in items])))
        return [
            self._found(item, row, detected.get(number, Detections.empty()))
            for number, (item, row) in enumerate(zip(items, known, strict=True))
        ]

    def _detect(self, pictures: Sequence[Picture]) -> list[Detections | None]:
        """None where the detector fails."""
        try:
            return list(self.detect(pictures))
        except Exception:
            if len(pictures) == 1:
                return [None]
            return [faces for picture in pictures for faces in self._detect([picture])]

    def _found(
        self, item: Item, known: Mapping[str, str | None], detected: Detections | None
    ) -> Photograph | tuple[str, str]:
        verdict = self.verdicts.get(item.record_id)
        if verdict is not None and verdict.kind == "drop":
            return "rejected", ""
        if detected is None:
            return "detector_failed", ""
        faces, options = detected, self.options
        try:
            if options.boxes_column is not None:
                faces = self._given(item, known, detected)
            regions = self._boxes(item, known.get("regions") or "[]")
            more = self._boxes(item, json.dumps(verdict.boxes if verdict else ()))
        except (ValueError, TypeError) as error:
            # Only what ``faces.given`` says is known to hold numbers at most.
            return "wrong_boxes", str(error) if type(error) is ValueError else "not boxes"
        treatments = treat(faces, options.smallest_face, options.face_sure)
        for number, box in enumerate(faces.boxes):
            middle = (box[:2] + box[2:]) / 2
            within = (regions.boxes[:, :2] <= middle) & (middle <= regions.boxes[:, 2:])
            if within.all(1).any():
                treatments[number] = "left_alone"
        faces = Detections.join([faces, more])
        treatments += ["pixelated_by_verdict"] * len(more)
        if options.output_faces == "crops":
            shown = [i for i, treatment in enumerate(treatments) if treatment != "left_alone"]
            faces = faces.take(np.array(shown, np.intp))
            treatments = [treatments[i] for i in shown]
        sure = verdict is not None and verdict.kind == "ok"
        if len(faces) == 0 and not (sure and options.output_faces == "in-place"):
            code = {"quarantine": "no_face", "drop": "no_face_dropped"}.get(options.no_face)
            if code is not None:
                return code, ""
        return Photograph(item.record_id, item.row, item.pixels, faces, tuple(treatments))

    def _boxes(self, item: Item, text: str) -> Detections:
        height, width = item.pixels.shape[:2]
        return given(_parse(text, 4), None, (width, height))

    def _given(
        self, item: Item, known: Mapping[str, str | None], detected: Detections
    ) -> Detections:
        if known["boxes"] is None:
            raise ValueError("none are given")
        height, width = item.pixels.shape[:2]
        boxes = _parse(known["boxes"], 4)
        if self.options.landmarks_column is not None:
            if known["landmarks"] is None:
                raise ValueError("no landmarks are given")
            return given(boxes, _parse(known["landmarks"], 10), (width, height))
        faces = given(boxes, None, (width, height))
        for number, box in enumerate(faces.boxes):
            shares = overlap(box, detected.boxes)
            if len(shares) and shares.max() > 0.3:
                faces.landmarks[number] = detected.landmarks[shares.argmax()]
        return faces


def _parse(text: str, each: int) -> NDArray[np.float32]:
    """JSON of boxes or landmarks, nested as it likes, to ``N x each``."""
    try:
        values = np.asarray(json.loads(text), np.float32)
        return values.reshape(-1, each)
    except (ValueError, TypeError):
        raise ValueError(f"expected a list of {each} numbers for every face") from None


class _FindingSanitizer(Base[Any]):
    """What both ways of publishing faces of photographs share: finding them.

    Args:
        options, verdicts: as ``Finder`` takes them.
        threads: of the detector.
        others: as ``Sanitizer`` takes them.
    """

    def __init__(
        self,
        options: PhotographOptions,
        verdicts: Mapping[str, Review],
        threads: int,
        *others: Any,
        **named: Any,
    ) -> None:
        super().__init__(*others, **named)
        self.options = options
        self.find = Finder(options, verdicts, threads)
        self.coarse = [create("pixelate", {"block": block}) for block in COARSE]
        names = [recognizer.name for recognizer in self.recognizers]
        crops = options.output_faces == "crops"
        self.records_schema = records_schema(self.keep, self.pseudonymize is not None, crops)
        self.metrics_schema = metrics_schema(names, pictures=not crops)
        self.detections_schema = detections_schema(names)

    def _photographs(
        self, table: pa.Table, unit: str, results: Results[Any]
    ) -> Iterator[Photograph]:
        roles = list(self.options.given)
        group: list[Item] = []
        for item in self._decoded(table, unit, results, None):
            if group and _full([*group, item]):
                yield from self._group(group, table, roles, unit, results)
                group = []
            group.append(item)
        if group:
            yield from self._group(group, table, roles, unit, results)

    def _group(
        self,
        group: list[Item],
        table: pa.Table,
        roles: Sequence[str],
        unit: str,
        results: Results[Any],
    ) -> Iterator[Photograph]:
        known = [
            {role: table[f"given.{role}"][item.row].as_py() for role in roles} for item in group
        ]
        for item, found in zip(group, self.find(group, known), strict=True):
            if isinstance(found, Photograph):
                yield found
            else:
                results.bury(item.record_id, item.row, unit, *found)

    def _by_treatment(
        self,
        crops: Faces,
        ids: Sequence[str],
        treatments: Sequence[Treatment],
        draw: int,
    ) -> Faces:
        """The method on the faces that suit it, coarse pixels on all others."""
        out = np.empty_like(crops)
        suited = np.array([treatment == "anonymized" for treatment in treatments], bool)
        if suited.any():
            names = [name for name, suits in zip(ids, suited, strict=True) if suits]
            out[suited] = self._by_method(crops[suited], names, draw)
        if not suited.all():
            out[~suited] = self._pixelated(crops[~suited])
        return out

    def _pixelated(self, crops: Faces) -> Faces:
        """As fine as ``COARSE_LIMIT`` allows."""
        out = np.empty_like(crops)
        out[:] = crops.mean((1, 2), keepdims=True)
        left = np.arange(len(crops))
        for method in self.coarse:
            tried = method(crops[left], np.zeros((len(left), 0), np.float32))
            fits = measure(crops[left], tried, tried)["disclosure"] <= COARSE_LIMIT
            out[left[fits]] = tried[fits]
            left = left[~fits]
            if not len(left):
                break
        return out


def _full(items: Sequence[Item]) -> bool:
    pixels = sum(item.pixels.shape[0] * item.pixels.shape[1] for item in items)
    return len(items) > GROUP_PICTURES or pixels > GROUP_PIXELS


def _place(
    source: str, number: int, faces: Detections, i: int, treatment: Treatment
) -> dict[str, Any]:
    """The columns ``FACE_FIELDS`` of a face."""
    marks = faces.landmarks[i].ravel()
    return {
        "source_id": source,
        "face": number,
        "box": faces.boxes[i].tolist(),
        "landmarks": marks.tolist() if np.isfinite(marks).all() else None,
        "score": float(faces.scores[i]),
        "second_look": bool(faces.second[i]),
        "treatment": treatment,
    }


# -- a record a face ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Crop(Item):
    """One face of a photograph, aligned."""

    place: dict[str, Any] = field(hash=False)


class CropSanitizer(_FindingSanitizer, Sanitizer[Any]):
    """Publishes every face of a photograph as a record."""

    def _items(self, table: pa.Table, unit: str, results: Results[Any]) -> Iterator[Crop]:
        for photograph in self._photographs(table, unit, results):
            faces, name = photograph.faces, photograph.record_id
            crops = cut(photograph.pixels, transforms(faces))
            for i, crop in enumerate(crops):
                place = _place(name, i, faces, i, photograph.treatments[i])
                yield Crop(f"{name}-f{i:03d}", photograph.row, crop, place)

    def _anonymize(self, faces: Faces, batch: Sequence[Crop], draw: int) -> Faces:
        return self._by_treatment(
            faces,
            [crop.record_id for crop in batch],
            [crop.place["treatment"] for crop in batch],
            draw,
        )

    def _face_columns(self, results: Results[Any]) -> list[pa.Array]:
        return [
            pa.array([crop.place[item.name] for crop in results.items], item.type)
            for item in FACE_FIELDS
        ]

    def _detections(self, results: Results[Any]) -> pa.Table:
        columns = {
            "record_id": [crop.record_id for crop in results.items],
            **{
                item.name: [crop.place[item.name] for crop in results.items] for item in FACE_FIELDS
            },
        }
        return _detections_table(self.detections_schema, columns, results.metrics)


def _detections_table(
    schema: pa.Schema, columns: Mapping[str, Sequence[Any]], metrics: Sequence[Metrics]
) -> pa.Table:
    arrays = []
    count = len(columns["record_id"])
    for item in schema:
        if item.name in columns:
            arrays.append(pa.array(columns[item.name], item.type))
            continue
        parts = [part[item.name] for part in metrics if item.name in part]
        values = column(np.concatenate(parts), item.type) if parts else None
        arrays.append(pa.nulls(count, item.type) if values is None else values)
    return pa.table(arrays, schema=schema)


# -- a record a photograph ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Made:
    """A photograph with its heads covered."""

    image: bytes
    changed: float
    metrics: Metrics
    """Of its faces, one value each."""


class PictureSanitizer(_FindingSanitizer):
    """Publishes whole photographs, with every head covered."""

    def _items(self, table: pa.Table, unit: str, results: Results[Any]) -> Iterator[Photograph]:
        self._faces: dict[str, Metrics] = {}
        yield from self._photographs(table, unit, results)

    def _batches(self, items: Iterator[Any]) -> Iterator[list[Any]]:
        batch: list[Photograph] = []
        for item in items:
            if batch and (_full([*batch, item]) or len(batch) == self.batch_size):
                yield batch
                batch = []
            batch.append(item)
        if batch:
            yield batch

    def _attempt(self, batch: list[Photograph]) -> tuple[list[bytes], Metrics]:
        stage = "method_failed"
        try:
            crops = [cut(item.pixels, transforms(item.faces)) for item in batch]
            published = self._draw(batch, crops, 0)
            again = None
            if self.level == "full" and self.anonymizer.draw_size:
                again = self._draw(batch, crops, 1)
            stage = "encoder_failed"
            made = self._make(batch, crops, published, again)
            stage = "method_failed"
            self._draw_again(batch, crops, again, made)
            stage = "not_measured"
            residual = None
            if self.level == "full":
                seen = [self.encoding.decode(each.image) for each in made]
                residual = [len(faces) for faces in self.find.detect(seen)]
        except Exception:
            raise Failed(stage) from None
        for item, each in zip(batch, made, strict=True):
            self._faces[item.record_id] = each.metrics
        measured = self._of_pictures(batch, made) if self.level != "none" else {}
        if residual is not None:
            measured["residual_faces"] = np.array(residual, np.float32)
        return [each.image for each in made], measured

    def _draw(
        self, batch: Sequence[Photograph], crops: Sequence[Faces], draw: int
    ) -> list[dict[int, NDArray[np.uint8]]]:
        """What the method makes of the faces that suit it, by photograph and number of the face."""
        owners = [
            (place, i)
            for place, item in enumerate(batch)
            for i, treatment in enumerate(item.treatments)
            if treatment == "anonymized"
        ]
        published: list[dict[int, NDArray[np.uint8]]] = [{} for _ in batch]
        for start in range(0, len(owners), self.batch_size):
            part = owners[start : start + self.batch_size]
            faces = np.stack([crops[place][i] for place, i in part])
            names = [f"{batch[place].record_id}-f{i:03d}" for place, i in part]
            for (place, i), face in zip(part, self._by_method(faces, names, draw), strict=True):
                published[place][i] = face
        return published

    def _make(
        self,
        batch: Sequence[Photograph],
        crops: Sequence[Faces],
        published: Sequence[Mapping[int, NDArray[np.uint8]]],
        again: Sequence[Mapping[int, NDArray[np.uint8]]] | None,
    ) -> list[_Made]:
        pictures: list[tuple[bytes, float]] = []
        seen: list[Faces] = []
        other: list[Faces] = []
        for place, item in enumerate(batch):
            canvas, changed = self._cover(item, published[place])
            data = self.encoding.encode(canvas)
            pictures.append((data, float(changed.mean())))
            if self.level == "none":
                continue
            matrices = transforms(item.faces)
            seen.append(cut(self.encoding.decode(data), matrices))
            if again is not None:
                other.append(cut(self._cover(item, again[place])[0], matrices))
        parts: list[Metrics] = []
        if self.level != "none" and any(len(faces) for faces in crops):
            flat = [np.concatenate(list(faces)) for faces in (crops, seen)]
            second = np.concatenate(other) if other else None
            if second is None and self.level == "full":
                second = flat[1]  # a method without a draw publishes the same again
            for start in range(0, len(flat[0]), self.batch_size):
                rows = slice(start, start + self.batch_size)
                parts.append(
                    self._compare(
                        flat[0][rows], flat[1][rows], None if second is None else second[rows]
                    )
                )
        made, first = [], 0
        for (data, share), faces in zip(pictures, crops, strict=True):
            rows = slice(first, first + len(faces))
            metrics = {
                name: np.concatenate([part[name] for part in parts])[rows].astype(np.float32)
                for name in (parts[0] if parts else ())
            }
            made.append(_Made(data, share, metrics))
            first += len(faces)
        return made

    def _cover(
        self, item: Photograph, published: Mapping[int, NDArray[np.uint8]]
    ) -> tuple[Picture, NDArray[np.bool_]]:
        return cover(item.pixels, item.faces, item.treatments, published, self.options.background)

    def _draw_again(
        self,
        batch: Sequence[Photograph],
        crops: Sequence[Faces],
        again: Sequence[Mapping[int, NDArray[np.uint8]]] | None,
        made: list[_Made],
    ) -> None:
        """Replace, in place, photographs of which a face falls short by ones that fall less
        short; all their faces are drawn afresh."""
        if not self.anonymizer.draw_size:
            return
        for draw in range(2, 2 + self.redraws):
            lacks = [self._lack_of(item, each) for item, each in zip(batch, made, strict=True)]
            over = [place for place, lack in enumerate(lacks) if lack > 0]
            if not over:
                return
            some, their = [batch[place] for place in over], [crops[place] for place in over]
            fresh = self._draw(some, their, draw)
            second = None if again is None else [again[place] for place in over]
            for place, each in zip(over, self._make(some, their, fresh, second), strict=True):
                if self._lack_of(batch[place], each) < lacks[place]:
                    made[place] = each

    def _lack_of(self, item: Photograph, made: _Made) -> float:
        suited = [i for i, treatment in enumerate(item.treatments) if treatment == "anonymized"]
        if not suited or not made.metrics:
            return 0.0
        return float(self._lack({k: v[suited] for k, v in made.metrics.items()}).sum())

    def _of_pictures(self, batch: Sequence[Photograph], made: Sequence[_Made]) -> Metrics:
        """The worst of every photograph's anonymized faces, and what concerns the whole."""
        values: dict[str, list[float]] = defaultdict(list)
        names = [item.name for item in self.detections_schema if item.name in _MEASURES]
        names += [f"id_cosine_{recognizer.name}" for recognizer in self.recognizers]
        for item, each in zip(batch, made, strict=True):
            suited = [i for i, t in enumerate(item.treatments) if t == "anonymized"]
            for name in names:
                found = each.metrics[name][suited] if name in each.metrics else np.zeros(0)
                worst = np.min if name.startswith("id_cosine_") else np.max
                values[name].append(float(worst(found)) if len(found) else np.nan)
            values["faces"].append(len(item.faces))
            values["smallest_face"].append(
                float(item.faces.sizes.min()) if len(item.faces) else np.nan
            )
            values["changed_share"].append(each.changed)
        return {name: np.array(each, np.float32) for name, each in values.items()}

    def _holds(self, bound: Bound, value: float) -> bool:
        # NaN: no face of it went through the method, so there is nothing to hold to the bound.
        return bool(np.isnan(value)) or bound.holds(value)

    def _detections(self, results: Results[Any]) -> pa.Table:
        columns: dict[str, list[Any]] = defaultdict(list)
        columns |= {name: [] for name in ("record_id", *(item.name for item in FACE_FIELDS))}
        metrics = []
        for item in results.items:
            for i, treatment in enumerate(item.treatments):
                columns["record_id"].append(item.record_id)
                for name, value in _place(item.record_id, i, item.faces, i, treatment).items():
                    columns[name].append(value)
            metrics.append(self._faces[item.record_id])
        return _detections_table(
            self.detections_schema, columns, [part for part in metrics if part]
        )


# -- what a person should look at --------------------------------------------------------------


@dataclass(frozen=True)
class Doubt:
    """A photograph that a person should look at."""

    source_id: str
    reason: str
    score: float
    """Of the face that is doubted; 0 where none was found."""
    faces: int


def doubts(
    detections: pa.Table, dead_letters: pa.Table, sure: float, settled: Iterable[str] = ()
) -> list[Doubt]:
    """The review queue: worst first.

    Photographs in which nothing was found, in which a face was found with a score near the
    threshold (under ``sure`` and half as much again), or by a second look only.

    Args:
        detections, dead_letters: of the whole output.
        settled: ``source_id`` of photographs that have a verdict.
    """
    queue = []
    done = set(settled)
    for letter in dead_letters.to_pylist():
        if letter["code"] in ("no_face", "no_face_dropped") and letter["record_id"] not in done:
            queue.append(Doubt(letter["record_id"], "no face found", 0.0, 0))
    names = ("source_id", "score", "second_look")
    faces: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for source, score, second in zip(
        *(detections[name].to_pylist() for name in names), strict=True
    ):
        faces[source].append((score, second))
    for source, found in faces.items():
        if source in done:
            continue
        unsure = [score for score, _ in found if score < 1.5 * sure]
        seconds = [score for score, second in found if second]
        if unsure or seconds:
            reason = "score near the threshold" if unsure else "found by a second look"
            queue.append(Doubt(source, reason, min(unsure + seconds), len(found)))
    return sorted(queue, key=lambda doubt: (doubt.score, doubt.source_id))
