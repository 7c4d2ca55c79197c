"""What an intruder found who had a release as a recipient has it, and photos of people with names:
``evidence/intruder.json``."""

from pydantic import BaseModel, ConfigDict, Field


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Attempt(_Document):
    """By one means."""

    means: str
    named: int = Field(ge=0)
    """People of the release for whom the intruder gave a name, being sure of it."""
    right: int | None = Field(ge=0)
    """Of them; null where nobody said who is who."""
    chance: float = Field(ge=0)
    """Right ones, if as many names were given at random."""


class IntruderRecord(_Document):
    schema_version: str = "1"
    release: str
    """Id of the release."""
    version: int
    """Of the release."""
    date: str
    """UTC, ISO 8601; the day."""
    candidates: int
    """Photos that the intruder had."""
    people: int
    """With names, in these photos."""
    models: list[str]
    """FR models that the intruder used."""
    attempts: list[Attempt]
    not_tried: list[str]
    """Means that were left out, and why."""

    @property
    def in_words(self) -> str:
        """A sentence."""
        best = max(self.attempts, key=lambda found: (found.right or 0, found.named))
        right = "nobody said how many rightly" if best.right is None else f"{best.right:,} rightly"
        return (
            f"by {best.means} {best.named:,} of {self.people:,} people named, {right}; at random "
            f"{best.chance:.1f} would be right"
        )
