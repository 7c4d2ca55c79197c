"""Whole commands over the same photographs, side by side: ours, deface, data-juicer on Ray.

    python bench/photographs.py ../shared/data/lfw_raw --count 500 2000
    python bench/photographs.py ../shared/data/lfw_raw --size 2048x1536 --count 24

Every command starts with a folder of JPEG files and ends when its program has: starting, loading
and writing are in its time. Ours covers heads in place with ``--cover blur``, by ``--engine
auto``; ``--default`` adds the default method with its metrics. deface is its command line as it
comes, with ONNX Runtime; data-juicer its ``image_face_blur_mapper``, as it comes, by its Ray
executor. Both are installed into an environment of their own (``--environment``; pins in
``photographs.lock``), which is made where it is not there.

``--size``: not the photographs as they are (250 x 250 px), but scenes of that size, drawn as in
``bare_faces.py``, into which one to eight heads of them are put, from a fortieth to a third of the
picture's height from brows to chin, turned by 15 degrees at most; stored with a quality of 92.

A miss is told by the output alone, the same way for all: where there is a face (of a photograph of
LFW, the middle), the Laplacians before and after correlate by more than 0.8 (encoded again by 0.98
or more, blurred by 2 px by 0.70 at most), or there is no such output. ``core_seconds``: of all
processes of the program, looked up twenty times a second, of processors that others may use, too.
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
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import pyarrow.parquet as pq
from bare_faces import Faces, background, cropped
from numpy.typing import NDArray
from PIL import Image

from ppfr_ops.imaging.arrays import Picture

ROOT = Path(__file__).resolve().parents[1]
LOCK = Path(__file__).with_suffix(".lock")
COMPILED = ROOT / "build" / "compiled"
MIDDLE = 60
"""Side of the middle that is looked at, px."""
ALIKE = 0.8
"""Correlation from which it is the same picture still."""
Pictures = dict[str, bytes]
"""By the stem of the file that they were made of."""
Boxes = dict[str, list[tuple[int, int, int, int]]]
"""Left, top, right and bottom of the faces, by the stem of their file."""


def made(faces: Faces, size: tuple[int, int], number: int) -> tuple[Picture, list[list[int]]]:
    """A scene, and where its faces are."""
    random = np.random.default_rng((7, number))
    canvas = cv2.resize(background(random), size, interpolation=cv2.INTER_CUBIC)
    taken, boxes = np.zeros(canvas.shape[:2], np.uint8), []
    for _ in range(int(random.integers(1, 9))):
        face, (cx, cy, ax, ay) = cropped(faces.any(random))
        high = size[1] * float(np.exp(random.uniform(np.log(1 / 40), np.log(1 / 3))))
        for _ in range(20):
            x, y = random.uniform(high, size[0] - high), random.uniform(high, size[1] - high)
            turn = cv2.getRotationMatrix2D((cx, cy), random.uniform(-15, 15), high / (2 * ay))
            turn[:, 2] += (x - cx, y - cy)
            head = np.zeros(face.shape[:2], np.uint8)
            side = face.shape[0]
            axes = (int(side * 0.48), int(side * 0.5))
            cv2.ellipse(head, (side // 2, side // 2), axes, 0, 0, 360, 255, -1)
            where = cv2.warpAffine(head, turn, size)
            if not (taken & where).any():
                break
        else:
            continue
        taken |= where
        flag = cv2.INTER_AREA if high < 2 * ay else cv2.INTER_CUBIC
        patch = cv2.warpAffine(face, turn, size, flags=flag, borderMode=cv2.BORDER_REPLICATE)
        canvas[where > 127] = patch[where > 127]
        wide = high * ax / ay
        boxes.append([int(v) for v in (x - wide / 2, y - high / 2, x + wide / 2, y + high / 2)])
    grain = random.standard_normal((512, 512, 3)).astype(np.float32) * 3
    tiles = (-(-size[1] // 512), -(-size[0] // 512), 1)
    grain = np.tile(grain, tiles)[: size[1], : size[0]]
    return np.clip(canvas + grain, 0, 255).astype(np.uint8), boxes


def write_made(folder: Path, faces: Faces, size: tuple[int, int], count: int) -> Boxes:
    folder.mkdir()
    found: Boxes = {}
    for number in range(count):
        picture, boxes = made(faces, size, number)
        Image.fromarray(picture).save(folder / f"{number:06d}.jpg", quality=92)
        found[f"{number:06d}"] = [(a, b, c, d) for a, b, c, d in boxes]
    return found


def write(folder: Path, parts: Path, count: int) -> Boxes:
    folder.mkdir()
    rows: list[dict[str, bytes]] = []
    for part in sorted(parts.glob("*.parquet")):
        rows += pq.read_table(part)["image"].slice(0, count - len(rows)).to_pylist()
    for number, row in enumerate(rows):
        # deface and data-juicer read RGB files only as they should
        picture = Image.open(io.BytesIO(row["bytes"])).convert("RGB")
        picture.save(folder / f"{number:06d}.jpg", quality=95)
    low, high = (250 - MIDDLE) // 2, (250 + MIDDLE) // 2
    return {f"{number:06d}": [(low, low, high, high)] for number in range(len(rows))}


def others(environment: Path) -> Path:
    """The folder of the other programs, installed if they are not."""
    found = environment / "bin"
    if not (found / "dj-process").exists():
        venv.create(environment, with_pip=True)
        command = [str(found / "python"), "-m", "pip", "install", "--quiet"]
        command += ["--disable-pip-version-check", "--requirement", str(LOCK)]
        subprocess.run(command, check=True)
    return found


def core_seconds(root: int, known: dict[int, float]) -> None:
    """Processor time of a program's processes, by number, as far as they live."""
    parents: dict[int, int] = {}
    times: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            number = int(entry.name)
            parents[number] = int(fields[1])
            times[number] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    ours = {root} | (known.keys() & times.keys())
    for _ in range(4):
        ours |= {number for number, parent in parents.items() if parent in ours}
    known.update({number: times[number] for number in ours if number in times})


