"""What does an attacker get back? Networks trained from published to original."""

from ppfr_ops.contracts.evaluation import RecoverySummary
from ppfr_ops.lab.evaluate.attacks.attackers import Attacker, DrawAttacker, Recovered, attackers
from ppfr_ops.lab.evaluate.run import Run
from ppfr_ops.lab.evaluate.stages.base import Skip, Stage, register


@register("recovery", RecoverySummary)
class RecoveryStage(Stage[RecoverySummary]):
    about = "what attackers get back of the originals"

    def measure(self, run: Run) -> RecoverySummary:
        found = recovered(run)
        if not found:
            raise Skip("no attackers were asked for")
        floor = run.floor
        best = strongest(found)
        lead = found[best].figures
        return RecoverySummary(
            floor_ssim=floor.ssim,
            floor_psnr=floor.psnr,
            floor_disclosure=floor.disclosure,
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
        raise Skip("needs the method and attack faces")
    known, able = attackers(), []
    for name in run.settings.attacks:
        attacker = known[name]
        if isinstance(attacker, DrawAttacker) and run.publisher.anonymizer.draw_size == 0:
            run.skip(f"recovery_{name}", "the method takes no draws: same as unet")
        else:
            able.append(attacker)
    return able


def recovered(run: Run) -> dict[str, Recovered]:
    """What every attacker got back; each is kept as soon as it is known."""

    def measure(attacker: Attacker) -> Recovered:
        return run.keep(f"recovery_{attacker.name}", Recovered, lambda: attacker.measure(run))

    return {attacker.name: measure(attacker) for attacker in chosen(run)}


def strongest(found: dict[str, Recovered]) -> str:
    """The attacker of the standard case that got most back; without one, of all."""
    known = attackers()
    standard = {n: entry for n, entry in found.items() if known[n].main} or found
    return max(standard, key=lambda name: standard[name].figures.rec_ssim)
