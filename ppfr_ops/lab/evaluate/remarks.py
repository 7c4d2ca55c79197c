"""What a reader of an evaluation must know, in words."""

from typing import Any

from ppfr_ops.contracts.evaluation import Linkage, Linker, Recovery, RecoverySummary, Utility
from ppfr_ops.contracts.structure import Structure
from ppfr_ops.contracts.worth import Leak
from ppfr_ops.lab.evaluate.run import Run


def remarks(run: Run, parts: dict[str, Any]) -> list[str]:
    """All remarks, the most important first."""
    found = told_by_the_set(parts["structure"]) if parts["structure"] else []
    if parts["leak"]:
        found += leaked(parts["leak"])
    if parts["linker"]:
        found += strongly_linked(parts["linker"])
    if parts["linkage"]:
        found += linked(parts["linkage"])
    if parts["utility"]:
        found += thresholds(parts["utility"])
    if parts["recovery"]:
        found += recovered(parts["recovery"])
    if run.publisher is not None and run.publisher.anonymizer.draw_size == 0:
        found.append("The method takes no draws: everything it hides rests on the method alone.")
    return found


def told_by_the_set(structure: Structure) -> list[str]:
    """Whom the set names, whatever the pictures show."""
    if not structure.attacks or structure.attacks[0].right is None:
        return []
    best = structure.attacks[0]
    luck = (
        ""
        if best.within_sizes is None
        else f", and by luck among people of the same number of records {best.within_sizes:.1f} on "
        f"average ({best.within_sizes_most} at most, in 99 of 100 cases)"
    )
    return [
        f"Anyone who knows which person stands in which row of the source names {best.right} of "
        f"{structure.people} people rightly ({best.named} named), by {best.attack}; with the "
        f"pseudonyms dealt at random {best.control_right}{luck}."
    ]


def leaked(leak: Leak) -> list[str]:
    """Of which set published people are somebody more often than strangers are."""
    return [
        f"{model} takes published pictures for other people in {name} more often than strangers: "
        f"{near.published:.2%} of pairs, {near.strangers:.2%} of strangers' (at FAR {leak.far:g})."
        for name, models in leak.sets.items()
        for model, near in models.items()
        if near.published > near.strangers + near.two_standard_errors
    ]


def strongly_linked(linker: Linker) -> list[str]:
    """What the strong linker finds, and from how many known pairs on it finds anybody."""
    taught, chance = linker.taught, linker.chance
    found = [
        f"Anyone who runs the method on {linker.training_pairs} faces of others"
        + (" under keys of their own" if linker.keys else "")
        + f", and trains on that, finds the very photo first among {linker.gallery} originals in "
        f"{taught.same_photo:.2%} of cases (chance {chance.same_photo:.2%}) and another photo of "
        f"the person in {taught.another_photo:.2%} (chance {chance.another_photo:.2%})."
    ]
    limit = 10 * max(chance.another_photo, 1 / linker.gallery)
    over = [entry for entry in linker.known_pairs if entry.another_photo > limit]
    if over:
        first = over[0]
        found.append(
            f"Anyone who knows {first.pairs} originals together with their pictures in the release "
            f"finds another photo of other people first in {first.another_photo:.2%} of cases, "
            "more than ten times chance: do not let so many pairs become known."
        )
    elif linker.known_pairs:
        last = linker.known_pairs[-1]
        found.append(
            f"{last.pairs} known pairs of the release do not help to find others: another photo "
            f"of the person first in {last.another_photo:.2%}."
        )
    return found


def thresholds(utility: dict[str, Utility]) -> list[str]:
    """Where the threshold of FAR 1e-3 on originals accepts too many impostors."""
    found = []
    for name, item in utility.items():
        if item.unchanged is not None and item.unchanged.far > 0.005:
            found.append(
                f"At {name}'s threshold for originals (FAR 1e-3) {item.unchanged.far:.2%} of the "
                f"impostor pairs of published pictures pass: use {item.thresholds['0.001']:.4f} "
                f"instead of {item.threshold:.4f}."
            )
    return found


def linked(linkage: dict[str, Linkage]) -> list[str]:
    """Who is found, and by which FR model best."""

    def rates(found: Linkage) -> tuple[float, float]:
        return found.rank1, found.student.rank1 if found.student else 0.0

    name = max(linkage, key=lambda n: max(rates(linkage[n])))
    found = linkage[name]
    plain, taught = rates(found)
    pairs = found.student.pairs if found.student else 0
    return [
        f"Linkable: anyone who holds another photo of a person and the FR model {name} finds that "
        f"person among {found.people} in {max(plain, taught):.1%} of cases"
        + (f", taught by {pairs} known pairs" if taught > plain else "")
        + f" (unprotected {found.rank1_original:.1%}, chance {found.chance:.2%}). What "
        "is published remains personal data unless this is at chance."
    ]


def recovered(recovery: RecoverySummary) -> list[str]:
    """Whether the attackers were worth their name."""
    found = [remark for name, a in recovery.attackers.items() for remark in trained(name, a)]
    leaked = recovery.attackers.get("leaked")
    if leaked is not None:
        gain = leaked.rec_ssim - recovery.rec_ssim
        if gain > 0.01:
            says = f"gets {gain:.3f} SSIM more back: that is what the randomness protects"
        else:
            says = f"gets no more back ({gain:+.3f} SSIM): the randomness is not what protects"
        found.append(f"With the record's own draw leaked the attacker {says}. Keep no draw.")
    return found


def trained(name: str, attacker: Recovery) -> list[str]:
    """Whether an attacker was trained long enough, on enough faces."""
    found = []
    rise = attacker.rise_in_last_fifth
    if rise is None:
        found.append(f"The attacker {name} ran for too few steps to say anything.")
    elif not attacker.flattened:
        found.append(
            f"The attacker {name} was still improving when it stopped "
            f"(+{rise:.3f} SSIM in the last fifth): more steps get more back."
        )
    best = max(attacker.curve, key=lambda point: point.val_ssim)
    if best.val_ssim - attacker.curve[-1].val_ssim > 0.02:
        found.append(
            f"The attacker {name} was best at step {best.step} and fell from there: it "
            "learned its training faces by heart. More faces (--attack-faces, and "
            "--averaging-faces for averaging) may get more back."
        )
    return found
