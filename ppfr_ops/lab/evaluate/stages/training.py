"""What is the release worth to anyone who trains on it? A small recogniser, trained twice.

Once on what is published for photos of known people, once on the originals; both are read on what
is published for the gallery and on the gallery itself. The people are others than the gallery's.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from ppfr_ops.contracts.evaluation import Rates, Training
from ppfr_ops.imaging.arrays import Faces, unit
from ppfr_ops.lab.evaluate.data import evenly
from ppfr_ops.lab.evaluate.learning import FaceNet, as_tensor, augment, fit, new
from ppfr_ops.lab.evaluate.protocol import pair_scores, verify
from ppfr_ops.lab.evaluate.run import Run
from ppfr_ops.lab.evaluate.stages.base import Skip, stage

MARGIN, SCALE, SIZE = 0.2, 24.0, 128
"""Additive margin on the cosine (CosFace, Wang et al. 2018), its scale, length of the templates."""

Both = tuple[Rates, Rates]
"""Read on what is published, and on originals."""


@dataclass(frozen=True)
class Photos:
    """Of known people, to train on: uint8 ``N x 112 x 112 x 3``, their labels, and the same as
    numbers from 0."""

    images: Faces
    names: list[str]
    who: NDArray[np.int64]
    people: int


class _Recogniser(nn.Module):
    def __init__(self, people: int) -> None:
        super().__init__()
        self.net = FaceNet(SIZE)
        self.centres = nn.Parameter(torch.randn(people, SIZE))

    def forward(self, faces: torch.Tensor, who: torch.Tensor) -> torch.Tensor:
        templates = F.normalize(self.net(faces), dim=1)
        cosines = templates @ F.normalize(self.centres, dim=1).T
        margin = F.one_hot(who, len(self.centres)) * MARGIN
        return F.cross_entropy(SCALE * (cosines - margin), who)

    def embed(self, faces: Faces) -> NDArray[np.float32]:
        return unit(self.net.read(faces) + self.net.read(np.ascontiguousarray(faces[:, :, ::-1])))


@stage("a small recogniser trained on what is published (needs --identities)")
def training(run: Run) -> Training:
    photos = photos_of(run)
    if photos is None or run.publisher is None:
        raise Skip("needs the method and photos of other people with labels (--identities)")
    if photos.people < 2:
        raise Skip("needs photos of two people at least")
    world = run.method.under(run.release_key)
    purpose = run.stream("published: photos to train on")
    y = world.publish(photos.images, purpose, photos.names)
    found: dict[str, Rates] = {}
    for side, learn in (("published", y), ("originals", photos.images)):
        name = f"training_{side}"
        read = run.keep(name, Both, partial(_train, run, name, learn, photos))
        found[f"{side}_on_published"], found[f"{side}_on_originals"] = read
    return Training(
        people=photos.people,
        faces=len(photos.images),
        steps=run.settings.training_steps,
        parameters=sum(p.numel() for p in FaceNet(SIZE).parameters()),
        **found,
    )


def photos_of(run: Run) -> Photos | None:
    """The photos that recognisers are trained on; None: there are none with labels."""
    given = run.identities
    if given is None or given.identities is None:
        return None
    rows = evenly(len(given), run.settings.training_faces)
    names = [given.identities[i] for i in rows]
    people, who = np.unique(names, return_inverse=True)
    return Photos(given.images[rows], names, who.reshape(-1), len(people))


def taught(run: Run, name: str, learn: Faces, photos: Photos, steps: int) -> _Recogniser:
    """A small recogniser, trained on ``learn``, which shows whom ``photos`` show."""
    model, who = new(lambda: _Recogniser(photos.people), run.settings.seed), photos.who

    def loss_of(rng: np.random.Generator) -> torch.Tensor:
        index = rng.choice(len(learn), min(2 * run.settings.batch, len(learn)), replace=False)
        faces = augment(as_tensor(learn[index]), rng)
        return model(faces, torch.from_numpy(who[index]))

    fit(model, loss_of, rate=2e-3, weight_decay=0.05, **run.how(name, steps))
    return model


def _train(run: Run, name: str, learn: Faces, photos: Photos) -> Both:
    model = taught(run, name, learn, photos, run.settings.training_steps)
    index, a, b = run.pair_places()
    sides = (model.embed(faces) for faces in (run.published(index), run.gallery.images[index]))
    published, originals = (
        verify(pair_scores(x[a], x[b]), run.pairs.same, run.pairs.folds) for x in sides
    )
    return published, originals
