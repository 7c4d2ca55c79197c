"""Differential privacy: what a record's publication guarantees, what it costs, how costs add up.

Neighbours differ in one record, which is replaced by any other (``ADJACENCY``). A release is
(epsilon, delta)-private if no event is more than e^epsilon times as likely, plus delta, under one
of two neighbours than under the other (Dwork and Roth 2014, definition 2.4).

Two mechanisms, and a cost for each that adds up over releases (``Loss``):

- Laplace noise on a vector clipped in L1 is epsilon-private; epsilons add.
- Gaussian noise on a vector clipped in L2, sensitivity D and standard deviation s, is mu-Gaussian
  private with mu = D / s; squares of mu add, and the epsilon of a sum at some delta is exact
  (Dong, Roth and Su, Gaussian Differential Privacy, theorem 2.7 and corollary 3.3).

Both together: epsilons of the pure part and of the Gaussian part add (basic composition).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from ppfr_ops.errors import require

Noise = Literal["laplace", "gaussian"]

ADJACENCY = "replace one"
"""Two inputs are neighbours if one record of one is another record in the other."""


@dataclass(frozen=True)
class Loss:
    """What publications cost, so that it can be added up."""

    pure: float = 0.0
    """Sum of the epsilons of Laplace mechanisms."""
    square: float = 0.0
    """Sum of mu squared over Gaussian mechanisms."""

    def __add__(self, other: "Loss") -> "Loss":
        return Loss(self.pure + other.pure, self.square + other.square)

    def times(self, count: int) -> "Loss":
        """Of ``count`` publications."""
        return Loss(self.pure * count, self.square * count)

    def epsilon(self, delta: float) -> float:
        """Epsilon of all of it together, at this delta (of the Gaussian part).

        Raises:
            UserError: dp-accounting is not installed.
        """
        if not self.square:
            return self.pure
        return self.pure + gaussian_epsilon(math.sqrt(self.square), delta)


@dataclass(frozen=True)
class Guarantee:
    """What a method promises of a record, or of a person."""

    epsilon: float
    """True one, whatever is claimed; 0: the picture does not depend on the face."""
    delta: float
    mechanism: str
    """Laplace or Gaussian with norm and sampler, in words."""
    clip_radius: float
    """Norm that the vector is clipped to, in the mechanism's own unit."""
    unit: Literal["record", "person"]
    loss: Loss
    """Of one record."""
    photos: int = 1
    """Of one person, at most; where the unit is a person."""
    claimed_epsilon: float | None = None
    """What is claimed, where that is something else."""
    unsound: str = ""
    """Why what is claimed does not hold; empty: it does."""
    label_only: bool = False
    """Whether it is about the face given the label."""


@lru_cache(maxsize=256)
def gaussian_scale(epsilon: float, delta: float) -> float:
    """Standard deviation of Gaussian noise for sensitivity 1 (analytic Gaussian mechanism: Balle
    and Wang, arXiv 1805.06530), by dp-accounting.

    Raises:
        UserError: dp-accounting is not installed.
    """
    return float(_accountant().get_sigma_gaussian(epsilon, delta))


@lru_cache(maxsize=4096)
def gaussian_epsilon(mu: float, delta: float) -> float:
    """Epsilon at ``delta`` of a Gaussian mechanism with sensitivity over deviation ``mu``.

    Raises:
        UserError: dp-accounting is not installed.
    """
    return float(_accountant().get_epsilon_gaussian(1.0 / mu, delta))


def _accountant() -> Any:
    require("dp_accounting")
    import dp_accounting

    return dp_accounting
