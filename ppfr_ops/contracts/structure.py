"""The part ``structure`` of ``evaluation.json``: people named by what a release shows besides its
pictures' content."""

from ppfr_ops.contracts import Document


class StructureAttack(Document):
    """One way of naming people by what the set tells."""

    attack: str
    named: int
    """Pseudonyms for which the attacker names a person, being sure of it."""
    right: int | None
    """Of them; null where nobody said who is who."""
    chance: float
    """Right ones, if as many names were given at random."""
    control_named: int
    """The same attack after the pseudonyms were dealt at random over the records."""
    control_right: int | None
    within_sizes: float | None = None
    """Right ones on average, if only the number of records and the kept values told who is who:
    the truth is shuffled among pseudonyms that have both in common. What a guess finds besides is
    ``right`` less this."""
    within_sizes_most: int | None = None
    """Of a hundred such shuffles one has more."""


class Structure(Document):
    """What the set tells to an attacker who knows which person stands in which row of the source,
    and has the release as it is."""

    release: str | None
    """Its id; null where the folder has no manifest."""
    people: int
    pseudonyms: int
    records: int
    shards: int
    pictures: bool
    """Whether templates of the published pictures were looked at, too."""
    singled_out: int
    """People whose number of records and kept values together nobody else has."""
    structure_k: int
    """People that look alike by these, in the smallest such set."""
    attacks: list[StructureAttack]

    @property
    def worst(self) -> float:
        """The largest share of people who are rightly named."""
        found = [attack.right or 0 for attack in self.attacks]
        return max(found, default=0) / max(self.people, 1)
