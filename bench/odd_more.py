"""More cases of ``odd_inputs``, as tables: what an outsider thought of who had read the docs alone."""

import gzip
import json
import struct
import unicodedata
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from odd_cases import (
    TWO,
    WHO,
    Case,
    J,
    Options,
    folders,
    in_parquet,
    in_tar,
    jsonl,
    labels,
    lines,
    of,
    samples,
    table,
    tar,
    two_parquets,
    zipped,
)
from odd_pictures import DETECT, photograph
from PIL import Image

from ppfr_ops.imaging.arrays import Picture
from ppfr_ops.sample import faces

SIX = ["ann", "bob", "bob", "cyd", "cyd", "cyd"]
ONE_TWO_THREE, ONE_TWO = (1, 2, 3), (1, 2)
PIXELS = faces(6)
Seen = list[NDArray[np.bool_]]


def files(*made: tuple[str, bytes | str], **options: Any) -> Callable[[Path], Options]:
    """Files by name and content."""

    def make(folder: Path) -> Options:
        for name, body in made:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body.encode() if isinstance(body, str) else body)
        return options

    return make


def pictures(*names: str) -> list[tuple[str, bytes]]:
    return [(name, J[number]) for number, name in enumerate(names)]


def columns(**values: Any) -> Callable[[Path], Options]:
    """A Parquet file of six pictures and other columns."""

    def make(folder: Path) -> Options:
        pq.write_table(pa.table({"image": list(J[:6]), "who": SIX} | values), folder / "a.parquet")
        return WHO

    return make


def number(value: int) -> bytes:
    return value.to_bytes(4, "little")


