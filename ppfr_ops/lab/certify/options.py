"""What is certified, and how closely."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from ppfr_ops.options import decisive


class CertifyOptions(BaseModel):
    """Options of ``ppfr certify``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    claim: Literal["match", "non-match"] = decisive(
        "match", "What is to hold: published pictures match, or none does."
    )
    sigma: float = decisive(
        0.25,
        "Noise that the decision is smoothed by, pixels of 0..1: more lets radii be greater and "
        "recognition worse.",
        gt=0,
        le=2,
    )
    samples: int = decisive(
        1000,
        "Noisy copies of a record: 1,000 at sigma 0.25 can prove 0.61, which is as far as writing "
        "a picture again as JPEG of quality 95 disturbs it.",
        ge=10,
    )
    enrolment_samples: int = decisive(
        16, "Noisy copies of a picture that records are held against.", ge=1
    )
    alpha: float = decisive(0.001, "Probability that a certificate is wrong, each.", gt=0, lt=0.5)
    threshold: float | None = decisive(
        None,
        "Cosine from which on two faces match, under this noise.",
        ge=-1,
        le=1,
        default_text="that of --far",
    )
    far: float = decisive(
        0.001,
        "Share of different people that the threshold lets match, by vote, in this release.",
        gt=0,
        lt=1,
    )
    reencodings: bool = decisive(False, "Try every JPEG quality and step of brightness, too.")
    records: int | None = decisive(None, "Only so many, evenly spread.", ge=1, default_text="all")
