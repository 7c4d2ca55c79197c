"""The owner's record: annex to the impact assessment, and the motivated intruder's test."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_report import Page, make, ppfr

from ppfr_ops.contracts.intruder import IntruderRecord, luck
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.lab.evaluate.intruder import by_recogniser, intrude
from ppfr_ops.lab.evaluate.released import read_release_folder
from ppfr_ops.release.documents.modes import CHANGED, NOBODY, SAME, STAND_INS, mode_of
from ppfr_ops.release.documents.required import meaning
from ppfr_ops.release.figures import open_release
from ppfr_ops.sample import faces


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("annex")
    make(folder)
    return folder


def annex(output: Path) -> str:
    done = ppfr("report", str(output))
    assert done.exit_code in (0, 3), done.output
    return (output / "evidence/annex.html").read_text()


def words(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page.partition("<body>")[2]).split())


def test_the_annex_is_a_page_of_its_own_with_a_summary_first(made: Path) -> None:
    text = annex(made / "out")
    page = Page(text)
    tags = [tag for tag, _ in page.seen]
    assert not {"script", "link", "img", "iframe"} & set(tags)
    told = words(text)
    for wanted in (
        "criterion 1: singling out",
        "criterion 2: linkability",
        "criterion 3: inference",
        "motivated intruder",
        "ISO/IEC 27559",
        "8.2 assessing identifiability",
        "none yet; it is: ppfr intruder OUTPUT --candidates FACES --fr NAME=PATH",
        "Treat it as personal data",
        "not measured",
    ):
        assert wanted in told, wanted
    assert told.index("summary for the person who decides") < told.index("Steps of ISO")
    assert "Jane" not in text and str(made) not in text


@pytest.mark.parametrize(
    ("method", "options", "expected"),
    [
        ({"name": "blur", "draws_faces": False, "options": {}}, {}, CHANGED),
        ({"name": "x", "draws_faces": True, "options": {"identity": "original"}}, {}, SAME),
        ({"name": "x", "draws_faces": True, "options": {"identity": "virtual"}}, {}, STAND_INS),
        ({"name": "x", "draws_faces": True, "options": {}}, {"reads_faces": False}, NOBODY),
    ],
)
def test_every_mode_is_told_by_the_manifest(made: Path, method, options, expected) -> None:
    release = open_release(str(made / "out"))
    changed = release.manifest.method.model_copy(update=method)
    manifest = release.manifest.model_copy(update={"method": changed, "options": options})
    assert mode_of(manifest) is expected


class ByPixels:
    """A recogniser that knows people by the pixels of their photos."""

    name = "by-pixels"

    def embed(self, pictures: np.ndarray) -> np.ndarray:
        small = pictures[:, ::8, ::8].reshape(len(pictures), -1).astype(np.float32)
        return small / np.linalg.norm(small, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def weak(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release that hides next to nothing, of eight people, with its mapping."""
    folder = tmp_path_factory.mktemp("weak")
    cells = [{"bytes": Encoding("png").encode(f), "path": "x"} for f in faces(24, identities=8)]
    table = pa.table({"image": cells, "identity": [f"P{n % 8}" for n in range(24)]})
    (folder / "in").mkdir()
    pq.write_table(table, folder / "in/a.parquet")
    (folder / "key").write_text("0123456789abcdef" * 4)
    command = ["sanitize", "--input", f"{folder}/in", "--output", f"{folder}/out"]
    command += ["--method", "blur", "--method-option", "sigma=0.5", "--max-disclosure", "1"]
    command += ["--identity-column", "identity", "--identity-key-file", f"{folder}/key"]
    command += ["--mapping", f"{folder}/mapping.parquet", "--actors", "1", "--engine", "local"]
    (folder / "key").chmod(0o600)
    done = ppfr(*command)
    assert done.exit_code == 0, done.output
    return folder


def test_the_intruder_names_the_people_of_a_weak_release(weak: Path) -> None:
    arguments = (str(weak / "out"), str(weak / "in"), [ByPixels()])
    record = intrude(*arguments, str(weak / "mapping.parquet"))
    pictures = next(row for row in record.attempts if row.means == "FR model by-pixels")
    assert (record.people, record.candidates) == (8, 24)
    assert pictures.right is not None and pictures.right >= 7 and pictures.chance <= 1
    # Without the mapping nobody says who was named rightly.
    assert {row.right for row in intrude(*arguments).attempts} == {None}


def test_pictures_of_nobody_name_nobody(weak: Path) -> None:
    """The same intruder, given noise for pictures."""
    found = read_release_folder(str(weak / "out"))
    from ppfr_ops.lab.evaluate.data import read_faces

    gallery = read_faces(str(weak / "in"), "candidates")
    people = np.arange(24) % 8
    rng, right = np.random.default_rng(3), 0
    for _ in range(40):
        noise = rng.integers(0, 256, (24, 112, 112, 3), dtype=np.uint8)
        names = by_recogniser(ByPixels(), noise, found, gallery, people)
        right += sum(n == person for n, person in names.items())
    assert right < 40 * 2.5  # about one of eight by chance; a weak release: eight


def test_the_record_stands_in_the_annex(weak: Path) -> None:
    done = ppfr("intruder", str(weak / "out"), "--candidates", str(weak / "in"))
    assert done.exit_code == 0, done.output
    record = IntruderRecord.model_validate_json((weak / "out/evidence/intruder.json").read_bytes())
    assert "FR models on the pictures: none was given" in record.not_tried
    told = words(annex(weak / "out"))
    assert "The intruder had 24 photos of 8 named people" in told and record.date in told
    assert "names to 8 of 8 people; how many are right was not checked" in told
    # Of another release it says nothing.
    path = weak / "out/evidence/intruder.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "release": "0" * 32}))
    assert "none yet; it is: ppfr intruder" in words(annex(weak / "out"))


def test_every_figure_of_the_annex_has_its_meaning_beside_it(made: Path) -> None:
    for name in (
        "disclosure_p99",
        "id_cosine_x_mean",
        "id_match_x",
        "draw_similarity_max",
        "rank1",
    ):
        assert meaning(name), name
    page = annex(made / "out")
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>', page.partition('id="required"')[2])
    assert len(rows) >= 6 and all("<small>" in row for row in rows)
    # A thousand people named at random: one is right on average.
    rng = np.random.default_rng(0)
    right = [(rng.permutation(1000) == np.arange(1000)).sum() for _ in range(2000)]
    assert luck(1.0) == 4 and (np.array(right) <= luck(1.0)).mean() > 0.98
