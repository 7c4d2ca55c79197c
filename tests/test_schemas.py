"""The public surface: a changed column has to be changed here too, on purpose."""

import pyarrow as pa

from ppfr_ops.contracts.certificates import CERTIFICATES_SCHEMA
from ppfr_ops.contracts.dead_letters import DEAD_LETTERS_SCHEMA, REASONS
from ppfr_ops.contracts.ledger import LedgerEntry
from ppfr_ops.contracts.manifest import Manifest
from ppfr_ops.contracts.metrics import metrics_schema
from ppfr_ops.contracts.records import records_schema
from ppfr_ops.contracts.vault import (
    FAILURES_SCHEMA,
    KEYS_SCHEMA,
    ORIGINALS_SCHEMA,
    SEALED_SCHEMA,
)
from ppfr_ops.imaging.codec import decode  # noqa: F401  (the reasons below are raised there)

INVENTORY = {
    "records/2": {
        "record_id": "string",
        "image": "struct<bytes: binary, path: string>",
        "identity": "string",
        "age": "int16",
    },
    "metrics/2": {
        "record_id": "string",
        "disclosure": "float",
        "ssim": "float",
        "ms_ssim": "float",
        "psnr": "float",
        "lowfreq_corr": "float",
        "draw_similarity": "float",
        "id_cosine_dlib": "float",
    },
    "dead_letters/2": {
        "record_id": "string",
        "unit": "string",
        "stage": "string",
        "code": "string",
        "message": "string",
    },
    "certificates/2": {
        "record_id": "string",
        "radius": "float",
        "hits": "int32",
        "at_least": "float",
        "jpeg_quality": "int16",
        "brightness": "int16",
    },
    "vault_sealed/2": {
        "entry": "string",
        "nonce": "fixed_size_binary[12]",
        "commitment": "fixed_size_binary[32]",
        "sealed": "binary",
    },
    "vault_keys/2": {
        "entry": "string",
        "picture": "fixed_size_binary[32]",
        "nonce": "fixed_size_binary[12]",
        "wrapped": "binary",
    },
    "originals/2": {
        "record_id": "string",
        "image": "struct<bytes: binary, path: string>",
    },
    "originals_dead_letters/2": {
        "record_id": "string",
        "unit": "string",
        "code": "string",
        "message": "string",
    },
}
EVIDENCE = (CERTIFICATES_SCHEMA, SEALED_SCHEMA, KEYS_SCHEMA, ORIGINALS_SCHEMA, FAILURES_SCHEMA)


def test_inventory() -> None:
    schemas = (
        records_schema([pa.field("age", pa.int16())], identity=True),
        metrics_schema(["dlib"]),
        DEAD_LETTERS_SCHEMA,
        *EVIDENCE,
    )
    found = {
        schema.metadata[b"ppfr_schema"].decode(): {field.name: str(field.type) for field in schema}
        for schema in schemas
    }
    assert found == INVENTORY


def test_every_field_is_described_and_every_metric_has_unit_and_range() -> None:
    for schema in (
        records_schema(identity=True),
        metrics_schema(["dlib"]),
        DEAD_LETTERS_SCHEMA,
        *EVIDENCE,
    ):
        for field in schema:
            assert field.metadata[b"description"]
    for field in list(metrics_schema(["dlib"]))[1:]:
        assert field.metadata[b"unit"] and field.metadata[b"range"]


def test_ledger_and_manifest_refuse_unknown_fields() -> None:
    assert LedgerEntry.model_config["extra"] == Manifest.model_config["extra"] == "forbid"


def test_reasons_name_a_stage_of_the_schema() -> None:
    stages = DEAD_LETTERS_SCHEMA.field("stage").metadata[b"range"].decode().split(" | ")
    assert {reason.stage for reason in REASONS.values()} <= set(stages)
