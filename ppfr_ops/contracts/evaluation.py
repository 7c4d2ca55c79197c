"""``evaluation.json``: what ``ppfr evaluate`` measured, one document a method.

Rates lie in 0..1, SSIM in -1..1, PSNR in dB. A part that was not run is null, and ``skipped`` says
why. Per-record figures are in the Parquet tables beside the document.

Version 2 added the parts from ``eye`` to ``training``, the thresholds in ``utility`` and half of
the headline, version 3 the part ``structure``; all of them are optional, so documents of earlier
versions are read as they are.
"""

from typing import Literal

from ppfr_ops.contracts import Document
from ppfr_ops.contracts.look import Look
from ppfr_ops.contracts.structure import Structure
from ppfr_ops.contracts.worth import Benchmark, Leak


class Rates(Document):
    """Verification over the pairs: LFW's protocol."""

    tar: dict[str, float]
    """TAR by FAR. The strict end first: accuracy saturates."""
    accuracy: float
    accuracy_std: float
    auc: float
    eer: float


class Unchanged(Document):
    """Pairs of published pictures at the threshold of FAR 1e-3 on originals, which is what a
    recogniser in production has."""

    far: float
    tar: float


class Utility(Document):
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
    unchanged: Unchanged | None = None
    thresholds: dict[str, float] = {}
    """Recommended for what is published: by FAR, over pairs of published pictures."""


class Spread(Document):
    mean: float
    p01: float
    p50: float
    p99: float
    max: float


class Disclosure(Document):
    faces: int
    disclosure: Spread
    other_person: Spread
    """Another person's original in place of what was published: the floor that matters."""
    other_published: Spread
    """Another person's published image: the method's own chance level."""
    ssim: float
    psnr: float
    lowfreq_corr: float


class Point(Document):
    step: int
    seconds: float
    val_ssim: float
    val_psnr: float


class Recovery(Document):
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


class RecoverySummary(Document):
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


class Student(Document):
    pairs: int
    rank1: float
    d_sys: float
    rank1_without: float


class Linkage(Document):
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


class Diversity(Document):
    faces: int
    draw_similarity: float
    """The disclosure measure between two draws of one face."""
    other_face: float
    """The same between two faces: what is left when nothing is shared but the method."""


class Group(Document):
    faces: int
    disclosure: float
    rec_ssim: float | None
    rec_ssim_above_floor: float | None = None
    """What is recovered beyond the mean training face, which fits some groups better by itself."""
    id_match: dict[str, float]
    accuracy: dict[str, float] = {}
    """Published faces against their published mirror images and against the others of the group,
    at one threshold for all groups: mean of genuine and impostor accuracy, by FR model."""


class Gap(Document):
    measure: str
    attribute: str
    lowest_group: str
    lowest: float
    highest_group: str
    highest: float
    gap: float


class Groups(Document):
    faces: int
    attributes: dict[str, dict[str, Group]]
    largest_gaps: list[Gap]
    """The largest gap of each measure, the largest first."""


class View(Document):
    """Verification with both pictures of a pair reduced to one size."""

    protected_original: Rates
    original: Rates


class Eye(Document):
    """What is left of the likeness from afar: recognition against originals when the pictures are
    reduced by area averaging and enlarged again."""

    pairs: int
    models: dict[str, dict[str, View]]
    """By FR model, then by size in px."""


class Reading(Document):
    balanced_accuracy: float
    standard_error: float


class Inferred(Document):
    """One attribute. Balanced accuracy: the mean over the groups of the share told right."""

    groups: dict[str, int]
    """Test faces of each group."""
    chance: float
    network: Reading
    network_original: Reading
    templates: dict[str, Reading]
    """A linear head on the templates of one FR model, by model."""
    templates_original: dict[str, Reading]


class Inference(Document):
    """What can be told of a person that was not to be told (WP216's third criterion): attackers
    trained on what is published for other people, beside the same on originals."""

    training_faces: int
    test_faces: int
    steps: int
    attributes: dict[str, Inferred]


class Found(Document):
    """Rank 1 in the whole gallery of originals."""

    same_photo: float
    another_photo: float
    """With the very photo taken out: the first is another photo of the person."""


class KnownPairs(Document):
    pairs: int
    attack: str
    """The one that found most."""
    same_photo: float
    another_photo: float


