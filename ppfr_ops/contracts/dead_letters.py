"""``dead_letters/``: what could not be published, and why; never the picture."""

from dataclasses import dataclass

import pyarrow as pa

from ppfr_ops.contracts import described, versioned

DEAD_LETTERS_SCHEMA = versioned(
    "dead_letters",
    [
        described("record_id", pa.string(), "the record that is missing from data/"),
        described("unit", pa.string(), "the unit it came in"),
        described(
            "stage",
            pa.string(),
            "where it failed",
            range_=" | ".join(
                ("read", "decode", "align", "anonymize", "encode", "measure", "worker")
            ),
        ),
        described("code", pa.string(), "reason, one of ppfr_ops.contracts.dead_letters.REASONS"),
        described("message", pa.string(), "the reason in words and numbers; no name, path or byte"),
    ],
)


@dataclass(frozen=True)
class Reason:
    stage: str
    text: str
    fatal: bool = False
    """More may be lost than can be counted, so the run ends with exit code 3 at any rate."""
    intended: bool = False
    """The owner asked for it, so it is no failure."""


REASONS = {
    "unreadable_unit": Reason("read", "the file cannot be read; all of it is missing", fatal=True),
    "truncated_unit": Reason("read", "the file ends early; the rest is missing", fatal=True),
    "contradictory_unit": Reason(
        "read", "the file's own counts contradict each other; rows may be missing", fatal=True
    ),
    "unreadable_row": Reason("read", "the file is damaged at this row"),
    "unreadable_file": Reason("read", "the picture's file cannot be read"),
    "missing_column": Reason("read", "the file lacks a column that the run needs", fatal=True),
    "kept_picture": Reason("read", "a column to keep holds what may be a picture, or is too long"),
    "unlabelled": Reason("read", "the row has no identity"),
    "no_bytes": Reason("read", "the row holds no picture (null)"),
    "several_images": Reason("read", "the sample holds several pictures; name one"),
    "empty": Reason("decode", "zero bytes"),
    "too_large": Reason("decode", "more bytes or pixels than allowed"),
    "too_slow": Reason("decode", "takes longer to decode than allowed"),
    "needs_extra": Reason("decode", "HEIC pictures need pip install ppfr-sanitizer[formats]"),
    "not_an_image": Reason("decode", "not a picture of a known format"),
    "damaged_image": Reason("decode", "the picture is truncated or damaged"),
    "several_frames": Reason("decode", "animated or of several pages"),
    "unsupported_pixels": Reason("decode", "pixels of an unsupported kind"),
    "wrong_size": Reason("align", "not an aligned face"),
    "no_face": Reason("align", "no face was found"),
    "no_face_dropped": Reason("align", "no face was found; dropped as asked", intended=True),
    "wrong_boxes": Reason("align", "the boxes, landmarks or regions given cannot be used"),
    "face_without_box": Reason("align", "faces were found that no box covers"),
    "detector_failed": Reason("align", "the detector failed on this picture"),
    "rejected": Reason("align", "a person who reviewed it said so", intended=True),
    "method_failed": Reason("anonymize", "the method failed on this face"),
    "encoder_failed": Reason("encode", "the encoder failed on this face"),
    "not_measured": Reason("measure", "a metric or FR model failed on this face"),
    "too_disclosing": Reason("measure", "shows more of the face than allowed, with every draw"),
    "below_policy": Reason("measure", "falls short of the policy, with every draw"),
    "killed_worker": Reason("worker", "killed the process that worked on it, again and again"),
}
"""Every code that ``dead_letters/`` may hold."""
