"""What is refused is said in our words, and in one line."""

from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ppfr_ops.errors import fault


class Wanted(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int = Field(3, gt=0, le=9)
    share: float = Field(0.5, ge=0, lt=1)
    kind: Literal["a", "b"] = "a"
    told: bool = False
    name: str = ""
    odd: int = 1

    @field_validator("odd")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("expected an odd number")
        return value


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"size": 0}, "expected more than 0"),
        ({"size": 10}, "expected 9 or less"),
        ({"size": "many"}, "expected a whole number"),
        ({"share": -1}, "expected 0 or more"),
        ({"share": 1}, "expected less than 1"),
        ({"share": "half"}, "expected a number"),
        ({"kind": "c"}, "expected 'a' or 'b'"),
        ({"told": "perhaps"}, "expected true or false"),
        ({"name": 3}, "expected text"),
        ({"odd": 2}, "expected an odd number"),
        ({"secret_name": 3}, "there is nothing of that name"),
    ],
)
def test_in_our_words(values: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Wanted.model_validate(values)
    assert fault(raised.value) == said
