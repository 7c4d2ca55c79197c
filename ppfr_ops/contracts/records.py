"""``data/``: what is published."""

import json
from collections.abc import Sequence

import pyarrow as pa

from ppfr_ops.contracts import described, versioned
from ppfr_ops.contracts.detections import FACE_FIELDS

IMAGE_TYPE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
"""The image struct of Hugging Face ``datasets``."""

RESERVED_COLUMNS = frozenset({"record_id", "image", "identity"})
FACE_COLUMNS = tuple(field.name for field in FACE_FIELDS)
"""Reserved too, where every record is a face of a photograph."""

RELEASED_FACE_COLUMN = "treatment"
"""The only one of them that leaves. Where a face stood and how sure the detector was can be
measured again on a candidate photograph, so both would tell which one it was."""


def records_schema(
    keep: Sequence[pa.Field] = (),
    identity: bool = False,
    faces: bool = False,
    figures: Sequence[pa.Field] = (),
) -> pa.Schema:
    """Schema of the records as a sanitizer makes them; ``released`` makes that of a shard of it.

    Args:
        keep: columns of the allow-list, copied from the input as they are.
        identity: whether there is a column of pseudonyms.
        faces: every record is a face that was cut out of a photograph.
        figures: columns that the method adds.
    """
    fields = [
        described(
            "record_id",
            pa.string(),
            "pseudonym of the record; in a release 128 bits that tell nothing of the source",
            range_="unique over all shards, never null",
        ),
        described(
            "image",
            IMAGE_TYPE,
            "the protected picture, encoded, without metadata; path is made from record_id",
            range_="never null",
        ),
    ]
    if identity:
        what = "pseudonym of the person: HMAC-SHA-256 with the owner's key, hex"
        values = "64 hex digits, or null where the input has none"
        fields.append(described("identity", pa.string(), what, range_=values))
    fields += FACE_FIELDS if faces else ()
    fields += figures
    fields += [
        described(field.name, field.type, "copied from the input (--keep-column)") for field in keep
    ]
    features = {"info": {"features": {"image": {"_type": "Image"}}}}
    return versioned("records", fields, {"huggingface": json.dumps(features)})


def released(made: pa.Schema) -> pa.Schema:
    """Schema of a shard under ``release/data``, from that of the records of a sanitizer."""
    if not set(FACE_COLUMNS) <= set(made.names):
        return made
    fields = []
    for field in made:
        if field.name == RELEASED_FACE_COLUMN:
            kinds = "anonymized by the method | pixelated, where it did not fit"
            fields.append(described(field.name, field.type, f"what was done to the face: {kinds}"))
        elif field.name not in FACE_COLUMNS:
            fields.append(field)
    return pa.schema(fields, made.metadata)
