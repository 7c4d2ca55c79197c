"""The vault's tables, and those of what comes out of it, or could not."""

import pyarrow as pa

from ppfr_ops.contracts import described, versioned
from ppfr_ops.contracts.records import IMAGE_TYPE

SEALED_SCHEMA = versioned(
    "vault_sealed",
    [
        described("entry", pa.string(), "record_id, or source_id of a photograph", range_="unique"),
        described("nonce", pa.binary(12), "of AES-256-GCM", range_="never null"),
        described("commitment", pa.binary(32), "of the data key", range_="never null"),
        described("sealed", pa.binary(), "padded original, encrypted; tag", range_="never null"),
    ],
)
KEYS_SCHEMA = versioned(
    "vault_keys",
    [
        described("entry", pa.string(), "as in vault_sealed", range_="unique"),
        described("picture", pa.binary(32), "sha256 of the published picture", range_="never null"),
        described("nonce", pa.binary(12), "of AES-256-GCM", range_="null: revoked"),
        described("wrapped", pa.binary(), "data key, encrypted; tag", range_="null: revoked"),
    ],
)
ORIGINALS_SCHEMA = versioned(
    "originals",
    [
        described("record_id", pa.string(), "as published, or source_id", range_="unique"),
        described("image", IMAGE_TYPE, "the original's bytes, as they were", range_="never null"),
    ],
)
FAILURES_SCHEMA = versioned(
    "originals_dead_letters",
    [
        described("record_id", pa.string(), "as published, or source_id", range_="never null"),
        described("unit", pa.string(), "id of the unit", range_="never null"),
        described("code", pa.string(), "why it was not given back", range_="never null"),
        described("message", pa.string(), "the same in words", range_="never null"),
    ],
)
