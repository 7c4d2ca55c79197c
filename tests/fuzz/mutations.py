"""Sound inputs, and what an enemy or a bad disk makes of them. All a function of the generator."""

import gzip
import io
import json
import pickle
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pictures import DEAD, HANDLED, jpeg, real_icc, saved
from PIL import Image
from thrift import numbers, replaced

from ppfr_ops.contracts.records import IMAGE_TYPE
from ppfr_ops.sample import faces

NAME = "Jane_Doe"
"""In every name and field; must be in no output."""
ROWS = 12
"""Of a Parquet file, and samples of a tar."""

_EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@cache
def pictures() -> tuple[bytes, ...]:
    """One of every kind that is decoded, and of every kind that is refused."""
    face = Image.fromarray(faces(1, seed=5)[0])
    large = face.resize((448, 448))
    made = [make() for make in HANDLED.values()]
    made += [data for make, _ in DEAD.values() if (data := make())]
    made += [
        saved(face, "JPEG", progressive=True),
        saved(face, "JPEG", quality=30, icc_profile=real_icc()),
        saved(large, "JPEG", progressive=True),
        saved(large, "WEBP", quality=80),
        saved(face, "WEBP", save_all=True, append_images=[large.resize(face.size)]),
        saved(face, "AVIF"),
        saved(face, "MPO", save_all=True, append_images=[face]),
        saved(face, "PNG", icc_profile=real_icc()),
        saved(face.quantize(16), "GIF"),
    ]
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits", "zstd"):
        made.append(saved(face, "TIFF", compression=compression))
    made.append(saved(face, "TIFF", compression="tiff_lzw", tiled=True))
    return tuple(made)


@cache
def bodies() -> tuple[bytes, ...]:
    """Sound pictures, all different."""
    face = faces(1, seed=9)[0]
    return tuple(jpeg(np.roll(face, 7 * place, 1)) for place in range(ROWS))


@cache
def parquets() -> tuple[bytes, ...]:
    """Files of ``ROWS`` rows, in the ways that Parquet is written."""
    rows = [
        {
            "image": {"bytes": body, "path": f"{NAME}_{place}.jpg"},
            "identity": f"{NAME} {place % 3}",
            "age": place,
        }
        for place, body in enumerate(bodies())
    ]
    schema = pa.schema([("image", IMAGE_TYPE), ("identity", pa.string()), ("age", pa.int16())])
    table = pa.Table.from_pylist(rows, schema)
    options = [
        {"compression": "snappy", "row_group_size": 5},
        {"compression": "zstd", "row_group_size": 100, "data_page_version": "2.0"},
        {"compression": "none", "row_group_size": 4, "use_dictionary": False},
        {"compression": "gzip", "row_group_size": 6, "store_schema": False},
        {"compression": "lz4", "data_page_size": 4096, "write_page_index": True},
    ]
    made = []
    for chosen in options:
        buffer = io.BytesIO()
        pq.write_table(table, buffer, **chosen)
        made.append(buffer.getvalue())
    return tuple(made)


