"""What must hold of any input at all. Each check raises AssertionError, or returns an outcome."""

import io
import tempfile
import zipfile
from functools import cache
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
from folders import TABLES_OF_PATHS, standing, unpacked, whole_table
from mutations import FILES, NAME, ROWS, bodies, tars
from whole import blocks, needles, sound_blocks

from ppfr_ops.contracts.dead_letters import REASONS
from ppfr_ops.errors import UserError
from ppfr_ops.imaging import decoding
from ppfr_ops.imaging.codec import Encoding, ImageError, decode
from ppfr_ops.methods.registry import create
from ppfr_ops.sanitize.aligned import AlignedFaces
from ppfr_ops.sanitize.run_context import RunContext
from ppfr_ops.sanitize.sanitizer import Sanitizer
from ppfr_ops.source.plan import READ_ERROR, Columns, Plan, Unit, plan, read_unit
from ppfr_ops.store.ledger import Tables


@cache
def sanitizer(kept: bool) -> Sanitizer:
    """The simplest there is, with what the inputs have beside the picture."""
    keep = [pa.field("age", pa.string())] if kept else []
    run = RunContext(method=create("pixelate"), encoding=Encoding(), keep=keep, level="none")
    return Sanitizer(AlignedFaces(run))


def check_picture(data: bytes) -> str:
    """Decoded to what was promised, or refused with a reason; then through the sanitizer."""
    try:
        pixels = decode(data)
    except ImageError as error:
        assert error.code in REASONS and not error.__cause__
        return error.code
    assert pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == "uint8"
    assert pixels.shape[0] * pixels.shape[1] <= decoding.MAX_PIXELS
    table = pa.table(
        {
            "record_id": ["u-0"],
            "image": pa.array([data], pa.large_binary()),
            READ_ERROR: pa.nulls(1, pa.string()),
        }
    )
    tables = sanitizer(False)(table, "u")
    assert tables.records.num_rows + tables.dead_letters.num_rows == 1
    if tables.records.num_rows:
        published = tables.records["image"][0]["bytes"].as_py()
        assert not any(needle in published for needle in needles(data))
        assert not blocks(pixels) & blocks(Encoding.decode(published))
        return "published"
    return str(tables.dead_letters["code"][0])


def check_file(kind: str, data: bytes) -> str:
    """Beside two sound files, whose rows must all be published; what lies in it untouched is
    published too, or there is a reason."""
    tar = _intact(data) if FILES[kind].seeds is FILES["tar"].seeds else 0
    wanted = {"parquet": ROWS, "zip": _members(data)}.get(kind, tar)
    return _check_file(kind, data, wanted)


def _members(data: bytes) -> int:
    """Members of a zip that are as they were in the sound one."""
    return sum(data.count(member) for member in _sound_members())


@cache
def _sound_members() -> frozenset[bytes]:
    found = set()
    for seed in FILES["zip"].seeds():
        with zipfile.ZipFile(io.BytesIO(seed)) as archive:
            starts = [info.header_offset for info in archive.infolist()] + [archive.start_dir]
        found |= {seed[start:stop] for start, stop in pairwise(starts)}
    return frozenset(found)


def _intact(data: bytes) -> int:
    """Pictures whose header and body are in a tar as they were in the sound one, on a block's
    boundary, after a header or body that is sound too."""
    sound = {
        tar[at : at + 512 + len(body)]
        for tar in tars()
        for body in bodies()
        if (at := tar.find(body) - 512) >= 0
    }
    return sum(data.count(member) for member in sound if data.find(member) % 512 == 0)


def _check_file(kind: str, data: bytes, wanted: int) -> str:
    file = FILES[kind]
    sound, suffix = file.seeds()[0], file.suffix
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / f"a{suffix}").write_bytes(data)
        for place in "bc":
            (folder / f"{place}{suffix}").write_bytes(sound)
        try:
            chosen = plan(
                name,
                Columns(identity=file.identity, keep=file.keep),
                unit_rows=5,
                format=file.format,
            )
        except UserError as error:
            raise AssertionError(f"refused: {error}") from None
        hostile, others, lost, codes = 0, 0, 0, set()
        for unit in chosen.units:
            tables = _unit(chosen, unit)
            if Path(unit.sources[0]).name != f"a{suffix}":
                others += tables.records.num_rows
                continue
            hostile += tables.records.num_rows
            lost += tables.dead_letters.num_rows
            codes |= set(tables.dead_letters["code"].to_pylist())
        assert others == 2 * ROWS, f"{others} rows of the sound files"
        fatal = any(REASONS[code].fatal for code in codes)
        assert fatal or hostile + lost >= wanted, f"{hostile} + {lost} rows of {wanted}"
        return "fatal" if fatal else "dead letters" if lost else "published"


def check_folder(kind: str, data: bytes) -> str:
    """A folder is refused in one line, or all its rows come through, as far as what says which rows
    there are is as it was; of pictures that a table of paths does not name any more is said how
    many there are."""
    files = unpacked(data)
    with standing(files) as place:
        columns = Columns(identity="identity", keep=("age",))
        try:
            chosen = plan(
                str(place),
                columns,
                unit_rows=5,
                format="paths" if kind in TABLES_OF_PATHS else "auto",
            )
        except UserError as error:
            assert "\n" not in str(error) and NAME not in str(error)
            return "refused"
        found = [_unit(chosen, unit) for unit in chosen.units]
    lost = sum(tables.dead_letters.num_rows for tables in found)
    rows = lost + sum(tables.records.num_rows for tables in found)
    codes = {code for tables in found for code in tables.dead_letters["code"].to_pylist()}
    fatal = any(REASONS[code].fatal for code in codes)
    if kind in TABLES_OF_PATHS:
        there = sum(name.endswith(".jpg") for name in files)
        assert rows + chosen.left_out.get(".jpg", 0) >= there, f"{rows} rows, {chosen.left_out}"
    elif whole_table(kind, files):
        assert fatal or rows >= ROWS, f"{rows} rows"
    return "fatal" if fatal else "dead letters" if lost else "published"


def _unit(chosen: Plan, unit: Unit) -> Tables:
    """A unit through the sanitizer; nothing of an original is in what comes out."""
    tables = _sanitized(read_unit(chosen, unit), unit.id)
    assert tables.records.num_rows + tables.dead_letters.num_rows == unit.rows
    assert NAME not in str(tables.dead_letters.to_pylist())
    for row in tables.records.to_pylist():
        published = row.pop("image")["bytes"]
        assert not blocks(Encoding.decode(published)) & sound_blocks()
        assert NAME.encode() not in published and NAME not in str(row)
    return tables


def _sanitized(table: pa.Table, unit: str) -> Tables:
    """With the kept column as text, of whatever type it is in the file."""
    if "keep.age" not in table.column_names:
        return sanitizer(False)(table, unit)
    place = table.schema.get_field_index("keep.age")
    texts = pa.array(
        [None if v is None else str(v) for v in table["keep.age"].to_pylist()], "string"
    )
    return sanitizer(True)(table.set_column(place, "keep.age", texts), unit)
