"""Fit what ``--mix`` tells people by: ``kind.*`` of ``natural.looks``.

    python bench/natural_kinds.py ../shared WORK [--people 1500] [--shares] [--gap]

Plain pictures of drawn people, nobody passed over. Age and ethnicity by heads on UTKFace's labels
over sface's templates, skin by the cheeks' colour (ITA, degrees); each told off the person's style
by regression, with an edge beyond which as many lie as are of the kind. Women are told by what
``bench/natural_people.py`` fitted to faces labelled by eye. Says how well a read tells the kind on
the tenth of people that was held out; only what is told well is kept.

``--shares``: who is drawn, beside LFW's people and those of ``ids_aligned``, one photo each, by the
same heads: ridges on the templates of sface and mobileface for UTKFace's labels, with edges
beyond which as many of UTKFace lie as are of the kind; how often they are right on a quarter of it
that was held back is said. Dark skin by the cheeks' colour; of drawn people also what styles tell.

``--gap``: four photos each of people drawn by default; how often recognisers are right about pairs
within a group, at the threshold that is best for all groups, as many pairs of strangers as of one
person.
"""

import argparse
import secrets
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from natural import jpeg
from natural_people import ridge, templates
from sklearn.metrics import roc_auc_score

from ppfr_ops.draws import system_draws
from ppfr_ops.imaging.decoding import decode
from ppfr_ops.methods.base import Context
from ppfr_ops.methods.natural import Natural, files
from ppfr_ops.methods.natural.generator import STILL, Generator
from ppfr_ops.methods.natural.looks import ATTRIBUTES, MIX, OTHERS
from ppfr_ops.methods.natural.network import STYLE
from ppfr_ops.methods.registry import create

DARK = 19.0
"""ITA below which skin is tan, brown or dark, degrees (Chardon et al. 1991: 28 and 10)."""


def ita(crops: np.ndarray) -> np.ndarray:
    """Individual typology angle of the cheeks, degrees."""
    cheeks = np.concatenate([crops[:, 66:82, 28:42], crops[:, 66:82, 71:85]], 2)
    lab = np.stack([cv2.cvtColor(c.astype(np.float32) / 255, cv2.COLOR_RGB2Lab) for c in cheeks])
    light, _, yellow = np.median(lab.reshape(len(lab), -1, 3), 1).T
    return np.degrees(np.arctan2(light - 50, yellow))


@torch.inference_mode()
def people(generator: Generator, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = torch.Generator().manual_seed(seed)
    still = torch.zeros(OTHERS, STYLE), torch.zeros(ATTRIBUTES)
    styles, crops = [], []
    while len(styles) < count:
        style = generator.style(torch.randn(STYLE, generator=rng).numpy())
        person = generator.looks.person(style)
        seen = generator.looked_at(generator.looks.styles(person, *still, 0.0))
        if seen.sound >= 1:
            styles.append(person.numpy())
            crops.append(seen.aligned(STILL))
    return np.stack(styles), np.stack(crops)


def heads(shared: Path, sface: np.ndarray) -> dict[str, np.ndarray]:
    """Of drawn faces: how much of a kind, above 0 if rather so, by UTKFace's labels."""
    parts = sorted((shared / "data" / "utk_aligned").glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(part) for part in parts])
    table = table.take(np.sort(np.random.default_rng(0).permutation(len(table))[:2000]))
    faces = np.stack([decode(row["bytes"]) for row in table["image"].to_pylist()])
    x = templates(shared / "models", faces, ("sface",))["sface"]
    age, sex, ethnicity = (
        np.nan_to_num(table[c].to_numpy().astype(float), nan=-1)
        for c in ("age", "gender", "ethnicity")
    )
    adult, found = age >= 16, {}
    for name, rows, y in (
        ("women", adult & (sex >= 0), sex == 1),
        ("children", age >= 0, age < 16),
        ("old", adult, age >= 50),
        ("asian", ethnicity >= 0, ethnicity == 2),
        ("black", ethnicity >= 0, ethnicity == 1),
    ):
        mean, told = x[rows].mean(0), y[rows].astype(float)
        read = ridge(x[rows] - mean, told - told.mean(), 3.0)
        edge = np.quantile((x[rows] - mean) @ read, 1 - told.mean())
        found[name] = (sface - mean) @ read - edge
        print(f"{name}: {told.mean():.3f} of UTKFace, {(found[name] > 0).mean():.3f} of drawn")
    return found


