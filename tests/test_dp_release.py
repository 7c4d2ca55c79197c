"""What leaves under differential privacy: the picture, constants, and nothing else of the face; and
what an audit of the pictures that leave finds."""

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from private import key, options, run, write
from test_verify import reseal, rewrite, shards

from ppfr_ops import sample, sanitize_batch
from ppfr_ops.cli.audit_privacy import main as audit_privacy
from ppfr_ops.cli.report import main as report
from ppfr_ops.contracts.manifest import PROMISE
from ppfr_ops.contracts.privacy_audit import PrivacyAudit
from ppfr_ops.errors import UserError
from ppfr_ops.methods.dp import mechanism as mechanisms
from ppfr_ops.methods.dp.eigenface import BASIS, basis
from ppfr_ops.methods.dp.mechanism import Mechanism
from ppfr_ops.methods.dp.template import DIRECTIONS
from ppfr_ops.methods.registry import create
from ppfr_ops.methods.stochastic_local import SHIPPED, SHIPPED_2
from ppfr_ops.release.verify import verify
from ppfr_ops.sanitize.privacy_audit import audit, bound

LAPLACE = {"epsilon": "1", "noise": "laplace"}


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise by a seed, for a test; there is no option for that."""

    def seeded(mechanism: Mechanism, values: list[int]) -> list[int]:
        noise = np.random.default_rng(5).normal(0, mechanism.scale * mechanism.radius, len(values))
        return [value + int(n) for value, n in zip(values, noise, strict=True)]

    monkeypatch.setattr(mechanisms, "sample", seeded)


def files(output: Path) -> dict[str, bytes]:
    """Everything in a release but the manifest, by name."""
    place = output / "release"
    found = {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}
    del found["manifest.json"], found["files.pq"]
    return found


def records(output: Path) -> dict[str, Any]:
    rows = (row for path in shards(output, "data") for row in pq.read_table(path).to_pylist())
    return {row["record_id"]: row for row in rows}


def manifest(output: Path) -> dict[str, Any]:
    """That of the release with its list of shards, less sizes and digests: they follow the
    pictures' bytes."""
    found = json.loads((output / "release" / "manifest.json").read_text())
    del found["listing"]["sha256"], found["listing"]["bytes"]
    listed = pq.read_table(output / "release" / "files.pq", columns=["path", "rows"])
    return {**found, "listed": listed.to_pylist()}


def constants() -> list[Any]:
    """What the methods know of faces before they see one: bytes of the files, and the radii."""
    shipped = (BASIS, DIRECTIONS, SHIPPED, SHIPPED_2)
    return [*(hashlib.sha256(path.read_bytes()).hexdigest() for path in shipped), basis().radius]


@pytest.mark.usefixtures("fixed")
@pytest.mark.parametrize(
    ("method", "chosen", "count"),
    [
        ("dp-eigenface", LAPLACE, 120),  # enough for figures over all records, were there any
        ("dp-template", {"epsilon": "30"}, 12),
        ("dp-virtual", {"epsilon": "4"}, 12),
    ],
)
def test_swapping_a_record_changes_its_picture_and_nothing_else(
    tmp_path: Path, method: str, chosen: dict[str, str], count: int
) -> None:
    faces = list(sample.faces(count, seed=3))
    people = [f"p{i // 4}" for i in range(count)]
    place, before = count // 2 - 1, constants()
    swapped = [*faces[:place], 255 - faces[7], *faces[place + 1 :]]
    outputs = []
    for name, pictures in (("a", faces), ("b", swapped)):
        source = write(tmp_path / f"{name}-in", pictures, people)
        asked = options(
            source,
            tmp_path / name,
            method=method,
            method_options=chosen,
            seed=1,
            metrics="basic",
            identity_column="identity",
            identity_key_file=key(tmp_path),
            unit_rows=count // 3,
        )
        assert run(asked) in (0, 3)
        outputs.append(tmp_path / name)
    one, other = (files(output) for output in outputs)
    assert list(one) == list(other)
    differing = [name for name in one if one[name] != other[name]]
    assert len(differing) == 1 and differing[0].startswith("data/")
    told, told_too = (manifest(output) for output in outputs)
    assert told == told_too and told["metrics"] == {}
    assert told["passed"] is None and told["requirements"] == []
    rows, others = (records(output) for output in outputs)
    assert list(rows) == list(others) and len(rows) == count
    changed = [name for name, row in rows.items() if row != others[name]]
    assert len(changed) == 1
    for found in (rows, others):
        found[changed[0]]["image"]["bytes"] = b""
    assert rows == others  # radius, epsilon and all
    assert constants() == before
    evidence = json.loads((tmp_path / "a/evidence/manifest.json").read_text())
    assert evidence["metrics"]["ssim"]["count"] == count  # measured, and the owner's alone


