"""``metrics/``: what was measured on every published record."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from ppfr_ops.contracts import described, versioned

_F = pa.float32()


@dataclass(frozen=True)
class Metric:
    """A measure of every published face, and all that is known of it. ``imaging.measures`` has the
    function of its name; nothing else has to be told of a new one.

    Args:
        name: the column in ``metrics/``.
        description: of the column.
        meaning: what the report says it is.
        unit, range_: of the values.
        step: what the mean of a release is rounded to (``manifest.coarse_mean``); about a
            hundredth of the range or more.
        slow: left out by ``--metrics basic``.
        sampled: tells of the method, not of the record, and is measured on a sample.
    """

    name: str
    description: str
    meaning: str
    unit: str = "1"
    range_: str = "0 to 1"
    step: float = 0.02
    slow: bool = False
    sampled: bool = False


METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            "disclosure",
            "what a person can see of the original: strongest local correlation over all ways of "
            "looking (docs/measuring.md)",
            "what a person can see of the original: 0 nothing, 1 all",
            range_="0 nothing to 1 all",
            slow=True,
        ),
        Metric(
            "ssim",
            "structural similarity to the original, 11x11 Gaussian",
            "structural similarity to the original",
            range_="-1 to 1",
        ),
        Metric(
            "ms_ssim",
            "structural similarity over scales (docs/measuring.md)",
            "structural similarity over scales",
        ),
        Metric(
            "psnr",
            "peak signal-to-noise ratio to the original",
            "peak signal-to-noise ratio to the original, dB",
            unit="dB",
            range_="0 to 100",
            step=1.0,
        ),
        Metric(
            "lowfreq_corr",
            "correlation of what a Gaussian low-pass leaves of the luminances",
            "correlation of the coarse parts with the original's",
            range_="-1 to 1",
        ),
        Metric(
            "draw_similarity",
            "the disclosure measure between two publications of this face with different draws; of "
            "a sample of the records, null for the others",
            "on a sample: likeness of two publications of one face; near 1, the draw changes "
            "nothing",
            slow=True,
            sampled=True,
        ),
    )
}


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


def is_measure(column: str) -> bool:
    """Whether a column has the name of a measure of originals."""
    pictures = {field.name for field in PICTURE_FIELDS}
    return column in METRICS or column in pictures or column.startswith("id_cosine_")


def metric_fields(recognizers: Sequence[str] = ()) -> list[pa.Field]:
    """All measures of a face."""
    fields = [
        described(metric.name, _F, metric.description, metric.unit, metric.range_)
        for metric in METRICS.values()
    ]
    for name in recognizers:
        what = f"cosine of the {name} templates of original and published picture"
        fields.append(described(f"id_cosine_{name}", _F, what, "1", "-1 to 1"))
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
