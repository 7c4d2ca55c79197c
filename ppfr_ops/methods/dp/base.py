"""What the differentially private methods share: options, guarantee, figures."""

import math
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.methods.base import Anonymizer, Figure, Spending
from ppfr_ops.methods.dp.mechanism import Mechanism, Vectors
from ppfr_ops.privacy import ADJACENCY, Guarantee, Loss, Noise, gaussian_epsilon, gaussian_scale

FIGURES = (
    Figure("epsilon", "differential privacy: epsilon of the unit", "1", "0 or more", pa.float64()),
    Figure("delta", "differential privacy: delta of the unit", "1", "0 to 1", pa.float64()),
    Figure("adjacency", "differential privacy: what neighbouring inputs are", type=pa.string()),
    Figure("mechanism", "differential privacy: noise, norm and sampler", type=pa.string()),
    Figure(
        "clip_radius", "norm that the vector of the face is clipped to", "1", "0 or more",
        pa.float64(),
    ),
    Figure("privacy_unit", "whose change epsilon speaks of: record or person", type=pa.string()),
)  # fmt: skip

PROMISED = (
    *FIGURES,
    Figure("sound", "whether the claimed epsilon is the true one", type=pa.bool_()),
    Figure("claimed_epsilon", "what is claimed, where that is something else", "1", "0 or more",
           pa.float64()),
    Figure("record_epsilon", "epsilon of one record", "1", "0 or more", pa.float64()),
    Figure("photos", "photos of a person that epsilon covers", type=pa.int64()),
    Figure("scope", "what the guarantee is about", type=pa.string()),
)  # fmt: skip

_NAMES = {
    "laplace": "Laplace, L1, discrete (OpenDP)",
    "gaussian": "analytic Gaussian, L2, discrete (OpenDP)",
    "none": "none: nothing of the face is read",
}


class Private(Anonymizer):
    """A method with a guarantee. One draw a record, ever: no metric holds a record back, draws it
    again, or leaves with the release."""

    redrawable = False
    draws_faces = True
    may_publish_metrics = False
    spends = Spending("epsilon", "1", "privacy budget of a person, over records and releases")
    record_figures = FIGURES
    release_figures = PROMISED

    epsilon: float = Field(
        ge=1e-3, le=1e6, allow_inf_nan=False, description="privacy loss of the unit; has no default"
    )
    delta: float = Field(
        1e-6, gt=0, lt=1, description="probability that epsilon does not hold (Gaussian noise)"
    )
    noise: Noise = Field(
        "gaussian", description="gaussian: clipped in L2, (epsilon, delta); laplace: in L1, pure"
    )
    unit: Literal["record", "person"] = Field(
        "record", description="what epsilon is of: a record, or all photos of a person together"
    )
    photos: int = Field(
        1, ge=1, le=100_000, description="unit person: the most photos that a person may have"
    )

    label_only: ClassVar[bool] = False
    """Whether the guarantee is about the face given the label."""

    @model_validator(mode="after")
    def _unit(self) -> Self:
        if self.unit == "person" and "photos" not in self.model_fields_set:
            raise ValueError("unit person needs photos: the most that a person may have")
        if self.unit == "record" and self.photos != 1:
            raise ValueError("photos goes with unit person")
        return self

    def mechanism(self) -> Mechanism:
        """That of one record. A person's budget is shared by ``photos`` records: epsilons add
        (Laplace), squares of mu add (Gaussian)."""
        if self.unit == "record":
            return Mechanism(self.noise, self.epsilon, self.delta)
        if self.noise == "laplace":
            return Mechanism(self.noise, self.epsilon / self.photos, self.delta)
        mu = 1 / gaussian_scale(self.epsilon, self.delta) / math.sqrt(self.photos)
        return Mechanism(self.noise, gaussian_epsilon(mu, self.delta), self.delta)

    def vectors(self, faces: Faces) -> Vectors:
        """What the mechanism clips and noises, ``N x d``, in the unit of its ball."""
        raise NotImplementedError

    def clip_radius(self) -> float:
        """In the unit of the vector that is clipped."""
        return 1.0

    def guarantee(self) -> Guarantee:
        return Guarantee(
            epsilon=self.epsilon,
            delta=0.0 if self.noise == "laplace" else self.delta,
            mechanism=_NAMES[self.noise],
            clip_radius=self.clip_radius(),
            unit=self.unit,
            loss=self.mechanism().loss,
            photos=self.photos,
            label_only=self.label_only,
        )

    def about_release(self) -> dict[str, Any]:
        given = self.guarantee()
        about = "the face, given its label" if given.label_only else "the record's picture"
        return promised(given, about)

    def figures(self, count: int) -> dict[str, NDArray[Any]]:
        """``record_figures``: the same for all, and known before any face was seen."""
        told = promised(self.guarantee(), "")
        return {item.name: np.full(count, told[item.name]) for item in FIGURES}


def promised(given: Guarantee, about: str) -> dict[str, Any]:
    """The values of ``PROMISED``, known before any face was seen.

    Args:
        about: what the guarantee is about, in words.
    """
    return {
        "epsilon": float(given.epsilon),
        "delta": float(given.delta),
        "adjacency": ADJACENCY,
        "mechanism": given.mechanism,
        "clip_radius": float(given.clip_radius),
        "privacy_unit": given.unit,
        "sound": not given.unsound,
        "claimed_epsilon": given.claimed_epsilon,
        "record_epsilon": given.loss.epsilon(given.delta),
        "photos": given.photos,
        "scope": f"{about}; labels and kept columns are outside of it",
    }


NOTHING = Guarantee(0.0, 0.0, _NAMES["none"], 0.0, "record", Loss())
"""Of a picture that does not depend on the face."""
