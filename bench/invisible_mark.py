"""What the invisible mark survives, how often it is seen where it is not, and what takes it off.

    python bench/invisible_mark.py disturb RELEASE   # every disturbance, 2,000 pictures
    python bench/invisible_mark.py unmarked RELEASE   # 2,000 pictures x 500 keys, none embedded
    python bench/invisible_mark.py average RELEASE   # estimate the pattern and subtract it
    python bench/invisible_mark.py fr RELEASE --fr sface=sface.onnx     with and without the mark

RELEASE holds Parquet files with the columns ``image`` and, for ``fr``, ``identity``. Its pictures
are marked here and stored anew as JPEG 95, so they bear one more JPEG than those of a real run.
"""

import argparse
import glob
import io
import json
import math
import os
import time
from collections.abc import Callable

import cv2
import numpy as np
import pyarrow.parquet as pq
import scipy.fft
from PIL import Image

from ppfr_ops.imaging.arrays import Faces, Picture
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.imaging.decoding import decode
from ppfr_ops.imaging.invisible import (
    BAND,
    SIDE,
    THRESHOLD,
    InvisibleMark,
    chance,
    phases,
    picture_of,
    pooled,
    spectra_of,
)
from ppfr_ops.recognizers import Recognizer, RecognizerSpec

STORED = Encoding("jpeg", 95)


