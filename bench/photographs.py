"""Whole commands over the same photographs, side by side: ours, deface, data-juicer on Ray.

    python bench/photographs.py ../shared/data/lfw_raw --count 500 2000

Every command starts with a folder of JPEG files and ends when its program has: starting, loading
and writing are in its time. Ours covers heads in place with ``--cover blur``, by ``--engine
auto``; ``--default`` adds the default method with its metrics. deface is its command line as it
comes, with ONNX Runtime; data-juicer its ``image_face_blur_mapper``, as it comes, by its Ray
executor. Both are installed into an environment of their own (``--environment``; pins in
``photographs.lock``), which is made where it is not there.

A miss is told by the output alone, the same way for all: in the middle of the picture, where LFW
has its face, the Laplacians before and after correlate by more than 0.8 (encoded again by 0.98 or
more, blurred by 2 px by 0.70 at most), or there is no such output.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
LOCK = Path(__file__).with_suffix(".lock")
COMPILED = ROOT / "build" / "compiled"
MIDDLE = 60
"""Side of the middle that is looked at, px."""
ALIKE = 0.8
"""Correlation from which it is the same picture still."""
Pictures = dict[str, bytes]
"""By the stem of the file that they were made of."""


def write(folder: Path, parts: Path, count: int) -> None:
    folder.mkdir()
    rows: list[dict[str, bytes]] = []
    for part in sorted(parts.glob("*.parquet")):
        rows += pq.read_table(part)["image"].slice(0, count - len(rows)).to_pylist()
    for number, row in enumerate(rows):
        # deface and data-juicer read RGB files only as they should
        picture = Image.open(io.BytesIO(row["bytes"])).convert("RGB")
        picture.save(folder / f"{number:06d}.jpg", quality=95)


def others(environment: Path) -> Path:
    """The folder of the other programs, installed if they are not."""
    found = environment / "bin"
    if not (found / "dj-process").exists():
        venv.create(environment, with_pip=True)
        command = [str(found / "python"), "-m", "pip", "install", "--quiet"]
        command += ["--disable-pip-version-check", "--requirement", str(LOCK)]
        subprocess.run(command, check=True)
    return found


def run(command: list[str], log: Path, **environment: str) -> float:
    """Seconds of a whole program."""
    # Without it Ray gives its workers the lowest priority but four.
    ray = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    settings = {**os.environ, **ray, **environment}
    # Installed programs are compiled once; so is ours, by a run over one photograph.
    settings.pop("PYTHONDONTWRITEBYTECODE", None)
    began = time.perf_counter()
    with log.open("ab") as file:
        done = subprocess.run(command, stdout=file, stderr=file, env=settings, check=False)
    took = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{command[0]} failed:\n{log.read_text(errors='replace')[-3000:]}")
    return took


class PublishingMode(Protocol):
    """A program that covers faces."""

    def __call__(self, source: Path, work: Path) -> float:
        """Seconds for the pictures of a folder; whatever it writes lies in ``work``."""

    def published(self, work: Path) -> Pictures:
        """What came of it."""


class Ours:
    def __init__(self, *options: str) -> None:
        self.options = options

    def __call__(self, source: Path, work: Path) -> float:
        command = [sys.executable, str(ROOT / "pipelines" / "sanitize.py")]
        command += ["--input", str(source), "--output", str(work / "out"), "--faces", "detect"]
        command += ["--output-faces", "in-place"]
        settings = {"PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(COMPILED)}
        return run([*command, *self.options], work / "log", **settings)

    def published(self, work: Path) -> Pictures:
        files = (work / "out/release/photographs").rglob("*.jpg")
        return {path.stem: path.read_bytes() for path in files}


class Deface:
    def __init__(self, programs: Path) -> None:
        self.programs = programs

    def __call__(self, source: Path, work: Path) -> float:
        copy = work / "in"
        copy.mkdir()
        for path in source.iterdir():
            os.link(path, copy / path.name)
        return run([str(self.programs / "deface"), str(copy)], work / "log")

    def published(self, work: Path) -> Pictures:
        files = (work / "in").glob("*_anonymized.jpg")
        return {path.stem.removesuffix("_anonymized"): path.read_bytes() for path in files}


class DataJuicer:
    def __init__(self, programs: Path) -> None:
        self.programs = programs

    def __call__(self, source: Path, work: Path) -> float:
        lines = [
            json.dumps({"text": "<__dj__image>", "images": [str(path)]})
            for path in sorted(source.iterdir())
        ]
        (work / "in.jsonl").write_text("\n".join(lines) + "\n")
        config = {
            "project_name": "photographs",
            "executor_type": "ray",
            "ray_address": "local",
            "dataset_path": str(work / "in.jsonl"),
            "export_path": str(work / "out"),
            "np": os.cpu_count(),
            "process": [{"image_face_blur_mapper": {"save_dir": str(work / "pictures")}}],
        }
        (work / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
        path = f"{self.programs}:{os.environ['PATH']}"
        command = [str(self.programs / "dj-process"), "--config", str(work / "config.yaml")]
        return run(command, work / "log", PATH=path, DATA_JUICER_CACHE_HOME=str(work / "cache"))

    def published(self, work: Path) -> Pictures:
        files = (work / "pictures").glob("*.jpg")
        return {path.stem.partition("__dj_hash")[0]: path.read_bytes() for path in files}


def detail(data: bytes) -> NDArray[np.float64]:
    """The Laplacian of the middle of a picture."""
    grey = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
    top, left = (grey.shape[0] - MIDDLE) // 2, (grey.shape[1] - MIDDLE) // 2
    middle = grey[top : top + MIDDLE, left : left + MIDDLE]
    return np.asarray(cv2.Laplacian(middle, cv2.CV_64F), np.float64).ravel()


def missed(source: Path, published: Pictures) -> int:
    """Pictures whose middle is as before, or that are not there."""
    count = 0
    for path in source.iterdir():
        data = published.get(path.stem)
        if data is None or _alike(detail(data), detail(path.read_bytes())):
            count += 1
    return count


def _alike(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    return bool(np.corrcoef(one, other)[0, 1] > ALIKE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="Parquet files of photographs, as lfw_raw")
    parser.add_argument("--count", type=int, nargs="*", default=[500, 2000])
    parser.add_argument("--default", action="store_true", help="the default method besides")
    parser.add_argument("--environment", type=Path, default=Path("build/photographs"))
    parser.add_argument("--deface", type=Path, help="a deface that is there; no data-juicer then")
    arguments = parser.parse_args()
    ways: dict[str, PublishingMode]
    if arguments.deface:
        ways = {"deface": Deface(arguments.deface.absolute().parent)}
    else:
        programs = others(arguments.environment.absolute())
        ways = {"deface": Deface(programs), "data-juicer": DataJuicer(programs)}
    ways["ours, blur"] = Ours("--cover", "blur")
    if arguments.default:
        ways["ours, default method and metrics"] = Ours()
    for count in arguments.count:
        with tempfile.TemporaryDirectory() as name:
            source, base = Path(name) / "in", 0.0
            write(source, arguments.folder, count)
            first = Path(name) / "first"
            write(first, arguments.folder, 1)
            (Path(name) / "warm").mkdir()
            Ours("--cover", "blur")(first, Path(name) / "warm")
            for number, (label, way) in enumerate(ways.items()):
                work = Path(name) / str(number)
                work.mkdir()
                seconds = way(source, work)
                base = base or seconds
                found = {
                    "photographs": count,
                    "what": label,
                    "seconds": round(seconds, 1),
                    "times_deface": round(base / seconds, 2),
                    "missed": missed(source, way.published(work)),
                }
                print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
