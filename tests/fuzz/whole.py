"""Cases as the input of whole runs, and a search of all that a run leaves behind.

A run is a fork of this process: what it prints, the folder it works in and its temporary folder
are its own, and nothing of an original may be in any of them, nor in the output.
"""

import io
import os
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from driving import drive, serial
from folders import FOLDERS, TABLES_OF_PATHS, standing, unpacked
from mutations import FILES, NAME, bodies, pictures
from pictures import PLANTED

from ppfr_ops.contracts.dead_letters import REASONS
from ppfr_ops.contracts.manifest import Manifest
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import Picture
from ppfr_ops.imaging.codec import Encoding, ImageError, decode
from ppfr_ops.release import standalone
from ppfr_ops.sanitize.options import SanitizeOptions

BATCH = {"picture": 1000, **dict.fromkeys(FILES, 100), **dict.fromkeys(FOLDERS, 1)}
"""Cases of a run."""
_NEEDLE = 24
"""Bytes of an original that must not turn up."""
_OWN = 16
"""Of them, in a row, that not every JPEG has."""
_FLAT = 4.0
"""Standard deviation, of 255, below which a block of pixels shows nothing."""


def needles(data: bytes) -> list[bytes]:
    """What tells an original: its names, what is planted in it, and a stretch of its bytes."""
    for start in range(len(data) // 2, len(data) - _NEEDLE + 1, _NEEDLE):
        stretch = data[start : start + _NEEDLE]
        if len(set(stretch)) >= _NEEDLE // 2 and not any(
            stretch[place : place + _OWN] in usual() for place in range(_NEEDLE - _OWN + 1)
        ):
            return [NAME.encode(), PLANTED, stretch]
    return [NAME.encode(), PLANTED]


@cache
def usual() -> bytes:
    """What every JPEG has, such as the usual Huffman tables; and what mutations put anywhere."""
    return Encoding().encode(np.zeros((112, 112, 3), np.uint8))


def blocks(picture: Picture) -> set[bytes]:
    """Its blocks of 8 x 8 px that show something."""
    height, width = (side // 8 * 8 for side in picture.shape[:2])
    cut = picture[:height, :width].reshape(height // 8, 8, width // 8, 8, 3).swapaxes(1, 2)
    tiles = np.ascontiguousarray(cut).reshape(-1, 64, 3)
    shows = tiles.std(1, dtype=np.float32).mean(1) > _FLAT
    return {tile.tobytes() for tile in tiles[shows]}


@cache
def sound_blocks() -> frozenset[bytes]:
    """Blocks of the pictures in the sound Parquet files and tars."""
    return frozenset().union(*(blocks(decode(body)) for body in bodies()))


class Traces:
    """The temporary folder, the working folder and the log of this process, from now on."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        self.places = [folder / "tmp", folder / "cwd"]
        for place in self.places:
            place.mkdir(parents=True, exist_ok=True)
        os.environ["TMPDIR"] = str(self.places[0])
        tempfile.tempdir = None
        os.chdir(self.places[1])
        number = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        os.dup2(number, 1)
        os.dup2(number, 2)
        os.close(number)
        self._read = 0

    def check(self, sought: Sequence[bytes]) -> None:
        """Nothing is left in the folders, and nothing sought is in what was printed since."""
        left = [path.name for place in self.places for path in place.iterdir()]
        assert not left, f"left behind: {left}"
        with self.log.open("rb") as file:
            file.seek(max(0, self._read - 4096))  # a line may have been written in two pieces
            printed = file.read()
            self._read = file.tell()
        assert not any(needle in printed for needle in sought), "an original in the log"


def check(kind: str, cases: Sequence[bytes], folder: Path) -> str:
    """A run over all cases, and two sound files beside them; its exit code as the outcome. Of cases
    that are folders it is over the one."""
    if kind in FOLDERS:
        with standing(unpacked(cases[0])) as place:
            return _check_folder(kind, cases, place, folder / "out")
    source, output = folder / "in" / NAME, folder / "out"
    source.mkdir(parents=True)
    file = FILES.get(kind)
    sound = pictures()[0] if file is None else file.seeds()[0]
    suffix = ".jpg" if file is None else file.suffix
    for place, data in enumerate([*cases, sound, sound]):
        within = source / f"{NAME}_{place % 2}" if kind == "picture" else source
        within.mkdir(exist_ok=True)
        (within / f"{NAME}_{place:04d}{suffix}").write_bytes(data)
    code, records = _run(
        input=str(source),
        output=str(output),
        input_format="auto" if file is None else file.format,
        identity_column="folder" if file is None else file.identity,
        keep_columns=() if file is None else file.keep,
    )
    assert records >= (0 if kind == "picture" else 2 * len(bodies()))
    _search(kind, cases, output)
    return f"run: exit {code}"


def _check_folder(kind: str, cases: Sequence[bytes], place: Path, output: Path) -> str:
    try:
        code, _ = _run(
            input=str(place),
            output=str(output),
            input_format="paths" if kind in TABLES_OF_PATHS else "auto",
            identity_column="identity",
            keep_columns=("age",),
        )
    except UserError as error:
        assert "\n" not in str(error) and NAME not in str(error)
        code = error.exit_code
    _search(kind, cases, output)
    return f"run: exit {code}"


def _run(**options: Any) -> tuple[int, int]:
    """Exit code and records of a run, of which the counts add up."""
    wanted = SanitizeOptions(
        **options,
        unit_rows=100,
        method="pixelate",
        align="off",  # of damaged pictures the first two may well be no faces of 112 px
        metrics="none",
        max_dead_letter_rate=1,
    )
    code = drive(wanted, serial, "serial", dry_run=False, as_json=False)
    evidence = Path(wanted.output) / "evidence"
    counts = Manifest.model_validate_json((evidence / "manifest.json").read_text()).counts
    assert counts.rows_in == counts.records + counts.dead_letters
    fatal = any(REASONS[code].fatal for code in counts.dead_letters_by_code)
    assert code == (3 if fatal else 0), f"exit code {code}, {counts.dead_letters_by_code}"
    return code, counts.records


def _search(kind: str, cases: Sequence[bytes], output: Path) -> None:
    sought = {needle for data in cases for needle in needles(data)}
    if kind == "picture":
        originals = set().union(*map(_blocks_of, cases))
    else:
        sought |= {needle for body in bodies() for needle in needles(body)}
        originals = set(sound_blocks())
    # What the verifier names, as the head of XMP is, is in every release.
    verifier = standalone.text().encode()
    sought = {needle for needle in sought if needle not in verifier}
    for path in output.rglob("*"):
        assert NAME not in path.name
        if not path.is_file():
            continue
        raw = path.read_bytes()
        if path.suffix == ".parquet":
            table = pq.read_table(io.BytesIO(raw))
            raw += _plain(table)
            if "image" in table.column_names:
                for cell in table["image"].to_pylist():
                    shared = blocks(Encoding.decode(cell["bytes"])) & originals
                    assert not shared, f"{len(shared)} blocks of an original"
        found = [needle for needle in sought if needle in raw]
        assert not found, f"{found[:3]} in {path.relative_to(output)}"


def _blocks_of(data: bytes) -> set[bytes]:
    try:
        return blocks(decode(data, size=(112, 112)))
    except ImageError:
        return set()


def _plain(table: pa.Table) -> bytes:
    """A table uncompressed."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
