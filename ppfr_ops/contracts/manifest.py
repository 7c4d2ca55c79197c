"""What was done, with what, and what came of it: once for the owner, once for everybody.

``evidence/manifest.json`` has every figure; the units are in the ledger. ``release/manifest.json``
has what those who receive the data may know: how it was made, and the digest of every file beside
it, of the shards by way of ``release/files.pq``, which lists them.
"""

from datetime import date
from typing import Annotated, Any, Final, Literal

import pyarrow as pa
from pydantic import Field

from ppfr_ops.contracts import VERSIONS, Document, described
from ppfr_ops.contracts.ledger import Count, Digest, Statistic
from ppfr_ops.contracts.metrics import METRICS

MANIFESTS = "3"
"""Version of both manifests. Before 3 they listed the shards themselves."""


PROMISE = frozenset(
    {
        *("epsilon", "delta", "adjacency", "mechanism", "clip_radius", "privacy_unit"),
        *("sound", "claimed_epsilon", "scope"),
    }
)
"""Figures of a release by a method that promises differential privacy."""


class Method(Document):
    name: str
    options: dict[str, Any]
    digest: str
    """sha256 over name, options and weights."""
    figures: dict[str, Any] = {}
    """Of the release as a whole, as the method declares them."""
    columns: list[str] = []
    """Columns of ``data/`` that the method adds: figures of every record."""
    draws_faces: bool = False
    """Whether a trained model drew the faces: then pictures are marked, unless the option ``mark``
    says that they are not."""

    @property
    def private(self) -> bool:
        """Whether it promises differential privacy: nothing else that is computed from originals
        may then be in the release, aggregates included."""
        return self.figures.keys() >= PROMISE

    @property
    def claims_epsilon(self) -> bool:
        """Whether it says anything of an epsilon, in the form of a promise or not."""
        return "epsilon" in self.figures or "epsilon" in self.columns


class Model(Document):
    name: str
    digest: str
    """sha256 of the file."""


class Counts(Document):
    units: int
    rows_in: int
    extra_faces: int = 0
    """Photographs may hold several faces."""
    drawn_besides: int = 0
    """Records of no row, drawn so that sizes of groups are shared."""
    left_out: int = 0
    """Rows without a record, left out so that sizes of groups are shared. ``rows_in + extra_faces +
    drawn_besides = records + dead_letters + left_out``."""
    records: int
    dead_letters: int
    dead_letters_by_code: dict[str, int]
    respelled: int = 0
    """Rows whose label was not read as it is stored: without blanks at its ends or doubled ones and
    signs that nobody sees, and in one form of Unicode."""


class PhotographCounts(Document):
    """What was found in photographs, and who looked them over."""

    photographs: int
    """In which faces were found."""
    faces: int
    covered: int
    left_alone: int
    """Faces that the owner wanted to keep."""
    unsure: int
    """Faces that the detector was not sure of, or found by a second look only."""
    looked_over: int
    """Photographs on which a person gave a verdict."""
    waiting: int
    """Photographs that a person should look at, and nobody has."""


class Check(Document):
    """A requirement and what was found; what was not measured does not hold."""

    name: str
    bound: str
    """Sign and value: ``<= 0.6``."""
    found: float | None
    holds: bool

    def __str__(self) -> str:
        found = "not measured" if self.found is None else f"{self.found:.4g}"
        return f"{self.name}: {found}, required {self.bound}"


class Verdict(Document):
    """Of a policy on the run."""

    passed: bool
    checks: list[Check]


class Manifest(Document):
    """The owner's: ``evidence/manifest.json``."""

    schema_version: str = MANIFESTS
    versions: dict[str, str]
    """Of this program, Python and the libraries that touch a pixel or a shard."""
    engine: str
    finished_at: str
    """UTC, ISO 8601."""
    method: Method
    recognizers: list[Model]
    options: dict[str, Any]
    """What shaped the output; no path of input, key or model, and no seed."""
    settings_digest: str
    plan_digest: str
    counts: Counts
    metrics: dict[str, Statistic]
    verdict: Verdict | None = None
    """Null where the run was given no policy."""
    photographs: PhotographCounts | None = None
    """Null where the input is aligned faces."""

    def text(self) -> bytes:
        """As it is written."""
        return self.model_dump_json(indent=1).encode()


# -- what everybody may know ----------------------------------------------------------------

