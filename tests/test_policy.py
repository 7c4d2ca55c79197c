"""The gate: drawn again, held back, counted, judged; and policies that cannot be used."""

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from driving import drive
from numpy.typing import NDArray
from scipy.stats import binom

from ppfr_ops.cli import program
from ppfr_ops.contracts.manifest import Counts, Manifest
from ppfr_ops.contracts.policy import DEFAULT, IN_PLACE, PolicyError, parse
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.methods.base import Anonymizer
from ppfr_ops.release.figures import Figures, assess, figure
from ppfr_ops.release.forecast import forecast, percentile_interval
from ppfr_ops.sample import faces
from ppfr_ops.sanitize.job import Job, Status
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.prepare import prepare
from ppfr_ops.sanitize.worker import Worker, preview
from ppfr_ops.source.plan import read_unit
from ppfr_ops.source.units import Plan, Unit

RECORDS = 120
HOPELESS = (7, 50, 90)
"""Rows whose pictures are marked; no draw helps them."""


class Leaky(Anonymizer):
    """Noise; but one draw in twenty, and every draw of a marked face, shows the face."""

    @property
    def draw_size(self) -> int:
        return 1

    def anonymize(self, batch: Faces, draws: NDArray[np.float32]) -> Faces:
        noise = np.random.default_rng(0).integers(0, 256, batch.shape, np.uint8)
        marked = batch[:, :8, :8].mean((1, 2, 3)) > 250
        bad = marked | (draws[:, 0] > NormalDist().inv_cdf(0.95))
        return np.where(bad[:, None, None, None], batch, noise)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    pictures = faces(RECORDS, seed=2)
    pictures[:, :8, :8] = 100
    pictures[list(HOPELESS), :8, :8] = 255
    cells = [{"bytes": Encoding("png").encode(picture), "path": None} for picture in pictures]
    pq.write_table(pa.table({"image": cells}), folder / "a.parquet")
    return folder


def here(job: Job, todo: list[int]) -> Iterator[Status]:
    """An engine: this process."""
    worker = Worker(job)
    return (worker.process(number) for number in todo)


def run(source: Path, output: Path, policy: str, *, dry_run: bool = False) -> int:
    file = output.parent / "policy.yaml"
    file.write_text(policy)
    options = SanitizeOptions(
        input=str(source),
        output=str(output),
        method="test_policy:Leaky",
        policy=str(file),
        unit_rows=40,
        seed=1,
    )
    return drive(options, here, "here 1", dry_run=dry_run, as_json=False)


def test_the_preview_looks_all_over_the_plan(source: Path, tmp_path: Path, monkeypatch) -> None:
    options = SanitizeOptions(
        input=str(source), output=str(tmp_path), method="blur", unit_rows=10, seed=1
    )
    job = prepare(options)
    looked: list[str] = []
    read = read_unit

    def noted(plan: Plan, unit: Unit) -> pa.Table:
        looked.append(unit.id)
        return read(plan, unit)

    monkeypatch.setattr("ppfr_ops.sanitize.worker.read_unit", noted)
    tables = preview(job, records=8)
    order = [unit.id for unit in job.plan.units]
    assert [order.index(name) for name in looked] == [0, 4, 7, 11] and len(order) == 12
    assert tables.records.num_rows == 8 and not any(tmp_path.iterdir())


POLICY = """\
record:
  disclosure: "<= 0.6"
redraws: {redraws}
dataset:
  quarantine_rate: "<= {rate}"
  disclosure_max: "<= 0.6"
"""


def outcome(output: Path) -> tuple[Manifest, set[str], set[int]]:
    manifest = Manifest.model_validate_json((output / "evidence/manifest.json").read_bytes())
    dead = pq.read_table(output / "evidence/dead_letters")
    rows = {
        int(name[1:7]) * 40 + int(name[-6:])
        for name in pq.read_table(output / "evidence/dead_letters")["record_id"].to_pylist()
    }
    return manifest, set(dead["code"].to_pylist()), rows