# -- one column of labels, in Parquet: what it holds, and photos of each person -----------------
IN_A_COLUMN: dict[str, tuple[Any, tuple[int, ...] | None]] = {
    "decimals of 38 digits": ([Decimal(10**37), Decimal(10**37 + 1), Decimal(10**37)], ONE_TWO),
    "half floats": (pa.array(np.array([1, 2, 1], np.float16)), ONE_TWO),
    "durations": (pa.array([1, 2, 1], pa.duration("s")), ONE_TWO),
    "times of day": (pa.array([1, 2, 1], pa.time64("us")), ONE_TWO),
    "nanoseconds": (pa.array([1, 2, 1], pa.timestamp("ns")), ONE_TWO),
    "large strings": (pa.array(SIX, pa.large_string()), ONE_TWO_THREE),
    "string views": (pa.array(SIX, pa.string_view()), ONE_TWO_THREE),
    "uuids": (pa.array([uuid.UUID(int=n).bytes for n in (1, 2, 1)], pa.uuid()), ONE_TWO),
    "fixed bytes": (pa.array([number(n) for n in (9, 321, 9)], pa.binary(4)), ONE_TWO),
    "numbers in bytes": ([number(n) for n in (65, 321, 0, 0, 9, 9)], (1, 1, 2, 2)),
    "padded bytes": ([b"ann\0\0", b"bob\0\0", b"ann"], ONE_TWO),
    "dictionary of bytes": (pa.array([b"a", b"b", b"a"]).dictionary_encode(), ONE_TWO),
    "empty list and null": (pa.array([[], None, ["a"], ["a"]], pa.list_(pa.string())), None),
    "map": (pa.array([[("a", 1)], [("a", 2)]], pa.map_(pa.string(), pa.int64())), None),
    "text with nul": (["ann", "ann\0", "bob"], ONE_TWO),
    "numbers with underscores": (["1_000", "1000", "1_000"], ONE_TWO),
    "Arabic digits": (["\u0661", "1", "\u0661"], ONE_TWO),
    "wide digits": (["\uff11", "1", "\uff11"], ONE_TWO),
    "plus sign": (["+1", "1", "+1"], ONE_TWO),
    "hexadecimal": (["0x10", "16", "0x10"], ONE_TWO),
    "superscript": (["x\u00b2", "x2", "x\u00b2"], ONE_TWO),
    "order of accents": (["a\u0323\u0307", "a\u0307\u0323", "bob"], ONE_TWO),
    "Hangul": (["\ud55c", unicodedata.normalize("NFD", "\ud55c"), "bob"], ONE_TWO),
}
# -- the same person in two files ----------------------------------------------------------------
IN_TWO_FILES: dict[str, tuple[Any, Any, tuple[int, ...] | None]] = {
    "small and large ints": (
        pa.array([1, 2], pa.int8()),
        pa.array([1, 2**64 - 1], pa.uint64()),
        (1, 1, 2),
    ),
    "fractions": ([Decimal("1.5"), Decimal("2.5")], ["1.5", "2.5"], TWO),
    "dictionaries that differ": (
        pa.array(["a", "b"]).dictionary_encode(),
        pa.array(["b", "a"]).dictionary_encode(),
        TWO,
    ),
    "dictionary of ints beside texts": (pa.array([1, 2]).dictionary_encode(), ["1", "2"], TWO),
    "bools beside ints": ([True, False], [1, 0], (1, 1, 1, 1)),
    "float of large ints": ([1e22, 1e5], [str(10**22), "100000"], TWO),
}
# -- tables beside pictures: text, pictures, and photos of each person or the refusal ------------
TABLES: dict[str, tuple[str | bytes, str, tuple[int, ...] | str]] = {
    "index of pandas": (",file_name,who\n" + "".join(f"{n},{n}.jpg,{who}\n" for n, who in enumerate(SIX)), "csv", ONE_TWO_THREE),
    "commas in quotes": ('file_name,who\n0.jpg,"Doe, Al"\n1.jpg,"Doe, Bo"\n2.jpg,"Doe, Bo"\n', "csv", ONE_TWO),
    "escaped quotes": ('file_name,who\n0.jpg,"a \\"b\\""\n1.jpg,c\n2.jpg,c\n', "csv", "quote"),
    "names like numbers": (lines(["007", "7", "7"]), "csv", ONE_TWO),
    "comments": ("# by hand\n" + lines(SIX), "csv", "fields"),
    "sep line of Excel": ("sep=,\n" + lines(SIX), "csv", "no column names"),
    "commas at the ends": (lines(SIX).replace("\n", ",\n"), "csv", ONE_TWO_THREE),
    "blank lines": (lines(SIX).replace("\n", "\n\n"), "csv", ONE_TWO_THREE),
    "very long fields": (lines(["x" * 200_000, "y" * 200_000, "y" * 200_000]), "csv", ONE_TWO),
    "packed": (gzip.compress(lines(SIX).encode()), "csv", "cannot be read"),
    "UTF-32": (lines(SIX).encode("utf-32"), "csv", "cannot be read"),
    "key twice": ('{"file_name": "0.jpg", "who": "a", "who": "b"}\n', "jsonl", "cannot be read"),
    "huge number": ('{"file_name": "0.jpg", "who": ' + "9" * 5000 + "}\n", "jsonl", "cannot be read"),
    "deep": ('{"file_name": "0.jpg", "who": ' + "[" * 100_000 + "]" * 100_000 + "}\n", "jsonl", "cannot be read"),
    "lists of files": (json.dumps({"file_names": ["0.jpg"], "who": "a"}) + "\n", "jsonl", "no column names"),
    "mark and blank lines": ("\ufeff" + jsonl(SIX).replace("\n", "\n\n"), "jsonl", ONE_TWO_THREE),
}  # fmt: skip
# -- trees: pictures, options, and photos of each person or the refusal --------------------------
PATTERN = {"identity_column": "identity"}
TREES_OF: dict[str, tuple[tuple[str, ...], Options, tuple[int, ...] | str]] = {
    "upper and lower case": (("Ann/0.jpg", "ann/0.jpg", "ann/1.jpg"), {}, ONE_TWO),
    "checkpoints": (("ann/0.jpg", "bob/0.jpg", "bob/.ipynb_checkpoints/0-checkpoint.jpg"), {}, (1, 1)),
    "thumbnails of a NAS": (("ann/0.jpg", "bob/@eaDir/0.jpg/THUMB.jpg"), {}, "folders lie in folders"),
    "folds": (("fold_0/ann/0.jpg", "fold_1/bob/0.jpg"), {}, "folders lie in folders"),
    "splits alone": (("train/0.jpg", "train/1.jpg", "test/0.jpg"), {}, "folders are splits"),
    "splits with one folder": (("train/images/0.jpg", "val/images/0.jpg"), {}, "one name"),
    "splits and people": (("train/ann/0.jpg", "ann/0.jpg", "bob/0.jpg"), {}, ONE_TWO),
    "people in people": (("ann/0.jpg", "ann/old/0.jpg", "bob/0.jpg"), {}, "folders lie in folders"),
    "names of LFW": (("A_Bush_1.jpg", "A_Lucas_1.jpg", "A_Lucas_2.jpg"), {"identity_from": "{identity}_*", **PATTERN}, ONE_TWO),
    "names of AgeDB": (("0_MCallas_35_f.jpg", "1_MCallas_40_f.jpg", "2_Jo_40_f.jpg"), {"identity_from": "*_{identity}_*_*", **PATTERN}, ONE_TWO),
    "two identities": (("ann/ann_0.jpg", "bob/bob_0.jpg"), {"identity_from": "{identity}/{identity}_*", **PATTERN}, "a name twice"),
    "level below 0": (("ann/0.jpg", "bob/0.jpg"), {"identity_from": "-1", **PATTERN}, "number of a folder"),
    "upper case suffix": (("ann_1.JPG", "bob_1.jpg"), {"identity_from": "{identity}_*.jpg", **PATTERN}, "1 of 2"),
    "folders called as pictures": (("a.jpg/0.jpg", "b.jpg/0.jpg", "b.jpg/1.jpg"), {}, ONE_TWO),
    "folders called as archives": (("a.tar/0.jpg", "b.zip/0.jpg", "b.zip/1.jpg"), {}, ONE_TWO),
    "no suffix": (("ann/0", "bob/0"), {}, "2 without suffix"),
    "odd letters": (("a#b/0#1.jpg", "{b,c}/0%20.jpg", "{b,c}/1::2!.jpg"), {}, ONE_TWO),
    "line breaks": (("a\nb/0\n.jpg", "bob/0.jpg", "bob/1.jpg"), {}, ONE_TWO),
    "longest names": (("a" * 250 + "/" + "b" * 240 + ".jpg", "bob/0.jpg", "bob/1.jpg"), {}, ONE_TWO),
    "typo": (("ann/0.jpg", "bob/0.jpg"), {"identity_column": "foldr"}, "foldr"),
    "no name of a column": (("ann/0.jpg", "bob/0.jpg"), {"identity_column": ""}, "name of a column"),
    "a column that is none": (("ann/0.jpg", "bob/0.jpg"), {"keep_column": "path"}, "path"),
    "identity kept": (("ann/0.jpg", "bob/0.jpg"), {"keep_column": "folder"}, "pseudonyms only"),
}  # fmt: skip
# -- tars: members, and photos of each person, where all are read; dead letters by code ----------
PLAIN = samples(SIX)
IN_TARS: dict[str, tuple[list[tuple[str, bytes]], tuple[int, ...] | None, dict[str, int] | None]] = {
    "keys from ./": ([("./" + name, body) for name, body in PLAIN], ONE_TWO_THREE, {}),
    "json first": ([PLAIN[n ^ 1] for n in range(12)], ONE_TWO_THREE, {}),
    "json with a mark": ([(n, b"\xef\xbb\xbf" * n.endswith("n") + b) for n, b in PLAIN], ONE_TWO_THREE, {}),
    "files of Macs": ([*PLAIN, ("._0000.jpg", b"x")], ONE_TWO_THREE, {}),
    "empty json": ([*PLAIN[:-1], ("0005.json", b"")], None, {"unreadable_row": 1}),
    "key twice": ([*PLAIN[:-1], ("0005.json", b'{"who": "ann", "who": "cyd"}')], None, {"unreadable_row": 1}),
    "last without the key": ([*PLAIN[:-1], ("0005.json", b'{"age": 1}')], None, {"unlabelled": 1}),
}  # fmt: skip


