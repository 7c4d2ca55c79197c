"""What an intruder found who had a release as a recipient has it, and photos of people with names:
``evidence/intruder.json``."""

from pydantic import Field

from ppfr_ops.contracts import Document


class Attempt(Document):
    """By one means."""

    means: str
    named: int = Field(ge=0)
    """People of the release for whom the intruder gave a name, being sure of it."""
    right: int | None = Field(ge=0)
    """Of them; null where nobody said who is who."""
    chance: float = Field(ge=0)
    """Right ones, if as many names were given at random."""


def luck(chance: float) -> int:
    """Right names that random ones are not above in 99 of 100 tries (Poisson), where ``chance``, 1
    at most, are right on average."""
    from scipy.stats import poisson  # which takes a second to import

    return int(poisson.ppf(0.99, chance))


class IntruderRecord(Document):
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
        if best.right is None:
            right = "how many are right was not checked, so run it again with --mapping"
        else:
            right = f"{best.right:,} of the names are right"
        return (
            f"with the best of {len(self.attempts)} means ({best.means}) the intruder gave names "
            f"to {best.named:,} of {self.people:,} people; {right}; as many given at random are "
            f"right {best.chance:.1f} times on average, and in 99 of 100 tries "
            f"{luck(best.chance):,} times or less"
        )
