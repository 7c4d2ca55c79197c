"""Is a release worth anything as a benchmark? Recognisers, good and bad, read the same pairs on
originals and on what is published: are they in the same order, and do they err as often?"""

from functools import partial

import numpy as np
from scipy.stats import spearmanr

from ppfr_ops.contracts.worth import Benchmark, Read
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.lab.evaluate.protocol import pair_scores, verify
from ppfr_ops.lab.evaluate.run import Run
from ppfr_ops.lab.evaluate.stages.base import stage
from ppfr_ops.lab.evaluate.stages.look import gradients, pixels
from ppfr_ops.lab.evaluate.stages.training import Photos, photos_of, taught
from ppfr_ops.recognizers import Embeddings

_FLOORS = {"pixels": pixels, "gradients": gradients}


@stage("whether recognisers rank on what is published as on originals")
def benchmark(run: Run) -> Benchmark:
    index, _, _ = run.pair_places()
    faces = run.gallery.images[index], run.published(index)
    found = {name: _read(run, *map(see, faces)) for name, see in _FLOORS.items()}
    found |= {name: _read(run, *run.embeddings(name, index)) for name in run.names}
    photos = photos_of(run)
    for steps in run.settings.benchmark_steps if photos else ():
        assert photos is not None
        name = f"trained_{steps}"
        trained = partial(_trained, run, photos, f"benchmark_{name}", steps, faces)
        found[name] = run.keep(f"benchmark_{name}", Read, trained)
    return ranked(len(run.pairs.a), found)


def ranked(pairs: int, readers: dict[str, Read]) -> Benchmark:
    """What accuracies come to."""
    before, after = np.array([[read.originals, read.published] for read in readers.values()]).T
    rank = spearmanr(before, after).statistic if np.ptp(before) and np.ptp(after) else None
    errs = before < 1
    rates = (1 - after[errs]) / (1 - before[errs])
    return Benchmark(
        pairs=pairs,
        readers=readers,
        rank_correlation=None if rank is None else float(rank),
        error_rates=(float(rates.min()), float(rates.max())) if len(rates) else None,
    )


def _trained(run: Run, photos: Photos, name: str, steps: int, faces: tuple[Faces, Faces]) -> Read:
    model = taught(run, name, photos.images, photos, steps)
    return _read(run, *map(model.embed, faces))


def _read(run: Run, originals: Embeddings, published: Embeddings) -> Read:
    _, a, b = run.pair_places()
    found = [
        verify(pair_scores(x[a], x[b]), run.pairs.same, run.pairs.folds).accuracy
        for x in (originals, published)
    ]
    return Read(originals=found[0], published=found[1])
