"""``detections/``: every face that was found in photographs, and what was done to it."""

from collections.abc import Sequence

import pyarrow as pa

from ppfr_ops.contracts import described, versioned
from ppfr_ops.contracts.metrics import metric_fields

FACE_FIELDS = (
    described(
        "source_id",
        pa.string(),
        "pseudonym of the photograph; faces of one photograph share it",
        range_="never null",
    ),
    described("face", pa.int32(), "number of the face in its photograph, best score first"),
    described(
        "box",
        pa.list_(pa.float32()),
        "x0, y0, x1, y1 in the upright photograph; may reach over its edge",
        "px",
    ),
    described(
        "landmarks",
        pa.list_(pa.float32()),
        "x and y of left eye, right eye, nose tip, left and right mouth corner, as seen",
        "px",
        "10 numbers, or null where there are none",
    ),
    described("score", pa.float32(), "how sure the detector was; 1 where given", "1", "0 to 1"),
    described("second_look", pa.bool_(), "found only enlarged, shrunk, mirrored or turned"),
    described(
        "treatment",
        pa.string(),
        "what was done to the face",
        range_="anonymized | covered | left_alone; covered_ (in whole photographs) or pixelated_ "
        "(cut out) with small | unsure | no_landmarks | by_verdict",
    ),
)
"""Also the columns that ``data/`` has beside the picture where a record is a face."""

DOUBT_FIELDS = (
    described(
        "doubt",
        pa.float32(),
        "how likely the likeliest place of the photograph that is not covered is a head; likelier "
        "ones are rows whose treatment is covered_faint, and count as no faces",
        "1",
        "0 to 1, or null where the detector does not tell",
    ),
    described(
        "doubt_box",
        pa.list_(pa.float32()),
        "that place, as box has it",
        "px",
        "null: there is none",
    ),
)


def detections_schema(recognizers: Sequence[str] = ()) -> pa.Schema:
    """Schema of a detections shard.

    Args:
        recognizers: names of the FR models, in order.
    """
    fields = [
        described("record_id", pa.string(), "the record in data/ that shows the face"),
        *FACE_FIELDS,
        *DOUBT_FIELDS,
        *metric_fields(recognizers),
    ]
    return versioned("detections", fields)
