"""Stages of an evaluation, one a file, in the order in which they are run."""

from importlib import import_module
from typing import Any

from ppfr_ops.lab.evaluate.stages.base import Skip, Stage

__all__ = ["Skip", "Stage", "stages"]

_ORDER = (
    *("utility", "disclosure", "diversity", "look", "linkage", "recovery", "groups", "eye"),
    *("inference", "linker", "regeneration", "releases", "training", "benchmark", "leak"),
    "structure",
)


def stages() -> dict[str, Stage[Any]]:
    """All stages by name."""
    return {name: getattr(import_module(f"{__name__}.{name}"), name) for name in _ORDER}
