"""Small runs of differentially private methods."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from driving import drive

from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.worker import Worker


def write(folder: Path, faces: list[Any], people: list[str]) -> Path:
    folder.mkdir()
    cells = [{"bytes": Encoding("png").encode(face), "path": ""} for face in faces]
    pq.write_table(pa.table({"image": cells, "identity": people}), folder / "in.parquet")
    return folder


def options(source: Path, output: Path, **more: Any) -> SanitizeOptions:
    more = {"method": "dp-eigenface", "method_options": {"epsilon": "1", "noise": "laplace"}} | more
    return SanitizeOptions(input=str(source), output=str(output), **more)


def here(job: Any, todo: list[int]) -> Any:
    worker = Worker(job)
    return (worker.process(number) for number in todo)


def run(chosen: SanitizeOptions) -> int:
    return drive(chosen, here, "here 1", dry_run=False, as_json=False)


def key(folder: Path) -> str:
    path = folder / "key"
    path.write_text("k" * 64)
    path.chmod(0o600)
    return str(path)
