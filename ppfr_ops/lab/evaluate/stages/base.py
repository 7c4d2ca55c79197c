"""What a stage is: an object that measures one part of ``evaluation.json``."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

if TYPE_CHECKING:
    from ppfr_ops.lab.evaluate.run import Run

P = TypeVar("P")


class Skip(Exception):
    """A stage that cannot be measured here; the text says what it would need."""


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
    def measure(self, run: "Run") -> P:
        """Measure it.

        Raises:
            Skip: something that it needs is not there.
        """


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
