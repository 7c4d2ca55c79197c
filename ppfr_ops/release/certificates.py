"""Certificates in words, for people who do not know the method; and where a release has them."""

from ppfr_ops.contracts.certificates import Certification
from ppfr_ops.errors import UserError
from ppfr_ops.store.folder import EVIDENCE, Folder

FOLDER, DOCUMENT = "certificates", "certification.json"


def read_all(output: Folder) -> list[Certification]:
    """What was certified of an output, by the name of the folder.

    Raises:
        UserError: a document does not have the form of one.
    """
    found = []
    for name in output.names(EVIDENCE, FOLDER):
        place = (EVIDENCE, FOLDER, name, DOCUMENT)
        if output.exists(*place):
            one = output.model(Certification, *place)
            if one is None:
                raise UserError(f"{'/'.join(place)} is damaged")
            found.append(one)
    return found


def in_words(found: Certification) -> list[str]:
    """What is certified, for people who do not know the method."""
    held = (
        "other published pictures of the person"
        if found.against == "published"
        else ("the photo that it was made of")
    )
    decision = "matches" if found.claim == "match" else "does not match"
    whose = " (a surrogate: it says nothing about the recogniser that it stands for)"
    failed = f"{found.abstained:,} have no certificate"
    if found.left_out:
        failed += f" and {found.left_out:,} had nothing to be held against"
    lines = [
        f"Certified: that {found.recognizer}{whose if found.surrogate else ''}, deciding by vote "
        f"over noisy copies (sigma {found.sigma:g}) at threshold {found.threshold:.3f}, says of a "
        f"published picture that it {decision} {held}, however the picture is disturbed, "
        "as long as the disturbance is no greater than the radius (L2, pixels of 0..1).",
        f"Of {found.records:,} records {failed}; they count as failures. "
        + "; ".join(f"{c.share:.1%} hold at {c.radius:g}" for c in found.certified)
        + ". For scale: writing a picture again as JPEG of quality 95 disturbs it by about 0.6."
        + ("" if found.reach is None else f" More than {found.reach:.2f} could not be proven."),
        f"Each certificate is wrong with probability {found.alpha:g} at most: of a million, "
        f"{found.alpha * 1e6:,.0f} may be.",
        "Not certified: other recognisers, other thresholds, decisions without the vote, and "
        "disturbances that are greater.",
    ]
    if found.claim == "non-match":
        lines.append(
            "This is no protection against an attacker: anyone who wants a picture to match takes "
            "the plain decision, another recogniser or another threshold, and no vote. It says how "
            "steady the decision of a verifier is that does vote."
        )
    for name, shares, word in (
        ("JPEG of quality", found.jpeg_quality, "and more"),
        ("brightness up or down by", found.brightness, "grey levels and less"),
    ):
        for mark, share in shares.items():
            lines.append(f"{name} {mark} {word}, each tried: holds for {share:.1%}.")
    return lines
