"""The contracts as files for readers in any language: ``schemas/``.

A JSON Schema for every document, an Arrow schema in words for every table, one file an artefact
and version; OpenAPI for what is asked over HTTP. ``python -m ppfr_ops.contracts.files schemas``
writes them (``make schemas``); a test finds drift.
"""

import importlib
import json
import pkgutil
import sys
from pathlib import Path

import pyarrow as pa
from pydantic import BaseModel

import ppfr_ops.contracts
from ppfr_ops.contracts import VERSIONS, endpoint, untitled, vault
from ppfr_ops.contracts.certificates import CERTIFICATES_SCHEMA
from ppfr_ops.contracts.dead_letters import DEAD_LETTERS_SCHEMA
from ppfr_ops.contracts.detections import detections_schema
from ppfr_ops.contracts.manifest import FILES_SCHEMA
from ppfr_ops.contracts.metrics import metrics_schema
from ppfr_ops.contracts.records import records_schema, released

MODEL = "MODEL"
"""Stands for the name of an FR model in the names of columns."""


def tables() -> dict[str, pa.Schema]:
    """Every Arrow schema, by artefact; with the columns that a run may leave out."""
    return {
        "records": released(records_schema(identity=True)),
        "records-of-faces": released(records_schema(identity=True, faces=True)),
        "metrics": metrics_schema([MODEL]),
        "metrics-of-photographs": metrics_schema([MODEL], pictures=True),
        "dead-letters": DEAD_LETTERS_SCHEMA,
        "detections": detections_schema([MODEL]),
        "certificates": CERTIFICATES_SCHEMA,
        "files": FILES_SCHEMA,
        "vault-sealed": vault.SEALED_SCHEMA,
        "vault-keys": vault.KEYS_SCHEMA,
        "originals": vault.ORIGINALS_SCHEMA,
        "originals-dead-letters": vault.FAILURES_SCHEMA,
    }


def documents() -> dict[str, type[BaseModel]]:
    """Every JSON document, by artefact: the models of ``ppfr_ops.contracts`` that no other model
    is made of."""
    found: dict[str, type[BaseModel]] = {}
    for module in pkgutil.iter_modules(ppfr_ops.contracts.__path__, "ppfr_ops.contracts."):
        if module.name in (__name__, endpoint.__name__):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            model = isinstance(value, type) and issubclass(value, BaseModel) and name[0] != "_"
            if model and value.__module__ == module.name:
                found[name] = value
    parts: set[str] = set()
    for found_model in found.values():
        parts.update(found_model.model_json_schema().get("$defs", {}))
    return {_dashed(name): model for name, model in found.items() if name not in parts}


def _dashed(name: str) -> str:
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name)[1:]


def files() -> dict[str, str]:
    """Every file of ``schemas/``: name to text."""
    texts = {}
    for name, schema in tables().items():
        version = schema.metadata[b"ppfr_schema"].decode().rpartition("/")[2]
        texts[f"{name}.v{version}.arrow.txt"] = _words(schema)
    for name, model in documents().items():
        field = model.model_fields.get("schema_version") or model.model_fields.get("version")
        # A field "version" may count something else; then it has no default.
        version = VERSIONS["ledger"] if field is None or field.is_required() else field.default
        document = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **untitled(model.model_json_schema()),
        }
        texts[f"{name}.v{version}.schema.json"] = json.dumps(document, indent=1) + "\n"
    texts["fr-endpoint.v1.openapi.json"] = json.dumps(endpoint.openapi(), indent=1) + "\n"
    return dict(sorted(texts.items()))


def _words(schema: pa.Schema) -> str:
    """An Arrow schema as text: metadata, then a field a paragraph."""
    lines = [f"schema: {schema.metadata[b'ppfr_schema'].decode()}", ""]
    for field in schema:
        lines.append(f"{field.name}: {field.type}")
        for key in ("description", "unit", "range"):
            text = (field.metadata or {}).get(key.encode(), b"").decode()
            lines += [f"    {key}: {text}"] if text else []
        lines.append("")
    return "\n".join(lines)


def write(folder: Path) -> None:
    """Make the folder hold these files and no others."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = files()
    for path in folder.iterdir():
        if path.name not in texts and path.suffix in (".json", ".txt"):
            path.unlink()
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