class Linker(Document):
    """The strong linker: pairs without end made by running the method, the templates of all FR
    models, a network on top; and, as a curve, pairs that are known of the release itself."""

    gallery: int
    probes: int
    probes_with_another_photo: int
    training_pairs: int
    keys: int
    """Keys of the attacker's own under which the pairs were made; 0: the method takes none."""
    models: list[str]
    chance: Found
    untaught: dict[str, Found]
    """By FR model, nothing learned."""
    taught: Found
    known_pairs: list[KnownPairs]


class Taken(Document):
    """How often an FR model takes a regenerated face for the person, at FAR 1e-3 on originals."""

    same_photo: float
    another_photo: float | None
    stranger: float
    """The same comparison with originals of others: its false accepts."""
    rank1: float
    """The very photo first in the gallery."""


class Regeneration(Document):
    """A decoder from the picture and its templates, trained to give faces that FR models take for
    the person, and judged by FR models that it was not trained with."""

    steps: int
    parameters: int
    training_faces: int
    test_faces: int
    trained_with: list[str]
    far: float
    rank1_chance: float
    unseen: dict[str, Taken]


class TwoReleases(Document):
    """One FR model; the first picture of a pair from one release, the second from another."""

    different_keys: Rates
    same_key: Rates
    same_photo_different_keys: float
    """Share of photos whose two pictures match at the threshold of FAR 1e-3 on originals."""
    same_photo_same_key: float


class Releases(Document):
    pairs: int
    keyed: bool
    """Whether the method takes a key; if not, both columns are of fresh draws alone."""
    models: dict[str, TwoReleases]


class Training(Document):
    """What a release is worth to anyone who trains on it: a small recogniser, trained twice."""

    people: int
    faces: int
    steps: int
    parameters: int
    published_on_published: Rates
    """Trained on what is published, read on what is published."""
    published_on_originals: Rates
    originals_on_originals: Rates
    originals_on_published: Rates


class Headline(Document):
    """The figures to compare methods by."""

    black_box_tar: float | None = None
    """TAR at FAR 1e-3, published with published, mean over the black boxes."""
    fr_tar: dict[str, float] = {}
    unchanged_far: float | None = None
    """Impostor pairs above the unchanged threshold of FAR 1e-3: the worst FR model."""
    black_box_accuracy: float | None
    fr_accuracy: dict[str, float]
    original_accuracy: float | None = None
    """Published with original, mean over the black boxes: utility or leakage, by the mode."""
    original_tar: float | None = None
    disclosure: float | None
    disclosure_p99: float | None
    rec_ssim: float | None
    recovery_gain: float | None
    draw_similarity: float | None
    rank1: float | None
    """Linkage by the first black box (or FR model), at face value and taught by known pairs."""
    rank1_student: float | None
    d_sys: float | None
    linker_same_photo: float | None = None
    linker_another_photo: float | None = None
    eye_accuracy: float | None = None
    """Published with original: the highest over FR models and sizes."""
    regenerated: float | None = None
    """The highest share of regenerated faces taken for the person by an unseen FR model."""
    inference_above_chance: float | None = None
    """The largest excess of a network's balanced accuracy over chance."""
    other_release_accuracy: float | None = None
    """Two releases under different keys: the highest over the FR models."""
    real_gap: float | None = None
    """Accuracy on originals that a small recogniser loses by training on what is published."""
    rank_correlation: float | None = None
    """Of recognisers' accuracies on originals and on what is published."""
    named_by_structure: float | None = None
    """Share of people whom the structure attack names rightly: the best of its ways."""


class Model(Document):
    role: Literal["surrogate", "black_box"]
    sha256: str
    convention: str
    channels: str


class Data(Document):
    faces: int
    sha256: str


class Evaluation(Document):
    schema_version: Literal[3] = 3
    label: str
    method: str | None
    options: dict[str, object]
    method_digest: str | None
    draw_size: int | None
    identity: str | None = None
    """Identity mode: virtual or original; null for a method without the choice."""
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
    look: Look | None = None
    linkage: dict[str, Linkage] | None
    recovery: RecoverySummary | None
    groups: Groups | None
    eye: Eye | None = None
    inference: Inference | None = None
    linker: Linker | None = None
    regeneration: Regeneration | None = None
    releases: Releases | None = None
    training: Training | None = None
    benchmark: Benchmark | None = None
    leak: Leak | None = None
    structure: Structure | None = None
    remarks: list[str]
    """What a reader must know, linkability above all."""
