"""What can be told of a person that was not to be told? Sex, age group, ethnicity.

WP216's third criterion. Two attackers, both trained on what the method publishes for other people
under keys of their own, and tested on faces of the release: a network on the pictures, and a linear
head on FR templates. Beside them the same on originals.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ppfr_ops.contracts.evaluation import Inference, Inferred, Reading
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.lab.evaluate.data import evenly
from ppfr_ops.lab.evaluate.learning import FaceNet, as_tensor, augment, fit, new
from ppfr_ops.lab.evaluate.run import Run
from ppfr_ops.lab.evaluate.stages.base import Skip, Stage, register

MIN_GROUP = 20
"""Test faces; a smaller group says nothing of a rate."""

_AGES = ((0, 19), (20, 39), (40, 59), (60, 200))
_NAMES = {
    "age": ("0-19", "20-39", "40-59", "60+"),
    "gender": ("male", "female"),
    "ethnicity": ("White", "Black", "Asian", "Indian", "other"),
}

Groups = dict[str, NDArray[np.int64]]
"""By attribute: the group of every face, -1 where there is no label."""

Told = dict[str, Reading]


def groups_of(attributes: dict[str, list[int | None]], rows: NDArray[np.int64]) -> Groups:
    """Groups of some faces, by their labels as UTKFace has them."""
    found = {}
    for name, values in attributes.items():
        chosen = [values[i] for i in rows]
        if name == "age":
            group = [_age(value) for value in chosen]
        else:
            known = range(len(_NAMES[name]))
            group = [-1 if value is None or value not in known else value for value in chosen]
        found[name] = np.array(group, np.int64)
    return found


def _age(value: int | None) -> int:
    if value is None:
        return -1
    return next((i for i, (low, high) in enumerate(_AGES) if low <= value <= high), -1)


def reading(guess: NDArray[np.int64], truth: NDArray[np.int64], kept: list[int]) -> Reading:
    """Balanced accuracy over the groups ``kept``, and its standard error."""
    shares, variance = [], 0.0
    for group in kept:
        right = guess[truth == group] == group
        shares.append(float(right.mean()))
        variance += shares[-1] * (1 - shares[-1]) / len(right)
    return Reading(
        balanced_accuracy=float(np.mean(shares)), standard_error=variance**0.5 / len(kept)
    )


@register("inference", Inference)
class InferenceStage(Stage[Inference]):
    about = "sex, age group and ethnicity, told by a network and from templates"

    def measure(self, run: Run) -> Inference:
        faces = run.attack_faces
        if faces is None or run.publisher is None or not faces.attributes:
            raise Skip("needs the method and attack faces with age, gender, ethnicity")
        pool, count = run.pool, min(run.settings.inference_faces, run.pool.first)
        train, test = pool.rows(count), pool.order[pool.first :]
        test = test[evenly(len(test), run.settings.inference_tests)]
        labels, truth = groups_of(faces.attributes, train), groups_of(faces.attributes, test)
        kept = {name: _kept(name, labels, truth) for name in truth}
        kept = {name: groups for name, groups in kept.items() if len(groups) > 1}
        if not kept:
            raise Skip(f"needs attack faces with {MIN_GROUP} and more of two groups")
        x, x_test = faces.images[train], faces.images[test]
        y = pool.published(count)
        y_test = run.release.publish(x_test, run.stream("published: inference, to test on"))
        sides = {"published": (y, y_test), "originals": (x, x_test)}
        told: dict[str, Told] = {}
        for side, (learn, read) in sides.items():
            name = f"inference_{side}"
            told[side] = run.keep(
                name,
                Told,
                lambda learn=learn, read=read, name=name: _network(  # type: ignore[misc]
                    run, name, learn, labels, read, truth, kept
                ),
            )
        heads = _heads(run, {side: read for side, (_, read) in sides.items()}, labels, truth, kept)
        attributes = {
            name: Inferred(
                groups={_NAMES[name][g]: int((truth[name] == g).sum()) for g in groups},
                chance=1 / len(groups),
                network=told["published"][name],
                network_original=told["originals"][name],
                templates=heads["published"][name],
                templates_original=heads["originals"][name],
            )
            for name, groups in kept.items()
        }
        for name, found in attributes.items():
            run.log(
                f"  {name}: network {found.network.balanced_accuracy:.3f}, originals "
                f"{found.network_original.balanced_accuracy:.3f}, chance {found.chance:.3f}"
            )
        return Inference(
            training_faces=len(train),
            test_faces=len(test),
            steps=run.settings.inference_steps,
            attributes=attributes,
        )


def _kept(name: str, labels: Groups, truth: Groups) -> list[int]:
    """Groups with enough faces to learn from and to test on."""
    return [
        group
        for group in range(len(_NAMES[name]))
        if (truth[name] == group).sum() >= MIN_GROUP and (labels[name] == group).sum() >= MIN_GROUP
    ]


def _network(
    run: Run,
    name: str,
    learn: Faces,
    labels: Groups,
    read: Faces,
    truth: Groups,
    kept: dict[str, list[int]],
) -> Told:
    """One network with a head an attribute, every group weighing the same."""
    width = {attribute: len(_NAMES[attribute]) for attribute in kept}
    starts = dict(zip(width, np.cumsum([0, *width.values()])[:-1].tolist(), strict=True))
    model = new(lambda: FaceNet(sum(width.values())), run.settings.seed)
    assert isinstance(model, FaceNet)
    weights = {}
    for attribute, groups in kept.items():
        weight = torch.zeros(width[attribute])
        for group in groups:
            weight[group] = 1 / float((labels[attribute] == group).sum())
        weights[attribute] = weight / weight.sum() * len(groups)

    def loss_of(rng: np.random.Generator) -> torch.Tensor:
        index = rng.choice(len(learn), min(2 * run.settings.batch, len(learn)), replace=False)
        out = model(augment(as_tensor(learn[index]), rng))
        loss = out.sum() * 0
        for attribute, groups in kept.items():
            want = np.where(np.isin(labels[attribute][index], groups), labels[attribute][index], -1)
            if (want >= 0).any():
                begin = starts[attribute]
                scores = out[:, begin : begin + width[attribute]]
                target = torch.from_numpy(want)
                loss = loss + F.cross_entropy(
                    scores, target, weights[attribute], ignore_index=-1, label_smoothing=0.05
                )
        return loss

    steps = run.settings.inference_steps
    fit(model, loss_of, steps, run.settings.seed, name, 2e-3, 0.05, run.checkpoint(name), run.log)
    out = model.read(read)
    told = {}
    for attribute, groups in kept.items():
        begin = starts[attribute]
        scores = out[:, begin : begin + width[attribute]][:, groups]
        told[attribute] = reading(np.array(groups)[scores.argmax(1)], truth[attribute], groups)
    return told


def _heads(
    run: Run, read: dict[str, Faces], labels: Groups, truth: Groups, kept: dict[str, list[int]]
) -> dict[str, dict[str, Told]]:
    """A linear head on the templates of every FR model; by side, by attribute, by model.

    ``read``: the test faces of both sides.
    """
    found: dict[str, dict[str, Told]] = {side: {name: {} for name in kept} for side in read}
    count = len(next(iter(labels.values())))
    for name in run.names:
        model = run.model(name)
        before, after = run.pool.templates(model, count)
        for side, learn in (("published", after), ("originals", before)):
            scale = StandardScaler().fit(learn)
            a = scale.transform(learn)
            b = scale.transform(run.cache.embed(model, read[side], "inference"))
            for attribute, groups in kept.items():
                rows = np.isin(labels[attribute], groups)
                head = LogisticRegression(C=0.01, class_weight="balanced", max_iter=100)
                head.fit(a[rows], labels[attribute][rows])
                guess = head.predict(b)
                found[side][attribute][name] = reading(guess, truth[attribute], groups)
    return found
