"""Small inputs and runs of releases that depend on no face."""

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ppfr_ops.sanitize.conductor import conduct
from ppfr_ops.sanitize.events import RunResult
from ppfr_ops.sanitize.job import Job
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.worker import worker_of

METHOD = "nobody:Stripes"
SIZES = [1, 1, 2, 2, 3, 5, 8, 13, 21, 4]
"""Photos of ten people."""


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (14, 14, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels.repeat(8, 0).repeat(8, 1)).save(buffer, "PNG")
    return buffer.getvalue()


def rows_of(sizes: list[int]) -> list[dict[str, Any]]:
    rows = [
        {"identity": f"person {number}", "age": 20 + number + photo % 3}
        for number, size in enumerate(sizes)
        for photo in range(size)
    ]
    return rows + [{"identity": None, "age": age} for age in (70, 71)]


def write(
    folder: Path, rows: list[dict[str, Any]], files: int = 1, seed: int = 0, order: int = 0
) -> Path:
    """Rows as Parquet files, with pictures by ``seed``, shuffled by ``order``."""
    rows = [row | {"image": picture(1000 * seed + n)} for n, row in enumerate(rows)]
    if order:
        random.Random(order).shuffle(rows)
    folder.mkdir(parents=True)
    for file in range(files):
        part = rows[file * len(rows) // files : (file + 1) * len(rows) // files]
        pq.write_table(pa.Table.from_pylist(part), folder / f"part-{file}.parquet")
    return folder


def options(source: Path, output: Path, **more: Any) -> SanitizeOptions:
    chosen: dict[str, Any] = {
        "method": METHOD,
        "identity_column": "identity",
        "keep_columns": ("age",),
        "metrics": "none",
        "size_anonymity": 3,
        "seed": 5,
    }
    return SanitizeOptions(input=str(source), output=str(output), **(chosen | more))


def inline(job: Job, todo: list[int]) -> Any:
    return worker_of(job).stream(todo)


def run(chosen: SanitizeOptions, code: int = 0) -> RunResult:
    said: list[Any] = []
    done = conduct(chosen, inline, "inline", said.append)
    assert done.exit_code == code, said
    return done


def released(output: Path) -> dict[str, bytes]:
    """Everything that leaves, byte for byte."""
    place = output / "release"
    return {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}


def records(output: Path) -> list[dict[str, Any]]:
    files = sorted((output / "release" / "data").glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]
