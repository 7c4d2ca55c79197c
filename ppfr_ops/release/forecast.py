"""What a sample of a dataset says of the whole, held against a policy."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ppfr_ops.contracts.policy import Policy
from ppfr_ops.release.figures import Figures, figure

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Forecast:
    """A dataset figure on a sample, with its 95 % confidence interval."""

    name: str
    bound: str
    found: float | None
    low: float
    """-inf, or NaN with ``high``: the sample says nothing of how low it may be."""
    high: float
    holds: Literal["met", "open", "not met"]
    """``open``: the interval has values on both sides of the threshold."""


def forecast(policy: Policy, figures: Figures) -> list[Forecast]:
    """What a sample says of the whole. Shares get Wilson's interval, percentiles that of the order
    statistics, means the percentile bootstrap; what only an evaluation or the whole can tell, or
    what the sample is too small for, is left ``open``."""
    result = []
    for name, bound in policy.dataset.items():
        found = figure(name, figures, None)
        low, high = _interval(name, figures)
        if found is None or not low <= high:
            result.append(Forecast(name, str(bound), found, low, high, "open"))
            continue
        ends = {bound.holds(low), bound.holds(high)}
        # An "==" holds at neither end, and perhaps between them.
        inside = low < bound.value < high
        holds: Literal["met", "open", "not met"] = "open"
        if len(ends) == 1 and not (bound.sign == "==" and inside):
            holds = "met" if ends == {True} else "not met"
        result.append(Forecast(name, str(bound), found, low, high, holds))
    return result


def _interval(name: str, figures: Figures) -> tuple[float, float]:
    """NaN where there is none."""
    from scipy.stats import binomtest, bootstrap  # a second to import; workers never need it

    shares = {"dead_letter_rate": figures.failed, "quarantine_rate": figures.quarantined}
    if name in shares and figures.rows:
        # A photograph of several faces may lose them all.
        found = binomtest(min(shares[name], figures.rows), figures.rows)
        wilson = found.proportion_ci(CONFIDENCE, method="wilson")
        return float(wilson.low), float(wilson.high)
    metric, _, kind = name.rpartition("_")
    values = figures.values(metric)
    if kind.startswith("p") and kind[1:].isdigit() and len(values):
        return percentile_interval(values, int(kind[1:]) / 100)
    # The extremes of a sample say nothing about those of the whole.
    if len(values) < 8 or kind != "mean":
        return float("nan"), float("nan")
    spread = bootstrap(
        (values,),
        np.mean,
        n_resamples=2000,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(spread.low), float(spread.high)


def percentile_interval(values: NDArray[np.float64], share: float) -> tuple[float, float]:
    """The order statistics that enclose a percentile with 95 % confidence, each end with 97.5 %,
    whatever the distribution (Conover, Practical Nonparametric Statistics, 3.2).

    Args:
        values: the sample; ``N``.
        share: of the values below the percentile, 0 to 1, both excluded.

    Returns:
        Lower and upper end; infinite where the sample is too small to have one.
    """
    from scipy.stats import quantile_test

    found = quantile_test(values, p=share).confidence_interval(CONFIDENCE)
    low = -np.inf if np.isnan(found.low) else float(found.low)
    return low, np.inf if np.isnan(found.high) else float(found.high)
