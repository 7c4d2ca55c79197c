"""What grouping costs: seconds and memory for features of people who are simulated.

python bench/grouping.py 10000 100000 1000000 [--profile]
"""

import argparse
import cProfile
import resource
import time

import numpy as np

from ppfr_ops.sanitize.grouping import Vectors, group

_AT_ONCE = 100_000


def crowd(count: int, seed: int = 0) -> tuple[list[Vectors], np.ndarray]:
    """Features of ``count`` photos by two encoders, and whose each is: most people have a few
    photos, some up to 1,000. Cosines are .62 on average among a person's, 0 among strangers' with a
    standard deviation of .11."""
    rng = np.random.default_rng(seed)
    sizes = np.clip((rng.pareto(1.2, count) * 3).astype(np.int64), 1, 1000)
    who = np.repeat(np.arange(len(sizes)), sizes)[:count]
    rng.shuffle(who)
    features = []
    for likeness in (0.62, 0.55):
        scale = np.linspace(1.4, 0.6, 128, dtype=np.float32)
        people = rng.standard_normal((int(who.max()) + 1, 128), np.float32) * scale
        found = np.empty((count, 128), np.float32)
        for start in range(0, count, _AT_ONCE):
            some = people[who[start : start + _AT_ONCE]]
            noise = rng.standard_normal(some.shape, np.float32) * scale
            part = likeness**0.5 * some + (1 - likeness) ** 0.5 * noise
            found[start : start + _AT_ONCE] = part / np.linalg.norm(part, axis=1, keepdims=True)
        features.append(found)
    return features, who


def bcubed(groups: np.ndarray, who: np.ndarray) -> tuple[float, float]:
    """Precision and recall."""
    both = np.unique(np.stack([groups, who]), axis=1, return_inverse=True, return_counts=True)
    _, which, counts = both
    own = counts[which.reshape(-1)]
    return (
        float((own / np.bincount(groups)[groups]).mean()),
        float((own / np.bincount(who)[who]).mean()),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces", type=int, nargs="+")
    parser.add_argument("--profile", action="store_true")
    asked = parser.parse_args()
    for count in asked.faces:
        features, who = crowd(count)
        profile = cProfile.Profile()
        before = resource.getrusage(resource.RUSAGE_SELF)
        began = time.perf_counter()
        if asked.profile:
            profile.enable()
        groups = group(features)
        profile.disable()
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
        precision, recall = bcubed(groups, who)
        print(
            f"{count:,} faces: {wall:.0f} s, {after.ru_utime - before.ru_utime:.0f} s of user "
            f"time, peak {after.ru_maxrss / 2**20:.2f} GiB; {groups.max() + 1:,} groups of "
            f"{len(np.unique(who)):,} people, BCubed {precision:.3f}/{recall:.3f}",
            flush=True,
        )
        if asked.profile:
            profile.print_stats("tottime")


if __name__ == "__main__":
    main()