def _locked() -> bytes:
    body = bytearray(zipped((f"{who}/{n}.jpg", J[n]) for n, who in enumerate(SIX)))
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = -1
        while (at := body.find(mark, at + 1)) >= 0:
            body[at + place] |= 1
    return bytes(body)


def _rec() -> bytes:
    out = b""
    heads: list[tuple[tuple[float, ...], bytes]] = [((7, 9), b"")]
    for labels_of, body in [*heads, *(((float(ord(w[0])), n), J[n]) for n, w in enumerate(SIX))]:
        data = struct.pack("<IfQQ", 2, 0, 0, 0) + struct.pack("<2f", *labels_of) + body
        out += struct.pack("<II", 0xCED7230A, len(data)) + data + bytes(-len(data) % 4)
    return out


def _arrow(folder: Path) -> Options:
    """As ``datasets`` leaves a folder after ``map``."""
    rows = pa.table({"image": list(J[:6]), "who": SIX})
    for name in ("data-00000-of-00001.arrow", "cache-0123456789abcdef.arrow"):
        with pa.ipc.new_stream(folder / name, rows.schema) as out:
            out.write_table(rows)
    (folder / "state.json").write_text("{}")
    return WHO


def _h5(folder: Path) -> Options:
    with h5py.File(folder / "a.h5", "w") as file:
        file["x"], file["who"] = PIXELS, np.array([1, 2, 2, np.nan, np.nan, 3.0])
    return WHO


