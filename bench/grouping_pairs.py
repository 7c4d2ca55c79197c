"""Pair accuracy of what is published where nobody said whose the photos are: groups are found, a
release is made of them, and LFW's pairs are compared by pictures of the people whom their photos
were put to.

python bench/grouping_pairs.py ../shared --pairs 600 --method stochastic-local

A release says no photo's record, for there is none; a photo stands for a picture of its group,
drawn at random, and two photos of a group for two pictures where it has them.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ppfr_ops import run
from ppfr_ops.lab.evaluate.released import faces_in, read_release_folder
from ppfr_ops.recognizers import Recognizer, RecognizerSpec
from ppfr_ops.sanitize.groups import GroupOptions, group_input
from ppfr_ops.sanitize.options import SanitizeOptions


def accuracy(scores: np.ndarray, same: np.ndarray) -> float:
    """At a threshold chosen on the other half, both ways."""
    halves = np.arange(len(scores)) % 2 == 0
    right = []
    for taught in (halves, ~halves):
        tried = np.sort(scores[taught])
        hits = [((scores[taught] >= t) == same[taught]).mean() for t in tried]
        right.append(((scores[~taught] >= tried[int(np.argmax(hits))]) == same[~taught]).mean())
    return float(np.mean(right))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--pairs", type=int, default=600, help="the first so many")
    parser.add_argument("--method", default="natural")
    parser.add_argument("--judges", nargs="+", default=["faceres", "dlib"])
    asked = parser.parse_args()
    rng = np.random.default_rng()
    pairs = pq.read_table(asked.shared / "data" / "lfw_pairs.parquet")
    some = rng.permutation(len(pairs))[: asked.pairs]
    pairs = pairs.take(some)
    table = pq.read_table(asked.shared / "data" / "lfw_aligned", columns=["image", "identity"])
    paths = pc.struct_field(table["image"], "path")
    wanted = pa.array(sorted({*pairs["a"].to_pylist(), *pairs["b"].to_pylist()}))
    table = table.filter(pc.is_in(paths, wanted))
    order = {p: n for n, p in enumerate(pc.struct_field(table["image"], "path").to_pylist())}
    folder = Path(tempfile.mkdtemp(prefix="pairs-"))
    (folder / "in").mkdir()
    pq.write_table(table.select(["image"]), folder / "in" / "part.parquet")
    groups = str(folder / "groups.parquet")
    group_input(
        GroupOptions(input=str(folder / "in"), output=groups, image_column=None, known=None)
    )
    options = SanitizeOptions(
        input=str(folder / "in"),
        output=str(folder / "out"),
        method=asked.method,
        identity="virtual" if asked.method == "stochastic-local" else None,
        metrics="none",
        groups=groups,
        mapping=str(folder / "map.parquet"),
        photographs=None,
    )
    done = run(options)
    assert done.exit_code == 0, done
    released = read_release_folder(str(folder / "out"))
    number = {label: n for n, label in enumerate(released.labels)}
    told = pq.read_table(folder / "map.parquet")
    whose = np.zeros(len(table), int)
    whose[told["row"].to_numpy()] = [number[label] for label in told["identity"].to_pylist()]
    records = [np.flatnonzero(released.seen.pseudonyms == n) for n in range(len(number))]
    names = np.unique(table["identity"].to_numpy(zero_copy_only=False), return_inverse=True)[1]
    a, b = ([order[path] for path in pairs[side].to_pylist()] for side in ("a", "b"))
    same = pairs["same"].to_numpy(zero_copy_only=False)
    shown = []
    for one, other in zip(whose[a], whose[b], strict=True):
        first = rng.choice(records[one])
        left = records[other][records[other] != first]
        shown.append((first, rng.choice(left) if len(left) else first))
    left_side, right_side = np.array(shown).T
    grouped = (whose[a] == whose[b]) == same
    print(
        f"{len(table):,} photos of {names.max() + 1:,} people, {len(number):,} groups; pairs that "
        f"the groups have right: {grouped.mean():.4f}",
        flush=True,
    )
    originals, pictures = faces_in([folder / "in" / "part.parquet"]), faces_in(released.files)
    for name in asked.judges:
        spec = f"{name}={asked.shared / 'models' / name}.onnx"
        judge = Recognizer(RecognizerSpec.parse(spec), 1)
        before, after = judge.embed(originals), judge.embed(pictures)
        print(
            f"{name}: pair accuracy of published "
            f"{accuracy((after[left_side] * after[right_side]).sum(1), same):.4f}, of originals "
            f"{accuracy((before[a] * before[b]).sum(1), same):.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
