"""A method in a folder outside the project: through engines, evaluation and report."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from test_sanitize import ROOT, environment, short_tmp

__all__ = ["short_tmp"]

METHOD = '''
"""Faint: every face under a veil of grain."""

import numpy as np
from pydantic import Field

from ppfr_ops.methods.base import Anonymizer, Figure, Output


class Faint(Anonymizer):
    record_figures = (Figure("grain", "spread of the grain", "grey levels", "0 or more"),)
    grain: float = Field(60.0, ge=0, description="standard deviation of the grain, grey levels")

    @property
    def draw_size(self):
        return 112 * 112

    def anonymize(self, faces, draws):
        noise = self.grain * draws.reshape(-1, 112, 112, 1)
        veiled = np.clip(faces // 4 + 96 + noise, 0, 255).astype(np.uint8)
        spread = noise.std((1, 2, 3)).astype(np.float32)
        return Output(veiled, {"grain": spread})
'''


class Coarse(torch.nn.Module):
    """An FR model that knows faces by 49 coarse pixels."""

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        coarse = torch.nn.functional.avg_pool2d(faces.mean(1, keepdim=True), 16).flatten(1)
        return torch.nn.functional.normalize(coarse - coarse.mean(1, keepdim=True), dim=1)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder as pip would leave it: the module, and its entry point."""
    folder = tmp_path / "elsewhere"
    info = folder / "faint-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "faint_method.py").write_text(METHOD)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faint\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        textwrap.dedent("""\
            [ppfr.methods]
            faint = faint_method:Faint
            """)
    )
    return folder


@pytest.mark.slow
def test_a_method_from_outside_goes_all_the_way(
    tmp_path: Path, short_tmp: Path, outside: Path
) -> None:
    settings = environment(short_tmp)
    settings["PYTHONPATH"] = f"{outside}:{settings['PYTHONPATH']}"

    def ppfr(*arguments: object, codes: tuple[int, ...] = (0,)) -> str:
        command = [sys.executable, "-m", "ppfr_ops.cli", *map(str, arguments)]
        done = subprocess.run(
            command, env=settings, cwd=ROOT, capture_output=True, text=True, timeout=280
        )
        assert done.returncode in codes, done.stderr
        return done.stdout + done.stderr

    assert "reports grain: spread of the grain" in ppfr("methods")
    pairs = tmp_path / "pairs.parquet"
    ppfr("sample", tmp_path / "in", "--count", 24, "--identities", 6)
    common = ["--input", tmp_path / "in", "--metrics", "full", "--seed", 3]
    common += ["--method", "faint", "--method-option", "grain=50"]
    ppfr("sanitize", *common, "--engine", "ray", "--actors", 1, "--output", tmp_path / "ray")
    ppfr("sanitize-beam", *common, "--output", tmp_path / "beam")
    tables = [pq.read_table(tmp_path / name / "release" / "data") for name in ("ray", "beam")]
    assert tables[0].num_rows == 24 and tables[0].sort_by("record_id") == tables[1].sort_by(
        "record_id"
    )
    assert all(45 < value < 55 for value in tables[0]["grain"].to_pylist())
    assert "all holds" in ppfr("verify", tmp_path / "ray")
    ppfr("report", tmp_path / "ray", codes=(0, 3))
    assert "faint" in (tmp_path / "ray" / "release" / "README.md").read_text()

    ppfr("sample", tmp_path / "gallery", "--pairs", pairs)
    torch.jit.script(Coarse()).save(str(tmp_path / "coarse.pt"))
    ppfr(
        *("evaluate", "--quick", "--attacks", "none", "--method", "faint_method:Faint"),
        *("--gallery", tmp_path / "gallery", "--pairs", pairs),
        *("--fr", f"coarse={tmp_path / 'coarse.pt'}", "--out", tmp_path / "eval"),
    )
    found = json.loads((tmp_path / "eval" / "evaluation.json").read_text())
    assert found["method"] == "faint_method:Faint" and 0 < found["headline"]["disclosure"] < 1
