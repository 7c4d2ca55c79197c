"""Sizes of groups are shared: nobody is found by the number of their photos."""

from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pytest

from ppfr_ops.sanitize.group_sizes import _raised, cap, rounded


def sizes(count: int, seed: int) -> np.ndarray[Any, Any]:
    """As of a crawl: most have few photos, some have hundreds."""
    rng = np.random.default_rng(seed)
    return np.maximum(1, (rng.pareto(1.2, count) * 3).astype(np.int64))


def shared_by(found: np.ndarray[Any, Any], histories: np.ndarray[Any, Any] | None = None) -> int:
    history = np.zeros(len(found)) if histories is None else histories
    return min(Counter(zip(history.tolist(), found.tolist(), strict=True)).values())


@pytest.mark.parametrize("rounding", ["add", "drop"])
@pytest.mark.parametrize("k", [2, 10])
@pytest.mark.parametrize("count", [3, 19, 20, 400, 5000])
def test_every_size_is_shared(count: int, k: int, rounding: Any) -> None:
    before = sizes(count, count)
    found = rounded(before, np.zeros(count, np.int64), k, rounding)
    assert shared_by(found) >= min(k, count)
    assert (found <= before).all() if rounding == "drop" else (found >= before).all()
    assert found.min() >= 1
    # and who is larger than another is not smaller afterwards
    assert (np.diff(found[np.lexsort((found, before))]) >= 0).all()


def test_no_fewer_pictures_would_do() -> None:
    """Held against every way to cut six or seven groups in order."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        before = np.sort(rng.integers(1, 9, rng.integers(4, 8)))
        best = min(
            sum(max(part) * len(part) for part in parts)
            for parts in _ways(before.tolist())
            if all(len(part) >= 2 for part in parts)
        )
        assert _raised(before, 2).sum() == best, before


def _ways(items: list[int]) -> list[list[list[int]]]:
    found = []
    for cuts in product([False, True], repeat=len(items) - 1):
        parts = [[items[0]]]
        for item, cut in zip(items[1:], cuts, strict=True):
            parts = [*parts, [item]] if cut else [*parts[:-1], [*parts[-1], item]]
        found.append(parts)
    return found


def test_many_of_a_size_stay_as_they_are() -> None:
    before = np.array([1] * 100_000 + [5] * 1000 + [6])
    found = rounded(before, np.zeros(len(before), np.int64), 10)
    assert found.sum() - before.sum() == 9  # nine people of five photos get a sixth
    assert found[:100_000].max() == 1


def test_who_was_alike_in_earlier_versions_stays_alike() -> None:
    histories = np.repeat([3, 4, -1], [30, 12, 9])
    now = sizes(51, 1)
    found = rounded(now, histories, 10)
    assert shared_by(found, histories) >= 9  # nine new people: as many as there are
    assert len(set(found[histories == -1].tolist())) == 1


def test_one_leaves_sizes_alone_and_few_have_no_cap() -> None:
    before = sizes(50, 2)
    assert (rounded(before, np.zeros(50, np.int64), 1) == before).all()
    assert cap(np.array([1, 2, 30]), 10) == 30 and cap(np.array([5, 9, 9, 40]), 2) == 9
    assert cap(np.array([], np.int64), 3) == 0
