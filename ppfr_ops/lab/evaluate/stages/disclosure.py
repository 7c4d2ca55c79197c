"""What does a person see of that photo? The disclosure measure, and its floors."""

from ppfr_ops.contracts.evaluation import Disclosure
from ppfr_ops.lab.evaluate.data import evenly
from ppfr_ops.lab.evaluate.measured import disclosures, likeness, spread
from ppfr_ops.lab.evaluate.run import Run
from ppfr_ops.lab.evaluate.stages.base import Stage, register


@register("disclosure", Disclosure)
class DisclosureStage(Stage[Disclosure]):
    about = "what a person sees of the photo, and what they would see of another person's"

    def measure(self, run: Run) -> Disclosure:
        index = evenly(len(run.gallery), run.settings.disclosure_faces)
        x, y = run.gallery.images[index], run.published(index)
        other = run.strangers(index)
        values = disclosures(x, y)
        floor = disclosures(x, x[other])
        chance = disclosures(x, y[other])
        like = likeness(x, y)
        run.table(
            "disclosure",
            {
                "face": index,
                "disclosure": values,
                "other_person": floor,
                "other_published": chance,
                **like,
            },
        )
        run.log(f"  disclosure {values.mean():.3f} (another person's face: {floor.mean():.3f})")
        return Disclosure(
            faces=len(index),
            disclosure=spread(values),
            other_person=spread(floor),
            other_published=spread(chance),
            **{name: float(part.mean()) for name, part in like.items()},
        )
