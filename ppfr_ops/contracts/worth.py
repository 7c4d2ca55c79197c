"""The parts of ``evaluation.json`` that say what a release is worth as a benchmark, and whether the
people in it are anybody."""

from ppfr_ops.contracts import Document


class Read(Document):
    """Accuracy of one recogniser on the same pairs."""

    originals: float
    published: float


class Benchmark(Document):
    """Does a release tell good recognisers from bad ones, as the originals do?"""

    pairs: int
    readers: dict[str, Read]
    """FR models, two that look at no face (``pixels``, ``gradients``), and small ones that were
    trained for so many steps, where there are photos to train them on."""
    rank_correlation: float | None
    """Spearman's, of the readers' accuracies; null where all are alike."""
    error_rates: tuple[float, float] | None
    """Least and most, over the readers, of the error rate on what is published by that on
    originals; null where nobody errs on originals."""


class Near(Document):
    """Shares of pairs that an FR model takes for one person."""

    published: float
    """A published picture and a photo of somebody else."""
    two_standard_errors: float
    """Of that."""
    strangers: float
    """Photos of two people."""


class Leak(Document):
    """Are the people who are published anybody of the sets at hand, other than by chance?"""

    people: int
    """One picture each."""
    far: float
    """At the threshold of this false accept rate among the originals' people."""
    sets: dict[str, dict[str, Near]]
    """By set of photos and FR model."""
