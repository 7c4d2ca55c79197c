"""Can a network draw a face that recognisers take for the person?"""

import numpy as np

from ppfr_ops.contracts.evaluation import Regeneration, Taken
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.lab.evaluate.attacks.linker import Search
from ppfr_ops.lab.evaluate.attacks.regeneration import Decoder, differentiable
from ppfr_ops.lab.evaluate.data import evenly
from ppfr_ops.lab.evaluate.run import Run
from ppfr_ops.lab.evaluate.stages.base import Skip, stage
from ppfr_ops.lab.evaluate.stages.linker import whole_people


@stage("a decoder with an identity loss, judged by FR models that it was not trained with")
def regeneration(run: Run) -> Regeneration:
    pool = run.pool
    modules = {name: differentiable(run.model(name)) for name in run.names}
    teachers = {
        name: (run.model(name), module)
        for name, module in modules.items()
        if module is not None and run.role(name) == "surrogate"
    }
    unseen = [name for name in run.names if name not in teachers]
    if not teachers or not unseen:
        raise Skip("needs a TorchScript FR model (--fr) to train with and another to judge")
    settings = run.settings
    count = min(settings.regeneration_faces, len(pool.order))
    faces, seen = pool.originals(count), pool.published(count)
    both = {name: pool.templates(run.model(name), count) for name in teachers}
    known = np.concatenate([after for _, after in both.values()], 1)
    targets = {name: before for name, (before, _) in both.items()}
    decoder = Decoder(teachers, known.shape[1], settings.seed, settings.batch)
    how = run.how("regeneration", settings.regeneration_steps)
    decoder.train(seen, known, faces, targets, **how)
    index = _tested(run)
    shown = run.published(index)
    context = np.concatenate([run.embed(name, shown, "regeneration") for name in teachers], 1)
    drawn = decoder.draw(shown, context)
    originals = run.gallery.images[index]
    run.show("faces_regeneration", original=originals, published=shown, regenerated=drawn)
    return Regeneration(
        steps=settings.regeneration_steps,
        parameters=decoder.parameters,
        training_faces=len(faces),
        test_faces=len(index),
        trained_with=list(teachers),
        far=1e-3,
        rank1_chance=1 / len(index),
        unseen={name: _taken(run, name, drawn, index) for name in unseen},
    )


def _tested(run: Run) -> np.ndarray:
    count = run.settings.regeneration_tests
    if run.gallery.identities is None:
        return evenly(len(run.gallery), count)
    # those that the linker looks for, as far as they go: publishing is what costs
    return whole_people(run.gallery.identities, count, run.stream("linker: people to find"))


def _taken(run: Run, name: str, drawn: Faces, index: np.ndarray) -> Taken:
    """What one FR model takes the drawn faces for, in a gallery of the originals tested."""
    got = run.embed(name, drawn, "regenerated")
    originals = run.embed(name, run.gallery.images[index], "originals tested")
    scores = got @ originals.T
    labels = run.labels(index)
    names = list(map(str, index)) if labels is None else [str(label) for label in labels]
    people = np.unique(names, return_inverse=True)[1]
    passed = scores >= run.thresholds[name]
    mates = people[:, None] == people[None, :]
    own = np.eye(len(index), dtype=bool)
    another = mates & ~own
    return Taken(
        same_photo=float(passed[own].mean()),
        another_photo=float(passed[another].mean()) if another.any() else None,
        stranger=float(passed[~mates].mean()),
        rank1=Search(people, np.arange(len(index))).found(scores).same_photo,
    )
