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
    """A text without anything that a terminal obeys: names in a folder are anybody's. Such
    characters are written as JSON writes them."""
    return text if text.isprintable() else "".join(map(_plain, text))


def _plain(character: str) -> str:
    if character.isprintable():
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[n : n + 2].hex()}" for n in range(0, len(units), 2))
