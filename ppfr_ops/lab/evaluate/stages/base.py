"""What a stage is: an object that measures one part of ``evaluation.json``."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

from ppfr_ops.lab.evaluate.run import Run, Skip

__all__ = ["Skip", "Stage", "register", "registered"]

P = TypeVar("P")


class Stage(ABC, Generic[P]):
    """One part of the document. It holds no state; whatever it needs, ``run`` has.

    Class attributes:
        name: of the stage and of the document's field.
        part: the type of that field.
        about: one line for people.
    """

    name: ClassVar[str]
    part: ClassVar[Any]
    about: ClassVar[str]

    @abstractmethod
    def measure(self, run: Run) -> P:
        """Measure it.

        Raises:
            Skip: something that it needs is not there.
        """

    def part_of(self, run: Run) -> P | None:
        """Its part of the document, measured or kept; None where it cannot be measured, and
        ``run.skipped`` says why."""

        def measure() -> P | None:
            try:
                return self.measure(run)
            except Skip as reason:
                run.skip(self.name, str(reason))
                return None

        return run.keep(self.name, self.part | None, measure)


_STAGES: dict[str, Stage[Any]] = {}

S = TypeVar("S", bound=type[Stage[Any]])


def register(name: str, part: Any) -> Callable[[S], S]:
    """Class decorator: make a stage known, with the type of its part of the document."""

    def add(cls: S) -> S:
        cls.name, cls.part = name, part
        _STAGES[name] = cls()
        return cls

    return add


def registered() -> dict[str, Stage[Any]]:
    """Stages that were registered so far, by name."""
    return dict(_STAGES)
