"""What a release must fulfil to leave: the policy's requirements, and those that hold always."""

from collections.abc import Iterator
from dataclasses import dataclass

from ppfr_ops.contracts.dead_letters import REASONS
from ppfr_ops.contracts.manifest import Check, Manifest
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


def requirements(findings: list[Finding], checks: list[Check], release: Release) -> list[Required]:
    """All of them: the policy's first, as the report lists them."""
    by_policy = [
        Required(
            check.name,
            check.bound,
            "not measured" if check.found is None else f"{check.found:.4g}",
            check.holds,
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
    )
    yield Required(
        "files as in the manifest",
        "0 findings",
        str(len(findings)),
        not findings,
        f"the files are not as the manifest says ({len(findings)} findings)",
    )
    yield Required(
        "input that cannot be counted",
        "none",
        lost or "none",
        not lost,
        f"input was lost that cannot be counted ({lost})",
    )
    yield Required(
        "records",
        ">= 1",
        f"{manifest.counts.records:,}",
        manifest.counts.records > 0,
        "nothing was published",
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
        )
    if release.audited is not None:
        yield Required(
            "epsilon found by an audit",
            "not above the proof's",
            f"at least {release.audited.epsilon_at_least:.3f}",
            not release.audited.broken,
            "an audit found a higher epsilon than the method can have by its proof",
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
