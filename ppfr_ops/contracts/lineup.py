"""What a line-up leaves: who was where (the owner's), and how often a viewer found the person."""

from typing import Literal

from ppfr_ops.contracts import Document


class Answers(Document):
    """``answers.json``: apart from the page, for who scores it."""

    schema_version: Literal[1] = 1
    candidates: int
    shown: Literal["published", "original"]
    """What is beside the candidates; originals tell how good the viewer is."""
    method: str | None
    alike: list[str]
    """Labels in which strangers are like the person, as far as there are any."""
    answers: list[int]
    """The right candidate of every trial, counted from 1."""


class LineUp(Document):
    """``result.json``: one viewer's line-up."""

    schema_version: Literal[1] = 1
    viewer: str
    shown: Literal["published", "original"]
    method: str | None
    candidates: int
    trials: int
    found: int
    rate: float
    low: float
    high: float
    """Clopper-Pearson interval of the rate."""
    confidence: float
    chance: float
    p_value: float
    """Of this many and more by chance (binomial, one-sided)."""
