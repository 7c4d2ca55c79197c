"""Certificates: the bound against theory, what is written, what is refused."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from scipy.stats import binom, norm

from ppfr_ops import sample
from ppfr_ops.cli import certify as command
from ppfr_ops.contracts.certificates import CERTIFICATES_SCHEMA, Certification
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.lab.certify import certifying, reencoding
from ppfr_ops.lab.certify.certifying import Certifier, Subject
from ppfr_ops.lab.certify.options import CertifyOptions
from ppfr_ops.lab.certify.smoothing import (
    certificate,
    decided,
    enrolled,
    noisy,
    noisy_templates,
    off_by,
    reach,
    rounded_noise,
    samples_for,
)
from ppfr_ops.recognizers import Recognizer, RecognizerSpec
from ppfr_ops.release.certificates import in_words, read_all
from ppfr_ops.store.folder import Folder


class Half(torch.nn.Module):
    """A template on the circle, whose angle is linear in the picture's mean: the decision
    ``cos >= threshold`` against a template at an angle is then a slab, of which everything is
    known."""

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        angle = faces.flatten(1).sum(1) / 255 / 112 / 112 / 3 * 100
        return torch.stack([angle.cos(), angle.sin()], 1)


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Recognizer:
    path = tmp_path_factory.mktemp("fr") / "half.pt"
    torch.jit.script(Half()).save(str(path))
    return Recognizer(RecognizerSpec("half", str(path)), 1)


def grey(level: int) -> np.ndarray:
    return np.full((112, 112, 3), level, np.uint8)


def test_the_bound_is_clopper_and_pearsons() -> None:
    for hits, samples, alpha in ((60, 100, 0.05), (199, 200, 0.001), (200, 200, 0.001)):
        found = certificate(hits, samples, 0.5, alpha)
        # at the bound, so many hits or more have probability alpha
        assert binom.sf(hits - 1, samples, found.at_least) == pytest.approx(alpha, rel=1e-5)
    assert certificate(50, 100, 0.5, 0.001).radius is None
    assert certificate(0, 100, 0.5, 0.001).radius is None


def test_no_radius_reaches_beyond_the_true_one(half: Recognizer) -> None:
    """Of a slab the distance to the boundary is known: certificates stay within it, at alpha."""
    sigma = 0.5
    face = grey(128)
    # a disturbance of L2 norm r moves the mean by at most r / sqrt(pixels)
    scale = 100 / math.sqrt(112 * 112 * 3)
    angle = 128 / 255 * 100
    for distance in (0.3, 0.6):
        boundary = angle + distance * scale
        reference = np.array([math.cos(boundary - 1.0), math.sin(boundary - 1.0)], np.float32)
        templates = noisy_templates(half, face, sigma, 400)
        hits = int(decided(templates, reference, math.cos(1.0), True).sum())
        share = norm.cdf(distance / sigma) - norm.cdf((distance - 2 / scale) / sigma)
        assert abs(hits / 400 - share) < 5 * math.sqrt(share * (1 - share) / 400)
        found = certificate(hits, 400, sigma, 0.001)
        assert found.radius is not None and 0 < found.radius <= distance


def test_noise_has_the_size_that_it_says() -> None:
    copies = noisy(grey(0), 0.25, 20)
    assert copies.shape == (20, 3, 112, 112) and copies.std() == pytest.approx(63.75, rel=0.01)
    assert copies.min() < -100  # nothing is clipped


def test_claims_and_enrolment(half: Recognizer) -> None:
    reference = enrolled(half, grey(90), 0.01, 8)
    assert np.linalg.norm(reference) == pytest.approx(1, abs=1e-5)
    templates = half.embed(np.stack([grey(90), grey(98)]))
    assert decided(templates, reference, 0.9, True).tolist() == [True, False]
    assert decided(templates, reference, 0.9, False).tolist() == [False, True]


def test_reencodings_are_tried_one_by_one() -> None:
    face = sample.faces(1, seed=1)[0]

    def small(bound: int):
        def decides(faces: np.ndarray) -> np.ndarray:
            away = np.abs(faces.astype(int) - face.astype(int)).mean((1, 2, 3))
            return away <= bound

        return decides

    found = reencoding.jpeg_quality(face, small(2))
    assert found is not None
    code = Encoding("jpeg", found)
    assert small(2)(code.decode(code.encode(face))[None])[0]
    assert reencoding.brightness(face, small(7)) in (7, 8, 9)  # what is clipped counts less
    assert reencoding.jpeg_quality(face, lambda faces: np.zeros(len(faces), bool)) is None
    assert reencoding.brightness(face, lambda faces: np.zeros(len(faces), bool)) is None
    assert reencoding.brightness(face, lambda faces: np.ones(len(faces), bool)) == 40


def subject() -> Subject:
    levels = [60, 61, 62, 140, 141, 200]
    return Subject(
        [f"r{i}" for i in range(6)], np.stack([grey(v) for v in levels]), [*"aaabb", None]
    )


def run(half: Recognizer, folder: Path, **changes: object) -> Certification:
    options = CertifyOptions(**{"sigma": 0.1, "samples": 40, "threshold": 0.5, **changes})
    rng = np.random.default_rng(0)
    return Certifier(half, options, subject(), folder, rng, lambda line: None).run()


def test_a_release_is_certified_and_gone_on_with(half: Recognizer, tmp_path: Path) -> None:
    found = run(half, tmp_path / "c", reencodings=True)
    assert (found.records, found.left_out, found.against) == (6, 1, "published")
    # one that had nothing to be held against is no success
    assert found.certified[0].radius == 0.1 and found.certified[0].share == 5 / 6
    assert found.jpeg_quality["50"] == 5 / 6 and set(found.brightness) == {"10", "20", "40"}
    table = pq.read_table(tmp_path / "c" / "part-00000.parquet")
    assert table.schema.remove_metadata() == CERTIFICATES_SCHEMA.remove_metadata()
    assert table["record_id"].to_pylist() == ["r0", "r1", "r2", "r3", "r4"]
    before = (tmp_path / "c" / "part-00000.parquet").stat().st_mtime_ns
    assert run(half, tmp_path / "c", reencodings=True) == found
    assert (tmp_path / "c" / "part-00000.parquet").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="other certificates"):
        run(half, tmp_path / "c", reencodings=True, sigma=0.2)
    words = " ".join(in_words(found))
    assert "half" in words and "no greater than the radius" in words and "Not certified" in words
    assert "Of 6 records" in words and "1 had nothing to be held against" in words
    assert "no protection against an attacker" not in words


def test_what_does_not_match_is_certified_not_to(half: Recognizer, tmp_path: Path) -> None:
    """Originals of the same level match, so nothing is certified; far ones are, all of them."""
    options = CertifyOptions(claim="non-match", sigma=0.1, samples=40, threshold=0.5)
    faces, rng = np.stack([grey(60), grey(140)]), np.random.default_rng(0)
    for originals, share in ((faces, 0.0), (faces + 8, 1.0)):
        case = Subject(["a", "b"], faces, [None, None], originals)
        folder = tmp_path / str(share)
        found = Certifier(half, options, case, folder, rng, lambda line: None).run()
        assert found.certified[0].share == share and found.abstained == 2 * (1 - share)
        assert found.against == "originals"
        assert "no protection against an attacker" in " ".join(in_words(found))


def test_clean_pictures_are_enrolled_by_another_model(half: Recognizer, tmp_path: Path) -> None:
    options = CertifyOptions(sigma=0.1, samples=40, threshold=0.5)
    case, rng = subject(), np.random.default_rng(0)
    made = Certifier(half, options, case, tmp_path / "c", rng, lambda line: None, half)
    found = made.run()
    assert found.enrolled_by_sha256 == half.spec.digest() and found.certified[0].share == 5 / 6
    np.testing.assert_array_equal(np.load(tmp_path / "c/enrolled.npy"), half.embed(case.faces))
    with pytest.raises(UserError, match="other certificates"):
        Certifier(half, options, case, tmp_path / "c", rng, lambda line: None)


def test_a_threshold_by_the_release_itself(half: Recognizer, tmp_path: Path) -> None:
    """Votes against enrolments of other people, and enough of them: a rate of 1 in 100 cannot be
    told from a few dozen."""
    with pytest.raises(UserError, match="takes 1,000 comparisons of different people"):
        run(half, tmp_path / "few", threshold=None, far=0.01)
    levels = np.linspace(40, 215, 40).round().astype(int).repeat(2)
    case = Subject(
        [f"r{i}" for i in range(80)],
        np.stack([grey(level) for level in levels]),
        [f"p{i // 2}" for i in range(80)],
    )
    options = CertifyOptions(sigma=0.1, samples=20, far=0.01)
    rng, folder = np.random.default_rng(0), tmp_path / "c"
    found = Certifier(half, options, case, folder, rng, lambda line: None).run()
    assert found.threshold_comparisons == 80 * 78 and found.far == 0.01
    angles = levels / 255 * 100
    scores = np.cos(angles[:, None] - angles[None])[
        np.arange(80)[:, None] // 2 != np.arange(80) // 2
    ]
    assert abs(found.threshold - np.quantile(scores, 0.99)) < 0.05
    assert Certifier(half, options, case, folder, rng, lambda line: None).run() == found


def test_what_can_be_proven_is_said_before_anything_is_done(
    half: Recognizer, tmp_path: Path
) -> None:
    default = CertifyOptions()
    assert reach(default.samples, default.sigma, default.alpha) > certifying.JPEG_95
    assert reach(200, 0.25, 0.001) == pytest.approx(0.46, abs=0.01)  # the default of before
    assert samples_for(certifying.JPEG_95, 0.25, 0.001) == 800
    said: list[str] = []
    options = CertifyOptions(sigma=0.25, samples=200, threshold=0.5)
    nothing = Subject(["a"], np.stack([grey(1)]), [None])
    with pytest.raises(UserError, match="no record has anything"):
        Certifier(half, options, nothing, tmp_path, np.random.default_rng(), said.append).run()
    assert said == [
        "at most a radius of 0.46 can be proven by these settings; writing a picture again as JPEG "
        "of quality 95 disturbs it by 0.59, which takes --samples 800"
    ]


@pytest.mark.parametrize("sigma", [0.002, 0.02, 0.5])
def test_noise_is_rounded_gaussian_noise(sigma: float) -> None:
    """Every grey level as often as it should be, the unlikely ones too; and whole numbers."""
    count = 2_000_000
    drawn = rounded_noise(sigma, count)
    levels, found = np.unique(drawn, return_counts=True)
    scale = 255 * sigma
    shares = norm.cdf((levels + 0.5) / scale) - norm.cdf((levels - 0.5) / scale)
    expected = count * shares
    often = expected > 20
    assert (np.abs(found - expected)[often] < 6 * np.sqrt(expected[often])).all()
    assert found[often].sum() > 0.999 * count
    assert off_by(sigma) * 1000 * 37632 < 1e-8
    copies = noisy(grey(7), sigma, 2)
    assert np.array_equal(copies, copies.round()) and copies.dtype == np.float32


def test_noise_that_tells_which_picture_it_was_added_to_certifies_nothing() -> None:
    """The attack on float noise: a classifier that looks at which sums exist. On float32 sums of a
    pixel it tells 0 from 1 nearly always; rounded noise gives it nothing to see."""
    rng, count = np.random.default_rng(0), 20_000

    def exists(sums: np.ndarray, pixel: float) -> np.ndarray:
        """Whether taking the pixel away and adding it again gives the sum."""
        noise = (sums - np.float32(pixel)).astype(np.float32)
        return (noise + np.float32(pixel)).astype(np.float32) == sums

    plain = np.float32(1 / 255) * np.float32(3)
    floats = [
        exists(plain * pixel + rng.standard_normal(count, np.float32) * np.float32(0.01), 3 / 255)
        for pixel in (0.0, 1.0)
    ]
    assert abs(floats[0].mean() - floats[1].mean()) > 0.05
    rounded = [
        exists(pixel + rounded_noise(0.25, count).astype(np.float32), 3.0) for pixel in (0.0, 3.0)
    ]
    assert rounded[0].all() and rounded[1].all()


def release(folder: Path, people: list[str | None]) -> Path:
    data = folder / "release" / "data"
    data.mkdir(parents=True)
    png = Encoding("png")
    faces = sample.faces(len(people), seed=1)
    rows = [{"bytes": png.encode(face), "path": None} for face in faces]
    ids = [f"{i}" for i in range(len(people))]
    table = pa.table({"record_id": ids, "image": rows, "identity": pa.array(people, pa.string())})
    pq.write_table(table, data / "part-0.parquet")
    return folder


def test_the_command(half: Recognizer, tmp_path: Path) -> None:
    folder = release(tmp_path / "out", ["a", "a", "b", "b"])
    line = [str(folder), "--fr", f"half={half.spec.path}", "--samples", "20", "--threshold", "0"]
    done = CliRunner().invoke(command.main, line)
    assert done.exit_code == 0, done.output
    assert "Certified: that half" in done.output
    place = folder / "evidence" / "certificates" / "half-match"
    Certification.model_validate_json((place / "certification.json").read_text())
    assert not list((folder / "release").rglob("*certif*"))
    (found,) = read_all(Folder(str(folder)))
    assert found.recognizer == "half" and found.claim == "match"
    originals = tmp_path / "originals.parquet"
    data = pq.read_table(folder / "release" / "data" / "part-0.parquet")
    pq.write_table(data, originals)
    mapping, ids = tmp_path / "mapping.parquet", data["record_id"]
    rows = {"source": [str(originals)] * len(ids), "row": list(range(len(ids)))}
    pq.write_table(pa.table({"record_id": ids, **rows}), mapping)
    more = ["--originals", str(originals), "--mapping", str(mapping)]
    more += ["--claim", "non-match", "--records", "2"]
    more += ["--enrol", line[2]]
    done = CliRunner().invoke(command.main, [*line, *more])
    assert done.exit_code == 0, done.output
    place = folder / "evidence" / "certificates" / "half-non-match"
    table = pq.read_table(place / "part-00000.parquet")
    assert table["record_id"].to_pylist() == ["0", "3"]  # as published, evenly spread
    nobody = release(tmp_path / "nobody", [None, None])
    for path, words in ((nobody, "no two of one person"), (tmp_path, "no output")):
        done = CliRunner().invoke(command.main, [str(path), *line[1:]])
        assert done.exit_code == 2 and words in done.output


def test_what_the_report_reads(half: Recognizer, tmp_path: Path) -> None:
    found = run(half, tmp_path / "c")
    output = tmp_path / "out"
    place = output / "evidence" / "certificates" / "half-match"
    place.mkdir(parents=True)
    (place / "certification.json").write_text(found.model_dump_json())
    assert read_all(Folder(str(output))) == [found]
    (place / "certification.json").write_text("{}")
    with pytest.raises(UserError, match="is damaged"):
        read_all(Folder(str(output)))
