"""Whom the pictures show: options, keys, the release's world, probes."""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from ppfr_ops import sample, sanitize_batch
from ppfr_ops.cli.probe import main as probe
from ppfr_ops.draws import system_draws
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.methods.base import Context
from ppfr_ops.methods.registry import create
from ppfr_ops.sanitize.conductor import conduct
from ppfr_ops.sanitize.events import ignore
from ppfr_ops.sanitize.identity import KEY, ROLE, release_key, with_release_key
from ppfr_ops.sanitize.job import Job
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.photographs.options import PhotographOptions
from ppfr_ops.sanitize.prepare import prepare
from ppfr_ops.sanitize.worker import worker_of
from ppfr_ops.store.ledger import Ledger

READER = create("stochastic-local", {"identity": "virtual"})


def cosines(a: Faces, b: Faces) -> np.ndarray[Any, Any]:
    """Of the encoder's features, which serves as a recogniser here; ``len(a) x len(b)``."""
    model = READER.model()  # type: ignore[attr-defined]
    with torch.inference_mode():
        return (model.encode(a) @ model.encode(b).T).cpu().numpy()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    sample.write_sample(folder, 24, 4, 2, 0)
    return folder


def options(source: Path, output: Path, **more: Any) -> SanitizeOptions:
    """With labels, unless something else is asked."""
    asked = {"method": "stochastic-local", "metrics": "none", **more}
    return SanitizeOptions(input=str(source), output=str(output), **asked)


def run(chosen: SanitizeOptions, units: int | None = None) -> Ledger:
    """As the command does, in this process.

    Args:
        units: that each stage does, at most, before the run breaks off.
    """

    def inline(job: Job, todo: list[int]) -> Any:
        return worker_of(job).stream(todo[:units])

    done = conduct(chosen, inline, "inline", ignore)
    assert (done.exit_code == 0) == (units is None)
    return Ledger(chosen.output)


