"""A record a photograph: the whole picture, with every head covered that was found."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ppfr_ops.contracts.detections import DOUBT_FIELDS, FACE_FIELDS, detections_schema
from ppfr_ops.contracts.metrics import METRICS
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import FACE_SIZE, Faces, Picture
from ppfr_ops.imaging.geometry import cover, cut, transforms
from ppfr_ops.imaging.people_in import person_in
from ppfr_ops.imaging.portraits import Portrait
from ppfr_ops.methods.cover import HeadCover
from ppfr_ops.methods.portrait import PortraitHeads, Seen
from ppfr_ops.sanitize.items import BatchResult, Failed, Results
from ppfr_ops.sanitize.measuring import Metrics, SecondDraw
from ppfr_ops.sanitize.photographs.faces import detections_table, place
from ppfr_ops.sanitize.photographs.finder import Finder, Photograph, full
from ppfr_ops.sanitize.photographs.given import beyond
from ppfr_ops.sanitize.run_context import RunContext
from ppfr_ops.sanitize.sanitizer import PublishingMode

Drawn = Mapping[int, NDArray[np.uint8] | Portrait]
"""What the method made of the faces of a photograph that suit it, by number of the face."""


@dataclass(frozen=True)
class DrawnPictures:
    """A batch of photographs that the method is done with."""

    items: list[Photograph]
    crops: list[Faces]
    published: Sequence[Drawn]
    again: Sequence[Drawn | None]
    """Of some, by another draw."""


@dataclass(frozen=True)
class _Made:
    """A photograph with its heads covered."""

    image: bytes
    changed: float
    metrics: Metrics
    """Of its faces, one value each."""


class WholePictures(PublishingMode[Photograph]):
    """Publishes whole photographs. A photograph has to meet what is required with every face that
    went through the method; figures of faces that were pixelated bind nobody.

    Args:
        people: of photographs, by id, whom faces show, by number; the others somebody new.

    Raises:
        UserError: the method adds figures to records, which are of a face and not of a picture.
    """

    def __init__(
        self, run: RunContext, finder: Finder, people: Mapping[str, Mapping[int, str]] | None = None
    ) -> None:
        if run.method.record_figures:
            raise UserError(
                f"method {run.method.name} reports figures of every face; publish --output-faces "
                "crops"
            )
        super().__init__(run, pictures=True)
        self.find = finder
        self.people = people or {}
        self.cover = run.method.style if isinstance(run.method, HeadCover) else None
        """What covers heads; None: what the method makes of faces."""
        self.heads = run.method if isinstance(run.method, PortraitHeads) else None
        """Draws people for heads."""
        self.detections_schema = detections_schema(self.names)

    def items(self, table: pa.Table, results: Results[Photograph]) -> Iterator[Photograph]:
        found = self.find.photographs(table, results)
        return found if self.cover is None else map(_covered, found)

    def batches(self, items: Iterator[Photograph]) -> Iterator[list[Photograph]]:
        batch: list[Photograph] = []
        for item in items:
            if batch and (full([*batch, item]) or len(batch) == self.run.batch_size):
                yield batch
                batch = []
            batch.append(item)
        if batch:
            yield batch

    def start(self, batch: list[Photograph]) -> DrawnPictures:
        try:
            crops = [self._crops(item) for item in batch]
            published = self._draw(batch, crops, 0)
            return DrawnPictures(batch, crops, published, self._again(batch, crops))
        except Exception:
            raise Failed("method_failed") from None

    def finish(self, drawn: DrawnPictures) -> BatchResult:
        run, stage = self.run, "encoder_failed"
        batch, crops, again = drawn.items, drawn.crops, drawn.again
        try:
            made = self._make(batch, crops, drawn.published, again)
            stage = "method_failed"
            shortfalls = [self._shortfall(*each) for each in zip(batch, made, strict=True)]
            run.criteria.redraw(
                shortfalls, lambda over, draw: self._redrawn(batch, crops, again, made, over, draw)
            )
            stage = "not_measured"
            measured = self._of_pictures(batch, made)
        except Failed:
            raise
        except Exception:
            raise Failed(stage) from None
        return BatchResult(
            [each.image for each in made],
            measured,
            faces=[each.metrics for each in made],
            reasons=[self._reason(item, each) for item, each in zip(batch, made, strict=True)],
        )

    def detections(self, results: Results[Photograph]) -> pa.Table:
        columns: dict[str, list[Any]] = {
            name: [] for name in ("record_id", *(f.name for f in (*FACE_FIELDS, *DOUBT_FIELDS)))
        }
        for item in results.items:
            for i, treatment in enumerate(item.treatments):
                columns["record_id"].append(item.record_id)
                where = place(item.record_id, i, item.faces, i, treatment, item.doubt)
                for name, value in where.items():
                    columns[name].append(value)
        measured = [part for part in results.faces if part]
        return detections_table(self.detections_schema, columns, measured)

    def check(self, faces: Faces) -> None:
        self.find.check(list(faces))

    def _crops(self, item: Photograph) -> Faces:
        """Its faces, if anybody looks at them."""
        if not self.run.measuring.looks and self.cover is not None:
            return np.zeros((0, FACE_SIZE, FACE_SIZE, 3), np.uint8)
        return cut(item.pixels, transforms(item.faces))

    # -- making ---------------------------------------------------------------------------------

    def _draw(
        self, batch: Sequence[Photograph], crops: Sequence[Faces], draw: int
    ) -> list[dict[int, NDArray[np.uint8] | Portrait]]:
        """``Drawn`` of every photograph."""
        owners = [(number, i) for number, item in enumerate(batch) for i in _suited(item)]
        published: list[dict[int, NDArray[np.uint8] | Portrait]] = [{} for _ in batch]
        for start in range(0, len(owners), self.run.batch_size):
            part = owners[start : start + self.run.batch_size]
            faces = np.stack([crops[number][i] for number, i in part])
            names = [f"{batch[number].record_id}-f{i:03d}" for number, i in part]
            items = [batch[number] for number, _ in part]
            if self.heads is not None:
                marks = [batch[number].faces.landmarks[i] for number, i in part]
                seen = [Seen(*each) for each in zip(faces, marks, strict=True)]
                known = [self.people.get(batch[n].record_id, {}).get(i) for n, i in part]
                with self.run.alone():
                    draws = self.run.draws(names, self.heads.draw_size, draw)
                    drawn = self.heads.portraits(seen, draws, known)
                for (number, i), portrait in zip(part, drawn, strict=True):
                    if portrait is not None:
                        published[number][i] = portrait
                continue
            output = self.run.publish(faces, names, items, draw)
            for (number, i), face in zip(part, output.faces, strict=True):
                published[number][i] = face
        return published

    def _again(self, batch: Sequence[Photograph], crops: Sequence[Faces]) -> list[Drawn | None]:
        """Some of the photographs by another draw; of a method without draws the same again."""
        places = self.run.compared(batch)
        some: list[dict[int, NDArray[np.uint8] | Portrait]] = [{} for _ in places]
        if self.run.method.draw_size > 0:
            some = self._draw([batch[n] for n in places], [crops[n] for n in places], 1)
        again: list[Drawn | None] = [None] * len(batch)
        for number, drawn in zip(places, some, strict=True):
            again[number] = drawn
        return again

    def _make(
        self,
        batch: Sequence[Photograph],
        crops: Sequence[Faces],
        published: Sequence[Drawn],
        again: Sequence[Drawn | None],
    ) -> list[_Made]:
        """Photographs with their heads covered, and what is measured on every face."""
        measured = self.run.measuring.looks
        pictures: list[tuple[bytes, float]] = []
        seen: list[Faces] = []
        other: list[Faces] = []
        places: list[int] = []
        for number, item in enumerate(batch):
            canvas, changed = self._cover(item, published[number])
            encoding = self.run.encoding_of(item)
            data = encoding.encode(canvas, marked=bool(published[number]))
            pictures.append((data, float(changed.mean())))
            if measured:
                matrices = transforms(item.faces)
                seen.append(cut(encoding.decode(data), matrices))
                drawn = again[number]
                if drawn is not None:
                    first = sum(map(len, crops[:number]))
                    places += range(first, first + len(crops[number]))
                    if self.run.method.draw_size > 0:
                        other.append(cut(self._cover(item, drawn)[0], matrices))
        metrics: Metrics = {}
        if measured and any(len(faces) for faces in crops):
            second = None
            if self.run.measuring.compares_draws:
                second = SecondDraw(
                    np.array(places, np.int64), np.concatenate(other) if other else None
                )
            try:
                metrics = self._compare(np.concatenate(list(crops)), np.concatenate(seen), second)
            except Exception:
                raise Failed("not_measured") from None
        made, first = [], 0
        for (data, share), faces in zip(pictures, crops, strict=True):
            rows = slice(first, first + len(faces))
            own = {name: values[rows].astype(np.float32) for name, values in metrics.items()}
            made.append(_Made(data, share, own))
            first += len(faces)
        return made

    def _compare(self, before: Faces, seen: Faces, again: SecondDraw | None) -> Metrics:
        """All metrics of the faces of a batch, a batch of faces at a time."""
        parts = []
        for start in range(0, len(before), self.run.batch_size):
            rows = slice(start, start + self.run.batch_size)
            second = None if again is None else again.of(range(len(before))[rows])
            try:
                parts.append(self.run.measuring.compare(before[rows], seen[rows], second))
            except Exception:
                if self.run.method.redrawable:
                    raise
                parts.append(self.run.measuring.nothing(len(before[rows])))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _cover(self, item: Photograph, published: Drawn) -> tuple[Picture, NDArray[np.bool_]]:
        background = self.find.options.background
        style = self.cover or "blur"
        return cover(
            item.pixels, item.faces, item.treatments, published, background, style, person_in
        )

    # -- judging --------------------------------------------------------------------------------

    def _redrawn(
        self,
        batch: Sequence[Photograph],
        crops: Sequence[Faces],
        again: Sequence[Drawn | None],
        made: list[_Made],
        over: list[int],
        draw: int,
    ) -> NDArray[np.float64]:
        """Replace, in place, photographs of which a face falls short by ones that fall less
        short; all their faces are drawn afresh."""
        some, their = [batch[number] for number in over], [crops[number] for number in over]
        second = [again[number] for number in over]
        fresh = self._make(some, their, self._draw(some, their, draw), second)
        shortfalls = []
        for number, each in zip(over, fresh, strict=True):
            before, after = (self._shortfall(batch[number], it) for it in (made[number], each))
            if after < before:
                made[number] = each
            shortfalls.append(min(before, after))
        return np.array(shortfalls)

    def _shortfall(self, item: Photograph, made: _Made) -> float:
        return float(self.run.criteria.shortfall(_of(made.metrics, _judged(item))).sum())

    def _reason(self, item: Photograph, made: _Made) -> tuple[str, str]:
        """Of the first face that falls short."""
        for i in _judged(item):
            code, detail = self.run.criteria.reason(made.metrics, i)
            if code:
                return code, f"face {i}: {detail}"
        return "", ""

    def _of_pictures(self, batch: Sequence[Photograph], made: Sequence[_Made]) -> Metrics:
        """The worst of every photograph's anonymized faces, and what concerns the whole."""
        if not self.run.measuring.looks:
            return {}
        values: dict[str, list[float]] = defaultdict(list)
        names = list(METRICS)
        names += [f"id_cosine_{recognizer.name}" for recognizer in self.run.recognizers]
        for item, each in zip(batch, made, strict=True):
            for name in names:
                found = each.metrics[name][_judged(item)] if name in each.metrics else np.zeros(0)
                worst = np.min if name.startswith("id_cosine_") else np.max
                values[name].append(float(worst(found)) if len(found) else np.nan)
            sure = np.array([each != "covered_faint" for each in item.treatments], bool)
            values["faces"].append(float(sure.sum()))
            sizes = item.faces.sizes[sure]
            values["smallest_face"].append(float(sizes.min()) if len(sizes) else np.nan)
            values["changed_share"].append(each.changed)
        if self.run.level == "full":
            # The detector looks twice where it finds nothing: more work than all the rest.
            values["residual_faces"] = [np.nan] * len(made)
            places = self.run.looked_at(batch)
            seen = [self.run.encoding.decode(made[n].image) for n in places]
            for n, faces in zip(places, self.find.detect(seen), strict=True):
                values["residual_faces"][n] = len(beyond(batch[n].faces, faces, 0))
        return {name: np.array(each, np.float32) for name, each in values.items()}


def _suited(item: Photograph) -> list[int]:
    """Numbers of the faces that the method is given."""
    return [i for i, treatment in enumerate(item.treatments) if treatment == "anonymized"]


def _judged(item: Photograph) -> list[int]:
    """Numbers of the faces of which figures bind, by whatever they were covered on purpose."""
    return [i for i, each in enumerate(item.treatments) if each in ("anonymized", "covered")]


def _covered(item: Photograph) -> Photograph:
    """A photograph of which every head is covered, whatever is known of it."""
    treatments = ("covered" if each == "anonymized" else each for each in item.treatments)
    return replace(item, treatments=tuple(treatments))


def _of(metrics: Metrics, faces: list[int]) -> Metrics:
    return {name: values[faces] for name, values in metrics.items()} if faces else {}
