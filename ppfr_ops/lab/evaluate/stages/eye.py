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
from ppfr_ops.lab.evaluate.stages.base import stage

SIZES = (112, 56, 28, 20)


def coarse(faces: Faces, size: int) -> Faces:
    """Reduced to ``size`` px by area averaging and enlarged again by cubic interpolation; uint8
    ``N x 112 x 112 x 3``."""
    if size == FACE_SIZE:
        return faces
    small = [cv2.resize(face, (size, size), interpolation=cv2.INTER_AREA) for face in faces]
    whole = (FACE_SIZE, FACE_SIZE)
    return np.stack([cv2.resize(f, whole, interpolation=cv2.INTER_CUBIC) for f in small])


@stage("recognition against originals at 112, 56, 28 and 20 px")
def eye(run: Run) -> Eye:
    few = run.settings.eye_pairs_per_fold
    pairs = run.pairs.first(few) if few else run.pairs
    a_rows, a = np.unique(pairs.a, return_inverse=True)
    b_rows, b = np.unique(pairs.b, return_inverse=True)
    models: dict[str, dict[str, View]] = {name: {} for name in run.names}
    for size in SIZES:
        shown = run.published(a_rows), run.gallery.images[a_rows], run.gallery.images[b_rows]
        views = [coarse(faces, size) for faces in shown]
        for name in run.names:
            y, x1, x2 = (run.embed(name, faces, f"{size} px") for faces in views)
            against, plain = (
                verify(pair_scores(seen[a], x2[b]), pairs.same, pairs.folds) for seen in (y, x1)
            )
            models[name][str(size)] = View(protected_original=against, original=plain)
    return Eye(pairs=len(pairs.a), models=models)
