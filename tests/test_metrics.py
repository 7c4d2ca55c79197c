"""A metric is one entry in ``contracts/metrics.py`` and one function in ``imaging/measures.py``."""

import numpy as np
import pytest
import torch

from ppfr_ops.contracts.manifest import Statistic, coarse_mean
from ppfr_ops.contracts.metrics import METRICS, Metric, is_measure, metrics_schema
from ppfr_ops.imaging import measures
from ppfr_ops.sanitize.measuring import Measuring


def test_a_new_metric_needs_no_third_place(monkeypatch: pytest.MonkeyPatch) -> None:
    new = Metric(
        "brightness_gap", "difference of the mean luminances", "how much darker or lighter"
    )
    monkeypatch.setitem(METRICS, new.name, new)
    monkeypatch.setattr(
        measures,
        new.name,
        lambda x, y: (x.mean((1, 2, 3)) - y.mean((1, 2, 3))).abs(),
        raising=False,
    )
    dark, light = (np.full((2, 112, 112, 3), value, np.uint8) for value in (51, 102))
    found = Measuring().compare(dark, light, None)
    np.testing.assert_allclose(found[new.name], 0.2, atol=1e-6)
    assert new.name in metrics_schema().names
    assert is_measure(new.name)
    assert coarse_mean(new.name, Statistic(count=100, mean=0.213, min=0, max=1)) == 0.22


def test_a_slow_metric_is_left_out_of_basic() -> None:
    assert Measuring("basic").measures == {n for n, metric in METRICS.items() if not metric.slow}
    assert "disclosure" in Measuring("none", required=("disclosure",)).measures


def test_every_metric_has_its_function() -> None:
    gray = torch.rand(2, 3, 112, 112)
    for name in METRICS.keys() - {"ssim", "ms_ssim", "draw_similarity"}:
        assert getattr(measures, name)(gray, gray).shape == (2,)
