"""Do two releases match each other? Under different keys they must not, under one key they must."""

from ppfr_ops.contracts.evaluation import Releases, TwoReleases
from ppfr_ops.lab.evaluate.protocol import pair_scores, verify
from ppfr_ops.lab.evaluate.run import Run
from ppfr_ops.lab.evaluate.stages.base import stage
from ppfr_ops.lab.evaluate.streams import key


@stage("pairs across two releases, under different keys and under the same")
def releases(run: Run) -> Releases:
    index, a, b = run.pair_places()
    first = run.published(index)
    again = run.publish_gallery(run.release, "published: the same key again", index)
    another = run.method.under(key(run.settings.seed, "another release"))
    other = run.publish_gallery(another, "published: another key", index)
    same, folds = run.pairs.same, run.pairs.folds
    models = {}
    for name, threshold in run.thresholds.items():
        x, y, z = (run.embed(name, faces, "releases") for faces in (first, again, other))
        models[name] = TwoReleases(
            different_keys=verify(pair_scores(x[a], z[b]), same, folds),
            same_key=verify(pair_scores(x[a], y[b]), same, folds),
            same_photo_different_keys=float((pair_scores(x, z) >= threshold).mean()),
            same_photo_same_key=float((pair_scores(x, y) >= threshold).mean()),
        )
    return Releases(pairs=len(a), keyed=run.method.keyed, models=models)
