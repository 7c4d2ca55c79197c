"""Virtual people whose photos differ by a private amount: recognition at a small epsilon.

The virtual person is a function of key and label; a photo adds what its features differ by from a
public mean, clipped and noised. The mean of the person, which would cost budget, is left out. With
``variation`` or ``epsilon`` 0 nothing of the face is read. The guarantee is about the face given
the label; who is whom comes from the label, which is outside of it.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ppfr_ops.imaging.arrays import Faces, unit
from ppfr_ops.keys import IDENTITY, derive
from ppfr_ops.methods.base import Context, Output
from ppfr_ops.methods.codes import KEY_SIZE, person
from ppfr_ops.methods.dp.base import NOTHING
from ppfr_ops.methods.dp.drawing import Drawn
from ppfr_ops.methods.dp.mechanism import Vectors
from ppfr_ops.methods.registry import register
from ppfr_ops.methods.stochastic_local import StochasticLocal
from ppfr_ops.methods.stochastic_local import identity as people
from ppfr_ops.privacy import Guarantee


@register("dp-virtual")
class Virtual(Drawn):
    secrets: ClassVar[Mapping[str, str]] = {
        "identity-key": "decides which virtual people the pictures show"
    }
    wants = ("identity",)
    label_only = True

    epsilon: float = Field(
        ge=0,
        le=1e6,
        allow_inf_nan=False,
        description="privacy loss of the unit; 0: nothing of the face is read; has no default",
    )
    variation: float = Field(
        0.3,
        ge=0,
        le=1,
        description="how far photos of a virtual person lie apart; noise for the most part at a "
        "small epsilon, and 0.3 of noise is as far as 0.5 of real photos",
    )

    @property
    def reads_faces(self) -> bool:
        return self.epsilon > 0 and self.variation > 0

    def generator(self) -> StochasticLocal:
        return self._drawing("virtual")

    def options(self) -> dict[str, Any]:
        return {**super().options(), "identity": "virtual"}

    def guarantee(self) -> Guarantee:
        return super().guarantee() if self.reads_faces else NOTHING

    def anonymize_with(self, faces: Faces, draws: NDArray[np.float32], context: Context) -> Output:
        key = derive(self.secret("identity-key"), IDENTITY, KEY_SIZE)
        size = self.generator().model().generator.code_size
        whose = [person(*each) for each in zip(context["identity"], draws, strict=True)]
        if self.reads_faces:
            # Private, of length 1 again, whatever the noise.
            differs = unit(self.mechanism().private(self.vectors(faces))).astype(np.float32)
            codes = people.virtual(key, whose, size, differs, self.variation)
        else:
            codes = people.virtual(key, whose, size)
        return Output(self.drawn(codes, draws), self.figures(len(faces)))

    def vectors(self, faces: Faces) -> Vectors:
        return self.encoded(faces)