def test_photographs_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "in", list(sample.faces(1)), ["a"])
    with pytest.raises(UserError, match="give aligned faces"):
        run(options(source, tmp_path / "out", photographs={}))


def test_measures_of_originals_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "in", list(sample.faces(1)), ["a"])
    with pytest.raises(UserError, match="--keep-column ssim: a measure of the original"):
        run(options(source, tmp_path / "out", keep_columns=("ssim",)))
    faces = {"image": list(sample.faces(1)), "ssim": [0.5]}
    given = {"method": "dp-eigenface", "method_options": LAPLACE}
    for more in ({"with_metrics": True}, {"keep_columns": ["ssim"]}):
        with pytest.raises(UserError, match="measures of originals beside the pictures"):
            sanitize_batch(faces, **given, **more)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output of two units, with a column that was kept."""
    folder = tmp_path_factory.mktemp("promise")
    source = write(folder / "in", list(sample.faces(4)), ["ann", "bob", "cat", "dan"])
    table = pq.read_table(source / "in.parquet").append_column("age", pa.array([1, 2, 3, 4]))
    pq.write_table(table, source / "in.parquet")
    assert run(options(source, folder / "out", keep_columns=("age",), unit_rows=2)) == 0
    return folder / "out"


@pytest.fixture
def output(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "out")
    return tmp_path / "out"


def add_column(output: Path, name: str, allowed: bool) -> None:
    """A measure beside the pictures, all digests made anew; as a kept column, or as it comes."""
    rewrite(
        shards(output, "data")[0],
        lambda table: table.append_column(name, pa.array(np.full(len(table), 0.5, "f"))),
    )
    if allowed:
        for place in ("release", "evidence"):
            path = output / place / "manifest.json"
            document = json.loads(path.read_text())
            document["options"]["keep_columns"].append(name)
            path.write_text(json.dumps(document, indent=1))
    reseal(output)


def add_to_manifest(output: Path, **more: Any) -> None:
    path = output / "release" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | more, indent=1))
    reseal(output)


@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize("name", ["ssim", "id_cosine_dlib"])
def test_a_measure_in_a_release_that_claims_epsilon_is_found(
    output: Path, name: str, allowed: bool
) -> None:
    assert list(verify(str(output))) == []
    add_column(output, name, allowed)
    said = [str(finding) for finding in verify(str(output))]
    found = [line for line in said if "figures of originals, which the epsilon" in line]
    assert len(found) == 1 and found[0].endswith(f"column {name}"), said


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"metrics": {"ssim": 0.5}}, "metrics"),
        ({"passed": True, "metrics": {"ssim": 0.5}}, "metrics, passed"),
        ({"requirements": [{"name": "ssim_mean", "bound": "<= 1", "holds": True}]}, "requirements"),
    ],
)
def test_an_aggregate_in_a_release_that_claims_epsilon_is_found(
    output: Path, more: dict[str, Any], named: str
) -> None:
    add_to_manifest(output, **more)
    (said,) = [str(finding) for finding in verify(str(output))]
    assert said.endswith(f"which the epsilon that is claimed does not cover: {named}"), said


def test_half_a_promise_is_held_to_it_too(output: Path) -> None:
    document = json.loads((output / "release" / "manifest.json").read_text())
    method = document["method"]
    method["figures"] = {"epsilon": 1.0}
    assert PROMISE - method["figures"].keys()
    add_to_manifest(output, method=method, metrics={"ssim": 0.5})
    assert any("figures of originals" in str(finding) for finding in verify(str(output)))


# -- audit ----------------------------------------------------------------------------------


def test_the_bound_is_clopper_and_pearsons() -> None:
    assert bound(0, 0, 100, 0.0, 0.95) == 0
    # Exact one-sided limits at 97.5 %: 0 of 100 is at most 3.6217 %, 100 of 100 at least 96.3783 %.
    assert bound(100, 0, 100, 0.0, 0.95) == pytest.approx(math.log(0.963783 / 0.036217), abs=1e-3)
    assert bound(50, 50, 100, 0.0, 0.95) < 0.01
    assert bound(5, 0, 100, 0.5, 0.95) == pytest.approx(
        max(0.0, math.log((1 - 0.036217 - 0.5) / (1 - 0.0164))), abs=0.01
    )


def test_the_audit_breaks_peep_and_not_the_sound_mechanism() -> None:
    broken = audit("dp-eigenface", {"epsilon": "0.5", "claim": "peep"}, 600)
    assert broken.epsilon_at_least >= 3 and not broken.holds and broken.unsound
    sound = audit("dp-eigenface", {"epsilon": "2", "noise": "laplace"}, 500, confidence=0.999)
    assert 0.5 < sound.epsilon_at_least <= 2 and sound.holds


def test_the_audit_command() -> None:
    arguments = ["--method", "dp-eigenface", "--method-option", "epsilon=0.5"]
    told = CliRunner().invoke(
        audit_privacy,
        [*arguments, "--method-option", "claim=peep", "--trials", "200"],
        standalone_mode=False,
    )
    assert told.return_value == 3


def invoke(*arguments: str) -> int:
    done = CliRunner().invoke(audit_privacy, list(arguments), standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return int(done.return_value)


def page(output: Path) -> str:
    done = CliRunner().invoke(report, [str(output)], standalone_mode=False)
    assert done.exception is None, done.output
    return (output / "evidence/report.html").read_text()


def test_the_bound_stands_in_the_report_beside_the_claim(output: Path) -> None:
    assert "not audited: ppfr audit-privacy OUTPUT" in page(output)
    assert invoke(str(output), "--trials", "300", "--confidence", "0.999") == 0
    assert list(verify(str(output))) == []
    path = output / "evidence" / "privacy_audit.json"
    found = PrivacyAudit.model_validate_json(path.read_text())
    assert found.claimed_epsilon == 1 and found.holds and not found.broken
    text = page(output)
    assert "epsilon, by the proof</th><td>1.0" in text
    assert f"{found.epsilon_at_least:.3f} with confidence 0.999" in text
    assert "labels and kept columns are outside of it: age" in text
    assert list(verify(str(output))) == []

    path.write_text(found.model_copy(update={"epsilon_at_least": 1.1}).model_dump_json())
    text = page(output)
    assert "ABOVE WHAT THE PROOF ALLOWS" in text and "Must not be released" in text
    path.write_text(found.model_copy(update={"method_digest": "0" * 64}).model_dump_json())
    assert "not audited" in page(output)
    path.write_text("{}")
    with pytest.raises(AssertionError, match=r"privacy_audit\.json is damaged"):
        page(output)


def test_an_output_is_audited_with_its_own_method_or_not_at_all(output: Path) -> None:
    with pytest.raises(click.ClickException, match="give an OUTPUT or a --method"):
        invoke("--trials", "100")
    with pytest.raises(click.ClickException, match="goes with --method"):
        invoke(str(output), "--method-option", "epsilon=1")
    path = output / "evidence" / "manifest.json"
    document = json.loads(path.read_text())
    for change, reason in (
        ({"digest": "0" * 64}, "another version or other weights"),
        ({"name": "somebodys.module:Method"}, "name it by --method"),
    ):
        changed = document | {"method": document["method"] | change}
        path.write_text(json.dumps(changed))
        with pytest.raises(click.ClickException, match=reason):
            invoke(str(output))


@pytest.mark.parametrize("name", ["dp-template", "dp-virtual"])
def test_neighbours_of_the_drawn_methods_are_opposite(name: str) -> None:
    method = create(name, {"epsilon": "4"})
    one, other = method.readings(np.stack(method.neighbours()))
    assert one @ other < -0.99


def test_a_picture_that_no_face_is_read_for_tells_nothing() -> None:
    found = audit("dp-virtual", {"epsilon": "0"}, 100)
    assert (found.claimed_epsilon, found.epsilon_at_least, found.holds) == (0, 0, True)
