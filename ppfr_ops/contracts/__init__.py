"""What crosses a boundary: Arrow schemas of the shards, pydantic models of ledger and manifest.

Every Arrow field carries ``description``, ``unit`` and ``range`` in its metadata; every schema
carries ``ppfr_schema`` = ``name/VERSION``. A changed column is a new VERSION, made on purpose:
``tests/test_schemas.py`` holds the inventory.
"""

import pyarrow as pa

VERSION = "2"


def described(
    name: str, kind: pa.DataType, description: str, unit: str = "", range_: str = ""
) -> pa.Field:
    """A field that says what it holds. All are nullable to Arrow, for that is what readers
    (Hugging Face ``datasets`` among them) compare with; ``range`` says where null may occur."""
    return pa.field(
        name, kind, metadata={"description": description, "unit": unit, "range": range_}
    )


def versioned(name: str, fields: list[pa.Field], extra: dict[str, str] | None = None) -> pa.Schema:
    return pa.schema(fields, metadata={"ppfr_schema": f"{name}/{VERSION}", **(extra or {})})
