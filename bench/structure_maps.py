"""Does the attack that learns a map have teeth? A release whose pictures do depend on the face, by
a secret map of the person's features to the code that is drawn (``turn``: linear, ``products``:
quadratic), beside one of virtual people, from the same photos, by the same generator; people named
rightly, and with pseudonyms dealt at random.

python bench/structure_maps.py ../shared/data/lfw_aligned --photos 4 --known 0 16 128
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ppfr_ops.lab.evaluate.attacks.structure import Seen, Source, dealt
from ppfr_ops.lab.evaluate.attacks.structure_pictures import by_map, drawn, known_pairs, reader
from ppfr_ops.lab.evaluate.released import faces_in
from ppfr_ops.methods.registry import create
from ppfr_ops.methods.stochastic_local import STRENGTHS, StochasticLocal
from ppfr_ops.sanitize.grouping import features_of


def codes_of(kind: str, means: NDArray[np.float64], size: int, rng: np.random.Generator) -> NDArray:
    """A code a person, length ``sqrt(size)``: of a secret map, or drawn."""
    if kind == "turn":
        codes = (means - means.mean(0)) @ rng.standard_normal((means.shape[1], size))
    elif kind == "products":
        some = (means - means.mean(0)) @ rng.standard_normal((means.shape[1], 48))
        some /= some.std()
        first, second = np.triu_indices(some.shape[1])
        codes = (some[:, first] * some[:, second]) @ rng.standard_normal((len(first), size))
        codes -= codes.mean(0)
    else:
        codes = rng.standard_normal((len(means), size))
    return codes * (size**0.5 / np.linalg.norm(codes, axis=1, keepdims=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--photos", type=int, default=4, help="of a person, at least")
    parser.add_argument("--most", type=int, default=4, help="photos of a person that are looked at")
    parser.add_argument("--drawn", type=int, default=1000, help="to learn to read codes from")
    parser.add_argument("--known", type=int, nargs="+", default=[0, 16, 128])
    asked = parser.parse_args()
    import pyarrow.parquet as pq

    rng = np.random.default_rng()
    files = sorted(asked.source.glob("*.parquet"))
    labels = np.concatenate([pq.read_table(f, columns=["identity"])["identity"] for f in files])
    _, people, sizes = np.unique(labels.astype(str), return_inverse=True, return_counts=True)
    order = np.argsort(people, kind="stable")
    place = np.empty(len(people), int)
    place[order] = np.arange(len(people)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    some = (sizes[people] >= asked.photos) & (place < asked.most)
    chosen = rng.permutation(np.flatnonzero(some))
    faces = faces_in(files)[chosen]
    people = np.unique(people[chosen], return_inverse=True)[1].reshape(-1)
    originals = features_of(faces)
    means = np.zeros((people.max() + 1, 128))
    np.add.at(means, people, originals[0])
    method = create("stochastic-local", {"identity": "virtual"})
    assert isinstance(method, StochasticLocal)
    model = method.model()
    pictures, codes = drawn(method, asked.drawn)
    read, cosine = reader(np.concatenate(features_of(pictures), 1), codes)
    print(f"{len(faces):,} photos of {len(means):,} people; codes read at cosine {cosine:.2f}")
    order, names = rng.permutation(len(people)), rng.permutation(len(means))
    blocks = np.arange(len(people)) * 12 // len(people)
    source = Source(people, np.zeros(len(people), int), [()] * len(people))
    for kind in ("turn", "products", "virtual"):
        secret = codes_of(kind, means / np.bincount(people)[:, None], codes.shape[1], rng)
        shown = np.empty_like(faces)
        with torch.inference_mode():
            for start in range(0, len(people), 64):
                part = slice(start, start + 64)
                code = torch.from_numpy(secret[people[part]].astype(np.float32))
                draws = torch.randn(len(code), method.draw_size)
                made = model.publish(code, draws, STRENGTHS["standard"])
                shown[part] = made.permute(0, 2, 3, 1).numpy()
        templates = np.concatenate(features_of(shown), 1)
        for shards in ("mixed", "shards of the source"):
            rows = order if shards == "mixed" else np.arange(len(people))
            who = names[people[rows]]
            seen = Seen(blocks, who, [()] * len(rows), [""] * len(rows))
            if shards == "mixed":  # sizes rounded away, as releases have them
                kept = np.concatenate([np.flatnonzero(who == n)[: asked.photos] for n in names])
                seen = Seen(blocks[kept] * 0, who[kept], [()] * len(kept), [""] * len(kept))
                rows = rows[kept]
            truth = {int(name): person for person, name in enumerate(names)}
            for what, view in (("templates", templates[rows]), ("codes", read(templates[rows]))):
                for count in asked.known:
                    pairs = known_pairs(truth, count)
                    right = [
                        sum(truth[name] == person for name, person in found.items())
                        for found in (
                            by_map(source, which, np.concatenate(originals, 1), view, pairs)
                            for which in (seen, dealt(seen))
                        )
                    ]
                    print(
                        f"{kind}, {shards}, {what}, {count} known: {right[0]} of "
                        f"{len(truth) - count} (control {right[1]})",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
