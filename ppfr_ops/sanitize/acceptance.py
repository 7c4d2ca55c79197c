"""What a record has to meet before it is published, and how often it is drawn again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ppfr_ops.contracts.policy import Bound, Policy
from ppfr_ops.methods.base import Anonymizer

_FAR = 1e9
"""How far from any bound a value is that there is none of."""

REDRAWS = 4
"""Fresh draws that a record gets which shows more than allowed."""


@dataclass(frozen=True)
class Requirement:
    """A bound on a metric, and the reason code of a record that never meets it."""

    metric: str
    bound: Bound
    code: str


@dataclass(frozen=True)
class AcceptanceCriteria:
    """Bounds on records. A judge without any lets everything pass as it was first drawn."""

    requirements: tuple[Requirement, ...] = ()
    redraws: int = 0

    @classmethod
    def of(
        cls, method: Anonymizer, max_disclosure: float | None = None, policy: Policy | None = None
    ) -> "AcceptanceCriteria":
        """The criteria of a run.

        Of a method that does not select it is one without requirements, for what became of a record
        would depend on its original.

        Args:
            max_disclosure: None: the limit is the method's own, which may be none.
            policy: of which the bounds on records and the number of redraws count.
        """
        if not method.selects:
            return cls()
        limit = method.disclosure_limit if max_disclosure is None else max_disclosure
        found = []
        if limit is not None:
            bound = Bound(sign="<=", value=limit)
            found.append(Requirement("disclosure", bound, "too_disclosing"))
        if policy is not None:
            for name, bound in policy.record.items():
                found.append(Requirement(name, bound, "below_policy"))
        redraws = REDRAWS if policy is None else policy.redraws
        return cls(tuple(found), redraws if method.draw_size else 0)

    @property
    def metrics(self) -> frozenset[str]:
        """Names of the metrics that records are judged by."""
        return frozenset(item.metric for item in self.requirements)

    def shortfall(self, measured: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float64]:
        """How far every face is from meeting all requirements, summed; 0: it meets them; ``N``.
        NaN meets none.

        Args:
            measured: every metric of ``metrics``; empty: of no faces.

        Raises:
            KeyError: what is required was not measured.
        """
        count = len(next(iter(measured.values()))) if measured else 0
        total = np.zeros(count)
        for item in self.requirements if measured else ():
            values = measured[item.metric].astype(np.float64)
            missing = np.array([not item.bound.holds(value) for value in values.tolist()], bool)
            short = np.nan_to_num(np.abs(values - item.bound.value), nan=_FAR, posinf=_FAR)
            total += missing * (1e-9 + short)
        return total

    def reason(self, measured: Mapping[str, NDArray[np.float32]], index: int) -> tuple[str, str]:
        """Reason code and detail of the first requirement that a face misses; empty: it meets
        them all."""
        for item in self.requirements:
            value = float(measured[item.metric][index])
            if not item.bound.holds(value):
                return item.code, f"{item.metric} {value:.3f}, required {item.bound}"
        return "", ""

    def redraw(
        self,
        shortfalls: Sequence[float] | NDArray[np.float64],
        again: Callable[[list[int], int], NDArray[np.float64]],
    ) -> None:
        """Give what falls short fresh draws, as long as there are some left.

        Args:
            shortfalls: of every record of a batch.
            again: called with the places of records that fall short and the number of the draw; it
                draws them anew, keeps what falls less short, and gives what they lack then.
        """
        left = np.asarray(shortfalls, np.float64).copy()
        for draw in range(2, 2 + self.redraws):
            over = np.flatnonzero(left > 0).tolist()
            if not over:
                return
            left[over] = again(over, draw)
