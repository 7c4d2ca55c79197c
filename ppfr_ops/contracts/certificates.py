"""Certificates of published records: the owner's evidence. A table, and a document about it."""

from typing import Literal

import pyarrow as pa
from pydantic import Field

from ppfr_ops.contracts import Document, described, versioned

RADII = (0.1, 0.25, 0.5, 0.6, 1.0)
"""L2 radii, pixels of 0..1, that are reported on."""

CERTIFICATES_SCHEMA = versioned(
    "certificates",
    [
        described("record_id", pa.string(), "the record in data/", range_="unique, never null"),
        described(
            "radius",
            pa.float32(),
            "no disturbance of this L2 norm or less changes the smoothed decision",
            "pixels of 0..1",
            "0 or more; null: abstained, or decided otherwise",
        ),
        described("hits", pa.int32(), "noisy copies that were decided as claimed", "1", "0 to n"),
        described(
            "at_least",
            pa.float32(),
            "Clopper-Pearson lower bound of the share that is decided as claimed",
            "1",
            "0 to 1",
        ),
        described(
            "jpeg_quality",
            pa.int16(),
            "lowest quality from which on, up to 100, every JPEG re-encoding is decided as "
            "claimed; each was tried",
            "1",
            "null: not tried, or not at 100",
        ),
        described(
            "brightness",
            pa.int16(),
            "grey levels by which, at most, brightness may go up or down, every step of which was "
            "tried",
            "1",
            "null: not tried, or not as it is",
        ),
    ],
)


class CertifiedAt(Document):
    radius: float
    share: float = Field(
        ge=0,
        le=1,
        description="of all records; abstentions and what was left out count as failures",
    )


class Certification(Document):
    """``certificates/NAME/certification.json``: what was certified, and for what share."""

    schema_version: Literal[2] = 2
    recognizer: str
    recognizer_sha256: str
    surrogate: bool = Field(description="a model that ppfr distill made; it speaks for itself only")
    claim: Literal["match", "non-match"]
    against: Literal["published", "originals"]
    threshold: float = Field(description="of the cosine; from it on, two faces match")
    far: float | None = Field(
        description="of votes, that the threshold was chosen for; null: it was given"
    )
    sigma: float = Field(gt=0, description="of the noise, pixels of 0..1")
    samples: int = Field(ge=1, description="noisy copies of a record")
    enrolment_samples: int = Field(ge=1, description="noisy copies of a picture it is held against")
    enrolled_by_sha256: str | None = Field(
        default=None, description="model that enrols clean pictures instead; null: none does"
    )
    alpha: float = Field(gt=0, lt=1, description="probability that a certificate is wrong, each")
    threshold_comparisons: int | None = Field(
        default=None, description="of different people, that the threshold comes from; null: given"
    )
    reach: float | None = Field(
        default=None, description="radius that is certified if every copy is decided as claimed"
    )
    records: int = Field(description="all that were chosen; shares are of them")
    left_out: int = Field(
        description="records without anything to hold them against; they count as failures"
    )
    abstained: int
    certified: list[CertifiedAt]
    median_radius: float | None = Field(description="of those that are certified")
    jpeg_quality: dict[str, float] = Field(description="share that holds from this quality on")
    brightness: dict[str, float] = Field(description="share that holds up to so many grey levels")
    seconds_per_record: float