@cache
def tars() -> tuple[bytes, ...]:
    """Tars of ``ROWS`` samples of a picture and its fields."""
    made = []
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
            for place, body in enumerate(bodies()):
                folder = f"{NAME}/" * (1 + 20 * (place == 3 and kind != tarfile.USTAR_FORMAT))
                fields = json.dumps({"identity": f"{NAME} {place % 3}", "age": place}).encode()
                for suffix, data in (("jpg", body), ("json", fields)):
                    info = tarfile.TarInfo(f"{folder}{place:04d}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        made.append(buffer.getvalue())
    return tuple(made)


def _written(write: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def _people() -> list[str]:
    return [f"{NAME} {place % 3}" for place in range(ROWS)]


def _table() -> pa.Table:
    pictures = pa.array([{"bytes": body, "path": NAME} for body in bodies()], IMAGE_TYPE)
    return pa.table({"image": pictures, "identity": _people(), "age": list(range(ROWS))})


def _zip(method: int) -> bytes:
    def write(buffer: io.BytesIO) -> None:
        with zipfile.ZipFile(buffer, "w", method) as archive:
            for place, body in enumerate(bodies()):
                archive.writestr(f"{NAME}_{place % 3}/{place:04d}.jpg", body)

    return _written(write)


def _recordio() -> bytes:
    out = b""
    for place, body in enumerate(bodies()):
        data = struct.pack("<IfQQ", 0, place % 3, place, 0) + body
        out += struct.pack("<II", 0xCED7230A, len(data)) + data + bytes(-len(data) % 4)
    return out


def _arrow(stream: bool) -> bytes:
    def write(buffer: io.BytesIO) -> None:
        table = _table()
        writer = pa.ipc.new_stream if stream else pa.ipc.new_file
        with writer(buffer, table.schema) as out:
            out.write_table(table, max_chunksize=5)

    return _written(write)


def _pixels() -> np.ndarray:
    return np.stack([np.asarray(Image.open(io.BytesIO(body))) for body in bodies()])


def _npz(save: Callable[..., None]) -> bytes:
    ages = np.arange(ROWS)
    return _written(lambda b: save(b, faces=_pixels(), identity=np.array(_people()), age=ages))


def _hdf5(encoded: bool) -> bytes:
    def write(buffer: io.BytesIO) -> None:
        with h5py.File(buffer, "w") as file:
            if encoded:
                rows = file.create_dataset("image", ROWS, h5py.vlen_dtype(np.uint8))
                for place, body in enumerate(bodies()):
                    rows[place] = np.frombuffer(body, np.uint8)
            else:
                chunks = (4, 112, 112, 3)
                file.create_dataset("image", data=_pixels(), compression="gzip", chunks=chunks)
            file["identity"], file["age"] = _people(), np.arange(ROWS)

    return _written(write)


def _lists(stream: bool = False) -> bytes:
    pairs = [bodies()[place : place + 2] for place in range(0, ROWS, 2)]
    table = pa.table(
        {
            "image": pa.array(pairs, pa.list_(pa.binary())),
            "identity": _people()[::2],
            "age": range(6),
        }
    )
    if not stream:
        return _written(lambda buffer: pq.write_table(table, buffer, row_group_size=4))

    def write(buffer: io.BytesIO) -> None:
        with pa.ipc.new_stream(buffer, table.schema) as out:
            out.write_table(table, max_chunksize=2)

    return _written(write)


@dataclass(frozen=True)
class Kind:
    """A kind of file, and what of it is asked for besides pictures."""

    suffix: str
    seeds: Callable[[], tuple[bytes, ...]]
    identity: str = "identity"
    keep: tuple[str, ...] = ("age",)
    format: str = "auto"


FILES: dict[str, Kind] = {
    "parquet": Kind(".parquet", parquets),
    "tar": Kind(".tar", tars),
    "arrow": Kind(".arrow", cache(lambda: (_arrow(True), _arrow(False)))),
    "arrow-list": Kind(".arrow", cache(lambda: (_lists(True),)), format="arrow-lists"),
    "hdf5": Kind(".h5", cache(lambda: (_hdf5(False), _hdf5(True)))),
    "list": Kind(".parquet", cache(lambda: (_lists(),)), format="parquet-lists"),
    "numpy": Kind(".npz", cache(lambda: (_npz(np.savez), _npz(np.savez_compressed)))),
    "recordio": Kind(".rec", cache(lambda: (_recordio(),)), "label", ()),
    "tar-member": Kind(".tar", tars, format="tar"),
    "tgz": Kind(".tgz", cache(lambda: tuple(gzip.compress(tar, mtime=0) for tar in tars()))),
    "verification": Kind(
        ".bin",
        cache(lambda: tuple(pickle.dumps((list(bodies()), [True] * 6), p) for p in (3, 4))),
        "pair",
        (),
    ),
    "zip": Kind(".zip", cache(lambda: (_zip(0), _zip(8))), "folder", ()),
}


# -- mutations --------------------------------------------------------------------------------


def mutated(data: bytes, rng: random.Random, other: bytes = b"") -> bytes:
    """A few edits of bytes anywhere."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        rng.choice(_EDITS)(out, rng, other)
    return bytes(out)


def _flip(out: bytearray, rng: random.Random, other: bytes) -> None:
    if out:
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)


def _edge(out: bytearray, rng: random.Random, other: bytes) -> None:
    """A number at an edge, of one, two or four bytes, either way round; mostly near the start."""
    if not out:
        return
    size = rng.choice((1, 2, 4))
    value = rng.choice(_EDGES) & (1 << 8 * size) - 1
    place = rng.randrange(len(out) if rng.random() < 0.5 else min(len(out), 600))
    out[place : place + size] = value.to_bytes(size, rng.choice(("big", "little")))


def _cut(out: bytearray, rng: random.Random, other: bytes) -> None:
    del out[rng.randrange(len(out) + 1) :]


def _delete(out: bytearray, rng: random.Random, other: bytes) -> None:
    place = rng.randrange(len(out) + 1)
    del out[place : place + rng.randrange(1, 65)]


def _repeat(out: bytearray, rng: random.Random, other: bytes) -> None:
    place = rng.randrange(len(out) + 1)
    piece = out[place : place + rng.randrange(1, 1025)]
    out[place:place] = piece * rng.choice((1, 2, 50))


def _splice(out: bytearray, rng: random.Random, other: bytes) -> None:
    place = rng.randrange(len(other) + 1)
    target = rng.randrange(len(out) + 1)
    out[target:target] = other[place : place + rng.randrange(1, 2049)]


_EDITS: tuple[Callable[[bytearray, random.Random, bytes], None], ...] = (
    *(_flip, _flip, _edge, _edge, _edge),
    *(_cut, _delete, _repeat, _splice),
)


def picture(rng: random.Random) -> bytes:
    seeds = pictures()
    return mutated(rng.choice(seeds), rng, rng.choice(seeds))


def parquet(rng: random.Random) -> bytes:
    """Half of them: one number of the footer replaced, all else sound."""
    data = rng.choice(parquets())
    if rng.random() < 0.5:
        number = rng.choice(numbers(data))
        value = rng.choice(
            (*_EDGES, -1, -(2**31), 2**40, 2**62, number.value + 1, number.value - 1)
        )
        return replaced(data, number, value)
    if rng.random() < 0.3:
        footer = int.from_bytes(data[-8:-4], "little") + 8
        return data[:-footer] + mutated(data[-footer:], rng)
    return mutated(data, rng, rng.choice(parquets()))


def other(kind: str, rng: random.Random) -> bytes:
    """Half of them near the end, where directories and footers are; of what is compressed as a
    whole half of what is in it."""
    seeds = FILES[kind].seeds()
    data = rng.choice(seeds)
    roll = rng.random()
    if kind == "tgz" and roll < 0.5:
        return gzip.compress(tar(rng), mtime=0)
    if roll < 0.5:
        end = rng.choice((200, 1000, 2000))
        return data[:-end] + mutated(data[-end:], rng, rng.choice(seeds))
    return mutated(data, rng, rng.choice(seeds))


def tar(rng: random.Random) -> bytes:
    """Half of them: whole blocks moved about, or a header's field replaced, checksum and all."""
    data = rng.choice(tars())
    roll = rng.random()
    if roll < 0.3:
        return _with_blocks_moved(data, rng)
    if roll < 0.6:
        return _with_field(data, rng)
    return mutated(data, rng, rng.choice(tars()))


def _with_blocks_moved(data: bytes, rng: random.Random) -> bytes:
    blocks = [data[place : place + 512] for place in range(0, len(data), 512)]
    for _ in range(rng.randrange(1, 4)):
        place, count = rng.randrange(len(blocks)), rng.choice((1, 1, 2, 10))
        piece = blocks[place : place + count]
        target = rng.randrange(len(blocks))
        kind = rng.randrange(4)
        if kind == 0:
            blocks[target:target] = piece
        elif kind == 1:
            blocks[target:target] = [bytes(512)] * count
        elif kind == 2 and len(blocks) > 20:
            del blocks[place : place + count]
        else:
            blocks += blocks[:count]
    return b"".join(blocks)


def _with_field(data: bytes, rng: random.Random) -> bytes:
    """A header field: name, size, type or sparse map; with a checksum that is right."""
    headers = [at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar"]
    at = rng.choice(headers)
    block = bytearray(data[at : at + 512])
    kind = rng.randrange(4)
    if kind == 0:
        block[rng.randrange(20)] = rng.choice((0, 0x2E, 0x2F, 0xE9, 0xFF))
    elif kind == 1:
        size = rng.choice((-1, -512, -(2**40), 2**40, 2**62))
        block[124:136] = (b"\xff" if size < 0 else b"\x80") * 4 + struct.pack(">q", size)
    elif kind == 2:
        block[156] = rng.choice(b"012345678LKxgSDMNVX\0\xff")
    else:
        block[482] = 1
    total = sum(block[:148]) + 8 * 32 + sum(block[156:])
    block[148:156] = b"%06o\0 " % total
    return data[:at] + bytes(block) + data[at + 512 :]
