"""Faces of photographs: what the method does not suit is pixelated; where each was, as columns."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.imaging.detector import Detections
from ppfr_ops.imaging.geometry import Treatment
from ppfr_ops.methods.registry import create
from ppfr_ops.sanitize.measuring import Metrics, measure
from ppfr_ops.sanitize.sanitizer import collected

COARSE = ("28", "56")
"""px; blocks of the pixelation that stands in where the method does not fit, and what is tried
next where it shows too much. Coarse pixels of a face of 15 px show about all there was."""

COARSE_LIMIT = 0.55
"""Disclosure from which on a face is pixelated more coarsely, at last to one colour."""


def pixelated(crops: Faces) -> Faces:
    """Faces as coarse pixels, as fine as ``COARSE_LIMIT`` allows."""
    out = np.empty_like(crops)
    out[:] = crops.mean((1, 2), keepdims=True)
    left = np.arange(len(crops))
    for block in COARSE:
        method = create("pixelate", {"block": block})
        tried = method(crops[left], np.zeros((len(left), 0), np.float32))
        fits = measure(crops[left], tried)["disclosure"] <= COARSE_LIMIT
        out[left[fits]] = tried[fits]
        left = left[~fits]
        if not len(left):
            break
    return out


def place(
    source: str,
    number: int,
    faces: Detections,
    i: int,
    treatment: Treatment,
    doubt: Mapping[str, Any],
) -> dict[str, Any]:
    """The columns ``FACE_FIELDS`` of a face, and ``DOUBT_FIELDS`` of its photograph."""
    marks = faces.landmarks[i].ravel()
    return {
        "source_id": source,
        "face": number,
        "box": faces.boxes[i].tolist(),
        "landmarks": marks.tolist() if np.isfinite(marks).all() else None,
        "score": float(faces.scores[i]),
        "second_look": bool(faces.second[i]),
        "treatment": treatment,
        **doubt,
    }


def detections_table(
    schema: pa.Schema, columns: Mapping[str, Sequence[Any]], metrics: Sequence[Metrics]
) -> pa.Table:
    """A detections shard: places of the faces, and what was measured on them."""
    names = [item.name for item in schema if item.name in columns]
    arrays = {name: pa.array(columns[name], schema.field(name).type) for name in names}
    rest = pa.schema([item for item in schema if item.name not in columns])
    measured = collected(rest, metrics, len(columns["record_id"]))
    arrays |= dict(zip(rest.names, measured, strict=True))
    return pa.table([arrays[name] for name in schema.names], schema=schema)
