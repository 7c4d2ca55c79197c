"""Beam YAML: a pipeline of YAML alone, by the listing that deploy/ has."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import jpeg

from ppfr_ops.sample import faces

ROOT = Path(__file__).resolve().parent.parent
pytest.importorskip("apache_beam")
pytest.importorskip("docstring_parser")

PIPELINE = """
pipeline:
  transforms:
    - type: ReadFromParquet
      name: read
      config: {{file_pattern: {folder}/in/faces.parquet}}
    - type: SanitizeFaces
      name: sanitize
      input: read
      config:
        identity_column: who
        keep_columns: [age]
        options: {{method: signed-field, metrics: none}}
    - type: WriteToParquet
      name: published
      input: sanitize.published
      config: {{path: {folder}/published}}
    - type: WriteToParquet
      name: letters
      input: sanitize.dead_letters
      config: {{path: {folder}/letters}}
    - type: Create
      name: datasets
      config:
        elements:
          - {{input: {folder}/in, output: {folder}/out}}
          - {{input: {folder}/missing, output: {folder}/none}}
    - type: SanitizeDataset
      name: whole
      input: datasets
      config: {{options: {{method: blur, metrics: none, max_dead_letter_rate: 1}}}}
    - type: WriteToParquet
      name: outcomes
      input: whole
      config: {{path: {folder}/outcomes}}
providers:
  - include: {root}/deploy/beam/ppfr-provider.yaml
"""


@pytest.mark.slow
def test_a_yaml_pipeline(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pictures = [*map(jpeg, faces(4)), b"no picture"]
    table = pa.table({"image": pictures, "who": list("aabbc"), "age": [30, 31, 32, 33, 34]})
    pq.write_table(table, tmp_path / "in" / "faces.parquet")
    (tmp_path / "pipeline.yaml").write_text(PIPELINE.format(folder=tmp_path, root=ROOT))
    command = [sys.executable, "-m", "ppfr_ops.engines.beam_yaml", "pipeline.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]

    def rows(name: str) -> list[dict[str, object]]:
        (path,) = tmp_path.glob(f"{name}-*")
        return list(pq.read_table(path).to_pylist())

    published = sorted(rows("published"), key=lambda row: str(row["age"]))
    assert [row["age"] for row in published] == ["30", "31", "32", "33"]
    named = [row["identity"] for row in published]
    assert named[0] == named[1] != named[2] == named[3] and not set(named) & set("abc")
    assert not {row["image"] for row in published} & set(pictures)
    assert [row["dead_letter"] for row in rows("letters")] == ["not_an_image"]
    outcomes = {Path(str(row["output"])).name: row for row in rows("outcomes")}
    assert outcomes["out"]["records"] == 4 and outcomes["out"]["exit_code"] == 0
    assert outcomes["none"]["exit_code"] == 2 and "does not exist" in str(
        outcomes["none"]["problems"]
    )
    assert (tmp_path / "out" / "release" / "manifest.json").is_file()
