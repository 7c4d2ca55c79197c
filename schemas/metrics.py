"""``metrics/``: what was measured on every published record."""

from collections.abc import Sequence

import pyarrow as pa

from . import described, versioned

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
        "the disclosure measure between two publications of this face with different draws",
        "1",
        "0 to 1",
    ),
)


def metrics_schema(recognizers: Sequence[str] = ()) -> pa.Schema:
    """Schema of a metrics shard.

    Args:
        recognizers: names of the FR models, in order.
    """
    fields = [
        described("record_id", pa.string(), "the record in data/", range_="unique, never null"),
        *MEASURES,
    ]
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
    return versioned("metrics", fields)