def published(output: Path) -> tuple[Faces, list[str]]:
    """Pictures and pseudonyms, sorted by pseudonym."""
    rows = [
        row
        for path in sorted((output / "release" / "data").glob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]
    rows.sort(key=lambda row: (row["identity"], row["record_id"]))
    pictures = [np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))) for row in rows]
    return np.stack(pictures), [row["identity"] for row in rows]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, {"identity": "virtual", "variation": "0"}),
        ({"identity_column": "identity"}, {"identity": "virtual"}),
        ({"identity_column": "identity", "variation": 0.0}, {"variation": "0.0"}),
        ({"identity": "original"}, {"identity": "original"}),
        (
            {"photographs": PhotographOptions(output_faces="crops")},
            {"identity": "virtual", "variation": "0"},
        ),
    ],
)
def test_the_default_is_somebody_else(
    source: Path, tmp_path: Path, more: dict[str, Any], expected: dict[str, str]
) -> None:
    job = prepare(options(source, tmp_path / "out", **more))
    assert expected.items() <= job.options.method_options.items()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"identity": "virtual", "method": "blur"}, "cannot show another person"),
        ({"identity": "virtual", "method_options": {"identity": "original"}}, "different things"),
        ({"identity": "original", "discard_key": True}, "delete your own key"),
    ],
)
def test_what_cannot_be_is_refused(
    source: Path, tmp_path: Path, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        prepare(options(source, tmp_path / "out", **more))


def test_photos_match_each_other_and_neither_the_person_nor_another_release(
    source: Path, tmp_path: Path
) -> None:
    named: dict[str, Any] = {"identity_column": "identity", "variation": 0.0}
    run(options(source, tmp_path / "a", **named, seed=1))
    run(options(source, tmp_path / "b", **named, seed=2))
    (a, whose), (b, _) = published(tmp_path / "a"), published(tmp_path / "b")
    alike = cosines(a, a)
    same = np.array(whose)[:, None] == np.array(whose)[None]
    np.fill_diagonal(alike, np.nan)
    genuine, impostor = np.nanmean(alike[same]), np.nanmean(alike[~same])
    assert genuine > impostor + 0.3
    assert np.mean(cosines(a, b)) < impostor + 0.1
    originals = sample.faces(24, 4)
    assert np.mean(cosines(a, originals)) < genuine - 0.3


def test_one_key_makes_one_world_whatever_dies_in_between(source: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(os.urandom(32).hex())
    key.chmod(0o600)
    chosen: dict[str, Any] = {"identity_column": "identity", "identity_key_file": str(key)}
    chosen |= {"variation": 0.0, "seed": 7}
    run(options(source, tmp_path / "whole", **chosen))
    parts = options(source, tmp_path / "parts", **chosen)
    run(parts, units=1)
    run(parts)
    whole, pieces = published(tmp_path / "whole"), published(tmp_path / "parts")
    assert whole[1] == pieces[1]
    assert np.array_equal(whole[0], pieces[0])
    again = sanitize_batch(
        pq.read_table(sorted(source.glob("*.parquet"))[0]),
        identity_column="identity",
        identity_key_file=str(key),
        method="stochastic-local",
        variation=0.0,
        metrics="none",
        seed=7,
    )
    first = again.to_pylist()[0]
    picture = np.asarray(Image.open(io.BytesIO(first["image"]["bytes"])))[None]
    mates = whole[0][np.array(whole[1]) == first["identity"]]
    assert len(mates) and cosines(picture, mates).mean() > 0.5


def test_the_key_stays_with_the_evidence(source: Path, tmp_path: Path) -> None:
    ledger = run(options(source, tmp_path / "out", identity_column="identity"))
    key = release_key(ledger)
    assert key is not None
    secret = [path for path in (tmp_path / "out").rglob("*") if path.name == "release_key.json"]
    assert [path.stat().st_mode & 0o777 for path in secret] == [0o600]
    for path in (tmp_path / "out" / "release").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert key not in data and key.hex().encode() not in data
    manifest = json.loads((tmp_path / "out" / "release" / "manifest.json").read_text())
    assert manifest["method"]["options"]["identity"] == "virtual"


def test_a_secret_that_was_given_stays_the_identity_key(source: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x" * 32)
    (tmp_path / "secret").chmod(0o600)
    given = {ROLE: str(tmp_path / "secret")}
    chosen = options(source, tmp_path / "out", identity_column="identity", secrets=given)
    job = prepare(chosen)
    ledger = Ledger(chosen.output)
    ledger.open(job.settings)
    assert with_release_key(job, ledger).secrets == {ROLE: b"x" * 32}


def test_without_its_key_a_release_does_not_grow(source: Path, tmp_path: Path) -> None:
    chosen = options(source, tmp_path / "out", identity_column="identity")
    ledger = run(chosen, units=1)
    ledger.remove(*KEY)
    with pytest.raises(UserError, match="discarded"):
        run(chosen)


def test_a_probe_finds_its_person_with_the_key_only(source: Path, tmp_path: Path) -> None:
    run(options(source, tmp_path / "out", identity_column="identity"))
    row = pq.read_table(sorted(source.glob("*.parquet"))[0]).to_pylist()[0]
    wanted = tmp_path / "wanted"
    wanted.mkdir()
    (wanted / "face.jpg").write_bytes(row["image"]["bytes"])
    stranger = tmp_path / "stranger"
    stranger.write_text(os.urandom(32).hex())
    stranger.chmod(0o600)
    base = [str(tmp_path / "out"), "--input", str(wanted), "--label", row["identity"], "--out"]
    ours = CliRunner().invoke(probe, [*base, str(tmp_path / "ours")])
    theirs = CliRunner().invoke(
        probe, [*base, str(tmp_path / "theirs"), "--identity-key-file", str(stranger)]
    )
    assert ours.exit_code == theirs.exit_code == 0, ours.output + theirs.output
    pictures, _ = published(tmp_path / "out")
    best = {}
    for name in ("ours", "theirs"):
        (file,) = (tmp_path / name).iterdir()
        face = np.asarray(Image.open(file))[None]
        best[name] = cosines(face, pictures)[0].max()
    assert best["ours"] > best["theirs"] + 0.2


def test_a_probe_runs_no_code_that_the_release_names(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(options(source, tmp_path / "out", method="pixelate", identity_column="identity"))
    (tmp_path / "planted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass X: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for place in ("release/manifest.json", "evidence/manifest.json"):
        path = tmp_path / "out" / place
        told = json.loads(path.read_text())
        told["method"]["name"] = "planted:X"
        path.write_text(json.dumps(told))
    line = [str(tmp_path / "out"), "--input", str(source), "--out", str(tmp_path / "probes")]
    done = CliRunner().invoke(probe, line)
    assert done.exit_code == 2 and "--load-method" in done.output
    assert not (tmp_path / "ran").exists()


def test_keys_that_lay_there_before_the_first_unit_are_not_used(
    source: Path, tmp_path: Path
) -> None:
    """Whoever put them there would know who is whom, and which record is which row."""
    place = tmp_path / "out/evidence/ledger"
    place.mkdir(parents=True)
    planted = json.dumps({"key": "00" * 32, "secret": "00" * 32})
    for name in ("release_key.json", "secret.json"):
        (place / name).write_text(planted)
    chosen = options(source, tmp_path / "out", method="pixelate", identity_column="identity")
    ledger = run(chosen, units=1)
    key, secret = release_key(ledger), ledger.secret()
    assert bytes(32) not in (key, secret)
    ledger = run(chosen)
    assert (release_key(ledger), ledger.secret()) == (key, secret)


def test_with_variation_zero_nothing_of_the_face_is_in_the_picture() -> None:
    method = create("stochastic-local", {"identity": "virtual", "variation": 0})
    method = method.with_secrets({ROLE: bytes(32)})
    faces = sample.faces(2, identities=2)
    draws = np.repeat(system_draws(["a"], method.draw_size, 0), 2, axis=0)
    a, b = method(faces, draws, Context({"identity": ["x", "x"]}))
    assert np.array_equal(Encoding().encode(a), Encoding().encode(b))
