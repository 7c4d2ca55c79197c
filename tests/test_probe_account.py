"""Probes are counted by person, and refused over the budget."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pictures import jpeg

from ppfr_ops.cli import probe, sanitize
from ppfr_ops.contracts.manifest import Method
from ppfr_ops.errors import UserError
from ppfr_ops.methods.registry import create
from ppfr_ops.release.verify import verify
from ppfr_ops.sample import faces, write_sample
from ppfr_ops.sanitize.probe_account import ProbeAccount
from ppfr_ops.sanitize.probes import method_of, people_asked_for
from ppfr_ops.source.plan import Columns, plan
from ppfr_ops.vault.audit import AuditError


def test_probes_add_up_by_person_and_stop_at_the_budget(tmp_path: Path) -> None:
    account = ProbeAccount(str(tmp_path))
    account.charge({"a": 3, "b": 1}, budget=5)
    account.charge({"a": 2}, budget=5)
    with pytest.raises(UserError, match="1 of 2 people would have more probes"):
        account.charge({"a": 1, "b": 1}, budget=5)
    assert ProbeAccount(str(tmp_path)).spent() == {"a": 5, "b": 1}
    account.charge({"a": 1}, budget=6)
    assert account.spent()["a"] == 6


def test_a_log_that_was_changed_stops_it(tmp_path: Path) -> None:
    account = ProbeAccount(str(tmp_path))
    account.charge({"a": 5}, budget=5)
    (file,) = (tmp_path / "evidence" / "probes" / "audit").iterdir()
    assert file.stat().st_mode & 0o077 == 0
    entry = json.loads(file.read_text())
    file.write_text(json.dumps(entry | {"outcome": "1"}))
    with pytest.raises(AuditError):
        account.charge({"a": 1}, budget=5)


def test_photos_are_counted_by_whose_they_are(tmp_path: Path) -> None:
    write_sample(tmp_path / "faces", 12, 3, 1, 0)
    planned = plan(str(tmp_path / "faces"), Columns(None, "identity"))
    assert sorted(people_asked_for(planned, None, lambda name: f"<{name}>").values()) == [4, 4, 4]
    assert people_asked_for(planned, "x", str.upper) == {"X": 12}
    unlabelled = plan(str(tmp_path / "faces"), Columns(None))
    assert people_asked_for(unlabelled, None, str.upper) == {"": 12}


@pytest.mark.parametrize(
    ("name", "options", "spends"),
    [
        ("dp-virtual", {"epsilon": 0}, False),
        ("dp-virtual", {"epsilon": 4}, True),
        ("natural", {"keep_look": "light"}, False),
        ("natural", {"keep_look": "light", "look_epsilon": 4}, True),
    ],
)
def test_a_probe_that_would_spend_privacy_is_refused_and_says_what_to_use(
    name: str, options: dict[str, Any], spends: bool
) -> None:
    method = create(name, options)
    made = Method(name=method.name, options=method.options(), digest=method.digest())
    if spends:
        with pytest.raises(UserError, match="--privacy-account"):
            method_of(made, b"k" * 32)
    else:
        assert method_of(made, b"k" * 32).digest() == made.digest


def test_the_command_counts_before_it_publishes_and_refuses(tmp_path: Path) -> None:
    write_sample(tmp_path / "faces", 12, 3, 1, 0)
    write_sample(tmp_path / "wanted", 3, 1, 1, 0)
    out, made = tmp_path / "out", tmp_path / "probes"
    options = ["--input", str(tmp_path / "faces"), "--output", str(out), "--metrics", "none"]
    options += ["--identity-column", "identity", "--variation", "0", "--actors", "1"]
    options += ["--method", "stochastic-local"]
    done = CliRunner().invoke(sanitize.main, options, standalone_mode=False)
    assert done.return_value == 0, done.output
    line = [str(out), "--input", str(tmp_path / "wanted"), "--label", "somebody", "--budget", "5"]
    done = CliRunner().invoke(probe.main, [*line, "--out", str(made)])
    assert done.exit_code == 0, done.output
    assert len(list(made.iterdir())) == 3
    assert list(ProbeAccount(str(out)).spent().values()) == [3]
    log = "".join(file.read_text() for file in (out / "evidence/probes/audit").iterdir())
    assert "somebody" not in log
    done = CliRunner().invoke(probe.main, [*line, "--out", str(tmp_path / "more")])
    assert done.exit_code == 2 and "budget" in done.output and "somebody" not in done.output
    assert not (tmp_path / "more").exists()
    assert list(ProbeAccount(str(out)).spent().values()) == [3]
    assert list(verify(str(out))) == []


@pytest.mark.parametrize("by_paths", [True, False])
def test_a_label_is_read_as_the_releases_own_were(tmp_path: Path, by_paths: bool) -> None:
    """``1`` and ``1.0`` are two folders, and one number in a column."""
    lines = ["file_name,who"]
    for number, face in enumerate(faces(6)):
        name = ("1", "1.0")[number % 2]
        path = tmp_path / "faces" / (name if by_paths else "x") / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(face))
        lines.append(f"x/{number}.jpg,{name}")
    if not by_paths:
        (tmp_path / "faces" / "metadata.csv").write_text("\n".join(lines))
    out = tmp_path / "out"
    options = ["--input", str(tmp_path / "faces"), "--output", str(out), "--metrics", "none"]
    options += ["--identity-column", "folder" if by_paths else "who", "--variation", "0"]
    options += ["--actors", "1", "--method", "stochastic-local", "--align", "off"]
    done = CliRunner().invoke(sanitize.main, options, standalone_mode=False)
    assert done.return_value == 0, done.output
    for number, name in enumerate(("1", "1.0")):
        line = [str(out), "--input", str(tmp_path / "faces"), "--label", name]
        done = CliRunner().invoke(probe.main, [*line, "--out", str(tmp_path / f"p{number}")])
        assert done.exit_code == 0, done.output
    assert len(ProbeAccount(str(out)).spent()) == (2 if by_paths else 1)
