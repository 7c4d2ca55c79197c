"""The mark inside pictures: the same bytes everywhere, read by others, checked by verify."""

import io
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ppfr_ops import sanitize_batch
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.imaging.marks import SOURCE_TYPES, packet, with_mark, without_mark
from ppfr_ops.release.foreign import Mark, foreign_part, mark_of
from ppfr_ops.sample import faces
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.photographs.options import PhotographOptions

DRAWN, COMPOSITE = SOURCE_TYPES
FORMATS = ("jpeg", "png", "webp")


def source_type(data: bytes) -> str:
    """As a reader of XMP finds it: Pillow takes the packet out, an XML parser reads it."""
    with Image.open(io.BytesIO(data)) as picture:
        found = picture.info["xmp"]
    tree = ET.fromstring(found.decode().split("?>", 1)[1].rsplit("<?", 1)[0])
    (values,) = (item.attrib.values() for item in tree.iter() if item.tag.endswith("Description"))
    return next(value for value in values if value).rpartition("/")[2]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", SOURCE_TYPES)
def test_the_mark_is_read_by_others_and_changes_no_pixel(form, kind) -> None:
    before = []
    for face in faces(3, seed=4):
        plain, marked = Encoding(form).encode(face), Encoding(form, 95, kind).encode(face)
        assert source_type(marked) == kind
        assert np.array_equal(Encoding.decode(plain), Encoding.decode(marked))
        assert without_mark(marked, kind) == plain
        assert Encoding(form, 95, kind).encode(face, marked=False) == plain
        before.append(len(marked) - len(plain))
    assert len(set(before)) == 1 and before[0] < 450, before


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
@pytest.mark.parametrize("form", FORMATS)
def test_exiftool_sees_the_source_type(form, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(Encoding(form, 95, DRAWN).encode(faces(1)[0]))
    command = ["exiftool", "-s3", "-XMP-iptcExt:DigitalSourceType", str(path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert told == f"http://cv.iptc.org/newscodes/digitalsourcetype/{DRAWN}"


@pytest.mark.parametrize("form", FORMATS)
def test_verify_takes_this_mark_and_no_other(form) -> None:
    marked = Encoding(form, 95, DRAWN).encode(faces(1)[0])
    plain = Encoding(form).encode(faces(1)[0])
    assert foreign_part(marked, Mark(DRAWN, True)) is None
    assert "is not marked" in (foreign_part(plain, Mark(DRAWN, True)) or "")
    assert foreign_part(plain, Mark(COMPOSITE, False)) is None
    assert "metadata" in (foreign_part(marked) or "")
    assert "metadata" in (foreign_part(marked, Mark(COMPOSITE, True)) or "")
    name = packet(DRAWN)[5:20]
    for other in (
        marked.replace(name, name[:-1] + b"J"),
        with_mark(marked, DRAWN) if form != "webp" else marked + b"\0",
        marked + b"more",
    ):
        assert foreign_part(other, Mark(DRAWN, True)) is not None


@pytest.mark.parametrize("form", FORMATS)
def test_no_byte_of_the_mark_can_be_changed(form) -> None:
    marked = Encoding(form, 95, DRAWN).encode(faces(1)[0])
    plain = Encoding(form).encode(faces(1)[0])
    added = len(marked) - len(plain)
    places = {
        "jpeg": range(20, 20 + added),
        "png": range(33, 33 + added),
        "webp": [*range(4, 8), *range(12, 30), *range(len(marked) - (added - 18), len(marked))],
    }
    for place in places[form]:
        data = bytearray(marked)
        data[place] ^= 1
        assert without_mark(bytes(data), DRAWN) is None


@pytest.mark.parametrize("form", FORMATS)
def test_damaged_pictures_raise_nothing(form) -> None:
    marked = Encoding(form, 95, DRAWN).encode(faces(1)[0])
    for length in (0, 1, 12, 20, 33, 40, 100, 400, len(marked) - 1):
        assert length > 400 or without_mark(marked[:length], DRAWN) is None
        assert foreign_part(marked[:length], Mark(DRAWN, True)) is not None


def test_what_is_drawn_is_marked_and_what_is_changed_is_not() -> None:
    cells = [{"bytes": Encoding().encode(face), "path": "x"} for face in faces(2)]
    rows = {"image": cells}
    for method, expected in (("stochastic-local", DRAWN), ("blur", None)):
        more = {} if expected is None else {"identity": "original"}
        made = sanitize_batch(rows, method=method, metrics="none", seed=1, **more)
        for cell in made["image"]:
            if expected is None:
                assert foreign_part(cell["bytes"]) is None
            else:
                assert foreign_part(cell["bytes"], Mark(expected, True)) is None
                assert source_type(cell["bytes"]) == expected
    made = sanitize_batch(rows, identity="original", metrics="none", seed=1, mark=False)
    assert foreign_part(made["image"][0]["bytes"]) is None


def test_options_say_which_mark() -> None:
    def options(**more: object) -> SanitizeOptions:
        return SanitizeOptions(input="in", output="out", **more)

    whole = PhotographOptions(output_faces="in-place")
    assert options().encoding(True).source_type == DRAWN
    assert options().encoding(False).source_type is None
    assert options(mark=False).encoding(True).source_type is None
    assert options(photographs=whole).encoding(True).source_type == COMPOSITE
    assert options(photographs=PhotographOptions()).encoding(True).source_type == DRAWN
    assert mark_of({"mark": True, "output_faces": "in-place"}, True) == Mark(COMPOSITE, False)
    assert mark_of({"mark": True}, True) == Mark(DRAWN, True)
    assert mark_of({"mark": True}, False) is mark_of({"mark": False}, True) is mark_of({}, True)


def test_marks_tell_nothing_of_order_person_or_file() -> None:
    cells = [{"bytes": Encoding().encode(face), "path": "x"} for face in faces(8, identities=4)]
    made = sanitize_batch({"image": cells}, identity="original", metrics="none")
    pictures = [cell["bytes"] for cell in made["image"]]
    marks = {data[20 : 20 + 426] for data in pictures}
    assert len(marks) == 1