def one_each(shared: Path, name: str, count: int) -> np.ndarray:
    """A photo of each person of a set, or of so many of them."""
    parts = sorted((shared / "data" / name).glob("*.parquet"))
    table, rng = pa.concat_tables([pq.read_table(part) for part in parts]), np.random.default_rng(0)
    table = table.take(rng.permutation(len(table)))
    _, first = np.unique(table["identity"].to_pylist(), return_index=True)
    rows = rng.permutation(first)[:count]
    return np.stack([decode(x["bytes"]) for x in table["image"].take(rows).to_pylist()])


@torch.inference_mode()
def by_default(count: int, photos: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """People as they are published, and their styles, ``N x 512``."""
    method = create("natural").with_secrets({"identity-key": secrets.token_bytes(32)})
    assert isinstance(method, Natural)
    draws, faces, styles = system_draws([""] * count * photos, method.draw_size), [], []
    for row, draw in enumerate(draws):
        blank, label = np.zeros((1, 112, 112, 3), np.uint8), f"person {row // photos}"
        faces.append(jpeg(method(blank, draw[None], Context({"identity": [label]}))[0]))
        styles.append(method.person(label, draw).numpy())
    return np.stack(faces), np.stack(styles)


def shares(shared: Path, count: int) -> None:
    parts = sorted((shared / "data" / "utk_aligned").glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(part) for part in parts])
    table = table.take(np.random.default_rng(0).permutation(len(table))[:1000])
    known = np.stack([decode(row["bytes"]) for row in table["image"].to_pylist()])
    age, sex = (np.nan_to_num(table[c].to_numpy().astype(float), nan=-1) for c in ("age", "gender"))
    generator = Generator("cpu")
    sets = {
        "LFW": one_each(shared, "lfw_aligned", count),
        "ids": one_each(shared, "ids_aligned", 70),
    }
    styles = {}
    styles["the generator"], sets["the generator"] = people(generator, count, 98)
    sets["by default"], styles["by default"] = by_default(count)
    names = ("sface", "mobileface")
    x, *others = (
        np.concatenate(list(templates(shared / "models", faces, names).values()), 1)
        for faces in (known, *sets.values())
    )
    held = np.arange(len(x)) % 4 == 0
    for name, of, y in (
        ("women", (age >= 16) & (sex >= 0), sex == 1),
        ("children", age >= 0, (age >= 0) & (age < 16)),
        ("50 and older", age >= 0, age >= 50),
    ):
        rows = of & ~held
        mean, told = x[rows].mean(0), y[rows].astype(float)
        read = ridge(x[rows] - mean, told - told.mean(), 3.0)
        edge = np.quantile((x[rows] - mean) @ read, 1 - told.mean())
        right = ((((x - mean) @ read) > edge) == y)[of & held].mean()
        each = [
            f"{s} {(((t - mean) @ read) > edge).mean():.3f}"
            for s, t in zip(sets, others, strict=True)
        ]
        print(f"{name}: right for {right:.3f} of UTKFace held back;", ", ".join(each))
    print("dark skin:", ", ".join(f"{s} {(ita(f) < DARK).mean():.3f}" for s, f in sets.items()))
    for name, read in generator.looks.kinds.items():
        each = [
            f"{s} {(p @ read.numpy()[:STYLE] > read[STYLE].item()).mean():.3f}"
            for s, p in styles.items()
        ]
        print(f"{name} by the styles:", ", ".join(each))


