"""How somebody else's recogniser is reached: the contract, and what can go wrong with it.

An access of one's own is a class with ``template`` or ``score`` (or both), named on the command
line as ``module:Class`` or by an entry point:

    [project.entry-points."ppfr.endpoints"]
    mine = "mypackage.mymodule:MyAccess"

It is called without arguments to be made, makes exactly one request a call, retries nothing (what
is asked is counted here), and raises :class:`Refused`, :class:`Unreachable` or
:class:`InvalidAnswer`.
"""

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Protocol

from ppfr_ops.errors import UserError


class EndpointError(UserError):
    """A query brought no answer; one line that says why."""

    exit_code = 1
    reason = "failed"


class Unreachable(EndpointError):
    """Down, too slow or busy: it may be better in a while.

    Args:
        wait: seconds that the endpoint asks for.
    """

    reason = "unreachable"

    def __init__(self, text: str, wait: float | None = None) -> None:
        super().__init__(text)
        self.wait = wait


class Refused(EndpointError):
    """It does not answer this, now or later."""

    reason = "refused"


class InvalidAnswer(EndpointError):
    """It answered, and that is no template or score."""

    reason = "lied"


class Access(Protocol):
    """A recogniser that can be asked."""

    def template(self, picture: bytes, number: int) -> Sequence[float]:
        """The template of an aligned face.

        Args:
            picture: PNG, 112 x 112 RGB.
            number: of the query in the account.
        """
        ...

    def score(self, a: bytes, b: bytes, number: int) -> float:
        """How alike two aligned faces are; the greater, the more."""
        ...


def load(name: str) -> Access:
    """An access by entry point or ``module:Class``.

    Raises:
        UserError: there is none.
    """
    try:
        for found in entry_points(group="ppfr.endpoints", name=name):
            return found.load()()
        module, colon, attribute = name.partition(":")
        if colon:
            return getattr(import_module(module), attribute)()
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"endpoint {name!r} cannot be loaded ({type(error).__name__})") from None
    raise UserError(f"endpoint {name!r}: neither a URL, nor module:Class, nor an entry point")
