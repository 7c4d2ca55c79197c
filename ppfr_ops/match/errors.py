"""What goes wrong, in words that may be shown."""

from enum import IntEnum

from ppfr_ops.errors import UserError


class MatchError(UserError):
    """Something that the user has to change; its text is one line and holds nothing of the data."""


class Reason(IntEnum):
    """Why a server refuses; all that a refused client is told."""

    MALFORMED = 1
    VERSION = 2
    UNKNOWN_CLIENT = 3
    PARAMETERS = 4
    BUDGET = 5
    RECORD_BUDGET = 6
    RATE = 7
    MODE = 8
    SIZE = 9
    REPLAY = 10
    INTERNAL = 11
    BUSY = 12


class Refused(MatchError):
    """The server refuses, or refused."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"refused: {reason.name.lower().replace('_', ' ')}")
        self.reason = reason
