"""What a stage is: an object that measures one part of ``evaluation.json``."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar, get_type_hints

from ppfr_ops.lab.evaluate.run import Run, Skip
from ppfr_ops.lab.evaluate.summary import told

__all__ = ["Skip", "Stage", "stage"]

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
                found = self.measure(run)
            except Skip as reason:
                run.skip(self.name, str(reason))
                return None
            for line in told(self.name, found):
                run.log(line)
            return found

        return run.keep(self.name, self.part | None, measure)


def stage(about: str) -> Callable[[Callable[[Run], Any]], Stage[Any]]:
    """A function as a stage: its name is the stage's, and the type that it gives is the part's."""

    def made(measure: Callable[[Run], Any]) -> Stage[Any]:
        part, name = get_type_hints(measure)["return"], measure.__name__
        fields = {"name": name, "part": part, "about": about, "measure": staticmethod(measure)}
        kind: type[Stage[Any]] = type(name, (Stage,), fields)
        return kind()

    return made
