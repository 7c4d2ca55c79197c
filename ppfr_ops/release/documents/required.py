"""What a release must fulfil to leave: the policy's requirements, and those that hold always."""

from collections.abc import Iterator
from dataclasses import dataclass

from ppfr_ops.contracts.dead_letters import REASONS
from ppfr_ops.contracts.manifest import Check, Manifest
from ppfr_ops.contracts.metrics import METRICS
from ppfr_ops.release.figures import Release
from ppfr_ops.release.findings import Finding
from ppfr_ops.words import counted


@dataclass(frozen=True)
class Required:
    """One requirement, and what was found."""

    name: str
    bound: str
    found: str
    holds: bool
    otherwise: str = ""
    """What it means that it does not hold; of the policy's requirements there is one sentence for
    all of them."""
    meaning: str = ""
    """What the figure is, for somebody who does not know the tool."""


_MEANINGS = {
    "records": "pictures that are published",
    "dead_letters": "rows of the input that could not be read or measured",
    "dead_letter_rate": "share of the input that could not be read or measured",
    "quarantined": "pictures held back because they fell short",
    "quarantine_rate": "share of the pictures that was held back because it fell short",
    "unconfirmed_rate": "share of the faces that were drawn and that the detector does not find",
    "structure_k": "size of the smallest group of people who have equally many pictures and equal "
    "values in the kept columns; 1: somebody is alone",
    "singled_out": "people who are alone in that: nobody has as many pictures and equal values",
    "rec_ssim": "likeness of an attacker's reconstruction to the original; 1: equal",
    "recovery_gain": "by how much that is above a guess that looks at no picture",
    "black_box_accuracy": "share of pairs that a recogniser tells rightly: one person or two",
    "rank1": "share of pictures of which a recogniser finds the person first",
    "rank1_student": "the same by a recogniser that was taught on published pictures",
    "residual_faces": "faces that the detector finds beside those that were covered",
}
_OVER_RECORDS = {
    "mean": "on average over the pictures",
    "min": "of the picture with the least",
    "max": "of the picture with the most",
}


def meaning(figure: str) -> str:
    """What a figure of a policy is; empty: its name is all there is."""
    if figure in _MEANINGS:
        return _MEANINGS[figure]
    if figure.startswith("id_match_"):
        return "share of pictures that this recogniser takes for the original's person"
    of_each = figure.removeprefix("every record's ")
    if of_each in METRICS:
        return METRICS[of_each].meaning
    name, _, part = figure.rpartition("_")
    what = METRICS[name].meaning if name in METRICS else _MEANINGS.get(name, "")
    if name.startswith("id_cosine_"):
        what = "likeness of original and picture to this recogniser; 1: the same person"
    if part[:1] == "p" and part[1:].isdecimal():
        return f"{what}; {int(part[1:])} of 100 pictures have less"
    return f"{what}, {_OVER_RECORDS[part]}" if what and part in _OVER_RECORDS else what


def requirements(findings: list[Finding], checks: list[Check], release: Release) -> list[Required]:
    """All of them: the policy's first, as the report lists them."""
    by_policy = [
        Required(
            check.name,
            check.bound,
            "not measured" if check.found is None else f"{check.found:.4g}",
            check.holds,
            meaning=meaning(check.name),
        )
        for check in checks
    ]
    return [*by_policy, *_always(findings, release.manifest), *_of_its_kind(release)]


def _always(findings: list[Finding], manifest: Manifest) -> Iterator[Required]:
    draws = str(manifest.options.get("draws", "?"))
    codes = manifest.counts.dead_letters_by_code
    lost = ", ".join(sorted(code for code in codes if code in REASONS and REASONS[code].fatal))
    yield Required(
        "source of the draws",
        "system",
        draws,
        draws == "system",
        "the draws came from a seed: anyone who knows it can undo the protection",
        "where chance came from: of the operating system's nobody keeps a copy",
    )
    yield Required(
        "files as in the manifest",
        "0 findings",
        str(len(findings)),
        not findings,
        f"the files are not as the manifest says ({len(findings)} findings)",
        "files that differ from the list that is signed",
    )
    yield Required(
        "input that cannot be counted",
        "none",
        lost or "none",
        not lost,
        f"input was lost that cannot be counted ({lost})",
        "damage of which nobody knows how many rows it took",
    )
    yield Required(
        "records",
        ">= 1",
        f"{manifest.counts.records:,}",
        manifest.counts.records > 0,
        "nothing was published",
        "pictures that are published",
    )


def _of_its_kind(release: Release) -> Iterator[Required]:
    """Of photographs, and of differential privacy."""
    if release.manifest.photographs is not None:
        waiting = unreviewed(release.manifest)
        what = counted(waiting, "photograph waits", "photographs wait")
        yield Required(
            "photographs that a person has to look at",
            "0, or accepted",
            f"{waiting:,}",
            waiting == 0,
            f"{what} for a person to look at (--verdicts, or --accept-unreviewed)",
            "the detector was not sure of them, and a face that it missed would be bare",
        )
    if release.audited is not None:
        yield Required(
            "epsilon found by an audit",
            "not above the proof's",
            f"at least {release.audited.epsilon_at_least:.3f}",
            not release.audited.broken,
            "an audit found a higher epsilon than the method can have by its proof",
            "epsilon bounds what a picture tells; the audit is an attack that tries to break it",
        )


def verdict(required: list[Required], checks: list[Check]) -> tuple[bool, str]:
    """Whether the release may leave, and why (not) in one sentence.

    Args:
        required: all requirements, the policy's ``checks`` among them.
    """
    missed = [one.otherwise for one in required if not one.holds and one.otherwise]
    failed = sum(not check.holds for check in checks)
    if failed:
        missed.append(f"{failed} of {len(checks)} requirements of the policy are not met")
    if missed:
        return False, "; ".join(missed)
    return True, f"all {len(required)} requirements are met, {len(checks)} of them the policy's"


def unreviewed(manifest: Manifest) -> int:
    """Photographs that a person should look at and nobody has, unless the owner accepts that."""
    found = manifest.photographs
    accepted = bool(manifest.options.get("accept_unreviewed"))
    return 0 if found is None or accepted else found.waiting
