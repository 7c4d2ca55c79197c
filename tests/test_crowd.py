"""The first look: photos of one release, and who else is in it."""

import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from ppfr_ops import sample
from ppfr_ops.cli.probe import main as probe
from ppfr_ops.cli.sanitize import main as sanitize
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.imaging.codec import decode
from ppfr_ops.lab.evaluate.publishing import Publisher
from ppfr_ops.methods.registry import create
from ppfr_ops.methods.stochastic_local.identity import gathered, sure_of
from ppfr_ops.sanitize import crowd
from ppfr_ops.sanitize.batch import _checked
from ppfr_ops.sanitize.identity import with_release_key
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.photographs.options import PhotographOptions
from ppfr_ops.sanitize.prepare import prepare
from ppfr_ops.sanitize.worker import Worker
from ppfr_ops.source.plan import read_unit
from ppfr_ops.store.ledger import Ledger


def unit(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def photos(people: int, each: int, alike: float, seed: int) -> np.ndarray[Any, Any]:
    """Features of several photos of everybody, of cosine ``alike``; ``people * each x 128``."""
    rng = np.random.default_rng(seed)
    who = np.repeat(unit(rng.normal(size=(people, 128))), each, 0)
    return unit(alike**0.5 * who + (1 - alike) ** 0.5 * unit(rng.normal(size=(people * each, 128))))


def test_photos_of_a_person_come_closer_and_strangers_do_not() -> None:
    seen = photos(500, 2, 0.6, 0)
    before, after = seen @ seen.T, gathered(seen, seen) @ gathered(seen, seen).T
    pairs = np.arange(0, 1000, 2), np.arange(1, 1000, 2)
    assert before[pairs].mean() < 0.62 and after[pairs].mean() > 0.97
    apart = np.ones_like(before, dtype=bool)
    apart[np.repeat(np.arange(0, 1000, 2), 2), np.arange(1000) // 2 * 2] = False
    for one in (0, 1):
        for other in (0, 1):
            apart[pairs[0] + one, pairs[0] + other] = False
    assert abs(after[apart].std() - before[apart].std()) < 0.01


def test_a_feature_moves_alike_in_any_batch_and_alone_it_stays() -> None:
    seen = photos(40, 2, 0.6, 1)
    whole = gathered(seen, seen)
    np.testing.assert_allclose(gathered(seen[5:9], seen), whole[5:9], atol=1e-5)
    rounded = gathered(seen[5:9], seen.astype(np.float16))
    np.testing.assert_allclose(rounded, whole[5:9], atol=2e-3)
    stranger = photos(1, 1, 0.6, 2)
    assert (gathered(stranger, seen) @ stranger.T)[0, 0] > 0.95
    # a probe that is not in the release lands where the photos of its person do
    probe = unit(seen[:1] + 0.4 * photos(1, 1, 0.6, 3))
    assert (gathered(probe, seen) @ whole[0])[0] > 0.97


def test_where_everybody_looks_alike_to_the_encoder_nobody_is_merged() -> None:
    rng = np.random.default_rng(0)
    alike = unit(unit(rng.normal(size=(1, 128))) + 0.7 * unit(rng.normal(size=(200, 128))))
    assert (alike @ alike.T).mean() > 0.6
    np.testing.assert_allclose(gathered(alike, alike), alike, atol=1e-3)
    assert sure_of(alike) > sure_of(unit(rng.normal(size=(200, 128)))) + 0.3
    # ten times as many take more
    many = unit(rng.normal(size=(2000, 128)))
    assert 0.03 < sure_of(many) - sure_of(many[:200]) < 0.06
    assert 0.2 < sure_of(many[:1]) < 0.4


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    sample.write_sample(folder, 24, 4, 2, 0)
    return folder


def command(source: Path, output: Path, *more: str) -> Any:
    arguments = ["--input", str(source), "--output", str(output), "--metrics", "none"]
    arguments += ["--engine", "local", "--actors", "1", *more]
    return CliRunner().invoke(sanitize, arguments)


def by_id(output: Path) -> list[bytes]:
    """Published pictures, by record id."""
    rows = [
        row
        for file in (output / "release" / "data").glob("*.parquet")
        for row in pq.read_table(file).to_pylist()
    ]
    return [row["image"]["bytes"] for row in sorted(rows, key=lambda row: row["record_id"])]


def pictures(output: Path) -> list[bytes]:
    return sorted(by_id(output))


def by_record(output: Path) -> list[Faces]:
    return [decode(data) for data in by_id(output)]


def test_the_command_looks_first_and_keeps_what_it_saw_to_the_owner(
    source: Path, tmp_path: Path
) -> None:
    done = command(source, tmp_path / "out", "--seed", "5", "--unit-rows", "16")
    assert done.exit_code == 0, done.output
    assert "a first look at 2 units" in done.output
    ledger = Ledger(str(tmp_path / "out"))
    features = crowd._rows(ledger.read_bytes(*crowd.ALL), 128, np.float16)
    assert features.shape == (24, 128)
    for path in (tmp_path / "out" / "evidence" / "ledger" / "crowd").rglob("*"):
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    row = features[0].tobytes()
    for path in (tmp_path / "out" / "release").rglob("*"):
        assert path.is_dir() or row not in path.read_bytes()
    # the same by hand: the method among these faces
    again = command(source, tmp_path / "off", "--seed", "5", "--method-option", "gather=false")
    assert again.exit_code == 0 and "first look" not in again.output
    assert pictures(tmp_path / "out") != pictures(tmp_path / "off")
    # a run that has nothing to do does not look again
    assert "first look" not in command(source, tmp_path / "out", "--unit-rows", "16").output


def test_a_run_that_was_stopped_goes_on_with_the_same_map(source: Path, tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    more = ("--seed", "5", "--unit-rows", "8")
    assert command(source, whole, *more).exit_code == 0
    job = prepare(
        SanitizeOptions(input=str(source), output=str(halves), metrics="none", seed=5, unit_rows=8)
    )
    ledger = Ledger(str(halves))
    ledger.open(job.settings, seed=5)
    job = with_release_key(job, ledger)
    assert crowd.to_look_at(job, ledger) == [0, 1, 2, 3]
    looker = crowd.Looker(crowd.looking(job))
    assert [status.state for status in looker.stream([2])] == ["committed"]
    assert crowd.to_look_at(job, ledger) == [0, 1, 3]  # and here it was killed
    assert command(source, halves, *more).exit_code == 0
    # another number of threads took the features down, which rounds otherwise
    for one, other in zip(by_record(halves), by_record(whole), strict=True):
        assert np.abs(one.astype(int) - other).mean() < 1


def test_both_engines_draw_the_same(source: Path, tmp_path: Path) -> None:
    assert command(source, tmp_path / "one", "--seed", "5").exit_code == 0
    script = "from ppfr_ops.cli.sanitize_beam import main; main()"
    arguments = ["--input", str(source), "--output", str(tmp_path / "two"), "--metrics", "none"]
    subprocess.run(
        [sys.executable, "-c", script, *arguments, "--seed", "5"], check=True, capture_output=True
    )
    assert pictures(tmp_path / "one") == pictures(tmp_path / "two")


def test_what_is_damaged_or_gone_is_not_used(source: Path, tmp_path: Path) -> None:
    assert command(source, tmp_path / "out", "--unit-rows", "16").exit_code == 0
    ledger = Ledger(str(tmp_path / "out"))
    ledger.put(b"\x00\xff" * 127, *crowd.ALL)
    method = create("stochastic-local", {"identity": "keyed"})
    assert crowd.among(method, ledger)._crowd is None
    ledger.put(b"?", *crowd.UNITS, "a-unit-that-is-gone")
    job = prepare(SanitizeOptions(input=str(source), output=str(tmp_path / "out"), unit_rows=16))
    crowd.assemble(job, ledger, looked=False)
    assert len(ledger.names(*crowd.UNITS)) == 2
    seen = crowd.among(method, ledger)._crowd
    assert seen is not None and seen.shape == (24, 128)
    crowd.forget(ledger)
    assert ledger.names(*crowd.UNITS) == [] and ledger.read_bytes(*crowd.ALL) is None


def test_who_is_deleted_upstream_leaves_the_crowd(source: Path, tmp_path: Path) -> None:
    grown = tmp_path / "in"
    shutil.copytree(source, grown)
    (tmp_path / "key").write_text("k" * 40)
    (tmp_path / "key").chmod(0o600)
    more = ("--incremental", "--propagate-deletions", "--identity-key-file", str(tmp_path / "key"))
    output = tmp_path / "out"
    ledger = Ledger(str(output))

    def seen() -> int:
        return len(crowd._rows(ledger.read_bytes(*crowd.ALL), 128, np.float16))

    files = sorted(grown.rglob("*.parquet"))
    kept, gone = files[0], files[-1]
    rows, fewer = pq.read_metadata(gone).num_rows, pq.read_table(kept).slice(0, 3)
    assert command(grown, output, *more).exit_code == 0
    assert seen() == 24 and kept != gone
    gone.unlink()
    done = command(grown, output, *more)
    assert done.exit_code == 0 and "first look" not in done.output
    assert seen() == 24 - rows
    # a unit with other rows is looked at anew
    before = pq.read_metadata(kept).num_rows
    pq.write_table(fewer, kept)
    done = command(grown, output, *more)
    assert done.exit_code == 0 and "first look at 1 units" in done.output
    assert seen() == 24 - rows - before + 3


def test_discarding_the_key_takes_the_templates_along(source: Path, tmp_path: Path) -> None:
    done = command(source, tmp_path / "out", "--discard-key")
    assert done.exit_code == 0, done.output
    left = [p for p in (tmp_path / "out").rglob("*") if "crowd" in str(p) and p.is_file()]
    assert left == []


def test_a_probe_joins_the_crowd(source: Path, tmp_path: Path, monkeypatch: Any) -> None:
    assert command(source, tmp_path / "out").exit_code == 0
    asked = []

    def spy(features: Any, seen: Any, sure: float) -> Any:
        asked.append(len(seen))
        return gathered(features, seen, sure)

    monkeypatch.setattr("ppfr_ops.methods.stochastic_local.identity.gathered", spy)
    out = str(tmp_path / "probes")
    done = CliRunner().invoke(probe, [str(tmp_path / "out"), "--input", str(source), "--out", out])
    assert done.exit_code == 0, done.output
    assert set(asked) == {24}


def test_photographs_and_too_many_rows(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = SanitizeOptions(input=str(source), output=str(tmp_path / "out"))
    assert prepare(chosen).gathers
    whole = chosen.model_copy(update={"photographs": PhotographOptions()})
    assert not prepare(whole).gathers
    monkeypatch.setattr("ppfr_ops.sanitize.prepare.MOST_ROWS", 20)
    with pytest.raises(UserError, match="gather=false"):
        prepare(chosen)


def test_an_evaluation_publishes_a_whole_release() -> None:
    faces = sample.faces(4)
    keyed = Publisher(create("stochastic-local", {"identity": "keyed"})).under(b"k" * 32)
    assert keyed.among(faces).anonymizer._crowd is not None
    off = create("stochastic-local", {"identity": "keyed", "gather": "false"})
    for method in (off, create("blur")):
        assert Publisher(method).among(faces).anonymizer._crowd is None


def test_the_map_that_stands_known_pairs_is_the_default_where_it_can_be(
    source: Path, tmp_path: Path
) -> None:
    def shown(**options: Any) -> dict[str, Any]:
        return create("stochastic-local", {"identity": "keyed", **options}).options()

    assert shown()["keyed_map"] == "forms"
    assert shown(gather="false")["keyed_map"] == "turn"
    assert shown(keyed_map="turn")["keyed_map"] == "turn"
    # a batch knows nothing of the others
    assert _checked({}).method_options["gather"] == "false"


def test_what_was_looked_at_is_not_looked_at_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that is none, too: features are those of their row."""
    table = pq.read_table(source)
    rows = table["image"].to_pylist()
    rows[3] = {"bytes": b"none", "path": ""}
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"image": rows}), tmp_path / "in" / "a.parquet")
    options = SanitizeOptions(
        input=str(tmp_path / "in"), output=str(tmp_path / "out"), metrics="none", seed=5
    )
    job = prepare(options)
    ledger = Ledger(options.output)
    ledger.open(job.settings, seed=5)
    job = with_release_key(job, ledger)
    job.build_method().forget()  # what another test left was encoded in other batches: it rounds so
    assert crowd.Looker(crowd.looking(job)).process(0).state == "committed"
    crowd.assemble(job, ledger, looked=True)
    worker, unit = Worker(job), job.plan.units[0]
    read = read_unit(job.plan, unit)
    assert crowd.remembered(job, ledger, unit, read.slice(1)).equals(read.slice(1))  # other rows
    slowly = worker.sanitizer(read, unit.id)
    method = worker.sanitizer.kit.method

    def never(*_: Any) -> None:
        raise AssertionError("the encoder ran")

    monkeypatch.setattr(type(method.model()), "encode", never)
    assert worker.process(0).state == "committed"
    assert not worker.sanitizer(read, unit.id).records.num_rows
    quickly = worker.sanitizer(crowd.remembered(job, ledger, unit, read), unit.id)
    assert quickly.dead_letters.num_rows == 1
    assert quickly.records["record_id"].equals(slowly.records["record_id"])
    assert quickly.records.equals(slowly.records)
