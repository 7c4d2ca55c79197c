"""What the invisible mark survives, how often it is seen where it is not, and what takes it off.

    python bench/invisible_mark.py disturb RELEASE   # every disturbance, 2,000 pictures
    python bench/invisible_mark.py unmarked FACES... --pictures 20000 --keys 50   # none embedded
    python bench/invisible_mark.py average RELEASE   # estimate the pattern and subtract it
    python bench/invisible_mark.py fr FACES --protocol lfw_pairs.parquet --method natural \\
        --fr sface=sface.onnx      # published once, stored with and without the mark

Folders hold Parquet files with the column ``image``; for ``fr`` ``identity`` too. ``disturb`` and
``average`` mark the pictures of a release and store them anew as JPEG 95, so they bear one more
JPEG than those of a real run.
"""

import argparse
import glob
import hashlib
import io
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy.fft
from numpy.typing import NDArray
from PIL import Image

from ppfr_ops import BatchSanitizer
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


def cells(place: str, *names: str) -> pa.Table:
    files = sorted(glob.glob(os.path.join(place, "**", "*.parquet"), recursive=True))
    return pa.concat_tables(
        [pq.read_table(p).select(names) for p in files if "image" in pq.read_schema(p).names]
    )


def pictures(place: str, most: int) -> Faces:
    return np.stack(
        [decode(cell["bytes"]) for cell in cells(place, "image")["image"].to_pylist()[:most]]
    )


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


def unmarked(places: list[str], most: int, keys: int, different: int = 1000) -> dict[str, object]:
    """Every picture with the next ``keys`` of ``different`` keys that were drawn here and never
    embedded. A key is drawn at random, so each pair is a trial of its own."""
    marks = [InvisibleMark(os.urandom(32)) for _ in range(different)]
    found: list[float] = []
    digests: set[bytes] = set()
    began = time.process_time()
    for place in places:
        for cell in cells(place, "image")["image"].to_pylist():
            digest = hashlib.sha256(cell["bytes"]).digest()
            if len(digests) == most or digest in digests:
                continue
            seen = phases(decode(cell["bytes"]))
            at = len(digests) * keys % different
            found += [mark.read_phases(seen) for mark in marks[at : at + keys]]
            digests.add(digest)
    largest = max(found)
    return {
        "pictures": len(digests),
        "keys": different,
        "trials": len(found),
        "alarms": sum(value > THRESHOLD for value in found),
        "threshold": round(THRESHOLD, 3),
        "largest": round(largest, 3),
        "expected_as_large_at_most": round(chance(largest) * len(found), 2),
        "minutes_of_processor": round((time.process_time() - began) / 60, 1),
    }


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


def fr(
    place: str, protocol: str, method: str, models: list[str], most: int, keep: str | None
) -> None:
    """The protocol's pairs in what a run publishes of FACES: drawn once, stored as JPEG 95 with and
    without the mark. The TAR's threshold is that of all pairs of different people.

    Args:
        keep: file for the published pictures without the mark; some more for ``unmarked``.
    """
    pairs = pq.read_table(protocol)
    pairs = pairs.take(np.sort(np.random.default_rng(0).permutation(len(pairs))[:most]))
    table = cells(place, "image", "identity")
    paths = pa.array([cell["path"] for cell in table["image"].to_pylist()])
    used = pc.is_in(paths, pa.concat_arrays([pairs[n].combine_chunks() for n in "ab"]))
    table = table.append_column("id", paths).filter(used)
    publish = BatchSanitizer(
        method=method,
        id_column="id",
        identity_column="identity",
        metrics="none",
        output_format="png",
    )
    done = pa.concat_tables([publish(table.slice(at, 256)) for at in range(0, len(table), 256)])
    assert done["dead_letter"].null_count == len(done)
    drawn = np.stack([decode(cell["bytes"]) for cell in done["image"].to_pylist()])
    row = {name: number for number, name in enumerate(done["record_id"].to_pylist())}
    a, b = (np.array([row[name] for name in pairs[side].to_pylist()]) for side in "ab")
    same = pairs["same"].to_numpy()
    who = np.unique(table["identity"].to_pylist(), return_inverse=True)[1]
    shown = {
        "without": STORED.round_trip(drawn),
        "with": replace(STORED, invisible=InvisibleMark(os.urandom(32))).round_trip(drawn),
    }
    if keep is not None:
        stored = [{"bytes": STORED.encode(face)} for face in drawn]
        pq.write_table(pa.table({"image": stored}), keep)
    for text in models:
        model = Recognizer(RecognizerSpec.parse(text), 1)
        right: dict[str, list[NDArray[np.bool_]]] = {}
        for kind, faces in shown.items():
            found = np.concatenate(
                [model.embed(faces[k : k + 32]) for k in range(0, len(faces), 32)]
            )
            cosines = (found[a] * found[b]).sum(1)
            every = np.sort(cosines)
            best = max(every, key=lambda t: ((cosines > t) == same).mean())
            strangers = np.concatenate(
                [
                    (found[k] @ found[k + 1 :].T)[who[k + 1 :] != who[k]]
                    for k in range(len(found) - 1)
                ]
            )
            bar = np.quantile(strangers, 0.999)
            right[kind] = [(cosines > best) == same, (cosines > bar)[same]]
            told = {"accuracy": right[kind][0].mean(), "tar_at_far_1e-3": right[kind][1].mean()}
            told |= {"same": cosines[same].mean(), "different": cosines[~same].mean()}
            told = {name: round(float(value), 4) for name, value in told.items()}
            print(method, model.name, kind, len(same), "pairs", json.dumps(told), flush=True)
        for what, one, other in zip(("accuracy", "TAR"), *right.values(), strict=True):
            change = other.astype(float) - one
            error = change.std() / math.sqrt(len(change))
            print(f"  {what}: {change.mean():+.4f}, standard error {error:.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("disturb", "unmarked", "average", "fr"))
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--pictures", type=int)
    parser.add_argument("--keys", type=int, default=50)
    parser.add_argument("--protocol", help="Parquet file of pairs: a, b, same")
    parser.add_argument("--pairs", type=int, default=6000)
    parser.add_argument("--method", default="natural")
    parser.add_argument("--keep", metavar="FILE")
    parser.add_argument("--fr", action="append", default=[], metavar="NAME=PATH")
    given = parser.parse_args()
    if given.what == "fr":
        fr(given.folders[0], given.protocol, given.method, given.fr, given.pairs, given.keep)
        return
    if given.what == "unmarked":
        told = unmarked(given.folders, given.pictures or 20_000, given.keys)
    else:
        most = given.pictures or {"average": 1300}.get(given.what, 2000)
        faces = pictures(given.folders[0], most)
        told = {"disturb": disturb, "average": average}[given.what](faces)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
