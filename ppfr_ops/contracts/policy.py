"""``policy.yaml``: what a release has to meet before it may leave."""

import re
from typing import Annotated, Literal

import yaml
from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ppfr_ops.contracts import Document
from ppfr_ops.contracts.metrics import METRICS, PICTURE_FIELDS
from ppfr_ops.errors import UserError, fault

_BOUND = re.compile(r"(<=|>=|==)\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)")


class Bound(Document):
    """A threshold: ``<= 0.6``, ``>= 0.9``, ``== 0``."""

    model_config = ConfigDict(frozen=True)

    sign: Literal["<=", ">=", "=="]
    value: float

    def __str__(self) -> str:
        return f"{self.sign} {self.value:g}"

    def holds(self, value: float) -> bool:
        """Whether a value meets it; NaN never does."""
        return {"<=": value <= self.value, ">=": value >= self.value, "==": value == self.value}[
            self.sign
        ]


def _parse(value: object) -> object:
    if isinstance(value, Bound | dict):
        return value
    match = _BOUND.fullmatch(str(value).strip())
    if match is None:
        raise ValueError('expected a sign and a number, such as "<= 0.6", ">= 0.9", "== 0"')
    return {"sign": match[1], "value": float(match[2])}


_Bounds = dict[str, Annotated[Bound, BeforeValidator(_parse)]]

_MEASURES = "|".join([*METRICS, r"id_cosine_\w+"])
_OF_PICTURES = "|".join(item.name for item in PICTURE_FIELDS)
_FIGURES = re.compile(
    r"dead_letters|dead_letter_rate|quarantined|quarantine_rate|records|unconfirmed_rate"
    r"|structure_k|singled_out"
    rf"|({_MEASURES}|{_OF_PICTURES})_(mean|min|max|p01|p05|p50|p95|p99)"
    r"|(rec_ssim|recovery_gain|black_box_accuracy|rank1|rank1_student|id_match_\w+)"
)
_METRICS = re.compile(_MEASURES)


class Policy(Document):
    """Thresholds on every record and on the release as a whole."""

    version: Literal[1] = 1
    record: _Bounds = {}
    """By metric: what every published record has to meet."""
    redraws: int = Field(4, ge=0, le=100)
    """Fresh draws that a record gets which falls short, before it is quarantined."""
    dataset: _Bounds = {}
    """By figure: what the release has to meet."""

    @model_validator(mode="after")
    def _names(self) -> "Policy":
        for name in self.record:
            if not _METRICS.fullmatch(name):
                raise ValueError(f"record.{name}: there is no such metric")
        for name in self.dataset:
            if not _FIGURES.fullmatch(name):
                raise ValueError(f"dataset.{name}: there is no such figure")
        return self


DEFAULT = """\
version: 1
record:
  disclosure: "<= 0.60"
redraws: 4
dataset:
  dead_letter_rate: "<= 0.01"
  quarantine_rate: "<= 0.01"
  disclosure_p99: "<= 0.60"
"""
"""What holds where no policy is given; ``docs/policy.md`` says why."""


OF_NOBODY = """\
version: 1
redraws: 0
dataset:
  dead_letter_rate: "<= 0.01"
  quarantine_rate: "<= 0.01"
"""
"""The same for a release whose pictures depend on no face: how alike a picture is to some photo
says nothing there (two strangers' faces have a disclosure of 0.52, one in a hundred 0.78)."""

WITH_PEOPLE = """\
  structure_k: ">= 2"
"""
"""What that adds where pseudonyms are published: nobody stands alone by number of pictures and kept
columns."""


IN_PLACE = """\
  residual_faces_mean: "<= 0.01"
  unconfirmed_rate: "<= 0.10"
"""
"""What the default adds of photographs that are published whole: faces that the detector sees in
them beside those that were treated, and boxes of the owner in which it sees none."""


_LONGEST, _MOST_BRACKETS = 65_536, 1000
"""Characters of a policy, and brackets in it."""


class PolicyError(UserError):
    """A policy that cannot be used: one line with the line in the file and the reason."""


def parse(text: str) -> Policy:
    """Read a policy.

    Raises:
        PolicyError: not YAML, or not of this form.
    """
    if len(text) > _LONGEST:
        raise PolicyError(f"policy, line 1: longer than {_LONGEST:,} characters")
    if sum(map(text.count, "[{")) > _MOST_BRACKETS:
        raise PolicyError("policy, line 1: nested too deeply")  # the parser would take minutes
    try:
        # An alias may stand for a document of any size.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise PolicyError("policy, line 1: aliases are not taken")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        _refuse_twice(root)
        value = yaml.safe_load(text)
    except RecursionError:
        raise PolicyError("policy, line 1: nested too deeply") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or "not YAML"
        raise PolicyError(f"policy, line {line}: {problem}") from None
    if not isinstance(value, dict):
        raise PolicyError("policy, line 1: expected keys such as record and dataset")
    try:
        return Policy.model_validate(value)
    except ValidationError as error:
        reason = fault(error)
        place = [str(part) for part in error.errors()[0]["loc"]]
        if not place:
            place = reason.partition(":")[0].split(".")
        else:
            reason = f"{'.'.join(place)}: {reason}"
        raise PolicyError(f"policy, line {_line(root, place)}: {reason}") from None


def _refuse_twice(node: yaml.Node | None) -> None:
    """A key that is there twice would count once, and nobody sees which."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_twice(item)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        name = str(key.value)
        if name in seen:
            line = key.start_mark.line + 1
            raise PolicyError(f"policy, line {line}: {name} is there twice")
        seen.add(name)
        _refuse_twice(value)


def _line(node: yaml.Node | None, place: list[str]) -> int:
    """Line of the innermost key of ``place`` that the document has."""
    line = node.start_mark.line + 1 if node is not None else 1
    for part in place:
        if not isinstance(node, yaml.MappingNode):
            break
        for key, value in node.value:
            if key.value == part:
                line, node = key.start_mark.line + 1, value
                break
        else:
            break
    return line
