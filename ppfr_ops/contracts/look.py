"""The part of ``evaluation.json`` that says what pictures look like."""

from ppfr_ops.contracts import Document


class Varied(Document):
    within: float | None
    """Deviation between photos of one person; null where nobody has two."""
    between: float | None
    """Deviation of people's means, less what photos add to it."""


class Looked(Document):
    found: float
    """Share of pictures in which a detector (CenterFace) finds a face."""
    saturation: float
    """Mean, 0 to 255."""
    sharpness: float
    """Deviation of the Laplacian of the inner face (geometric mean), grey values 0 to 1."""
    varied: dict[str, Varied]
    """Light and colour in logarithms; where landmarks lie in px of 112."""
    pixels_auc: float | None
    """How well 28 by 28 px alone tell photos of one person from photos of two; .5: not at all."""
    gradients_auc: float | None
    """The same by histograms of gradients."""


class Look(Document):
    """Whether pictures look, and a person's photos differ, as photographs do."""

    people: int
    faces: int
    originals: Looked
    published: Looked
