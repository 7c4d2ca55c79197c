"""``card.json`` of a surrogate: what was asked to make it, and what it must not be used for."""

from typing import Literal

from pydantic import Field

from ppfr_ops.contracts import Document

VOID = (
    "It was made of the answers of the recogniser that it stands for. As a black box it is void: "
    "what is trained or chosen with it has seen that recogniser."
)


class Fit(Document):
    """How like the target it is, on pairs of pictures whose answers were held back from it."""

    pairs: int = Field(ge=0, description="held back")
    spearman: float | None = Field(description="of its scores and the target's on them")
    baseline: float | None = Field(
        description="the same for the mean of the public recognisers' cosines, without a query; "
        "a surrogate that is not above it is worth nothing"
    )


class SurrogateCard(Document):
    """One surrogate. The same document is inside its files, so that it stays with them."""

    schema_version: Literal[1] = 1
    target: str = Field(description="name that its maker gave the recogniser that was asked")
    void_as_black_box: bool = Field(description="False only of a student of a local model")
    notice: str = VOID
    access: Literal["template", "score", "local"]
    kind: str = Field(description="head, or the name of the student network")
    public: list[str] = Field(description="recognisers that a head reads; they are in the file")
    noise: float = Field(ge=0, description="Gaussian, pixels of 0..1, that it was trained under")
    budget: int = Field(ge=0)
    queries: int = Field(ge=0, description="counted in the account, failed ones included")
    failures: dict[str, int] = Field(description="queries without an answer, by reason")
    answers: int = Field(ge=0, description="that it was made of")
    reused: int = Field(ge=0, description="answers of earlier runs among them")
    account_head: str | None = Field(description="sha256 of the account's last line")
    account_lines: int = Field(ge=0)
    dimensions: int = Field(ge=1)
    fit: Fit
    sha256: dict[str, str] = Field(default={}, description="of the files, by name")
