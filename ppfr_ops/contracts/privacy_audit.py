"""Epsilon from below, as an attack showed it: the owner's evidence, ``privacy_audit.json``."""

from typing import Literal

from pydantic import Field

from ppfr_ops.contracts import Document

DOCUMENT = "privacy_audit.json"


class PrivacyAudit(Document):
    """What ``ppfr audit-privacy`` found. Nothing in it is of an original: neighbours are drawn."""

    schema_version: Literal[1] = 1
    method: str
    method_digest: str
    claimed_epsilon: float
    true_epsilon: float = Field(description="by the proof")
    delta: float
    unsound: str = Field(description="why the claim does not hold; empty: it does")
    epsilon_at_least: float
    confidence: float
    trials: int = Field(description="pictures of each of the two neighbours")
    hits: int
    false_alarms: int
    counted: int = Field(description="of each, on which the test was counted")
    vector_epsilon_at_least: float | None = Field(
        None,
        description="the same of the noised vector, before it is drawn, by the likelihood ratio",
    )
    vector_trials: int | None = Field(None, description="noised vectors of each of the neighbours")
    holds: bool = Field(description="whether no bound is higher than the claim")

    @property
    def broken(self) -> bool:
        """Whether it is above even what the proof gives: then something is wrong with it, or with
        the program."""
        return max(self.epsilon_at_least, self.vector_epsilon_at_least or 0.0) > self.true_epsilon
