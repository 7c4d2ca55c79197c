"""What is the release worth to anyone who trains on it? A small recogniser, trained twice.

Once on what is published for photos of known people, once on the originals; both are read on what
is published for the gallery and on the gallery itself. The people are others than the gallery's.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from ppfr_ops.contracts.evaluation import Rates, Training
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.lab.evaluate.data import evenly
from ppfr_ops.lab.evaluate.learning import FaceNet, as_tensor, augment, fit, new
from ppfr_ops.lab.evaluate.protocol import pair_scores, verify
from ppfr_ops.lab.evaluate.run import Run
from ppfr_ops.lab.evaluate.stages.base import Skip, Stage, register

MARGIN, SCALE, SIZE = 0.2, 24.0, 128
"""Additive margin on the cosine (CosFace, Wang et al. 2018), its scale, length of the templates."""

Both = tuple[Rates, Rates]
"""Read on what is published, and on originals."""


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
        out = self.net.read(faces) + self.net.read(np.ascontiguousarray(faces[:, :, ::-1]))
        return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


@register("training", Training)
class TrainingStage(Stage[Training]):
    about = "a small recogniser trained on what is published (needs --identities)"

    def measure(self, run: Run) -> Training:
        photos = run.identities
        if photos is None or photos.identities is None or run.publisher is None:
            raise Skip("needs the method and photos of other people with labels (--identities)")
        rows = evenly(len(photos), run.settings.training_faces)
        names = [photos.identities[i] for i in rows]
        people = sorted(set(names))
        who = np.array([people.index(name) for name in names])
        if len(people) < 2:
            raise Skip("needs photos of two people at least")
        x = photos.images[rows]
        world = run.method.under(run.release_key)
        y = world.publish(x, run.stream("published: photos to train on"), names)
        found: dict[str, Both] = {}
        for side, learn in (("published", y), ("originals", x)):
            name = f"training_{side}"
            found[side] = run.keep(
                name,
                Both,
                lambda learn=learn, name=name: _train(  # type: ignore[misc]
                    run, name, learn, who, len(people)
                ),
            )
        parameters = sum(p.numel() for p in FaceNet(SIZE).parameters())
        return Training(
            people=len(people),
            faces=len(rows),
            steps=run.settings.training_steps,
            parameters=parameters,
            published_on_published=found["published"][0],
            published_on_originals=found["published"][1],
            originals_on_originals=found["originals"][1],
            originals_on_published=found["originals"][0],
        )


def _train(run: Run, name: str, learn: Faces, who: NDArray[np.int64], people: int) -> Both:
    model = new(lambda: _Recogniser(people), run.settings.seed)
    assert isinstance(model, _Recogniser)

    def loss_of(rng: np.random.Generator) -> torch.Tensor:
        index = rng.choice(len(learn), min(2 * run.settings.batch, len(learn)), replace=False)
        faces = augment(as_tensor(learn[index]), rng)
        loss: torch.Tensor = model(faces, torch.from_numpy(who[index]))
        return loss

    steps = run.settings.training_steps
    fit(model, loss_of, steps, run.settings.seed, name, 2e-3, 0.05, run.checkpoint(name), run.log)
    index, a, b = run.pair_places()
    found = []
    sides = {"published": run.published(index), "originals": run.gallery.images[index]}
    for kind, faces in sides.items():
        templates = model.embed(faces)
        scores = pair_scores(templates[a], templates[b])
        found.append(verify(scores, run.pairs.same, run.pairs.folds))
        run.log(f"  {name}, read on {kind}: accuracy {found[-1].accuracy:.3f}")
    return found[0], found[1]