def test_records_are_drawn_again_the_rest_is_held_back(source, tmp_path, capfd) -> None:
    assert run(source, tmp_path / "none", POLICY.format(redraws=0, rate=0.2)) == 0
    _, codes, at_first = outcome(tmp_path / "none")
    assert set(HOPELESS) < at_first and codes == {"below_policy"}
    assert 0.02 < (len(at_first) - 3) / RECORDS < 0.12  # the first draw fails 5 %

    assert run(source, tmp_path / "redrawn", POLICY.format(redraws=4, rate=0.03)) == 0
    again, _, at_last = outcome(tmp_path / "redrawn")
    assert at_last == set(HOPELESS)
    assert again.counts.records == RECORDS - 3 and again.counts.dead_letters == 3
    assert again.counts.dead_letters_by_code == {"below_policy": 3}
    assert again.verdict is not None and again.verdict.passed
    assert again.metrics["disclosure"].max <= 0.6

    # Nothing is left to be done; the same records are judged anew.
    assert run(source, tmp_path / "redrawn", POLICY.format(redraws=4, rate=0.02)) == 3
    strict, _, _ = outcome(tmp_path / "redrawn")
    assert strict.verdict is not None and not strict.verdict.passed
    failed = [check for check in strict.verdict.checks if not check.holds]
    assert [(check.name, check.found) for check in failed] == [("quarantine_rate", 3 / RECORDS)]
    assert "policy not met: quarantine_rate: 0.025, required <= 0.02" in capfd.readouterr().err


def test_a_dry_run_says_what_would_happen_and_writes_nothing(source, tmp_path, capfd) -> None:
    assert run(source, tmp_path / "out", POLICY.format(redraws=4, rate=0.5), dry_run=True) == 0
    said = capfd.readouterr().err
    assert "95 % interval" in said and "quarantine_rate" in said and "met" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("record: [", 1, "expected"),
        ("just words", 1, "expected keys"),
        ("record:\n  disclosure: '< 0.5'\n", 2, "expected a sign and a number"),
        ("redraws: 2\ndataset:\n  records: '>= 1'\n  beauty: '>= 1'\n", 4, "no such figure"),
        ("record:\n\n  charm: '>= 1'\n", 3, "no such metric"),
        ("redraws: -1\n", 1, "expected 0 or more"),
        ("version: 1\nrecords:\n  disclosure: '<= 1'\n", 2, "nothing of that name"),
        ("version: 7\n", 1, "expected 1"),
    ],
)
def test_a_malformed_policy_is_refused_before_any_work(
    text, line, reason, source, tmp_path
) -> None:
    with pytest.raises(PolicyError) as raised:
        parse(text)
    assert str(raised.value).startswith(f"policy, line {line}: ") and reason in str(raised.value)
    (tmp_path / "p.yaml").write_text(text)
    where = ["--input", str(source), "--output", str(tmp_path / "out")]
    for command in (["sanitize", *where], ["sanitize", *where, "--dry-run"]):
        done = CliRunner().invoke(program, [*command, "--policy", str(tmp_path / "p.yaml")])
        assert done.exit_code == 2 and f"line {line}" in done.output
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"metrics": "basic"}, "not measured"),
        ({"policy": "record: {id_cosine_dlib: '>= 0.5'}"}, "there is no --fr dlib"),
    ],
)
def test_a_policy_on_what_is_not_measured_is_refused(options, reason, source, tmp_path) -> None:
    (tmp_path / "p.yaml").write_text(options.get("policy", DEFAULT))
    command = ["sanitize", "--input", str(source), "--output", str(tmp_path / "out")]
    command += ["--method", "pixelate"]
    command += ["--policy", str(tmp_path / "p.yaml"), "--metrics", options.get("metrics", "full")]
    done = CliRunner().invoke(program, command)
    assert done.exit_code == 2 and reason in done.output


def figures(values: list[float], dead: dict[str, int]) -> Figures:
    lost = sum(dead.values())
    counts = Counts(
        units=1,
        rows_in=len(values) + lost,
        records=len(values),
        dead_letters=lost,
        dead_letters_by_code=dead,
    )
    ids = [str(index) for index in range(len(values))]
    return Figures(counts, pa.table({"record_id": ids, "disclosure": pa.array(values)}))


def test_figures_of_a_policy() -> None:
    some = figures([0.1, 0.2, 0.6], {"below_policy": 1, "too_disclosing": 1, "empty": 5})
    found = {
        "records": 3,
        "dead_letters": 5,
        "dead_letter_rate": 0.5,
        "quarantined": 2,
        "quarantine_rate": 0.2,
        "disclosure_mean": 0.3,
        "disclosure_max": 0.6,
        "disclosure_p50": 0.2,
    }
    for name, value in found.items():
        assert figure(name, some, None) == pytest.approx(value)
    for name in ("rank1", "id_match_dlib", "psnr_mean"):
        assert figure(name, some, None) is None