def _mixed(folder: Path) -> Options:
    table(folder, SIX)
    for name in ("_SUCCESS", "_metadata", ".a.parquet.crc", "b.parquet.part"):
        (folder / name).write_bytes(b"PAR1")
    return WHO


BASE = [{"bytes": None, "path": "x.jpg"}] * 6
OTHERS = [
    Case("more arrow caches of datasets", of(_arrow), ONE_TWO_THREE, rows=6, said="1 .arrow"),
    Case("more hdf5 of NaN", of(_h5), (1, 1, 1, 1, 2)),
    Case("more npz of bytes", of(lambda f: np.savez(f / "a.npz", x=PIXELS[:3], who=[b"a", b"b", b"b"]), **WHO), ONE_TWO),
    Case("more rec with several labels", files(("train.rec", _rec()), identity_column="label"), ONE_TWO_THREE),
    Case("more zip with a password", files(("a.zip", _locked()), identity_column="folder"), published=False, dead={"unreadable_file": 6}),
    Case("more zip of splits", files(("a.zip", zipped(pictures("train/ann/0.jpg", "train/bob/0.jpg", "test/bob/0.jpg"))), identity_column="folder"), ONE_TWO),
    Case("more parquet beside what Spark leaves", of(_mixed), ONE_TWO_THREE, said="hidden"),
    Case("more parquet of paths only", columns(image=pa.array(BASE, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))), published=False, dead={"no_bytes": 6}),
    Case("more parquet of texts", columns(image=["x.jpg"] * 6), refused="image-column"),
    Case("more parquet of tensors", columns(image=pa.FixedShapeTensorArray.from_numpy_ndarray(PIXELS)), refused="image-column"),
    Case("more parquet of large binary", columns(image=pa.array(J[:6], pa.large_binary())), ONE_TWO_THREE),
    Case("more parquet by a dot", of(columns(meta=[{"who": who} for who in SIX]), identity_column="meta.who"), refused="meta.who"),
    Case("more kept copy of the picture", of(columns(copy=list(J[:6])), keep_column="copy", image_column="image"), refused="not copied"),
    Case("more kept record_id", of(columns(record_id=SIX), keep_column="record_id"), refused="already"),
    Case("more csv of pixels", files(("fer2013.csv", "emotion,pixels\n0,7 7 7\n")), refused="no column names"),
    Case("more tar label of an object in two orders", in_tar([{"a": 1, "b": 2}, {"b": 2, "a": 1}, "x"]), ONE_TWO),
]  # fmt: skip


def _outcome(name: str, make: Callable[[Path], Options], known: Any) -> Case:
    if isinstance(known, str):
        return Case(name, make, refused=known)
    return Case(name, make, known, published=known is not None)


# -- photographs: what became of two with two faces each -----------------------------------------
def _over(draw: Callable[[Picture, int, int], Any]) -> Callable[[Picture, Seen], Any]:
    def change(pixels: Picture, seen: Seen) -> tuple[Picture, Seen]:
        for x in (200, 460):
            draw(pixels, x, 240)
        return pixels, seen

    return change


def _warped(*matrix: list[float]) -> Callable[[Picture, Seen], Any]:
    whole, size = np.array([*matrix, [0, 0, 1]], float), (1024, 768)

    def change(pixels: Picture, seen: Seen) -> tuple[Picture, Seen]:
        masks = [cv2.warpPerspective(mask.astype(np.uint8), whole, size) > 0 for mask in seen]
        return cv2.warpPerspective(pixels, whole, size).astype(np.uint8), masks

    return change


def _toned(tone: Callable[[NDArray[Any]], Any]) -> Callable[[Picture, Seen], Any]:
    return lambda pixels, seen: (np.clip(tone(pixels.astype(int)), 0, 255).astype(np.uint8), seen)