def gap(shared: Path, count: int) -> None:
    """Accuracy by sex and by skin, as styles tell them."""
    faces, styles = by_default(count, 4)
    who, kinds, rng = np.repeat(np.arange(count), 4), {}, np.random.default_rng(0)
    for name in ("women", "dark"):
        read = Generator("cpu").looks.kinds[name].numpy()
        kinds[name] = styles @ read[:STYLE] > read[STYLE]
    a, b = np.triu_indices(len(who), 1)
    same = who[a] == who[b]
    groups = {
        f"{'' if value else 'not '}{name}": (of[a] == value) & (of[b] == value)
        for name, of in kinds.items()
        for value in (True, False)
    }
    chosen = {}
    for name, of in groups.items():
        strangers = rng.permutation(np.flatnonzero(of & ~same))[: (of & same).sum()]
        chosen[name] = np.concatenate([np.flatnonzero(of & same), strangers])
    names = ("faceres", "sface", "mobileface", "dlib", "mfn128")
    for model, t in templates(shared / "models", faces, names).items():
        scores = (t @ t.T)[a, b]
        every = np.concatenate(list(chosen.values()))
        tried = np.quantile(scores[every], np.linspace(0.2, 0.8, 601))
        limit = max(tried, key=lambda x: ((scores[every] > x) == same[every]).mean())
        right = {n: ((scores[rows] > limit) == same[rows]).mean() for n, rows in chosen.items()}
        shown = ", ".join(f"{n} {v:.4f} ({len(chosen[n])} pairs)" for n, v in right.items())
        print(f"{model}: {shown}", flush=True)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("shared", type=Path)
    asked.add_argument("work", type=Path)
    asked.add_argument("--people", type=int, default=1500)
    asked.add_argument("--shares", action="store_true")
    asked.add_argument("--gap", action="store_true")
    given = asked.parse_args()
    torch.set_num_threads(1)
    if given.shares:
        return shares(given.shared, given.people)
    if given.gap:
        return gap(given.shared, given.people)
    path = given.work / "kinds.npz"
    if not path.is_file():
        styles, crops = people(Generator("cpu"), given.people, 99)
        seen = templates(given.shared / "models", crops, ("sface",))["sface"]
        np.savez(path, styles=styles, crops=crops, sface=seen)
    kept = np.load(path)
    styles, tensors = kept["styles"], files.read("natural.looks")
    told = heads(given.shared, kept["sface"]) | {"dark": DARK - ita(kept["crops"])}
    out = np.arange(len(styles)) % 10 == 0
    for name, value in told.items():
        y = (value - value[~out].mean()) / value[~out].std()
        zero = -value[~out].mean() / value[~out].std()
        read = ridge(styles[~out], y[~out], 150.0)
        score = styles @ read
        edge = np.quantile(score[~out], (y[~out] <= zero).mean())
        auc = roc_auc_score(y[out] > zero, score[out])
        sure = {}
        for side in (1, -1):
            beyond = out & (side * (score - edge) > 0.25 * score.std())
            sure[side] = (side * (y - zero) > 0)[beyond].mean()
        print(
            f"{name}: of drawn people {(y > zero).mean():.3f}; AUC held out {auc:.3f}; told well "
            f"beyond the edge: {sure[1]:.2f} of those of the kind, {sure[-1]:.2f} of the others"
        )
        if name == "women":
            read = tensors["read.sex"].sum(0).numpy()
            score, edge = styles @ read, 0.0
            print(f"  by the read of sex: AUC {roc_auc_score(y > zero, score):.3f}")
        if name not in MIX:
            continue
        row = np.r_[read, edge, score.std()].astype(np.float32)
        tensors[f"kind.{name}"] = torch.from_numpy(row)
    files.save("natural.looks", tensors, exact=True)


if __name__ == "__main__":
    main()
