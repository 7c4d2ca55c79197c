"""Photographs in, photographs out: the same tree, names and formats; nothing lost, nothing left."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from test_photographs import photograph

from ppfr_ops.cli.sanitize import main
from ppfr_ops.cli.show import main as show
from ppfr_ops.cli.verify import main as verify_command
from ppfr_ops.contracts.manifest import Listing, Manifest
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.codec import Encoding, decode
from ppfr_ops.release import files
from ppfr_ops.release.attestation import read_bundle
from ppfr_ops.release.documents.required import unreviewed
from ppfr_ops.release.export import export
from ppfr_ops.release.foreign import foreign_part
from ppfr_ops.release.listing import Unlisted
from ppfr_ops.release.standalone.check import check
from ppfr_ops.release.verify import verify
from ppfr_ops.review.serving import Queue
from ppfr_ops.sanitize.reviewing import items_of
from ppfr_ops.store.folder import Folder
from ppfr_ops.store.ledger import NO_DATE

TREE = {
    "one.jpg": "jpeg",
    "Köln am Rhein/zwei 2.JPEG": "jpeg",
    "Köln am Rhein/a/b/three.png": "png",
    "Köln am Rhein/four.webp": "webp",
    "five.bmp": "bmp",
    "lies.png": "jpeg",
}
OUT = {
    "one.jpg",
    "Köln am Rhein/zwei 2.JPEG",
    "Köln am Rhein/a/b/three.png",
    "Köln am Rhein/four.webp",
    "five.bmp.png",
    "lies.png.jpg",
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Photographs with one face each, and with EXIF, in a tree."""
    root = tmp_path / "in"
    for number, (name, kind) in enumerate(TREE.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(photograph(1, seed=number))
        exif = Image.Exif()
        exif[0x010E] = "a name in the description"
        # The detector of the tests reads a pixel, which JPEG would change.
        more = {"quality": 100, "subsampling": 0} if kind == "jpeg" else {}
        more |= {"lossless": True} if kind == "webp" else {}
        picture.save(path, kind, exif=exif, **more)
    return root


class Always:
    """A detector that finds the face of ``photograph(1)`` in every picture."""

    def __call__(self, pictures: Any) -> Any:
        from test_photographs import Marked

        return [Marked()._one(1) for _ in pictures]


def run(source: Path, target: Path, *more: str) -> tuple[int, str]:
    command = ["--input", str(source), "--output", str(target), "--faces", "detect"]
    command += ["--output-faces", "in-place", "--detector", "test_files_out:Always", *more]
    done = CliRunner().invoke(main, command, standalone_mode=False)
    failed = done.exception
    if isinstance(failed, click.ClickException):
        return failed.exit_code, failed.format_message()
    return (1, str(failed)) if failed is not None else (done.return_value, done.output)


def laid_out(target: Path) -> dict[str, bytes]:
    root = target / "release/photographs"
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def test_the_tree_comes_out_as_it_went_in(source: Path, tmp_path: Path) -> None:
    code, said = run(source, tmp_path / "out")
    assert code == 0, said
    found = laid_out(tmp_path / "out")
    assert found.keys() == OUT
    assert {path.name for path in (tmp_path / "out/release").iterdir()} == {
        *("manifest.json", "SHA256SUMS", "photographs", "verify.py")
    }
    for name, data in found.items():
        assert foreign_part(data) is None and b"description" not in data
        assert decode(data).shape == (200, 300, 3)
        seen = os.stat(tmp_path / "out/release/photographs" / name)
        assert seen.st_mtime == NO_DATE
    assert not list(verify(str(tmp_path / "out")))
    assert not list(verify(str(tmp_path / "out/release")))
    code, said = run(source, tmp_path / "out")
    assert code == 0 and "nothing to do" in said


def test_sha256sum_reads_the_list(source: Path, tmp_path: Path) -> None:
    (source / "back\\slash\nline.png").write_bytes((source / "one.jpg").read_bytes())
    assert run(source, tmp_path / "out")[0] == 0
    release = tmp_path / "out/release"
    done = os.popen(f"cd '{release}' && sha256sum --check --strict SHA256SUMS 2>&1; echo $?").read()
    assert done.endswith("\n0\n") and done.count(": OK") == 7
    assert not list(verify(str(tmp_path / "out")))


def test_tools_that_are_not_ours_verify_photographs(source: Path, tmp_path: Path) -> None:
    private, public = tmp_path / "key", tmp_path / "pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    private.chmod(0o600)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    assert run(source, tmp_path / "out", "--signing-key", str(private))[0] == 0
    release = tmp_path / "out/release"
    found = check(str(release), str(public))
    assert not found.findings and "JPEG's scan" in "".join(found.unchecked)
    bundle = read_bundle((release / "manifest.sig").read_bytes())
    assert bundle is not None and "photographs/five.bmp.png" in bundle.payload.decode()
    picture = release / "photographs/Köln am Rhein/zwei 2.JPEG"
    picture.write_bytes(picture.read_bytes() + b"more")
    (release / "photographs/another.jpg").write_bytes(b"")
    assert {name for name, _ in check(str(release), str(public)).findings} == {
        *("photographs/Köln am Rhein/zwei 2.JPEG", "photographs/another.jpg")
    }


def test_numbers_instead_of_names(source: Path, tmp_path: Path) -> None:
    code, said = run(source, tmp_path / "out", "--names", "number")
    assert code == 0, said
    found = laid_out(tmp_path / "out")
    assert [Path(name).stem for name in sorted(found)] == [f"{n:04d}" for n in range(1, 7)]
    assert {Path(name).suffix for name in found} == {".jpg", ".jpeg", ".png", ".webp"}
    assert not list(verify(str(tmp_path / "out")))
    assert b"K\xc3\xb6ln" not in (tmp_path / "out/release/SHA256SUMS").read_bytes()


def test_what_was_tampered_with_is_found_and_laid_out_again(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(source, out)
    before = laid_out(out)
    root = out / "release/photographs"
    (root / "one.jpg").unlink()
    (root / "extra").mkdir()
    (root / "extra/left.jpg").write_bytes(before["one.jpg"])
    turned = bytearray(before["Köln am Rhein/a/b/three.png"])
    turned[-20] ^= 1
    (root / "Köln am Rhein/a/b/three.png").write_bytes(turned)
    found = {(finding.file, finding.reason) for finding in verify(str(out))}
    assert ("photographs/one.jpg", "is missing") in found
    assert ("photographs/extra/left.jpg", "is not in the manifest") in found
    wrong = "its sha256 is not that in SHA256SUMS"
    assert ("photographs/Köln am Rhein/a/b/three.png", wrong) in found
    assert CliRunner().invoke(verify_command, [str(out)], standalone_mode=False).return_value == 1
    assert run(source, out)[0] == 0
    assert laid_out(out) == before and not (root / "extra").exists()
    assert not list(verify(str(out)))


def test_a_run_that_dies_while_it_lays_out_is_gone_on_with(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, put, done = tmp_path / "out", files._put, [0]

    def dies(*args: Any) -> None:
        done[0] += 1
        if done[0] == 3:
            raise KeyboardInterrupt
        put(*args)

    with monkeypatch.context() as patched:
        patched.setattr(files, "_put", dies)
        run(source, out)
    assert len(laid_out(out)) == 2 and not (out / "release/manifest.json").exists()
    early = laid_out(out)
    assert run(source, out)[0] == 0
    after = laid_out(out)
    assert after.keys() == OUT and all(after[name] == data for name, data in early.items())
    assert not list(verify(str(out)))


def test_a_link_in_the_release_is_not_followed(source: Path, tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    run(source, out)
    elsewhere.mkdir()
    shutil.rmtree(out / "release/photographs/Köln am Rhein/a")
    (out / "release/photographs/Köln am Rhein/a").symlink_to(elsewhere)
    assert run(source, out)[0] != 0 or not any(elsewhere.rglob("*"))
    assert not any(elsewhere.rglob("*"))


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--keep-column", "folder"], "--keep-column goes with --output-form parquet"),
        (["--output-faces", "crops"], "--output-form files goes with"),
    ],
)
def test_files_are_refused_where_they_cannot_hold_it(
    source: Path, tmp_path: Path, more: list[str], reason: str
) -> None:
    code, said = run(source, tmp_path / "out", "--output-form", "files", *more)
    assert code == 2 and reason in " ".join(said.split())


def test_a_file_too_many_by_the_list(tmp_path: Path) -> None:
    def listed(text: bytes, rows: int) -> dict[str, str]:
        (tmp_path / "SHA256SUMS").write_bytes(text)
        digest = hashlib.sha256(text).hexdigest()
        told = Listing(path="SHA256SUMS", bytes=len(text), sha256=digest, rows=rows)
        return files.read_sums(Folder(str(tmp_path)), told)

    line = files.sums_text({"photographs/a b\\c\n.jpg": "0" * 64})
    assert listed(line, 1) == {"photographs/a b\\c\n.jpg": "0" * 64}
    for text, rows in (
        (line, 2),
        (line + line, 2),
        (b"0" * 64 + b"  photographs/../../x\n", 1),
        (b"0" * 64 + b"  elsewhere/x\n", 1),
        (b"0" * 64 + b"  photographs//x\n", 1),
        (b"0" * 64 + b"  photographs/x", 1),
        (b"0" * 63 + b"  photographs/x\n", 1),
        (b"0" * 64 + b"  photographs/\xff\n", 1),
    ):
        with pytest.raises(Unlisted):
            listed(text, rows)


def test_names_that_meet_are_told_apart() -> None:
    paths = {"b" * 32: "x/a.jpg", "a" * 32: "x/a.jpg", "c" * 32: "x/b.jpg"}
    assert files.named(paths, "keep") == {
        "a" * 32: "x/a.jpg",
        "b" * 32: "x/a-bbbbbbbbbbbb.jpg",
        "c" * 32: "x/b.jpg",
    }


def test_a_name_that_its_new_suffix_makes_too_long_is_cut() -> None:
    long = {
        name: f"x/{letter * size}.gif.png"
        for name, letter, size in (("a", "y", 251), ("b", "é", 124))
    }
    found = files.named(long, "keep")
    assert len(set(found.values())) == 2
    assert all(len(os.path.basename(name).encode()) <= 255 for name in found.values())
    assert all(name.startswith("x/") and name.endswith(".png") for name in found.values())


def test_a_picture_in_the_format_that_it_came_in_is_covered(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out")
    for name, data in laid_out(tmp_path / "out").items():
        original = next(path for path in TREE if name.startswith(path.rpartition(".")[0]))
        before, after = decode((source / original).read_bytes()), decode(data)
        assert np.abs(after[:, 280:].astype(int) - before[:, 280:]).max() < 12
        face = slice(50, 130), slice(40, 110)
        lines = [cv2.Laplacian(each[face], cv2.CV_32F).std() for each in (before, after)]
        assert lines[1] < lines[0] / 3
    assert Encoding("png").suffix == ".png"


def test_photographs_are_noticed_before_anything_is_done(source: Path, tmp_path: Path) -> None:
    command = ["--input", str(source), "--output", str(tmp_path / "out"), "--method", "pixelate"]
    done = CliRunner().invoke(main, command, standalone_mode=False)
    assert isinstance(done.exception, click.ClickException)
    said = done.exception.format_message()
    assert "300 x 200 px" in said and "--faces detect" in said
    assert not (tmp_path / "out").exists()


def test_the_summary_speaks_of_photographs(source: Path, tmp_path: Path) -> None:
    code, _ = run(source, tmp_path / "out")
    told = Manifest.model_validate_json((tmp_path / "out/evidence/manifest.json").read_text())
    assert code == 0 and told.photographs is not None
    assert told.photographs.model_dump() == {
        "photographs": 6,
        "faces": 6,
        "covered": 6,
        "left_alone": 0,
        "unsure": 0,
        "looked_over": 0,
        "waiting": 0,
    }


def test_what_nobody_looked_over_is_not_passed(source: Path, tmp_path: Path) -> None:
    code, _ = run(source, tmp_path / "out", "--face-sure", "0.8")
    told = Manifest.model_validate_json((tmp_path / "out/evidence/manifest.json").read_text())
    assert code == 0 and unreviewed(told) == 6
    accepted = told.model_copy(update={"options": {**told.options, "accept_unreviewed": True}})
    assert unreviewed(accepted) == 0


def test_a_run_and_its_input_are_all_that_a_review_needs(source: Path, tmp_path: Path) -> None:
    out, queue = tmp_path / "out", tmp_path / "queue.csv"
    assert run(source, out, "--face-sure", "0.8", "--review-out", str(queue))[0] == 0
    items = items_of(str(out), str(source))
    assert items == items_of(str(out), None, queue=str(queue)) and len(items) == len(TREE)
    assert {Path(item.source).relative_to(source) for item in items} == {*map(Path, TREE)}
    assert all(box[4] == pytest.approx(item.score) for item in items for box in item.boxes)
    assert Queue(items, tmp_path / "said.csv").picture(items[0].id).startswith(b"300x200")
    with pytest.raises(UserError, match="say what the photographs are"):
        items_of(str(out), None)
    (source / "one.jpg").unlink()
    with pytest.raises(UserError, match="not what the run was given"):
        items_of(str(out), str(source))


def test_pictures_of_a_release_as_a_folder_of_files(source: Path, tmp_path: Path) -> None:
    for form in ("files", "parquet"):
        out, target = tmp_path / form, tmp_path / f"exported {form}"
        assert run(source, out, "--output-form", form)[0] == 0
        assert export(str(out), str(target)) == 6 == export(str(out / "release"), str(target))
        found = {path for path in target.rglob("*") if path.is_file()}
        assert len(found) == 7 and (target / "SHA256SUMS") in found
        with pytest.raises(UserError, match="must not lie inside"):
            export(str(out), str(out / "x"))
        with pytest.raises(UserError, match="something else"):
            export(str(out), str(source))
    assert (tmp_path / "exported files/Köln am Rhein/a/b/three.png").exists()


def test_a_contact_sheet_beside_the_originals(source: Path, tmp_path: Path) -> None:
    out, sheet = tmp_path / "out", tmp_path / "sheet.png"
    run(source, out)
    command = [str(out), "--input", str(source), "--out", str(sheet)]
    done = CliRunner().invoke(show, command, standalone_mode=False)
    assert done.return_value == 0, done.output
    assert sheet.stat().st_mode & 0o077 == 0
    drawn = decode(sheet.read_bytes())
    assert drawn.shape[1] > 6 * 256 and drawn.shape[0] > 2 * 256
    again = CliRunner().invoke(
        show, [str(out), "--out", str(out / "release/x.png")], standalone_mode=False
    )
    assert isinstance(again.exception, click.ClickException)
    data = (source / "one.jpg").read_bytes()
    (source / "one.jpg").write_bytes(data + b"x")
    other = CliRunner().invoke(show, command, standalone_mode=False)
    assert "6 of 6 pictures are of units that hold others now" in str(other.exception)
    (source / "one.jpg").write_bytes(data)  # with another time
    assert CliRunner().invoke(show, command, standalone_mode=False).return_value == 0
    (source / "one.jpg").unlink()
    changed = CliRunner().invoke(show, command, standalone_mode=False)
    assert isinstance(changed.exception, click.ClickException)
