"""Stages of an evaluation, one a file, in the order in which they are run."""

import importlib
from typing import Any

from ppfr_ops.lab.evaluate.stages.base import Skip, Stage, registered

__all__ = ["Skip", "Stage", "stages"]

_ORDER = (
    "utility",
    "disclosure",
    "diversity",
    "look",
    "linkage",
    "recovery",
    "groups",
    "eye",
    "inference",
    "linker",
    "regeneration",
    "releases",
    "training",
    "benchmark",
    "leak",
    "structure",
)


def stages() -> dict[str, Stage[Any]]:
    """All stages by name; one from elsewhere is last."""
    for name in _ORDER:
        importlib.import_module(f"ppfr_ops.lab.evaluate.stages.{name}")
    known = registered()
    return {name: known[name] for name in (*_ORDER, *(n for n in known if n not in _ORDER))}
