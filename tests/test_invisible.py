"""The invisible mark: read with its key after what happens to pictures, and with no other."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from ppfr_ops import sanitize_batch
from ppfr_ops.cli.mark import main
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.imaging.invisible import (
    FALSE_ALARM,
    THRESHOLD,
    TRIED,
    InvisibleMark,
    chance,
    phases,
    pooled,
)
from ppfr_ops.sample import faces
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.prepare import prepare

KEY, OTHER = b"k" * 32, b"l" * 32
FACES = faces(6, seed=5)


def disturbed(picture: np.ndarray) -> dict[str, np.ndarray]:
    def jpeg(shown: Image.Image, quality: int) -> np.ndarray:
        file = io.BytesIO()
        shown.save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))

    image = Image.fromarray(picture)
    return {
        "as it is": picture,
        "JPEG 80": jpeg(image, 80),
        "half": np.asarray(image.resize((56, 56), Image.Resampling.LANCZOS)),
        "8 px off": picture[8:-8, 8:-8],
        "screenshot": jpeg(image.crop((3, 2, 108, 109)).resize((151, 154)), 85),
    }


def test_the_mark_is_read_after_what_happens_to_pictures() -> None:
    mark = InvisibleMark(KEY)
    for face in FACES:
        shown = Encoding(invisible=mark).encode(face)
        assert shown == Encoding(invisible=InvisibleMark(KEY)).encode(face)
        error = (
            Encoding.decode(shown).astype(float) - Encoding.decode(Encoding().encode(face))
        ) ** 2
        assert 10 * np.log10(255**2 / error.mean()) > 36
        for way, picture in disturbed(Encoding.decode(shown)).items():
            assert mark.read(picture) > THRESHOLD, way
            assert InvisibleMark(OTHER).read(picture) < THRESHOLD, way
        assert mark.read(face) < THRESHOLD


def test_photographs_of_any_size_bear_it() -> None:
    mark, rng = InvisibleMark(KEY), np.random.default_rng(0)
    rough = rng.integers(0, 255, (12, 16, 3), np.uint8)
    photograph = np.asarray(Image.fromarray(rough).resize((400, 300), Image.Resampling.BICUBIC))
    shown = mark.embed(photograph)
    assert shown.shape == photograph.shape and mark.read(shown) > THRESHOLD
    assert mark.read(np.asarray(Image.fromarray(shown).resize((200, 150)))) > THRESHOLD
    assert mark.read(photograph) < THRESHOLD


def test_other_keys_stay_below_the_bound() -> None:
    """The theory, on faces: of keys that were not used a share of at most chance(z) reads z."""
    shown = InvisibleMark(KEY).embed(FACES[0])
    seen = phases(shown)
    found = np.array([InvisibleMark(bytes([n, 1]) * 16).read_phases(seen) for n in range(250)])
    assert found.max() < THRESHOLD
    for strength in (5.6, 5.8, 6.0):
        assert (found >= strength).mean() <= chance(strength) + 0.02
    assert chance(THRESHOLD) == pytest.approx(FALSE_ALARM)
    assert chance(0) == chance(-1) == 1 and chance(9) == pytest.approx(TRIED * np.exp(-40.5))


def test_many_worn_pictures_are_told_together() -> None:
    weak = 6.2
    assert weak < THRESHOLD and chance(weak) < 0.01
    assert pooled([weak] + [4.5] * 99) > 0.1
    assert pooled([weak] * 6 + [4.5] * 94) < 1e-3
    assert pooled([weak] * 20 + [4.5] * 20) < FALSE_ALARM
    assert pooled([4.0] * 10) == 1


def test_which_copy_is_added_depends_on_pixels_and_key_alone() -> None:
    mark, face = InvisibleMark(KEY), FACES[0]
    added = mark.embed(face).astype(int) - face
    assert np.array_equal(added, mark.embed(face.copy()).astype(int) - face)
    near = face.copy()
    near[0, 0, 0] ^= 1
    other = mark.embed(near).astype(int) - near
    alike = np.corrcoef(added[..., 0].ravel(), other[..., 0].ravel())[0, 1]
    assert abs(alike) < 0.3
    assert "k" * 5 not in repr(mark) and KEY.hex() not in repr(Encoding(invisible=mark))


@pytest.fixture
def keys(tmp_path: Path) -> tuple[str, str]:
    for name, key in (("one", KEY), ("other", OTHER)):
        (tmp_path / name).write_bytes(key)
        (tmp_path / name).chmod(0o600)
    return str(tmp_path / "one"), str(tmp_path / "other")


def test_it_is_read_from_files(keys: tuple[str, str], tmp_path: Path) -> None:
    rows = {"image": [{"bytes": Encoding("png").encode(face), "path": "x"} for face in FACES[:3]]}
    made = sanitize_batch(rows, method="pixelate", invisible_mark=keys[0], output_format="png")
    folder = tmp_path / "found"
    folder.mkdir()
    for number, cell in enumerate(made["image"]):
        (folder / f"{number}.png").write_bytes(cell["bytes"])
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("not looked at")

    def run(key: str, *more: str) -> tuple[int, str]:
        arguments = ["read", key, str(folder), *more]
        done = CliRunner().invoke(main, arguments, standalone_mode=False)
        assert done.exception is None, done.output
        return done.return_value, done.output

    code, said = run(keys[0])
    assert code == 0 and said.count("bears the mark;") == 3
    assert "cannot be read" in said and "3 of 3 are marked" in said and "notes" not in said
    code, said = run(keys[1], "--json")
    told = json.loads(said)
    assert code == 1 and told["marked"] == 0 and told["read"] == 3 and told["pooled"] > 1e-3


def test_a_key_that_is_short_or_open_is_refused(keys: tuple[str, str], tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_bytes(b"short")
    short.chmod(0o600)
    with pytest.raises(UserError, match="needed: 16"):
        sanitize_batch({"image": []}, method="blur", invisible_mark=str(short))
    Path(keys[0]).chmod(0o644)
    with pytest.raises(UserError, match="chmod 600"):
        sanitize_batch({"image": []}, method="blur", invisible_mark=keys[0])


def test_the_key_is_one_of_the_settings(keys: tuple[str, str], tmp_path: Path) -> None:
    from ppfr_ops.sample import write_sample

    write_sample(tmp_path / "in", count=2, identities=1, files=1)
    place = {"input": str(tmp_path / "in"), "output": str(tmp_path / "out"), "method": "blur"}
    plain, one, other = (
        prepare(SanitizeOptions(**place, invisible_mark=key)) for key in (None, *keys)
    )
    values = [job.settings["--invisible-mark"] for job in (plain, one, other)]
    assert len(set(values)) == 3 and KEY.hex() not in str(values)
    assert plain.encoding(plain.build_method()).invisible is None
    assert one.encoding(one.build_method()).invisible is not None
