"""Natural people, with what a recogniser makes of each picture: something to learn from.

A record carries, beside the picture, the template that a recogniser of the owner's choice has of
the *published* picture. Who trains on it learns from a teacher and not from labels alone
(``docs/natural.md``, "To learn from"). Anyone who has the recogniser could compute it, so it tells
of the person in the original what the picture tells: nothing.
"""

from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, field_validator

from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.methods.base import Context, Figure, Output
from ppfr_ops.methods.natural import Natural
from ppfr_ops.methods.registry import register
from ppfr_ops.recognizers import Recognizer, RecognizerSpec


@register("natural-templates")
class NaturalTemplates(Natural):
    record_figures: ClassVar[tuple[Figure, ...]] = (
        Figure(
            "template",
            "what the recogniser named in the manifest makes of the published picture, unit length",
            "1",
            "-1 to 1",
            pa.list_(pa.float32()),
        ),
    )

    teacher: str = Field(description="the recogniser, NAME=PATH of an ONNX or TorchScript file")

    @field_validator("teacher")
    @classmethod
    def _readable(cls, text: str) -> str:
        try:
            RecognizerSpec.parse(text).digest()
        except (UserError, OSError) as error:
            raise ValueError(f"{getattr(error, 'strerror', None) or error}") from None
        return text

    def options(self) -> dict[str, Any]:
        """Of the recogniser its name and its digest, not where it lies."""
        spec = RecognizerSpec.parse(self.teacher)
        return {**super().options(), "teacher": f"{spec.name}, sha256 {spec.digest()}"}

    def anonymize_with(self, faces: Faces, draws: NDArray[np.float32], context: Context) -> Output:
        drawn = super().anonymize_with(faces, draws, context)
        assert not isinstance(drawn, Output)
        return Output(drawn, {"template": _recogniser(self.teacher).embed(drawn)})


@lru_cache(maxsize=2)
def _recogniser(teacher: str) -> Recognizer:
    return Recognizer(RecognizerSpec.parse(teacher), 1)
