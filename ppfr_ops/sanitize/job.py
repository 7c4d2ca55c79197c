"""What an engine carries: the job to every worker, a unit's number to one of them, a status back.

Engines log and print what they carry, so a job hides its content and a status holds an id, counts
and a reason code, and nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ppfr_ops.contracts.ledger import Stage
from ppfr_ops.contracts.policy import Policy
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.methods.base import Anonymizer
from ppfr_ops.methods.registry import create
from ppfr_ops.options import digest
from ppfr_ops.review.verdicts import Review, listed
from ppfr_ops.sanitize import marking
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.source.plan import Plan, Unit, record_id
from ppfr_ops.source.sums import Sum
from ppfr_ops.vault import Access

LEAST_COMPARED = 256
"""Rows of a run, at least, whose ``draw_similarity`` is measured, if there are as many."""
LEAST_LOOKED = 64
"""Photographs of a run, at least, whose ``residual_faces`` are counted, which takes longer than all
other work on them."""

SECRETS = ("key", "people", "pseudonym_key", "secrets", "vault")
"""Fields of a job that never leave a process in clear; ``sealing`` is their way."""


@dataclass(frozen=True, repr=False)
class Job:
    """Everything that a worker needs to do any unit of a run."""

    options: SanitizeOptions
    plan: Plan
    key: bytes | None
    method_digest: str
    settings: Mapping[str, str]
    """Digests that an output's runs must agree on."""
    policy: Policy | None = None
    verdicts: Mapping[str, Review] | None = None
    """Of people on photographs; None: the run was given none."""
    people: Mapping[str, Mapping[int, str]] | None = None
    """Of photographs, by id, whose the faces are, by number; None: nobody said so."""
    vault: Access | None = None
    """Where originals are kept, encrypted; None: nowhere."""
    fence: int | None = None
    """Of the run's lease; a worker commits nothing once there is a higher one."""
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    """Of the method and of marks in pictures, by role."""
    own: bool = False
    """Whether the identity key is a stand-in, until the release's own is there."""
    pseudonym_key: bytes | None = None
    stage: Stage = "whole"
    """What is done with a unit."""
    notices: tuple[str, ...] = ()
    """What a person should be told before anything is done."""
    sealed: bytes | None = None
    """The secrets, encrypted; their fields hold nothing then."""
    sealed_under: str = ""
    """Name of the key to them in the output."""

    def __getstate__(self) -> dict[str, Any]:
        if self.has_secrets:
            raise TypeError("a job with its secrets is not pickled: see sanitize.sealing")
        return self.__dict__

    def nothing_secret(self) -> dict[str, Any]:
        """What the fields of secrets hold where there are none."""
        return {name: {} if name == "secrets" else None for name in SECRETS}

    @property
    def has_secrets(self) -> bool:
        """Whether it knows any."""
        return any(getattr(self, name) for name in SECRETS)

    def __repr__(self) -> str:
        return f"Job({len(self.plan.units)} units)"

    @property
    def sample_every(self) -> int:
        """One row in how many is published twice."""
        if self.policy is not None and "draw_similarity" in self.policy.record:
            return 1
        return self._sample(LEAST_COMPARED)

    @property
    def look_every(self) -> int:
        """One photograph in how many is looked at again."""
        return self._sample(LEAST_LOOKED)

    def _sample(self, least: int) -> int:
        return max(1, min(self.options.draw_sample, self.plan.rows // least))

    @property
    def independent(self) -> bool:
        """Whether the release depends on no face: rows are looked at, then records are drawn from a
        plan (``release_plan``)."""
        return self.options.photographs is None and not self.build_method().reads_faces

    @property
    def finds_people(self) -> bool:
        """Whether it has to be found out which photos show the same person."""
        wanted = "identity" in self.build_method().needed_context()
        return self.independent and wanted and not self.options.names_people

    def verdicts_on(self, unit: Unit, pictures: Sequence[Sum] | None = None) -> str:
        """The verdicts on a unit's photographs, as its ledger entry keeps them; empty where there
        are none.

        Args:
            pictures: as ``review.verdicts.listed`` has them.
        """
        ids = (record_id(unit.id, row) for row in range(unit.rows))
        return listed(self.verdicts, ids, pictures) if self.verdicts else ""

    @property
    def settings_digest(self) -> str:
        return digest(dict(self.settings))

    def build_method(self) -> Anonymizer:
        """The method, with its options and secrets."""
        options = self.options
        method = create(options.method, options.method_options)
        own = {role: value for role, value in self.secrets.items() if role not in marking.ROLES}
        return method.with_secrets(own)

    def encoding(self, method: Anonymizer) -> Encoding:
        """How pictures are stored, with the marks that need a secret."""
        return marking.encoding(self.options, method, self.secrets)


@dataclass(frozen=True)
class Status:
    """What became of a unit; safe to print, log and send anywhere."""

    unit: str
    state: Literal["committed", "skipped", "failed"]
    rows_in: int = 0
    records: int = 0
    dead_letters: int = 0
    attempts: int = 0
    """How often work on it had begun before in vain, which means: it took its process along."""
    reason: str = ""
    """Of a failed unit: the type of the error and where it came from."""
