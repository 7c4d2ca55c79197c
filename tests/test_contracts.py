"""``schemas/`` is what ``ppfr_ops.contracts`` says, for readers in any language."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import BaseModel

from ppfr_ops.contracts import files
from ppfr_ops.contracts.manifest import Manifest

SCHEMAS = Path(__file__).parent.parent / "schemas"


def test_no_file_has_drifted() -> None:
    found = {path.name: path.read_text("utf-8") for path in SCHEMAS.iterdir()}
    found.pop("README.md", None)
    assert found == files.files(), "run: make schemas"


def test_every_artefact_has_a_file_that_says_its_version() -> None:
    names = {name.partition(".v")[0] for name in files.files()}
    assert {"manifest", "release-manifest", "ledger-entry", "policy", "evaluation"} <= names
    assert {"records", "metrics", "dead-letters", "detections"} <= names
    for name, text in files.files().items():
        if name.endswith(".openapi.json"):
            assert json.loads(text)["openapi"] == "3.1.0" and name.startswith("fr-endpoint.v1.")
        elif name.endswith(".json"):
            assert json.loads(text)["type"] == "object"


def test_a_new_field_and_a_new_column_are_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wider(Manifest):
        sparkle: int = 3

    before = files.files()
    monkeypatch.setattr(files, "documents", lambda: dict[str, type[BaseModel]](manifest=Wider))
    monkeypatch.setattr(
        files,
        "tables",
        lambda: {"records": pa.schema([("x", pa.int8())], metadata={"ppfr_schema": "records/9"})},
    )
    after = files.files()
    (name,) = (name for name in after if name.startswith("manifest."))
    assert "sparkle" in after[name] and "sparkle" not in before[name]
    assert "records.v9.arrow.txt" in after and "x: int8" in after["records.v9.arrow.txt"]


def test_writing_leaves_no_file_of_an_earlier_version(tmp_path: Path) -> None:
    (tmp_path / "records.v0.arrow.txt").write_text("old")
    files.write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(files.files())
