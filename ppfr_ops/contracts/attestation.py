"""The statement that an owner signs about a release: in-toto Statement v1 with the predicate of
OpenSSF Model Signing v1.0, which names every file, and beside it what was done."""

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field

from ppfr_ops.contracts import Document
from ppfr_ops.contracts.ledger import Digest
from ppfr_ops.contracts.manifest import Method, Model, Requirement


class Subject(Document):
    name: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    """Of the release."""
    digest: dict[Literal["sha256"], Digest]
    """Over the digests of all resources, one after the other."""


class Serialization(Document):
    """How the digests were made; constant."""

    method: Literal["files"] = "files"
    hash_type: Literal["sha256"] = "sha256"
    allow_symlinks: Literal[False] = False
    ignore_paths: list[str] = ["manifest.sig"]


class Resource(Document):
    """A file of the release."""

    name: str
    algorithm: Literal["sha256"] = "sha256"
    digest: Digest


class Facts(Document):
    """What was done and what came of it, as ``release/manifest.json`` has it; counts and means, no
    figure of a record."""

    release: str
    version: int
    """Rises with every manifest that the owner writes."""
    finished_on: date
    versions: dict[str, str]
    engine: str
    method: Method
    """Name, options, and a digest over these and the weights."""
    recognizers: list[Model]
    """Models that it was measured with, and their digests."""
    options: dict[str, Any]
    records: int
    withheld_percent: int | None
    metrics: dict[str, float]
    """Means, coarse."""
    passed: bool | None
    """Whether the owner's policy is met; null where there was none."""
    requirements: list[Requirement]


class Predicate(Document):
    serialization: Serialization = Serialization()
    resources: list[Resource]
    ppfr: Facts
    """Model Signing lets verifiers pass over what they do not know."""


class ReleaseStatement(Document, populate_by_name=True):
    """The payload of the envelope in ``release/manifest.sig``."""

    type: Literal["https://in-toto.io/Statement/v1"] = Field(
        default="https://in-toto.io/Statement/v1", alias="_type"
    )
    subject: list[Subject] = Field(min_length=1, max_length=1)
    predicateType: Literal["https://model_signing/signature/v1.0"] = (
        "https://model_signing/signature/v1.0"
    )
    predicate: Predicate