LEAST_RECORDS = 100
"""Over how many records a figure of a release is taken, at least."""

ID_COSINE_STEP = 0.02
"""What a mean cosine of templates is rounded to."""


def coarse_mean(name: str, statistic: Statistic) -> float | None:
    """A metric's mean as a release may tell it; None: it may not.

    It is rounded: ``LEAST_RECORDS`` times the step is the whole range of the measure, so somebody
    who knows the figures of all records but one, to the last digit, learns from the mean that the
    one lies somewhere in the range. No minimum, maximum or percentile: each is one record's figure.
    """
    step = METRICS[name].step if name in METRICS else None
    step = ID_COSINE_STEP if name.startswith("id_cosine_") else step
    if step is None or statistic.count < LEAST_RECORDS:
        return None
    return round(round(statistic.mean / step) * step, 2)


def withheld_percent(records: int, rows: int) -> int | None:
    """Share of the rows that are not published, percent, rounded up; None: too few rows to say."""
    return None if rows < LEAST_RECORDS else -(-100 * max(0, rows - records) // rows)


SUMS: Final = "SHA256SUMS"
"""In a release of files, the list of them, as ``sha256sum --check`` reads it."""

FILES: Final = "files.pq"
"""In the release, the list of its shards, a Parquet file. It is not called so, for who opens the
folder as a dataset must not find it among the shards."""

_PATH_BYTES, _DIGEST_BYTES = len("data/") + 32 + len(".parquet"), 64
FILES_SCHEMA = pa.schema(
    [
        # Of fixed width and never null, so that a row takes what it takes, whatever a file of
        # somebody else's says of itself.
        described(name, kind, text, unit, bounds).with_nullable(False)
        for name, kind, text, unit, bounds in (
            ("path", pa.binary(_PATH_BYTES), "Relative to the release; ASCII.", "", ""),
            ("rows", pa.int64(), "Records in the shard.", "", ">= 0"),
            ("bytes", pa.int64(), "Size of the file.", "B", ">= 0"),
            ("sha256", pa.binary(_DIGEST_BYTES), "Of the file, hex; ASCII.", "", ""),
        )
    ],
    metadata={"ppfr_schema": f"files/{VERSIONS['files']}"},
)
"""``release/files.pq``: the shards, sorted by path, not compressed."""


class Listing(Document):
    """The file that lists the shards of a release, or its photographs."""

    path: Literal["files.pq", "SHA256SUMS"] = FILES
    bytes: Count
    sha256: Digest
    rows: Count
    """Shards or photographs that it lists."""


class File(Document):
    """A file of the release."""

    path: Annotated[
        str, Field(pattern=r"^(data/[0-9a-f]{32}\.parquet|README\.md|croissant\.json|verify\.py)$")
    ]
    """Relative to the release."""
    bytes: int = Field(ge=0)
    sha256: Digest
    rows: int | None = Field(None, ge=0)
    """Of shards."""


class Requirement(Document):
    """Of the owner's policy. What was found is for the owner: a worst value is one record's."""

    name: str
    bound: str
    holds: bool


class ReleaseManifest(Document):
    """``release/manifest.json``: nothing in it is a figure of a single record, and nothing follows
    the order of the input."""

    schema_version: str = MANIFESTS
    release: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    """Which output this is of; random."""
    version: int = Field(ge=1)
    """Rises with every manifest that the owner writes, so that an older one can be told."""
    finished_on: date
    """UTC; the day only, for the times of day follow the order of the work."""
    versions: dict[str, str]
    engine: str
    method: Method
    recognizers: list[Model]
    options: dict[str, Any]
    """What a reader of the data has to know; names no column of the input that is not kept."""
    records: int = Field(ge=0)
    withheld_percent: int | None
    """See ``withheld_percent``."""
    metrics: dict[str, float]
    """Means, see ``coarse_mean``."""
    passed: bool | None = None
    """Whether the policy is met; null where there was none."""
    requirements: list[Requirement] = []
    files: list[File]
    """What lies beside this manifest, sorted by path, but for its signature and the list of
    shards."""
    listing: Listing

    def text(self) -> bytes:
        """The one way to write it."""
        before_marks = "draws_faces" not in self.method.model_fields_set
        exclude: dict[str, Any] = {"method": {"draws_faces"}} if before_marks else {}
        return self.model_dump_json(indent=1, exclude=exclude).encode()
