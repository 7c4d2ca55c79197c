"""An evaluation in lines for a terminal: what a stage found, and all of them."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from ppfr_ops.contracts.evaluation import Evaluation, Training
from ppfr_ops.contracts.look import Look
from ppfr_ops.lab.evaluate.structure import in_words


def _leaks(document: Any) -> Iterator[str]:
    """The stages that depend on the identity mode."""
    for name, sizes in document.eye.models.items() if document.eye else ():
        seen = ", ".join(
            f"{size} px {view.protected_original.accuracy:.3f} ({view.original.accuracy:.3f})"
            for size, view in sizes.items()
        )
        yield (f"  eye          {name}, against originals: {seen}")
    if document.linker:
        found, chance = document.linker.taught, document.linker.chance
        yield (
            f"  linker       among {document.linker.gallery}: same photo {found.same_photo:.4f} "
            f"(chance {chance.same_photo:.4f}), another {found.another_photo:.4f} "
            f"({chance.another_photo:.4f})"
        )
        for entry in document.linker.known_pairs:
            yield (
                f"  {entry.pairs:>5} known  same photo {entry.same_photo:.4f}, another "
                f"{entry.another_photo:.4f}"
            )
    for name, taken in document.regeneration.unseen.items() if document.regeneration else ():
        yield (
            f"  regenerated  {name}: taken for the person {taken.same_photo:.4f} at FAR 1e-3 "
            f"(strangers {taken.stranger:.4f}), rank 1 {taken.rank1:.4f}"
        )
    for name, told in document.inference.attributes.items() if document.inference else ():
        yield (
            f"  inference    {name}: network {told.network.balanced_accuracy:.3f} (originals "
            f"{told.network_original.balanced_accuracy:.3f}, chance {told.chance:.3f}), templates "
            f"{max(r.balanced_accuracy for r in told.templates.values()):.3f}"
        )
    for name, pair in document.releases.models.items() if document.releases else ():
        yield (
            f"  releases     {name}: accuracy across keys {pair.different_keys.accuracy:.3f}, "
            f"under one {pair.same_key.accuracy:.3f}"
        )


def _worth(document: Any) -> Iterator[str]:
    """What a release is worth to learn from and to measure with; and who is in it."""
    if document.training:
        part = document.training
        yield (
            "  training     accuracy, trained on published: on published "
            f"{part.published_on_published.accuracy:.3f}, on originals "
            f"{part.published_on_originals.accuracy:.3f}; on originals: "
            f"{part.originals_on_published.accuracy:.3f}, "
            f"{part.originals_on_originals.accuracy:.3f}; real gap {real_gap(part):.3f}"
        )
    if document.benchmark:
        told = document.benchmark
        rank = "?" if told.rank_correlation is None else f"{told.rank_correlation:.2f}"
        least, most = told.error_rates or (float("nan"),) * 2
        yield (
            f"  benchmark    {len(told.readers)} recognisers, rank correlation {rank}, error rates "
            f"{least:.2f} to {most:.2f} times those on originals"
        )
    for name, models in document.leak.sets.items() if document.leak else ():
        shares = ", ".join(
            f"{model} {near.published:.6f} (strangers {near.strangers:.6f})"
            for model, near in models.items()
        )
        yield f"  leak         {name}, taken for one at FAR {document.leak.far:g}: {shares}"


def _look(part: Look) -> Iterator[str]:
    before, after = part.originals, part.published
    features = ("left by right", "red by green", "nose aside", "mouth")
    within = [(name, before.varied[name].within, after.varied[name].within) for name in features]
    shares = [
        f"{name} {100 * new / old:.0f}" for name, old, new in within if old and new is not None
    ]
    yield (
        f"  look         a face found in {after.found:.3f} (originals {before.found:.3f}), "
        f"saturation {after.saturation:.0f} ({before.saturation:.0f}), sharpness "
        f"{after.sharpness:.3f} ({before.sharpness:.3f})"
    )
    if shares:
        yield f"  look         a person's photos vary, % of originals: {', '.join(shares)}"
    if after.gradients_auc is not None and before.gradients_auc is not None:
        yield (
            f"  look         told apart by gradients alone {after.gradients_auc:.3f} "
            f"({before.gradients_auc:.3f})"
        )


def real_gap(part: Training) -> float:
    """Accuracy on originals that is lost by training on what is published."""
    return part.originals_on_originals.accuracy - part.published_on_originals.accuracy


def told(name: str, part: Any) -> Iterator[str]:
    """What a stage found."""
    yield from _parts(SimpleNamespace(**{**dict.fromkeys(Evaluation.model_fields), name: part}))


def summary(document: Evaluation) -> Iterator[str]:
    """Lines for a terminal, the strict end first."""
    yield (f"{document.label} ({document.mode}: {'; '.join(document.did)})")
    for attack in document.structure.attacks if document.structure else ():
        assert document.structure is not None
        yield f"  structure    {in_words(attack, document.structure.people)}"
    yield from _parts(document)
    for remark in document.remarks:
        yield (f"  ! {remark}")


def _parts(document: Any) -> Iterator[str]:
    for name, found in (document.utility or {}).items():
        before, after = found.original, found.protected_protected
        against = found.protected_original
        yield (
            f"  {name:<12} TAR at FAR 1e-3 {before.tar['0.001']:.3f} -> {after.tar['0.001']:.3f} "
            f"(against originals {against.tar['0.001']:.3f}), accuracy {before.accuracy:.4f} -> "
            f"{after.accuracy:.4f} ({against.accuracy:.4f}), impostors above the unchanged "
            f"threshold {'?' if found.unchanged is None else f'{found.unchanged.far:.4f}'} "
            f"({found.role.replace('_', ' ')})"
        )
    yield from _worth(document)
    if document.disclosure:
        yield (
            f"  disclosure   {document.disclosure.disclosure.mean:.3f} "
            f"(another person's face {document.disclosure.other_person.mean:.3f})"
        )
    if document.diversity:
        yield (f"  two draws    {document.diversity.draw_similarity:.3f} alike")
    if document.look:
        yield from _look(document.look)
    if document.recovery:
        for name, attacker in document.recovery.attackers.items():
            yield (
                f"  {name:<12} recovers SSIM {attacker.rec_ssim:.3f}, {attacker.rec_psnr:.1f} dB "
                f"in {attacker.steps} steps (floor {document.recovery.floor_ssim:.3f})"
            )
    for name, found in (document.linkage or {}).items():
        yield (
            f"  linkage      {name}: finds {found.rank1:.1%} among {found.people} people "
            f"(unprotected {found.rank1_original:.1%}), D_sys {found.d_sys:.3f}"
        )
    yield from _leaks(document)
    if document.groups and document.groups.largest_gaps:
        gap = document.groups.largest_gaps[0]
        yield (
            f"  largest gap  {gap.measure} by {gap.attribute}: {gap.lowest_group} {gap.lowest:.3f}"
            f" to {gap.highest_group} {gap.highest:.3f}"
        )
