"""One thing that is not as it should be, in a line that may be shown on any terminal."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    file: str
    """Relative to the release; of what is the owner's, ``evidence/…``."""
    reason: str

    def __str__(self) -> str:
        return f"{printable(self.file)}: {printable(self.reason)}"


def printable(text: str) -> str:
    """A text without anything that a terminal obeys: names in a folder are anybody's."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
