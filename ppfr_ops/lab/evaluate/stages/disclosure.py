"""What does a person see of that photo? The disclosure measure, and its floors."""

from ppfr_ops.contracts.evaluation import Disclosure
from ppfr_ops.lab.evaluate.data import evenly
from ppfr_ops.lab.evaluate.measured import disclosures, likeness, spread
from ppfr_ops.lab.evaluate.run import Run
from ppfr_ops.lab.evaluate.stages.base import stage


@stage("what a person sees of the photo, and what they would see of another person's")
def disclosure(run: Run) -> Disclosure:
    index = evenly(len(run.gallery), run.settings.disclosure_faces)
    x, y = run.gallery.images[index], run.published(index)
    other = run.strangers(index)
    columns = {
        "disclosure": disclosures(x, y),
        "other_person": disclosures(x, x[other]),
        "other_published": disclosures(x, y[other]),
    }
    like = likeness(x, y)
    run.table("disclosure", {"face": index, **columns, **like})
    spreads = {name: spread(values) for name, values in columns.items()}
    means = {name: float(values.mean()) for name, values in like.items()}
    return Disclosure.model_validate({"faces": len(index), **spreads, **means})
