"""Labels and members that people bring and that are not what they should be: no person is lost or
merged, and nothing left out, without a word."""

import json
import os
import unicodedata
import zipfile
from datetime import date
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import FACE, saved
from PIL import Image
from test_inputs import rows, write, write_tar

from ppfr_ops import run
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.codec import Encoding, ImageError, decode
from ppfr_ops.imaging.decoding import orientation
from ppfr_ops.release.verify import verify
from ppfr_ops.sample import faces
from ppfr_ops.sandbox import LimitError
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.source import labels
from ppfr_ops.source.labels import label
from ppfr_ops.source.plan import Columns, plan, read_unit

WHO = Columns(identity="who")


def people(root: Path, columns: Columns = WHO) -> list[str | None]:
    table = rows(plan(str(root), columns))
    assert table["read_error"].null_count == len(table)
    found: list[str | None] = table["identity"].to_pylist()
    return found


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("file_name,who\n0.jpg,Doe, Jane\n1.jpg,Doe, Joe\n", "line 2 has not as many fields"),
        ("file_name,who\n0.jpg,Jane\n1.jpg\n", "line 3 has not as many fields"),
        ('file_name,who\n0.jpg,"Jane\n1.jpg,Joe\n', "a quote has no end"),
        ("file_name,who,who\n0.jpg,Jane,x\n1.jpg,Joe,x\n", "the same name"),
        ("file_name,who\n0.jpg,Jane\n,Joe\n", "1 of 2 lines name no picture"),
        ("file_name,who\n0.jpg,Jane\n1.jpg,Joe\n", None),
        ("file_name|who\n0.jpg|Jane\n1.jpg|Joe\n", None),
        ("who;file_name;a,b\nJane;0.jpg;1\nJoe;1.jpg;2\n", None),
        ('"file_name"\t"who"\n0.jpg\tJane\n"1.jpg"\tJoe\n', None),
    ],
)
@pytest.mark.parametrize("name", ["metadata.csv", "list.csv"])
def test_tables_whose_fields_are_not_clear_are_refused(
    tmp_path: Path, text: str, refusal: str | None, name: str
) -> None:
    write(tmp_path, "0.jpg", "1.jpg")
    (tmp_path / name).write_text(text)
    source = tmp_path if name == "metadata.csv" else tmp_path / name
    if refusal is None:
        assert people(source) == ["Jane", "Joe"]
        return
    with pytest.raises(UserError, match=refusal):
        plan(str(source), WHO)


