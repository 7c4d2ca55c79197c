"""``metrics/``: what was measured on every published record."""

from collections.abc import Sequence

import pyarrow as pa

from ppfr_ops.contracts import described, versioned

_F = pa.float32()

MEASURES = (
    described(
        "disclosure",
        _F,
        "what a person can see of the original: strongest local correlation over all ways of "
        "looking (docs/measuring.md)",
        "1",
        "0 nothing to 1 all",
    ),
    described("ssim", _F, "structural similarity to the original, 11x11 Gaussian", "1", "-1 to 1"),
    described(
        "ms_ssim", _F, "structural similarity over scales (docs/measuring.md)", "1", "0 to 1"
    ),
    described("psnr", _F, "peak signal-to-noise ratio to the original", "dB", "0 to 100"),
    described(
        "lowfreq_corr",
        _F,
        "correlation of what a Gaussian low-pass leaves of the luminances",
        "1",
        "-1 to 1",
    ),
    described(
        "draw_similarity",
        _F,
        "the disclosure measure between two publications of this face with different draws; of a "
        "sample of the records, null for the others",
        "1",
        "0 to 1",
    ),
)


PICTURE_FIELDS = (
    described("faces", pa.int32(), "faces that were found in the photograph", "1", "0 or more"),
    described(
        "smallest_face",
        _F,
        "longer side of the smallest box",
        "px",
        "above 0, or null without a face",
    ),
    described("changed_share", _F, "share of the pixels that may have changed", "1", "0 to 1"),
    described(
        "residual_faces",
        pa.int32(),
        "faces that the detector finds in the published photograph beside those that were treated; "
        "of a sample of the records, null for the others",
        "1",
        "0 or more",
    ),
)
"""Of photographs that are published whole."""


SAMPLED = ("draw_similarity", "residual_faces")
"""What tells of the method, not of the record, and is measured on a sample."""


def is_measure(column: str) -> bool:
    """Whether a column has the name of a measure of originals."""
    fixed = {field.name for field in (*MEASURES, *PICTURE_FIELDS)}
    return column in fixed or column.startswith("id_cosine_")


def metric_fields(recognizers: Sequence[str] = ()) -> list[pa.Field]:
    """All measures of a face."""
    fields = list(MEASURES)
    for name in recognizers:
        fields.append(
            described(
                f"id_cosine_{name}",
                _F,
                f"cosine of the {name} templates of original and published picture",
                "1",
                "-1 to 1",
            )
        )
    return fields


def metrics_schema(recognizers: Sequence[str] = (), pictures: bool = False) -> pa.Schema:
    """Schema of a metrics shard.

    Args:
        recognizers: names of the FR models, in order.
        pictures: records are whole photographs; of the measures of their anonymized faces the
            worst stands for all: the largest, of cosines the smallest.
    """
    fields = [
        described("record_id", pa.string(), "the record in data/", range_="unique, never null"),
        *metric_fields(recognizers),
        *(PICTURE_FIELDS if pictures else ()),
    ]
    return versioned("metrics", fields)
