"""Are two pictures of one face different? Two draws, by the disclosure measure."""

from ppfr_ops.contracts.evaluation import Diversity
from ppfr_ops.lab.evaluate.data import evenly
from ppfr_ops.lab.evaluate.measured import disclosures
from ppfr_ops.lab.evaluate.run import Run
from ppfr_ops.lab.evaluate.stages.base import Skip, stage


@stage("two draws of one face")
def diversity(run: Run) -> Diversity:
    if run.publisher is None:
        raise Skip("needs the method, to draw twice")
    index = evenly(len(run.gallery), run.settings.disclosure_faces)
    y = run.published(index)
    z = run.publish_gallery(run.release, "published: a second draw", index)
    values = disclosures(y, z)
    other = disclosures(y, z[run.strangers(index)])
    run.table("diversity", {"face": index, "draw_similarity": values, "other_face": other})
    return Diversity(
        faces=len(index), draw_similarity=float(values.mean()), other_face=float(other.mean())
    )