def test_a_line_without_the_key_of_the_person_is_no_line(tmp_path: Path) -> None:
    write(tmp_path, "0.jpg", "1.jpg")
    lines = [{"file_name": "0.jpg", "who": None}, {"file_name": "1.jpg", "age": 3}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(UserError, match="say nothing of 1 of 2 pictures"):
        plan(str(tmp_path), WHO)


def test_pictures_that_only_the_labels_know_are_said(tmp_path: Path) -> None:
    write(tmp_path, "0.jpg")
    (tmp_path / "metadata.csv").write_text("file_name,who\n0.jpg,Jane\n1.jpg,Joe\n2.jpg,Jim\n")
    left = {"named by the labels, and not there": 2}
    assert plan(str(tmp_path), WHO).left_out == left


@pytest.mark.parametrize("ours", ["NFC", "NFD"])
def test_a_file_is_found_in_either_form_of_unicode(tmp_path: Path, ours: str) -> None:
    """As a Mac writes names, and as people type them; a name as it is written comes first."""
    theirs = {"NFC": "NFD", "NFD": "NFC"}[ours]
    names = ["José/ä.jpg", "Zoë.jpg", "plain.jpg"]
    write(tmp_path, *(unicodedata.normalize(ours, name) for name in names))
    rows = [f"{unicodedata.normalize(theirs, name)},w{n}" for n, name in enumerate(names)]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,who", *rows, "gone.jpg,w9"]))
    assert sorted(map(str, people(tmp_path))) == ["w0", "w1", "w2"]
    assert plan(str(tmp_path), WHO).left_out == {"named by the labels, and not there": 1}
    both = [unicodedata.normalize(form, names[1]) for form in ("NFC", "NFD")]
    write(tmp_path, *both)
    lines = ["file_name,who", rows[0], rows[2], f"{both[0]},composed", f"{both[1]},apart"]
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    assert sorted(map(str, people(tmp_path))) == ["apart", "composed", "w0", "w2"]
    (tmp_path / "metadata.csv").write_text("\n".join(lines[:-1]))
    with pytest.raises(UserError, match="1 pictures are called as others are but for the form"):
        plan(str(tmp_path), WHO)


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("name", ["metadata.csv", "metadata.tsv", "metadata.jsonl"])
def test_a_table_in_wide_characters_is_read(tmp_path: Path, name: str, coding: str) -> None:
    write(tmp_path, "0.jpg", "1.jpg")
    text = "file_name,who\r\n0.jpg,Zoë\r\n1.jpg,李\r\n"
    if name.endswith("jsonl"):
        text = '{"file_name": "0.jpg", "who": "Zoë"}\n{"file_name": "1.jpg", "who": "李"}'
    data = text.replace(",", "\t").encode(coding) if name.endswith("tsv") else text.encode(coding)
    mark = "\ufeff".encode(coding) if coding.endswith("be") else b""
    (tmp_path / name).write_bytes(mark + data)
    assert people(tmp_path) == ["Zoë", "李"]


def test_a_parquet_table_beside_the_pictures_says_what_is_in_them(tmp_path: Path) -> None:
    write(tmp_path, "0.jpg", "b/1.jpg")
    columns = {"file_name": ["0.jpg", "b/1.jpg"], "who": [7, 8.0], "born": [date(1980, 1, 2)] * 2}
    pq.write_table(pa.table(columns), tmp_path / "metadata.parquet")
    assert people(tmp_path) == ["7", "8"]
    made = plan(str(tmp_path), Columns(identity="who", keep=("born",)))
    assert read_unit(made, made.units[0])["keep.born"].to_pylist() == ["1980-01-02"] * 2
    write(tmp_path, "2.jpg")
    with pytest.raises(UserError, match="say nothing of 1 of 3 pictures"):
        plan(str(tmp_path), WHO)
    (tmp_path / "metadata.parquet").write_bytes(b"PAR1" + bytes(50) + b"PAR1")
    with pytest.raises(UserError, match="the labels cannot be read"):
        plan(str(tmp_path), WHO)


@pytest.mark.parametrize("what", ["memory", "time", "crash"])
def test_a_parquet_table_that_takes_too_much_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    write(tmp_path, "0.jpg")
    pq.write_table(pa.table({"file_name": ["0.jpg"], "who": [1]}), tmp_path / "metadata.parquet")

    def takes_too_much(*_: object, **__: object) -> None:
        raise LimitError(what)

    monkeypatch.setattr(labels.sandbox, "call", takes_too_much)
    with pytest.raises(UserError, match="the labels: a table that takes too much"):
        plan(str(tmp_path), WHO)


def test_a_name_in_two_forms_of_unicode_is_one_person(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        write(tmp_path, f"{unicodedata.normalize(form, 'Müller')}/{form}.jpg")
    write(tmp_path, "Mueller/1.jpg")
    assert len(set(people(tmp_path, Columns(identity="folder")))) == 2


def test_names_of_folders_are_no_numbers(tmp_path: Path) -> None:
    """``1`` and ``1.0`` are two folders; in a column they are one number."""
    for folder in ("1", "1.0", "01", "nan"):
        write(tmp_path / "tree", f"{folder}/a.jpg")
        write(tmp_path / "hive", f"who={folder}/a.jpg")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for folder in ("1", "1.0", "01", "nan"):
            archive.writestr(f"{folder}/a.jpg", b"x")
    said = ["01", "1", "1.0", "nan"]
    from_path = Columns(identity="identity", identity_from="1")
    for source in (tmp_path / "tree", tmp_path / "a.zip"):
        assert sorted(map(str, people(source, Columns(identity="folder")))) == said
        assert sorted(map(str, people(source, from_path))) == said
    assert sorted(map(str, people(tmp_path / "hive"))) == said
    (tmp_path / "tree" / "metadata.csv").write_text(
        "file_name,who\n1/a.jpg,1\n1.0/a.jpg,1.0\n01/a.jpg,2\nnan/a.jpg,nan\n"
    )
    assert people(tmp_path / "tree") == ["2", "1", "1", None]


@pytest.mark.parametrize(
    "name",
    [
        *("Anna\u200bLee", "\ufeffAnnaLee", "Anna\u00adLee", "\u202aAnnaLee\u202c"),
        *("AnnaLee\u200e", "Anna\u200dLee", "AnnaL\u2060ee", "AnnaLee\x00"),
        *("AnnaLee\ufe0f", " Anna\u034fLee"),
    ],
)
def test_a_name_with_signs_that_nobody_sees_is_the_same_person(name: str) -> None:
    assert label(name) == label(name.encode()) == "AnnaLee"


def test_numbers_in_bytes_are_no_names() -> None:
    """Of bytes that are signs which nobody sees nothing is taken: it tells people apart."""
    numbers = [n.to_bytes(4, end) for end in ("little", "big") for n in (0, 9, 27, 32, 321, 577)]
    assert len({label(number) for number in numbers}) == 11 and None not in map(label, numbers)
    assert label(b"ann\0\0") == label("ann") and label(b"") is None is label(b" ")


def test_an_object_of_json_is_one_label_in_any_order_and_says_one_thing(tmp_path: Path) -> None:
    bodies = ['{"who": {"a": 1, "b": 2}}', '{"who": {"b": 2, "a": 1}}', '{"who": 1, "who": 2}']
    jpeg = Encoding("jpeg").encode(FACE)
    members = {
        f"{n}.{end}": body
        for n, text in enumerate(bodies)
        for end, body in (("jpg", jpeg), ("json", text.encode()))
    }
    write_tar(tmp_path / "a.tar", members)
    table = rows(plan(str(tmp_path), WHO))
    assert table["read_error"].to_pylist() == [None, None, "unreadable_row"]
    assert len(set(table["identity"].to_pylist()[:2])) == 1


@pytest.mark.parametrize("above", ["train/{}/1.jpg", "{}/1.jpg"])
def test_folders_of_splits_are_no_people(tmp_path: Path, above: str) -> None:
    write(tmp_path, *(above.format(name) for name in ("train", "val")))
    with pytest.raises(UserError, match="folders are splits"):
        plan(str(tmp_path), Columns(identity="folder"))
    write(tmp_path / "same", "train/images/1.jpg", "val/images/1.jpg")
    with pytest.raises(UserError, match="folders of one name"):
        plan(str(tmp_path / "same"), Columns(identity="folder"))


def test_what_datasets_keeps_beside_its_files_is_not_read(tmp_path: Path) -> None:
    for name in ("data-00000-of-00001.arrow", "cache-0123456789abcdef.arrow"):
        table = pa.table({"image": [Encoding("jpeg").encode(FACE)], "who": ["ann"]})
        with pa.ipc.new_stream(tmp_path / name, table.schema) as out:
            out.write_table(table)
    (tmp_path / "state.json").write_text("{}")
    chosen = plan(str(tmp_path), WHO)
    assert chosen.rows == 1 and chosen.left_out == {".arrow": 1}


def test_what_can_be_seen_of_a_name_stays() -> None:
    assert label("Anna\u00a0 Lee\t") == "Anna Lee" != label("AnnaLee")
    assert label("e\u200b\u0301") == label("\u00e9") != label("e")
    assert label("\u845b\U000e0100") != label("\u845b")
    assert label("\u200b\u00ad") is None


def test_names_that_are_no_utf_8_stay_apart(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    names = [b"J\xfcrgen", b"J\xf6rgen"]
    write_tar(
        tmp_path / "t" / "a.tar",
        {f"{n}.{end}": body for n, who in enumerate(names) for end, body in _sample(who)},
    )
    assert len(set(people(tmp_path / "t", Columns(identity="cls")))) == 2
    (tmp_path / "h").mkdir()
    with h5py.File(tmp_path / "h" / "a.h5", "w") as file:
        file["image"], file["who"] = np.stack(faces(2)), np.array(names)
    assert len(set(people(tmp_path / "h"))) == 2


def _sample(who: bytes) -> list[tuple[str, bytes]]:
    return [("jpg", b"x"), ("cls", who)]


def test_a_stack_without_labels_among_others(tmp_path: Path) -> None:
    for name in "abcde":
        labels = {} if name == "d" else {"who": np.array(["Jane", "Joe"])}
        np.savez(tmp_path / f"{name}.npz", image=np.stack(faces(2)), **labels)
    table = rows(plan(str(tmp_path), WHO))
    assert table["read_error"].to_pylist() == [None] * 6 + ["missing_column"] * 2 + [None] * 2
    assert table["image"].null_count == 2


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_one_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=np.stack(faces(2)), who=np.array(["Jane", "Joe"]))
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("who.npy", archive.read("who.npy"))
    (unit,) = plan(str(tmp_path), Columns()).units
    assert unit.damaged == "unreadable_unit" and unit.rows == 1


def test_folders_of_a_zip_of_windows(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(4):
            archive.writestr(f"{'Jane' if number < 2 else 'Joe'}\\{number}.jpg", b"x")
    said = ["Jane", "Jane", "Joe", "Joe"]
    assert people(tmp_path, Columns(identity="folder")) == said
    assert people(tmp_path, Columns(identity="identity", identity_from="1")) == said


def test_members_of_a_zip_that_are_no_pictures_are_said(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("a/1.jpg", "a/", "a/clip.mp4", "a/more.zip", "__MACOSX/._1.jpg", "README"):
            archive.writestr(name, b"x")
    left = plan(str(tmp_path), Columns()).left_out
    hidden = "hidden (a name that begins with . or _)"
    assert left == {".mp4": 1, ".zip": 1, hidden: 1, "without suffix": 1}


def test_links_that_lead_nowhere_cost_themselves(tmp_path: Path) -> None:
    write(tmp_path, "a/1.jpg")
    (tmp_path / "a" / "2.jpg").symlink_to("2.jpg")
    (tmp_path / "a" / "3.jpg").symlink_to("gone.jpg")
    (tmp_path / "b").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "a" / "4.jpg")
    chosen = plan(str(tmp_path), Columns())
    assert rows(chosen)["read_error"].to_pylist() == [None] + ["unreadable_file"] * 3
    assert chosen.left_out == {"linked folder": 1}


@pytest.mark.parametrize("kind", [".png", ".tiff"])
def test_colours_of_12_bits_in_16_are_not_published_as_black(kind: str) -> None:
    wide = FACE[..., ::-1].astype(np.uint16)
    sound = cv2.imencode(kind, wide * 257)[1].tobytes()
    assert np.array_equal(decode(sound), FACE)
    with pytest.raises(ImageError) as error:
        decode(cv2.imencode(kind, wide * 16)[1].tobytes())
    assert error.value.code == "unsupported_pixels"


def test_a_turned_tiff_is_known_to_be_turned() -> None:
    """Pillow turns it by itself; boxes of the stored picture have to be turned, too."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.fromarray(FACE[:80]), "TIFF", exif=exif)
    assert decode(data).shape == (112, 80, 3) and orientation(data) == 6


def test_labels_that_change_between_two_runs_are_another_input(tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for n, face in enumerate(faces(6)):
        (source / f"{n}.jpg").write_bytes(Encoding().encode(face))
    table = source / "metadata.csv"
    lines = [f"{n}.jpg,{who}" for n, who in enumerate("aabbcc")]
    table.write_text("\n".join(["file_name,who", *lines]))
    options = SanitizeOptions(
        input=str(source),
        output=str(output),
        method="pixelate",
        identity_column="who",
        metrics="none",
        unit_rows=2,
    )
    run(options)
    run(options)  # nothing to do
    lines = [f"{n}.jpg,{who}" for n, who in enumerate("ccbbaa")]
    table.write_text("\n".join(["file_name,who", *lines]))
    with pytest.raises(UserError, match="not what it was"):
        run(options)


def test_labels_that_were_not_read_as_they_are_stored_are_counted_and_said(
    tmp_path: Path,
) -> None:
    write(tmp_path / "in", *(f"{n}.jpg" for n in range(5)))
    names = ["Jane", "Jane ", "Jo\u200be", "Joe", "1.0"]
    lines = [{"file_name": f"{n}.jpg", "who": name} for n, name in enumerate(names)]
    (tmp_path / "in" / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    said: list[str] = []
    options = SanitizeOptions(
        input=str(tmp_path / "in"),
        output=str(tmp_path / "out"),
        identity_column="who",
        method="pixelate",
        metrics="none",
        align="off",
        unit_rows=2,
    )
    for _ in range(2):  # of a run that finds all done, too
        result = run(options, listener=lambda event: said.append(str(getattr(event, "text", ""))))
        assert result.counts is not None and result.counts.respelled == 2
        assert sum("2 rows with a label that was read without blanks" in line for line in said) == 1
        said.clear()


def test_a_release_with_a_split_or_of_nothing_holds(tmp_path: Path) -> None:
    """A split that paths tell is on the allow-list; a shard without rows has no loose bytes."""
    for place in ("split/train/a", "split/test/b", "none"):
        (tmp_path / place).mkdir(parents=True)
        data = saved(Image.fromarray(FACE), "JPEG") if place != "none" else b"no picture"
        (tmp_path / place / "0.jpg").write_bytes(data)
    for name, records in (("split", 2), ("none", 0)):
        output = str(tmp_path / f"{name}-out")
        given = {"method": "pixelate", "metrics": "none", "align": "off"}
        result = run(SanitizeOptions(input=str(tmp_path / name), output=output, **given))
        assert result.counts is not None and result.counts.records == records
        assert list(verify(output)) == []


def test_odd_lines_of_tables_cost_their_own_pictures(tmp_path: Path) -> None:
    write(tmp_path, "0.jpg", "1.jpg")
    names = ["0.jpg", "1.jpg", "x\0y.jpg", "\ud800.jpg"]
    told = [{"file_name": name, "who": "a\u2028b"} for name in names]
    lines = [json.dumps(row, ensure_ascii=place == 3) for place, row in enumerate(told)]
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    for key in (None, b"k" * 32):
        chosen = plan(str(tmp_path), WHO, format="paths", key=key)
        table = rows(chosen)
        assert table["identity"].to_pylist() == ["a b"] * 4 and not chosen.left_out
        assert table["read_error"].to_pylist() == [None, None, *["unreadable_file"] * 2]
