"""``evaluation.json``: what ``ppfr evaluate`` measured, one document a method.

Rates lie in 0..1, SSIM in -1..1, PSNR in dB. A part that was not run is null, and ``skipped`` says
why. Per-record figures are in the Parquet tables beside the document.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Rates(_Document):
    """Verification over the pairs: LFW's protocol."""

    accuracy: float
    accuracy_std: float
    auc: float
    eer: float
    tar: dict[str, float]
    """TAR by FAR."""


class Utility(_Document):
    """One FR model."""

    role: Literal["surrogate", "black_box"]
    original: Rates
    protected_protected: Rates
    protected_original: Rates
    id_cosine: float
    """Mean cosine of a face's template before and after."""
    id_match: float
    """Share of faces above the threshold of FAR 1e-3 on originals."""
    threshold: float


class Spread(_Document):
    mean: float
    p01: float
    p50: float
    p99: float
    max: float


class Disclosure(_Document):
    faces: int
    disclosure: Spread
    other_person: Spread
    """Another person's original in place of what was published: the floor that matters."""
    other_published: Spread
    """Another person's published image: the method's own chance level."""
    ssim: float
    psnr: float
    lowfreq_corr: float


class Point(_Document):
    step: int
    seconds: float
    val_ssim: float
    val_psnr: float


class Recovery(_Document):
    """One attacker."""

    knows: Literal["fresh", "fixed", "leaked", "averaging"]
    net: str
    parameters: int
    steps: int
    seconds: float
    training_faces: int
    pictures: int
    """Published pictures of one face that the attacker sees at once."""
    rec_ssim: float
    rec_psnr: float
    recovery_gain: float
    disclosure: float
    """The disclosure measure between what came back and the original."""
    id_match: dict[str, float]
    """By FR model: share of recovered faces matched to the original at FAR 1e-3."""
    flattened: bool
    rise_in_last_fifth: float | None
    """Of the held-back SSIM; null where the curve is too short to tell."""
    curve: list[Point]


class RecoverySummary(_Document):
    floor_ssim: float
    floor_psnr: float
    floor_disclosure: float
    """The mean training face in place of a recovered one."""
    test_faces: int
    best: str
    rec_ssim: float
    rec_psnr: float
    recovery_gain: float
    attackers: dict[str, Recovery]


class Student(_Document):
    pairs: int
    rank1: float
    d_sys: float
    rank1_without: float


class Linkage(_Document):
    """One FR model; published probes against a gallery of original photos."""

    people: int
    probes: int
    rank1: float
    rank10: float
    chance: float
    rank1_same_photo: float
    """The attacker holds the very photo that was published."""
    rank1_original: float
    """Unprotected probes: what the FR model can do at best."""
    d_sys: float
    linking: dict[str, float]
    """Probability of linking by the number of people N'; chance is 1/N'."""
    linking_chance: dict[str, float]
    singling_out: float | None
    singling_out_chance: float
    singling_out_among: int | None
    student: Student | None


class Diversity(_Document):
    faces: int
    draw_similarity: float
    """The disclosure measure between two draws of one face."""
    other_face: float
    """The same between two faces: what is left when nothing is shared but the method."""


class Group(_Document):
    faces: int
    disclosure: float
    rec_ssim: float | None
    rec_ssim_above_floor: float | None = None
    """What is recovered beyond the mean training face, which fits some groups better by itself."""
    id_match: dict[str, float]
    accuracy: dict[str, float] = {}
    """Published faces against their published mirror images and against the others of the group,
    at one threshold for all groups: mean of genuine and impostor accuracy, by FR model."""


class Gap(_Document):
    measure: str
    attribute: str
    lowest_group: str
    lowest: float
    highest_group: str
    highest: float
    gap: float


class Groups(_Document):
    faces: int
    attributes: dict[str, dict[str, Group]]
    largest_gaps: list[Gap]
    """The largest gap of each measure, the largest first."""


class Headline(_Document):
    """The figures to compare methods by."""

    black_box_accuracy: float | None
    fr_accuracy: dict[str, float]
    disclosure: float | None
    disclosure_p99: float | None
    rec_ssim: float | None
    recovery_gain: float | None
    draw_similarity: float | None
    rank1: float | None
    """Linkage by the first black box (or FR model), at face value and taught by known pairs."""
    rank1_student: float | None
    d_sys: float | None


class Model(_Document):
    role: Literal["surrogate", "black_box"]
    sha256: str
    convention: str
    channels: str


class Data(_Document):
    faces: int
    sha256: str


class Evaluation(_Document):
    schema_version: Literal[1] = 1
    label: str
    method: str | None
    options: dict[str, object]
    method_digest: str | None
    draw_size: int | None
    encoding: str
    mode: Literal["quick", "full", "custom"]
    did: list[str]
    """In words: what was measured, on how much."""
    skipped: dict[str, str]
    seed: int
    created: str
    versions: dict[str, str]
    machine: dict[str, str]
    settings: dict[str, object]
    models: dict[str, Model]
    gallery: Data
    attack_faces: Data | None
    seconds: dict[str, float]
    headline: Headline
    utility: dict[str, Utility] | None
    disclosure: Disclosure | None
    diversity: Diversity | None
    linkage: dict[str, Linkage] | None
    recovery: RecoverySummary | None
    groups: Groups | None
    remarks: list[str]
    """What a reader must know, linkability above all."""