CHANGES: dict[str, Callable[[Picture, Seen], Any]] = {
    "dark": _toned(lambda pixels: pixels * 0.15),
    "pale": _toned(lambda pixels: pixels // 3 + 170),
    "in other colours": _toned(lambda pixels: pixels[..., ::-1]),
    "blurred": _toned(lambda pixels: cv2.GaussianBlur(pixels.astype(np.uint8), (0, 0), 4)),
    "mirrored": lambda pixels, seen: (pixels[:, ::-1], [mask[:, ::-1] for mask in seen]),
    "stretched": _warped([1.6, 0, 0], [0, 1, 0]),
    "sheared": _warped([1, 0.4, 0], [0, 1, 0]),
    "sun glasses": _over(lambda p, x, y: cv2.rectangle(p, (x - 40, y - 20), (x + 40, y + 4), (9, 9, 9), -1)),
    "masks": _over(lambda p, x, y: cv2.rectangle(p, (x - 45, y + 14), (x + 45, y + 60), (230, 240, 250), -1)),
    "half behind a wall": _over(lambda p, x, y: cv2.rectangle(p, (x, y - 75), (x + 75, y + 75), (99, 120, 9), -1)),
    "only eyes at the edge": lambda pixels, seen: (pixels[:245], [mask[:245] for mask in seen]),
    "in water": lambda pixels, seen: (
        np.vstack([pixels, cv2.GaussianBlur(pixels[::-1], (0, 0), 1.5) // 2 + 40]),
        [np.vstack([mask, mask & False]) for mask in seen] + [np.vstack([mask & False, mask[::-1]]) for mask in seen],
    ),
}  # fmt: skip


def _changed(change: Callable[[Picture, Seen], Any], second: float = 0, scale: float = 1.3) -> Any:
    def make(folder: Path) -> Options:
        masks = {}
        for number in range(2):
            places = [(200, 240, 0), (460, 240, second)]
            pixels, seen = change(*photograph(places, scale, 11 + number))
            Image.fromarray(np.ascontiguousarray(pixels)).save(folder / f"p{number}.png")
            masks |= {f"p{number}.png|{n}": mask for n, mask in enumerate(seen)}
        np.savez_compressed(folder.parent / "masks.npz", **masks)
        return {**DETECT, "review_out": str(folder.parent / "queue.csv")}

    return make


def _long(folder: Path) -> Options:
    pixels, _ = photograph([(200, 240, 0), (460, 240, 0)])
    for name in ("x" * 251 + ".gif", "SHA256SUMS.bmp", "a\nb.png"):
        Image.fromarray(pixels).save(folder / name)
    return {**DETECT, "review_out": str(folder.parent / "queue.csv")}


def _thumbnail(folder: Path) -> Options:
    """Nobody in the photograph, somebody on its second page."""
    pages = [Image.fromarray(photograph(places)[0]) for places in ([], [(320, 240, 0)])]
    pages[0].save(folder / "p.tif", save_all=True, append_images=pages[1:])
    return {**DETECT, "review_out": str(folder.parent / "queue.csv"), "no_face": "pass"}


MORE = [
    *(Case(f"more label {n}", in_parquet(who, image_column="image"), people, people is not None) for n, (who, people) in IN_A_COLUMN.items()),
    *(Case(f"more label {n}", two_parquets(a, b), people, people is not None) for n, (a, b, people) in IN_TWO_FILES.items()),
    *(_outcome(f"more table {n}", of(labels, text, f"metadata.{end}", 3 if known == ONE_TWO else 6 if known == ONE_TWO_THREE else 1), known) for n, (text, end, known) in TABLES.items()),
    *(_outcome(f"more tree {n}", folders(*names, **how), known) for n, (names, how, known) in TREES_OF.items()),
    *(Case(f"more tar {n}", of(lambda f, m: tar(f / "a.tar", m), m, **WHO), people, people is not None, dead=dead) for n, (m, people, dead) in IN_TARS.items()),
    *OTHERS,
    *(Case(f"more photograph {n}", _changed(change), rows=2) for n, change in CHANGES.items()),
    *(Case(f"more photograph small and turned by {a}", _changed(lambda p, m: (p, m), a, 0.7), rows=2) for a in (45, 135, 315)),
    Case("more photograph with a long name", _long, rows=3),
    Case("more photograph of two pages, passed", _thumbnail, published=False, dead={"several_frames": 1}),
]  # fmt: skip
