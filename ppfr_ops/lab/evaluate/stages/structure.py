"""What the set tells: people named from a release without, or beside, looking at its pictures."""

from ppfr_ops.contracts.structure import Structure
from ppfr_ops.lab.evaluate.run import Run
from ppfr_ops.lab.evaluate.stages.base import Skip, stage
from ppfr_ops.lab.evaluate.structure import structure_attack


@stage("people named by sizes, shards, order, kept columns, and how pictures lie to each other")
def structure(run: Run) -> Structure:
    if run.attacked is None:
        raise Skip("needs --release and --source")
    return structure_attack(run.attacked, run.log)