def jpeg(picture: Picture, quality: int) -> Picture:
    """As most programs store it: chroma at half the resolution."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def sized(picture: Picture, width: int, height: int, way: Image.Resampling) -> Picture:
    return np.asarray(Image.fromarray(picture).resize((width, height), way))


DISTURBED: dict[str, Callable[[Picture], Picture]] = {
    "none": lambda p: p,
    "JPEG 80": lambda p: jpeg(p, 80),
    "JPEG 60": lambda p: jpeg(p, 60),
    "half the size": lambda p: sized(p, 56, 56, Image.Resampling.LANCZOS),
    "half the size and back": lambda p: sized(
        sized(p, 56, 56, Image.Resampling.BILINEAR), 112, 112, Image.Resampling.BICUBIC
    ),
    "8 px off every side": lambda p: p[8:-8, 8:-8],
    "8 px off the top": lambda p: p[8:],
    "screenshot (137 %, 3 to 5 px off, JPEG 85)": lambda p: jpeg(
        sized(p[3:-4, 5:-3], 143, 144, Image.Resampling.BILINEAR), 85
    ),
    "8 px off two sides, half the size, JPEG 80": lambda p: jpeg(
        sized(p[8:, 8:], 52, 52, Image.Resampling.LANCZOS), 80
    ),
}


def pictures(place: str, most: int) -> tuple[Faces, list[str | None]]:
    faces, names = [], []
    for path in sorted(glob.glob(os.path.join(place, "**", "*.parquet"), recursive=True)):
        table = pq.read_table(path)
        if "image" in table.column_names:
            who = table["identity"].to_pylist() if "identity" in table.column_names else None
            names += who or [None] * table.num_rows
            faces += [decode(cell["bytes"]) for cell in table["image"].to_pylist()]
    return np.stack(faces[:most]), names[:most]


def marked(mark: InvisibleMark, faces: Faces) -> Faces:
    return STORED.round_trip(np.stack([mark.embed(face) for face in faces]))


def disturb(faces: Faces) -> dict[str, object]:
    mark = InvisibleMark(os.urandom(32))
    started = time.perf_counter()
    embedded = [mark.embed(face) for face in faces]
    took = (time.perf_counter() - started) / len(faces) * 1e3
    stored = STORED.round_trip(np.stack(embedded))
    plain = STORED.round_trip(faces)
    error = ((stored.astype(np.float32) - plain) ** 2).mean((1, 2, 3))
    grown = sum(len(STORED.encode(face)) for face in embedded)
    grown -= sum(len(STORED.encode(face)) for face in faces)
    print(
        json.dumps(
            {
                "pictures": len(faces),
                "psnr": round(float((10 * np.log10(255**2 / error)).mean()), 2),
                "bytes": round(grown / len(faces)),
                "embed_ms": round(took, 2),
            }
        )
    )
    for name, change in DISTURBED.items():
        started = time.perf_counter()
        found = np.array([mark.read(change(face)) for face in stored])
        took = (time.perf_counter() - started) / len(stored) * 1e3
        rng = np.random.default_rng(0)
        tens = [pooled(rng.choice(found, 10, replace=False)) for _ in range(2000)]
        told = {
            "read": round(float((found > THRESHOLD).mean()), 4),
            "mean": round(float(found.mean()), 2),
            "least": round(float(found.min()), 2),
            "ten_together": round(float((np.array(tens) < 1e-7).mean()), 4),
            "ms": round(took, 1),
        }
        print(name, json.dumps(told), flush=True)
    return {}


def unmarked(faces: Faces, keys: int = 500) -> dict[str, object]:
    marks = [InvisibleMark(os.urandom(32)) for _ in range(keys)]
    found: list[float] = []
    for number, face in enumerate(faces):
        seen = phases(face)
        found += [mark.read_phases(seen) for mark in marks]
        if number % 100 == 99:
            values = np.array(found)
            told = {
                "comparisons": len(values),
                "alarms": int((values > THRESHOLD).sum()),
                "largest": round(float(values.max()), 3),
                "bound": chance(float(values.max())) * len(values),
            }
            print(json.dumps(told), flush=True)
    return {"threshold": THRESHOLD}


def _high(face: Picture) -> np.ndarray:
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return grey - cv2.GaussianBlur(grey, (0, 0), 3)


def average(faces: Faces, others: int = 300) -> dict[str, object]:
    mark = InvisibleMark(os.urandom(32))
    stored = marked(mark, faces)
    held, tried = stored[others:], stored[:others]
    plain = np.mean([_high(face) for face in held], 0)

    def without(estimate: np.ndarray, aligned: bool) -> None:
        unit = estimate / estimate.std()
        for strength in (0.5, 1, 2, 4):
            left, error = [], []
            for face in tried:
                grey = _high(face)
                near = np.sqrt(cv2.GaussianBlur(grey**2, (0, 0), 3))
                part = unit
                if aligned:
                    part = np.roll(unit, _shift(_white(grey), _white(unit)), (0, 1))
                off = strength * 0.15 * (4 + near) * part
                seen = np.clip(np.rint(face - off[..., None]), 0, 255).astype(np.uint8)
                left.append(mark.read(seen))
                error.append(((seen.astype(np.float32) - face) ** 2).mean())
            psnr = 10 * math.log10(255**2 / np.mean(error))
            told = [
                round(float(np.mean(left)), 2),
                round(float((np.array(left) > THRESHOLD).mean()), 4),
            ]
            print(
                "  subtracted x", strength, "mean, read:", told, "psnr", round(psnr, 1), flush=True
            )

    print("before", round(float(np.mean([mark.read(face) for face in tried])), 2))
    print("mean of", len(held), "pictures; it reads as", round(_reads(mark, plain), 2))
    without(plain, False)
    spectra = [_white(_high(face)) for face in held]
    template = spectra[0]
    for _ in range(8):
        total = np.zeros_like(template)
        for spectrum in spectra:
            total += _moved(spectrum, _shift(template, spectrum))
        template = total / (np.abs(total) + 1e-9) * BAND
    estimate = picture_of(template)
    print("pictures laid over one another first; it reads as", round(_reads(mark, estimate), 2))
    without(estimate, True)
    return {}


def _white(grey: np.ndarray) -> np.ndarray:
    spectrum = spectra_of(grey)
    return spectrum / (np.abs(spectrum) + 1e-9) * BAND


def _shift(one: np.ndarray, other: np.ndarray) -> tuple[int, int]:
    """By which ``other`` has to be rolled to lie on ``one``."""
    found = picture_of(one * other.conj())
    row, column = np.unravel_index(found.argmax(), found.shape)
    return int(row), int(column)


def _moved(spectrum: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
    rows = scipy.fft.fftfreq(SIDE)[:, None] * shift[0]
    columns = np.arange(BAND.shape[1])[None] / SIDE * shift[1]
    return spectrum * np.exp(-2j * np.pi * (rows + columns))


def _reads(mark: InvisibleMark, estimate: np.ndarray) -> float:
    return mark.read_phases(_white(estimate)[None].astype(np.complex64))


def fr(faces: Faces, names: list[str | None], models: list[str], pairs: int) -> dict[str, object]:
    rng = np.random.default_rng(0)
    who = np.array([str(name) for name in names])
    same = [(i, j) for i in range(len(who)) for j in np.flatnonzero(who == who[i]) if i < j]
    same = [same[k] for k in rng.permutation(len(same))[:pairs]]
    other: list[tuple[int, int]] = []
    while len(other) < len(same):
        i, j = rng.integers(0, len(who), 2)
        if who[i] != who[j]:
            other.append((int(i), int(j)))
    used = sorted({k for pair in (*same, *other) for k in pair})
    place = {k: n for n, k in enumerate(used)}
    plain = faces[used]
    kinds = {
        "plain": STORED.round_trip(plain),
        "marked": marked(InvisibleMark(os.urandom(32)), plain),
    }
    for text in models:
        model = Recognizer(RecognizerSpec.parse(text), 1)
        for kind, shown in kinds.items():
            found = np.concatenate(
                [model.embed(shown[k : k + 32]) for k in range(0, len(shown), 32)]
            )
            a, b = (
                np.array([found[place[i]] @ found[place[j]] for i, j in p]) for p in (same, other)
            )
            every = np.sort(np.concatenate([a, b]))
            best = max(((a > t).mean() + (b <= t).mean()) / 2 for t in every)
            tar = (a > np.quantile(b, 0.99)).mean()
            told = {"accuracy": round(float(best), 4), "tar_at_far_.01": round(float(tar), 4)}
            told |= {"same": round(float(a.mean()), 4), "different": round(float(b.mean()), 4)}
            print(
                model.name, kind, len(same), "+", len(other), "pairs", json.dumps(told), flush=True
            )
    return {}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("disturb", "unmarked", "average", "fr"))
    parser.add_argument("release")
    parser.add_argument("--pictures", type=int)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--fr", action="append", default=[], metavar="NAME=PATH")
    given = parser.parse_args()
    most = given.pictures or {"average": 1300, "fr": 100_000}.get(given.what, 2000)
    faces, names = pictures(given.release, most)
    if given.what == "fr":
        fr(faces, names, given.fr, given.pairs)
    else:
        print(
            json.dumps(
                {"disturb": disturb, "unmarked": unmarked, "average": average}[given.what](faces)
            )
        )


if __name__ == "__main__":
    main()
