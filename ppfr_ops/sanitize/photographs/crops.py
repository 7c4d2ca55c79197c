"""A record a face: every face of a photograph, cut out and aligned."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ppfr_ops.contracts.detections import DOUBT_FIELDS, FACE_FIELDS, detections_schema
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.imaging.detector import Detections
from ppfr_ops.imaging.geometry import cut, transforms
from ppfr_ops.methods.base import Output
from ppfr_ops.sanitize.aligned import FaceRecords
from ppfr_ops.sanitize.items import Item, Results
from ppfr_ops.sanitize.photographs.faces import detections_table, pixelated, place
from ppfr_ops.sanitize.photographs.finder import Finder
from ppfr_ops.sanitize.run_context import RunContext


def main_face(faces: Detections, shape: Sequence[int]) -> int:
    """Number of the face that a photograph is most likely of: large, and near the middle."""
    middle = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    away = (middle - (shape[1] / 2, shape[0] / 2)) / (shape[1] / 2, shape[0] / 2)
    sizes = np.sqrt(np.prod(faces.boxes[:, 2:] - faces.boxes[:, :2], axis=1))
    return int(np.argmax(sizes * (1.5 - np.clip(np.hypot(*away.T), 0, 1))))


@dataclass(frozen=True)
class Crop(Item):
    """One face of a photograph, aligned."""

    place: dict[str, Any] = field(default_factory=dict, hash=False)


class FaceCrops(FaceRecords[Crop]):
    """Publishes every face of a photograph as a record."""

    def __init__(self, run: RunContext, finder: Finder) -> None:
        super().__init__(run, faces=True)
        self.find = finder
        self.detections_schema = detections_schema(self.names)

    def items(self, table: pa.Table, results: Results[Crop]) -> Iterator[Crop]:
        for photograph in self.find.photographs(table, results):
            faces, name = photograph.faces, photograph.record_id
            crops = cut(photograph.pixels, transforms(faces))
            named = self.find.options.photo_label == "all" or len(faces) == 0
            main = -1 if named else main_face(faces, photograph.pixels.shape)
            for i, crop in enumerate(crops):
                where = place(name, i, faces, i, photograph.treatments[i], photograph.doubt)
                ident = f"{name}-f{i:03d}"
                own = named or i == main
                yield Crop(ident, photograph.row, crop, photograph.context, place=where, named=own)

    def columns(self, items: Sequence[Crop]) -> list[pa.Array]:
        return [
            pa.array([crop.place[item.name] for crop in items], item.type) for item in FACE_FIELDS
        ]

    def detections(self, results: Results[Crop]) -> pa.Table:
        columns: dict[str, list[Any]] = {"record_id": [crop.record_id for crop in results.items]}
        for each in (*FACE_FIELDS, *DOUBT_FIELDS):
            columns[each.name] = [crop.place[each.name] for crop in results.items]
        return detections_table(self.detections_schema, columns, results.metrics)

    def check(self, faces: Faces) -> None:
        self.find.check(list(faces))

    def draw(self, faces: Faces, items: Sequence[Crop], draw: int) -> Output:
        """The method on the faces that suit it, coarse pixels on all others."""
        out = np.empty_like(faces)
        suited = np.array([crop.place["treatment"] == "anonymized" for crop in items], bool)
        figures = {
            item.name: np.full(len(faces), np.nan, np.float32)
            for item in self.run.method.record_figures
        }
        if suited.any():
            some = [crop for crop, suits in zip(items, suited, strict=True) if suits]
            given = super().draw(faces[suited], some, draw)
            out[suited] = given.faces
            for name, values in given.figures.items():
                figures[name][suited] = values
        if not suited.all():
            out[~suited] = pixelated(faces[~suited])
        return Output(out, figures)
