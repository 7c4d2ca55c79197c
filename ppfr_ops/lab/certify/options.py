"""What is certified, and how closely."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from ppfr_ops.options import option


class CertifyOptions(BaseModel):
    """Options of ``ppfr certify``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    claim: Literal["match", "non-match"] = option(
        "match", "What is to hold: published pictures match, or none does.", shapes=True
    )
    sigma: float = option(
        0.25,
        "Noise that the decision is smoothed by, pixels of 0..1: more lets radii be greater and "
        "recognition worse.",
        shapes=True,
        gt=0,
        le=2,
    )
    samples: int = option(
        1000,
        "Noisy copies of a record: 1,000 at sigma 0.25 can prove 0.61, which is as far as writing "
        "a picture again as JPEG of quality 95 disturbs it.",
        shapes=True,
        ge=10,
    )
    enrolment_samples: int = option(
        16, "Noisy copies of a picture that records are held against.", shapes=True, ge=1
    )
    alpha: float = option(
        0.001, "Probability that a certificate is wrong, each.", shapes=True, gt=0, lt=0.5
    )
    threshold: float | None = option(
        None,
        "Cosine from which on two faces match, under this noise.",
        shapes=True,
        ge=-1,
        le=1,
        default_text="that of --far",
    )
    far: float = option(
        0.001,
        "Share of different people that the threshold lets match, by vote, in this release.",
        shapes=True,
        gt=0,
        lt=1,
    )
    reencodings: bool = option(
        False, "Try every JPEG quality and step of brightness, too.", shapes=True
    )
    records: int | None = option(
        None, "Only so many, evenly spread.", shapes=True, ge=1, default_text="all"
    )
