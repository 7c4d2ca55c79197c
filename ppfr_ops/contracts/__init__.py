"""What crosses a boundary: Arrow schemas of the shards, pydantic models of ledger and manifest.

Every Arrow field carries ``description``, ``unit`` and ``range`` in its metadata; every schema
carries ``ppfr_schema`` = ``name/version``. A changed column is a new version of that artefact and
of no other, made on purpose: ``tests/test_schemas.py`` holds the inventory.
"""

from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict


class Document(BaseModel):
    """A JSON document, or a part of one. What it does not know is refused."""

    model_config = ConfigDict(extra="forbid")


def untitled(schema: Any) -> Any:
    """A JSON Schema without the titles that pydantic makes of the names."""
    if isinstance(schema, dict):
        return {
            key: untitled(value)
            for key, value in schema.items()
            if not (key == "title" and isinstance(value, str))
        }
    return [untitled(item) for item in schema] if isinstance(schema, list) else schema


VERSIONS = {
    "records": "2",
    "metrics": "2",
    "dead_letters": "2",
    "detections": "4",
    "look": "2",
    "ledger": "2",
    "certificates": "2",
    "files": "1",
    "vault_sealed": "2",
    "vault_keys": "2",
    "originals": "2",
    "originals_dead_letters": "2",
}
"""Of every artefact that has no version in its own model. An output can be resumed as long as what
it is made of has the same versions (``OF_A_UNIT``)."""

OF_A_UNIT = ("records", "metrics", "dead_letters", "detections", "look", "ledger")
"""Artefacts that a unit of a run becomes."""


def described(
    name: str, kind: pa.DataType, description: str, unit: str = "", range_: str = ""
) -> pa.Field:
    """A field that says what it holds. All are nullable to Arrow, for that is what readers
    (Hugging Face ``datasets`` among them) compare with; ``range`` says where null may occur."""
    return pa.field(
        name, kind, metadata={"description": description, "unit": unit, "range": range_}
    )


def versioned(name: str, fields: list[pa.Field], extra: dict[str, str] | None = None) -> pa.Schema:
    """A schema that says which artefact it is of, and its version."""
    return pa.schema(fields, metadata={"ppfr_schema": f"{name}/{VERSIONS[name]}", **(extra or {})})
