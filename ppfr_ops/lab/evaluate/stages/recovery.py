"""What does an attacker get back? Networks trained from published to original."""

from functools import partial

from ppfr_ops.contracts.evaluation import RecoverySummary
from ppfr_ops.lab.evaluate.attacks.attackers import ATTACKERS, Attacker, DrawAttacker, Recovered
from ppfr_ops.lab.evaluate.run import NEEDS_METHOD, Run
from ppfr_ops.lab.evaluate.stages.base import Skip, stage


@stage("what attackers get back of the originals")
def recovery(run: Run) -> RecoverySummary:
    found = {
        attacker.name: run.keep(  # as soon as it is known
            f"recovery_{attacker.name}", Recovered, partial(attacker.measure, run)
        )
        for attacker in chosen(run)
    }
    if not found:
        raise Skip("no attackers were asked for")
    best = strongest(found)
    lead = found[best].figures
    return RecoverySummary(
        **run.floor,
        test_faces=min(run.settings.test_faces, len(run.gallery)),
        best=best,
        rec_ssim=lead.rec_ssim,
        rec_psnr=lead.rec_psnr,
        recovery_gain=lead.recovery_gain,
        attackers={name: entry.figures for name, entry in found.items()},
    )


def chosen(run: Run) -> list[Attacker]:
    """Attackers that make sense for this method; the others are noted as skipped.

    Raises:
        Skip: there is no method or nobody to train on.
    """
    if run.publisher is None or run.attack_faces is None:
        raise Skip(NEEDS_METHOD)
    able = []
    for attacker in (ATTACKERS[name] for name in run.settings.attacks):
        if isinstance(attacker, DrawAttacker) and run.publisher.anonymizer.draw_size == 0:
            run.skip(f"recovery_{attacker.name}", "the method takes no draws: same as unet")
        else:
            able.append(attacker)
    return able


def strongest(found: dict[str, Recovered]) -> str:
    """The attacker of the standard case that got most back; without one, of all."""
    standard = [name for name in found if ATTACKERS[name].main] or list(found)
    return max(standard, key=lambda name: found[name].figures.rec_ssim)
