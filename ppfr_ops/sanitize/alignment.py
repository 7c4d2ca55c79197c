"""A look at the first faces of an input: are they aligned as FR models take them?"""

from collections.abc import Sequence

from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import FACE_SIZE, Picture
from ppfr_ops.imaging.codec import ImageError, decode
from ppfr_ops.methods.base import Anonymizer
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.source.formats import reader_of
from ppfr_ops.source.plan import Plan, read_unit

LOOKED_AT = 12
"""Faces that are looked at before anything is done."""

AS_THEY_ARE = "off"

_OFFER = (
    "--faces detect --output-faces in-place covers every head in whole photographs, --faces detect "
    "alone cuts every face out and aligns it"
)


def aligned(options: SanitizeOptions, method: Anonymizer, plan: Plan) -> tuple[str, str | None]:
    """The template by which the faces of an input are aligned, and what a person should be told.

    Raises:
        UserError: they are by another one than was said, or by none.
    """
    if options.align not in ("check", "auto"):
        return options.align, None
    given = method.guarantee() is not None
    if given and options.align == "auto":
        raise UserError(
            "--align auto looks at faces, which a guarantee does not cover; name the template"
        )
    pictures = _first(plan)
    if not pictures:
        return AS_THEY_ARE, None  # whatever they are, the run says what becomes of them
    sizes = {picture.shape[1::-1] for picture in pictures}
    usual = (FACE_SIZE, FACE_SIZE)
    # One odd picture is its own matter.
    strange = len(pictures) >= 2 and usual not in sizes
    found, several = (None, 0) if given else _recognised(pictures)
    if found == "arcface" and not strange:
        return AS_THEY_ARE, None
    if not strange and several < max(4, len(pictures) // 2):
        return AS_THEY_ARE, None  # drawn faces, or none: nothing that could be said
    width, height = pictures[0].shape[1::-1]
    size = f"{width} x {height}"
    if found is not None:
        if options.align == "auto":
            return (
                found,
                f"the faces are aligned by the template {found}; they are turned into 112 x 112",
            )
        text = f"these faces of {size} px are aligned by the template {found}, which is not as FR "
        text += "models take them (112 x 112)"
        return _said(method, strange, text, f"--align auto aligns them anew; {_OFFER}")
    if strange:
        text = f"these are photographs, the first of {size} px, and no aligned faces of 112 x 112"
        return _said(method, True, text, _OFFER)
    text = f"the eyes of the first {several} faces are not where those of aligned faces are"
    return _said(method, options.align == "auto", text, _OFFER)


def template_of(plan: Plan) -> str:
    """The known template by which the first faces of an input are aligned, if there is one."""
    pictures = _first(plan)
    found = _recognised(pictures)[0] if pictures else None
    return AS_THEY_ARE if found in (None, "arcface") else str(found)


def _said(method: Anonymizer, refuse: bool, text: str, offer: str) -> tuple[str, str]:
    if refuse or method.reads_faces:
        way = "" if refuse else "; --align off takes them as they are"
        raise UserError(f"{text}: {offer}{way}")
    return AS_THEY_ARE, f"{text}; the published pictures do not depend on it, groups of photos may"


def _first(plan: Plan) -> list[Picture]:
    """The first pictures that can be decoded."""
    unit = plan.units[0]
    rows = min(LOOKED_AT, unit.stop - unit.start)
    pictures = []
    for cell in read_unit(plan, reader_of(plan.format).first(unit, rows))["image"]:
        try:
            pictures.append(decode(cell.as_py() or b""))
        except ImageError:
            continue
    return pictures


def _recognised(pictures: Sequence[Picture]) -> tuple[str | None, int]:
    """The known template, and in how many pictures a face was found."""
    from ppfr_ops.imaging.detector import CenterFace
    from ppfr_ops.imaging.templates import landmarks, recognised

    size = pictures[0].shape[1::-1]
    alike = [picture for picture in pictures if picture.shape[1::-1] == size]
    points = landmarks(alike, CenterFace(once=True, side=512))
    if len(points) < max(3, len(alike) // 3):
        return None, len(points)
    return recognised(points, (size[0], size[1])), len(points)