@pytest.mark.parametrize(("sign", "worst"), [("<=", 0.9), (">=", 0.1)])
def test_a_bound_on_every_record_is_held_against_the_worst(sign: str, worst: float) -> None:
    """One record beyond it, with a mean, a median and all others well within."""
    values = [0.5] * 40
    bound = f"record: {{disclosure: '{sign} {0.6 if sign == '<=' else 0.4}'}}"
    (check,) = assess(parse(bound), figures(values, {}))
    assert check.holds and check.found == 0.5
    (check,) = assess(parse(bound), figures([*values, worst], {}))
    assert not check.holds and check.found == pytest.approx(worst)
    (check,) = assess(parse(bound), figures([*values, float("nan")], {}))
    assert not check.holds


def test_what_was_not_measured_is_not_met() -> None:
    policy = parse("record: {disclosure: '<= 1'}\ndataset: {rec_ssim: '<= 1', records: '>= 1'}")
    partly = figures([0.1], {})
    partly = Figures(partly.counts.model_copy(update={"records": 2}), partly.metrics)
    assert [check.holds for check in assess(policy, partly)] == [False, False, True]


def test_a_forecast_is_sure_only_where_the_whole_interval_is() -> None:
    rng = np.random.default_rng(0)
    some = figures(rng.normal(0.5, 0.05, 64).tolist(), {"below_policy": 2})
    text = "dataset: {disclosure_mean: '<= %s', quarantine_rate: '<= %s', rec_ssim: '<= 1'}"
    said = [item.holds for item in forecast(parse(text % (0.6, 0.5)), some)]
    assert said == ["met", "met", "open"]
    said = [item.holds for item in forecast(parse(text % (0.5, 0.05)), some)]
    assert said == ["open", "open", "open"]
    assert forecast(parse(text % (0.4, 0.001)), some)[0].holds == "not met"
    wilson = forecast(parse(text % (0.4, 0.001)), some)[1]
    assert (wilson.low, wilson.high) == pytest.approx((0.0083, 0.1039), abs=1e-3)


def test_the_default_policy_can_be_read_and_is_the_documented_one() -> None:
    assert parse(DEFAULT).record["disclosure"].value == 0.6
    page = Path(__file__).parent.parent / "docs" / "policy.md"
    assert DEFAULT in page.read_text() and IN_PLACE in page.read_text()
    assert parse(DEFAULT + IN_PLACE).dataset["residual_faces_mean"].value == 0.01
    assert json.dumps(parse(DEFAULT).model_dump())


def test_figures_of_photographs_may_be_named() -> None:
    policy = parse('version: 1\ndataset:\n  residual_faces_mean: "<= 0.5"\n')
    counts = Counts(units=1, rows_in=2, records=2, dead_letters=0, dead_letters_by_code={})
    table = pa.table({"record_id": ["a", "b"], "residual_faces": pa.array([0, 3], pa.int32())})
    assert not assess(policy, Figures(counts, table))[0].holds
    assert assess(policy, Figures(counts, table.slice(0, 1)))[0].holds
    some = pa.table({"record_id": ["a", "b"], "residual_faces": pa.array([0, None], pa.int32())})
    (check,) = assess(policy, Figures(counts, some))
    assert check.holds and check.name == "residual_faces_mean (of a sample of 1)"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: &a [x, x]\nb: [*a, *a, *a]", "aliases are not taken"),
        ("[" * 60_000, "nested too deeply"),
        ("# " + "x" * 70_000, "longer than"),
        ("record: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
    ],
)
def test_a_hostile_policy_is_one_line(text: str, reason: str) -> None:
    with pytest.raises(PolicyError, match=reason):
        parse(text)


@pytest.mark.parametrize(("count", "share"), [(400, 0.99), (64, 0.5), (200, 0.05), (64, 0.99)])
def test_a_percentile_lies_between_its_ranks_as_often_as_is_said(count, share) -> None:
    """Exactly, not by simulation: P(rank below or at, rank above) from the binomial."""
    ends = percentile_interval(np.arange(1.0, count + 1), share)
    low, high = (int(end) if np.isfinite(end) else 0 for end in ends)
    below = binom.cdf(low - 1, count, share) if low else 0.0  # X_(low) is above the percentile
    above = binom.sf(high - 1, count, share) if high else 0.0  # X_(high) is below it
    assert below <= 0.025 and above <= 0.025
    if (count, share) == (64, 0.99):
        assert low and not high  # 64 rows cannot say how high a 99th percentile may be
    else:
        assert low and high and below + above > 0.01  # and no wider than it has to be