Took = tuple[float, float]
"""Seconds of a whole program, and of processor time."""


def run(command: list[str], log: Path, **environment: str) -> Took:
    # Without it Ray gives its workers the lowest priority but four.
    ray = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    settings = {**os.environ, **ray, **environment}
    # Installed programs are compiled once; so is ours, by a run over one photograph.
    settings.pop("PYTHONDONTWRITEBYTECODE", None)
    began, known = time.perf_counter(), dict[int, float]()
    with log.open("ab") as file:
        done = subprocess.Popen(command, stdout=file, stderr=file, env=settings)
        while done.poll() is None:
            core_seconds(done.pid, known)
            with suppress(subprocess.TimeoutExpired):
                done.wait(0.05)
    took = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{command[0]} failed:\n{log.read_text(errors='replace')[-3000:]}")
    return took, sum(known.values())


class PublishingMode(Protocol):
    """A program that covers faces."""

    def __call__(self, source: Path, work: Path) -> Took:
        """For the pictures of a folder; whatever it writes lies in ``work``."""

    def published(self, work: Path) -> Pictures:
        """What came of it."""


class Ours:
    def __init__(self, *options: str) -> None:
        self.options = options

    def __call__(self, source: Path, work: Path) -> Took:
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

    def __call__(self, source: Path, work: Path) -> Took:
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

    def __call__(self, source: Path, work: Path) -> Took:
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


def detail(data: bytes, boxes: list[tuple[int, int, int, int]]) -> list[NDArray[np.float64]]:
    """The Laplacian of every face of a picture."""
    grey, found = np.asarray(Image.open(io.BytesIO(data)).convert("L")), []
    for left, top, right, bottom in boxes:
        face = grey[max(0, top) : bottom, max(0, left) : right]
        by = min(1.0, MIDDLE / max(face.shape))
        small = cv2.resize(face, None, fx=by, fy=by, interpolation=cv2.INTER_AREA)
        found.append(np.asarray(cv2.Laplacian(small, cv2.CV_64F), np.float64).ravel())
    return found


def missed(source: Path, published: Pictures, faces: Mapping[str, list]) -> int:
    """Faces that are as before, or whose picture is not there."""
    count = 0
    for path in source.iterdir():
        data, boxes = published.get(path.stem), faces[path.stem]
        if data is None:
            count += len(boxes)
            continue
        each = zip(detail(data, boxes), detail(path.read_bytes(), boxes), strict=True)
        count += sum(_alike(after, before) for after, before in each)
    return count


def _alike(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    return bool(np.corrcoef(one, other)[0, 1] > ALIKE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="Parquet files of photographs, as lfw_raw")
    parser.add_argument("--count", type=int, nargs="*", default=[500, 2000])
    parser.add_argument("--size", help="of made scenes, WIDTHxHEIGHT, px")
    parser.add_argument("--default", action="store_true", help="the default method besides")
    parser.add_argument("--virtual", action="store_true", help="--cover virtual besides")
    parser.add_argument("--environment", type=Path, default=Path("build/photographs"))
    parser.add_argument("--deface", type=Path, help="a deface that is there; no data-juicer then")
    parser.add_argument("--times", type=int, default=1, help="all of it, in turns")
    arguments = parser.parse_args()
    ways: dict[str, PublishingMode]
    if arguments.deface:
        ways = {"deface": Deface(arguments.deface.absolute().parent)}
    else:
        programs = others(arguments.environment.absolute())
        ways = {"deface": Deface(programs), "data-juicer": DataJuicer(programs)}
    ways["ours, blur"] = Ours("--cover", "blur")
    if arguments.virtual:
        ways["ours, virtual"] = Ours("--cover", "virtual")
    if arguments.default:
        ways["ours, default method and metrics"] = Ours()
    for count in arguments.count:
        with tempfile.TemporaryDirectory() as name:
            source = Path(name) / "in"
            if arguments.size:
                width, _, height = arguments.size.partition("x")
                drawn = (int(width), int(height))
                faces = write_made(source, Faces(arguments.folder), drawn, count)
            else:
                faces = write(source, arguments.folder, count)
            first = Path(name) / "first"
            write(first, arguments.folder, 1)
            (Path(name) / "warm").mkdir()
            Ours("--cover", "blur")(first, Path(name) / "warm")
            for turn in range(arguments.times):
                compare(ways, source, faces, Path(name) / f"turn-{turn}", arguments.size)


def compare(
    ways: Mapping[str, PublishingMode], source: Path, faces: Boxes, place: Path, size: str | None
) -> None:
    base: Took | None = None
    for number, (label, way) in enumerate(ways.items()):
        work = place / str(number)
        work.mkdir(parents=True)
        load = os.getloadavg()[0]
        took = way(source, work)
        base = base or took
        found = {
            "photographs": len(faces),
            "size": size or "250x250",
            "what": label,
            "seconds": round(took[0], 1),
            "core_seconds": round(took[1], 1),
            "times_deface": round(base[0] / took[0], 2),
            "by_core_seconds": round(base[1] / took[1], 2),
            "missed": missed(source, way.published(work), faces),
            "faces": sum(map(len, faces.values())),
            "load": round(load, 1),
        }
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
