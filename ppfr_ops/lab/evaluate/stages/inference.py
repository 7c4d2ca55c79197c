"""What can be told of a person that was not to be told? Sex, age group, ethnicity.

WP216's third criterion. Two attackers, both trained on what the method publishes for other people
under keys of their own, and tested on faces of the release: a network on the pictures, and a linear
head on FR templates. Beside them the same on originals.
"""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ppfr_ops.contracts.evaluation import Inference, Inferred, Reading
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.lab.evaluate.data import evenly, group_names, names_of_groups
from ppfr_ops.lab.evaluate.learning import FaceNet, as_tensor, augment, fit, new
from ppfr_ops.lab.evaluate.run import Run
from ppfr_ops.lab.evaluate.stages.base import Skip, stage

MIN_GROUP = 20
"""Test faces; a smaller group says nothing of a rate."""

_AGES = (0, 20, 40, 60)

Groups = dict[str, NDArray[np.int64]]
"""By attribute: the group of every face, -1 where there is no label."""

Told = dict[str, Reading]


def groups_of(attributes: dict[str, list[int | None]], rows: NDArray[np.int64]) -> Groups:
    """Groups of some faces, by their labels as UTKFace has them."""
    found = {}
    for name, values in attributes.items():
        known = names_of_groups(name, _AGES)
        texts = group_names(name, [values[i] for i in rows], _AGES)
        numbers = [known.index(text) if text in known else -1 for text in texts]
        found[name] = np.array(numbers, np.int64)
    return found


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


@stage("sex, age group and ethnicity, told by a network and from templates")
def inference(run: Run) -> Inference:
    faces = run.attack_faces
    if faces is None or run.publisher is None or not faces.attributes:
        raise Skip("needs the method and attack faces with age, gender, ethnicity")
    pool, count = run.pool, min(run.settings.inference_faces, run.pool.first)
    train, test = pool.rows(count), pool.order[pool.first :]
    test = test[evenly(len(test), run.settings.inference_tests)]
    labels, truth = groups_of(faces.attributes, train), groups_of(faces.attributes, test)
    kept = {name: _kept(labels[name], truth[name]) for name in truth}
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
        network = partial(_network, run, name, learn, labels, read, truth, kept)
        told[side] = run.keep(name, Told, network)
    heads = _heads(run, {side: read for side, (_, read) in sides.items()}, labels, truth, kept)
    attributes = {
        name: Inferred(
            groups={names_of_groups(name, _AGES)[g]: int((truth[name] == g).sum()) for g in groups},
            chance=1 / len(groups),
            network=told["published"][name],
            network_original=told["originals"][name],
            templates=heads["published"][name],
            templates_original=heads["originals"][name],
        )
        for name, groups in kept.items()
    }
    return Inference(
        training_faces=len(train),
        test_faces=len(test),
        steps=run.settings.inference_steps,
        attributes=attributes,
    )


def _kept(labels: NDArray[np.int64], truth: NDArray[np.int64]) -> list[int]:
    """Groups with enough faces to learn from and to test on."""
    found = np.unique(truth[truth >= 0]).tolist()
    return [g for g in found if min((labels == g).sum(), (truth == g).sum()) >= MIN_GROUP]


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
    widths = [len(names_of_groups(attribute, _AGES)) for attribute in kept]
    model = new(lambda: FaceNet(sum(widths)), run.settings.seed)
    weights = {}
    for (attribute, groups), width in zip(kept.items(), widths, strict=True):
        weight = torch.zeros(width)
        for group in groups:
            weight[group] = 1 / float((labels[attribute] == group).sum())
        weights[attribute] = weight / weight.sum() * len(groups)

    def loss_of(rng: np.random.Generator) -> torch.Tensor:
        index = rng.choice(len(learn), min(2 * run.settings.batch, len(learn)), replace=False)
        out = model(augment(as_tensor(learn[index]), rng))
        loss = out.sum() * 0
        for (attribute, groups), scores in zip(kept.items(), out.split(widths, 1), strict=True):
            want = np.where(np.isin(labels[attribute][index], groups), labels[attribute][index], -1)
            if (want >= 0).any():
                target = torch.from_numpy(want)
                loss = loss + F.cross_entropy(
                    scores, target, weights[attribute], ignore_index=-1, label_smoothing=0.05
                )
        return loss

    how = run.how(name, run.settings.inference_steps)
    fit(model, loss_of, rate=2e-3, weight_decay=0.05, **how)
    heads = np.split(model.read(read), np.cumsum(widths)[:-1], axis=1)
    told = {}
    for (attribute, groups), scores in zip(kept.items(), heads, strict=True):
        guess = np.array(groups)[scores[:, groups].argmax(1)]
        told[attribute] = reading(guess, truth[attribute], groups)
    return told


def _heads(
    run: Run, read: dict[str, Faces], labels: Groups, truth: Groups, kept: dict[str, list[int]]
) -> dict[str, dict[str, Told]]:
    """A linear head on the templates of every FR model, read on the test faces of both sides; by
    side, by attribute, by model."""
    found: dict[str, dict[str, Told]] = {side: {name: {} for name in kept} for side in read}
    count = len(next(iter(labels.values())))
    for name in run.names:
        before, after = run.pool.templates(run.model(name), count)
        for side, learn in (("published", after), ("originals", before)):
            scale = StandardScaler().fit(learn)
            a = scale.transform(learn)
            b = scale.transform(run.embed(name, read[side], "inference"))
            for attribute, groups in kept.items():
                rows = np.isin(labels[attribute], groups)
                head = LogisticRegression(C=0.01, class_weight="balanced", max_iter=100)
                head.fit(a[rows], labels[attribute][rows])
                guess = head.predict(b)
                found[side][attribute][name] = reading(guess, truth[attribute], groups)
    return found