def test_a_99th_percentile_of_few_rows_is_open_and_of_many_is_not() -> None:
    policy = parse("dataset: {disclosure_p99: '<= 0.6'}")
    some = np.random.default_rng(1).uniform(0, 0.5, 64).tolist()
    (item,) = forecast(policy, figures(some, {}))
    assert item.holds == "open" and item.high == np.inf and item.found is not None
    (item,) = forecast(policy, figures(some * 10, {}))
    assert item.holds == "met" and item.high <= 0.5
    (item,) = forecast(parse("dataset: {disclosure_p99: '<= 0.2'}"), figures(some, {}))
    assert item.holds == "not met"  # too few to say how high, enough to say: too high


def test_rates_divide_faces_by_faces() -> None:
    counts = Counts(
        units=1,
        rows_in=2,
        extra_faces=6,
        records=4,
        dead_letters=4,
        dead_letters_by_code={"below_policy": 4},
    )
    table = pa.table({"record_id": list("abcd"), "disclosure": pa.array([0.1] * 4)})
    some = Figures(counts, table)
    assert figure("quarantine_rate", some, None) == 0.5
    (item,) = forecast(parse("dataset: {quarantine_rate: '<= 0.9'}"), some)
    assert item.found == 0.5 and item.low < 0.5 < item.high


def test_photographs_are_judged_by_each_of_their_faces() -> None:
    counts = Counts(units=1, rows_in=2, records=2, dead_letters=0, dead_letters_by_code={})
    nothing = pa.nulls(2, pa.float32())
    metrics = pa.table({"record_id": ["a", "b"], "disclosure": nothing, "id_cosine_x": nothing})
    pixelated = pa.table(
        {
            "treatment": ["pixelated_small", "pixelated_by_verdict"],
            "disclosure": pa.array([0.9, 0.9], pa.float32()),
            "id_cosine_x": pa.array([0.9, 0.9], pa.float32()),
        }
    )
    policy = parse("record: {disclosure: '<= 0.6', id_cosine_x: '<= 0.3'}")
    # Bound to nothing: no face of them went through the method.
    assert all(check.holds for check in assess(policy, Figures(counts, metrics, faces=pixelated)))
    faces = pa.table(
        {
            "treatment": ["anonymized", "anonymized", "pixelated_small"],
            "disclosure": pa.array([0.2, 0.3, 0.9], pa.float32()),
            "id_cosine_x": pa.array([0.1, 0.98, 0.1], pa.float32()),
        }
    )
    held = assess(policy, Figures(counts, metrics, faces=faces))
    assert [check.holds for check in held] == [True, False]
    assert held[1].found == pytest.approx(0.98)
    # A face that should have been measured and was not is not met.
    unknown = faces.set_column(1, "disclosure", pa.array([None, 0.3, 0.9], pa.float32()))
    held = assess(policy, Figures(counts, metrics, faces=unknown))
    assert not held[0].holds and held[0].found is None


def test_boxes_that_the_detector_does_not_confirm_are_a_figure() -> None:
    policy = parse(DEFAULT.replace('record:\n  disclosure: "<= 0.60"\n', "") + IN_PLACE)
    counts = Counts(units=1, rows_in=2, records=2, dead_letters=0, dead_letters_by_code={})
    table = pa.table({"record_id": ["a", "b"], "residual_faces": pa.array([0, 1], pa.int32())})
    kinds = ["anonymized", "pixelated_no_landmarks", "covered_no_landmarks", "anonymized"]
    seen = pa.table({"treatment": kinds, "score": pa.array([1.0, 1.0, 0.4, 1.0], pa.float32())})
    checks = {check.name: check for check in assess(policy, Figures(counts, table, faces=seen))}
    assert checks["unconfirmed_rate"].found == 0.25 and not checks["unconfirmed_rate"].holds
    assert not checks["residual_faces_mean"].holds
    assert Figures(counts, table).unconfirmed_rate is None
