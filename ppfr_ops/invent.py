"""People who do not exist, and as many photos of each as one likes: a dataset without a source."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from ppfr_ops.contracts.records import IMAGE_TYPE
from ppfr_ops.draws import system_draws
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import FACE_SIZE
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.methods.base import Context
from ppfr_ops.methods.natural import SIZES, Natural

PART_ROWS = 1000
"""Rows of a Parquet file, about: a person's photos stay together."""

_SCHEMA = pa.schema([("image", IMAGE_TYPE), ("identity", pa.string())])


def invent(
    folder: Path,
    people: int,
    photos: int,
    size: int = FACE_SIZE,
    variation: float = 1.0,
    mix: str = "",
) -> Iterator[Path]:
    """Write Parquet files with Hugging Face's image struct and an ``identity``, one after the
    other, under a key that is forgotten.

    Args:
        folder: must be empty, or not exist.
        people, photos: how many, and how many photos of each.
        size: 112: aligned faces; 256, 512 or 1024: whole pictures of that side, px.
        variation: how much photos of a person differ; 1: about as in the wild.
        mix: shares of kinds of people, such as ``women=0.5,dark=0.4``; as the method has it.

    Yields:
        Every file once it is written.

    Raises:
        UserError: the folder holds something, or no such size.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty; choose another --output")
    if size != FACE_SIZE and size not in SIZES:
        raise UserError(f"--size {size}: there are {FACE_SIZE}, {', '.join(map(str, SIZES))}")
    try:
        method = Natural.model_validate({"variation": variation, "mix": mix})
    except ValidationError as error:
        raise UserError(f"--mix: {error.errors()[0]['msg'].partition(', ')[2]}") from None
    method = method.with_secrets({"identity-key": secrets.token_bytes(32)})
    folder.mkdir(parents=True, exist_ok=True)
    encoding, at_once = Encoding(), max(1, PART_ROWS // photos)
    for number, start in enumerate(range(0, people, at_once)):
        rows = []
        for person in range(start, min(start + at_once, people)):
            name = f"person{person:06d}"
            for photo, picture in enumerate(_photos(method, name, photos, size)):
                image = {"bytes": encoding.encode(picture), "path": f"{name}/{photo:04d}.jpg"}
                rows.append({"image": image, "identity": name})
            method.forget()
        path = folder / f"part-{number:05d}.parquet"
        pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), path, row_group_size=256)
        yield path


def _photos(method: Natural, name: str, count: int, size: int) -> NDArray[np.uint8]:
    labels, draws = [name] * count, system_draws([""] * count, method.draw_size)
    if size != FACE_SIZE:
        return method.render(method.styles(labels, draws), size).pictures
    blank = np.zeros((count, FACE_SIZE, FACE_SIZE, 3), np.uint8)
    return method(blank, draws, Context({"identity": labels}))
