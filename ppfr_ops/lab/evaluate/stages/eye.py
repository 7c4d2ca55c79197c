"""What is left of the likeness from afar? Recognition against originals at coarse sizes.

People know a face by about 8 to 16 cycles across it. A picture that recognisers match with the
original at 20 or 28 px is a likeness, whatever it shares with the photo at full size.
"""

import cv2
import numpy as np

from ppfr_ops.contracts.evaluation import Eye, View
from ppfr_ops.imaging.arrays import FACE_SIZE, Faces
from ppfr_ops.lab.evaluate.protocol import pair_scores, verify
from ppfr_ops.lab.evaluate.run import Run
from ppfr_ops.lab.evaluate.stages.base import Stage, register

SIZES = (112, 56, 28, 20)


def coarse(faces: Faces, size: int) -> Faces:
    """Reduced to ``size`` px by area averaging and enlarged again by cubic interpolation; uint8
    ``N x 112 x 112 x 3``."""
    if size == FACE_SIZE:
        return faces
    whole = (FACE_SIZE, FACE_SIZE)
    return np.stack(
        [
            cv2.resize(
                cv2.resize(face, (size, size), interpolation=cv2.INTER_AREA),
                whole,
                interpolation=cv2.INTER_CUBIC,
            )
            for face in faces
        ]
    )


@register("eye", Eye)
class EyeStage(Stage[Eye]):
    about = "recognition against originals at 112, 56, 28 and 20 px"

    def measure(self, run: Run) -> Eye:
        few = run.settings.eye_pairs_per_fold
        pairs = run.pairs.first(few) if few else run.pairs
        a_rows, a = np.unique(pairs.a, return_inverse=True)
        b_rows, b = np.unique(pairs.b, return_inverse=True)
        models: dict[str, dict[str, View]] = {name: {} for name in run.names}
        for size in SIZES:
            published = coarse(run.published(a_rows), size)
            first = coarse(run.gallery.images[a_rows], size)
            second = coarse(run.gallery.images[b_rows], size)
            for name in run.names:
                y, x1, x2 = (
                    run.cache.embed(run.model(name), faces, f"{size} px")
                    for faces in (published, first, second)
                )
                against, plain = (
                    verify(pair_scores(seen[a], x2[b]), pairs.same, pairs.folds) for seen in (y, x1)
                )
                models[name][str(size)] = View(protected_original=against, original=plain)
                run.log(
                    f"  {size} px, {name}: {against.accuracy:.3f} against originals "
                    f"(originals {plain.accuracy:.3f})"
                )
        return Eye(pairs=len(pairs.a), models=models)
