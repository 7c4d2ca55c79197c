"""``--keep-look``: how well drawn pictures follow a kept look, and what it gives away.

    python bench/natural_look.py ../shared [--drawn 300 | --drawn 0] [--keep pose,light]

Followed: ``cfp_aligned``, frontal photographs, nothing of which the bins were set by. Given away:
LFW, all 7,701 photographs. Whoever holds all of them ranks them, or the people, by a record's look,
known exactly (the worst case), noised, and by the look of the published picture, as a detector sees
it. A person's records are also taken together: by the very photographs, and by others of them.
``--drawn 0``: by the bins alone, in a minute.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from natural import faces_in, jpeg, table_of
from natural_worth import rows_of

from ppfr_ops.draws import system_draws
from ppfr_ops.imaging import look
from ppfr_ops.methods.base import Context
from ppfr_ops.methods.registry import create

NAMES = list(look.EDGES)


def values(faces: np.ndarray) -> np.ndarray:
    """Features, ``N x F``; NaN where no face is found."""
    seen = zip(faces, look.landmarks(faces), strict=True)
    each = [look.shape(points) | look.shading(face) for face, points in seen]
    return np.array([[row[name] for name in NAMES] for row in each])


def drawn(faces: np.ndarray, who: list[str], keep: str) -> np.ndarray:
    method = create("natural", {"keep_look": keep}).with_secrets({"identity-key": bytes(32)})
    draws = system_draws([""] * len(faces), method.draw_size)
    context = method.context_of(faces, who)
    y = method(faces, draws, Context({**context.columns, "identity": who}))
    return np.stack([jpeg(face) for face in y])


def followed(shared: Path, count: int, keep: str) -> None:
    table = table_of(shared, "cfp_aligned")
    frontal = np.flatnonzero(np.array(table["pose"].to_pylist()) == "frontal")
    rows = np.random.default_rng(0).permutation(frontal)[:count]
    x = faces_in(table["image"].take(rows).to_pylist())
    y = drawn(x, [f"p{n // 4}" for n in range(len(x))], keep)
    before, after = values(x), values(y)
    asked, given = look.noted(x, keep.split(",")), look.noted(y, keep.split(","))
    for place, name in enumerate(NAMES):
        low, high = look.EDGES[name][0], look.EDGES[name][-1]
        a, b = before[:, place].clip(low, high), after[:, place].clip(low, high)
        both = np.isfinite(a) & np.isfinite(b)
        bins = [(p[place], q[place]) for p, q in zip(asked, given, strict=True)]
        bins = [pair for pair in bins if "-" not in pair]
        held = np.mean([p == q for p, q in bins]) if bins else np.nan
        _, each = np.unique([p for p, _ in bins] or ["-"], return_counts=True)
        most = each.max() / max(len(bins), 1)
        print(f"{name}: r {np.corrcoef(a[both], b[both])[0, 1]:.2f}; same bin {held:.2f}, "
              f"most frequent bin {most:.2f}")  # fmt: skip


def exact(looks: np.ndarray, who: np.ndarray, kept: str) -> None:
    """By the bins alone."""
    rows = [row for part in kept.split(",") for row in map(NAMES.index, look.PARTS[part])]
    cells = np.unique(looks[:, rows], axis=0, return_inverse=True)[1].reshape(-1)
    people, own = np.unique(who, return_inverse=True)
    size = np.bincount(cells)
    share = size / size.sum()
    bits = -(share[share > 0] * np.log2(share[share > 0])).sum()
    table = np.zeros((len(people), len(size)))
    np.add.at(table, (own, cells), 1)
    person = (table[own, cells] / size[cells]).mean()
    chance = (table.sum(1)[own] / len(own)).mean()
    print(f"{kept}: {bits:.2f} bits; very photo first {(1 / size[cells]).mean():.5f} (chance "
          f"{1 / len(own):.5f}), person first {person:.5f} (chance {chance:.5f})")  # fmt: skip
    rng = np.random.default_rng(0)
    several = [np.flatnonzero(own == k) for k in np.flatnonzero(table.sum(1) > 3)]
    halves = [np.array_split(rng.permutation(rows), 2) for rows in several]
    wide = len(size)
    sides = [np.stack([np.bincount(cells[h[s]], minlength=wide) for h in halves]) for s in (0, 1)]
    prior = np.log((sides[1] + 3 * share) / (sides[1] + 3 * share).sum(1, keepdims=True) + 1e-12)
    best = (sides[0] @ prior.T).argmax(1) == np.arange(len(halves))
    whole = np.stack([np.bincount(cells[rows], minlength=len(size)) for rows in several])
    _, which, alike = np.unique(whole, axis=0, return_inverse=True, return_counts=True)
    print(f"  of {len(several)} people with four photos or more: by the very photos "
          f"{(1 / alike[which.reshape(-1)]).mean():.3f} first, by others of them {best.mean():.4f} "
          f"(chance {1 / len(several):.4f})")  # fmt: skip


def noised(looks: np.ndarray, who: np.ndarray, kept: str, epsilon: float) -> None:
    """By bins that went through randomised response, by whoever knows all photographs and the
    table: exactly, for a record; for all records of a person, drawn once."""
    rows = [row for part in kept.split(",") for row in map(NAMES.index, look.PARTS[part])]
    told = np.ones((1, 1))
    size = 1
    known = np.zeros(len(looks), np.int64)
    for row in rows:  # the channel from what is seen (the last of each feature: nothing) to cells
        bins = len(look.EDGES[NAMES[row]]) - 1
        table = [look.response(bins, epsilon / len(rows), true) for true in (*range(bins), None)]
        told = np.kron(told, np.array(table) / look.WHOLE)
        known = known * (bins + 1) + np.where(looks[:, row] < 0, bins, looks[:, row])
        size *= bins
    each = told[known]
    own = np.unique(who, return_inverse=True)[1]
    rng = np.random.default_rng(0)
    several = [np.flatnonzero(own == k) for k in range(own.max() + 1) if (own == k).sum() > 3]
    logs = np.log(np.stack([each[photos].mean(0) for photos in several]))
    right = [
        (logs[:, [rng.choice(size, p=each[photo]) for photo in photos]].sum(1)).argmax() == k
        for k, photos in enumerate(several)
    ]
    print(f"{kept}, epsilon {epsilon:g} a record: very photo first "
          f"{each.max(0).sum() / len(own):.5f}; all of a person's together, by the very "
          f"photos {np.mean(right):.3f} first")  # fmt: skip


def linked(x: np.ndarray, seen: np.ndarray, who: np.ndarray, count: int, keep: str) -> None:
    """By what a detector sees of published pictures."""
    rows = np.random.default_rng(1).permutation(np.flatnonzero(np.isfinite(seen).all(1)))[:count]
    y = values(drawn(x[rows], list(who[rows]), keep))
    scale = np.nanstd(seen, 0)
    far = np.square((y[:, None] - seen) / scale).sum(2)
    far[~np.isfinite(far)] = 1e9
    first = far.argmin(1)
    rank = (far < far[np.arange(len(rows)), rows][:, None]).sum(1)
    print(f"published, {keep or 'nothing'} kept: very photo first "
          f"{(first == rows).mean():.4f}, among the first 77 {(rank < 77).mean():.3f} (chance "
          f"{77 / len(x):.3f}), person first {(who[first] == who[rows]).mean():.4f}; "
          f"middle rank {int(np.median(rank))} of {len(x)}")  # fmt: skip


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("shared", type=Path)
    asked.add_argument("--drawn", type=int, default=300)
    asked.add_argument("--keep", default="pose,light")
    given = asked.parse_args()
    torch.set_num_threads(1)
    if given.drawn:
        followed(given.shared, given.drawn, given.keep)
    x, who, _ = rows_of(given.shared, "lfw_aligned")
    seen = values(x)
    looks = np.stack([
        np.where(np.isfinite(seen[:, k]), np.searchsorted(look.EDGES[name][1:-1], seen[:, k]), -1)
        for k, name in enumerate(NAMES)
    ], 1)  # fmt: skip
    for kept in (*look.PARTS, ",".join(look.PARTS)):
        exact(looks, who, kept)
        for epsilon in (1.0, 2.0, 4.0, 8.0):
            noised(looks, who, kept, epsilon)
    if not given.drawn:
        return
    for keep in ("", given.keep):
        linked(x, seen, who, given.drawn, keep)


if __name__ == "__main__":
    main()
