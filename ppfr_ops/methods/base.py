"""The contract of a method.

A method is a frozen pydantic model whose fields are its options. It is called with a batch of
aligned faces and as many draws and gives what may be published; it keeps no state between calls.
What kind of thing it is, it says in class variables, so that the pipeline needs no special cases::

    class Mine(Anonymizer):
        redrawable = False                                # differentially private: one draw, ever
        secrets = {"identity-key": "32 bytes; makes pseudonyms"}
        wants = ("identity",)                             # context beside the pixels
        record_figures = (Figure("epsilon", "privacy loss of the record", "1", "0 or more"),)
        spends = Spending("epsilon", "1", "privacy budget of a person")

        sigma: float = Field(2.0, gt=0, description="standard deviation of the noise, grey levels")

Most methods declare nothing of this and implement ``anonymize`` alone.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, PrivateAttr

from ppfr_ops.contracts import described
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import FACE_SIZE, Faces
from ppfr_ops.privacy import Guarantee

Kind = Literal["picture", "template", "ciphertext"]


@dataclass(frozen=True)
class Figure:
    """A figure that a method adds to a record or to a release."""

    name: str
    description: str
    unit: str = "1"
    range: str = ""
    type: pa.DataType = field(default_factory=pa.float32)

    @property
    def column(self) -> pa.Field:
        """Its Arrow field."""
        return described(self.name, self.type, self.description, self.unit, self.range)


@dataclass(frozen=True)
class Spending:
    """An account that every publication is charged to, such as a person's privacy budget."""

    account: str
    unit: str
    description: str


@dataclass(frozen=True)
class Context:
    """What a method may know of the faces of a batch beside their pixels.

    A column a name that the method ``wants``, a value a face, in the order of the faces.
    ``identity`` is the label as the owner's input has it (str, or None): it may shape the output
    and must never be in it. ``look`` is what is kept of how the photo shows somebody
    (``imaging.look``; str).
    """

    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict, repr=False)

    def __getitem__(self, name: str) -> Sequence[Any]:
        return self.columns[name]


@dataclass(frozen=True)
class Output:
    """What a method gives for a batch: faces, and ``record_figures`` if it declares any."""

    faces: Faces
    figures: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """By name; ``N``."""


class Anonymizer(BaseModel):
    """y = A(x, r). Subclasses add their options as fields and implement ``anonymize``."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: ClassVar[str]
    """As on the command line; the registry sets it."""

    kind: ClassVar[Kind] = "picture"
    """What it puts out. ``ppfr sanitize`` publishes pictures."""

    disclosure_limit: ClassVar[float | None] = None
    """A record that discloses more is drawn again, and not published if no draw helps."""

    redrawable: ClassVar[bool] = True
    """Whether what becomes of a record may depend on how its publication compares with its
    original. False (differential privacy): a record is drawn once; no metric draws it again or
    holds it back."""

    secrets: ClassVar[Mapping[str, str]] = {}
    """Secrets that it may need: role to description. They arrive by ``with_secrets`` and are read
    by ``secret``; they are no fields, so no repr, option, digest, manifest or log has them."""

    wants: ClassVar[tuple[str, ...]] = ()
    """Columns of ``Context`` that it may need. A method that wants some implements
    ``anonymize_with`` instead of ``anonymize``."""

    record_figures: ClassVar[tuple[Figure, ...]] = ()
    """Figures that every published record carries, in ``data/``. They reach anyone who gets the
    output, so they must not be functions of the original."""

    release_figures: ClassVar[tuple[Figure, ...]] = ()
    """Figures of the release as a whole, in the manifest; ``about_release`` gives their values."""

    spends: ClassVar[Spending | None] = None
    """The account that a publication is charged to; None: it costs nothing."""

    draws_faces: ClassVar[bool] = False
    """Whether a trained model draws the face that is published; else an original is changed. By it
    pictures are marked as synthetic (``imaging.marks``)."""

    may_publish_metrics: ClassVar[bool] = False
    """Whether coarse per-record metrics, which are functions of the original, may leave with the
    release where the owner asks for it."""

    _secrets: dict[str, bytes] = PrivateAttr(default_factory=dict)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        if "name" not in cls.__dict__:
            cls.name = f"{cls.__module__}:{cls.__qualname__}"

    @property
    def draw_size(self) -> int:
        """Standard normals that one face takes; 0 for a deterministic method."""
        return 0

    @property
    def reads_faces(self) -> bool:
        """Whether, with these options, anything of a face gets into its picture. False: a picture
        is a function of key, label and draw; the method gets blank faces, and nothing else of a
        release depends on the faces either."""
        return True

    @property
    def selects(self) -> bool:
        """Whether a record may be drawn again, or held back, for how it compares with its
        original."""
        return self.redrawable and self.reads_faces

    @property
    def kept_look(self) -> tuple[str, ...]:
        """Parts of ``imaging.look`` that a picture has of its photo, by a field ``keep_look``, a
        text with commas; a method that has it wants ``look``."""
        return tuple(part for part in str(getattr(self, "keep_look", "")).split(",") if part)

    def needed_secrets(self) -> tuple[str, ...]:
        """Roles of ``secrets`` that it needs with these options."""
        return tuple(self.secrets)

    def needed_context(self) -> tuple[str, ...]:
        """Columns of ``wants`` that it needs with these options."""
        return tuple(name for name in self.wants if name != "look" or self.kept_look)

    def context_of(self, faces: Faces, labels: Sequence[str | None]) -> Context:
        """The context of faces that it needs."""
        names, found = self.needed_context(), dict[str, Sequence[Any]]()
        if "identity" in names:
            found["identity"] = labels
        if "look" in names:
            from ppfr_ops.imaging.look import noted  # loads a detector

            found["look"] = noted(faces, self.kept_look)
        return Context(found)

    def anonymize(self, faces: Faces, draws: NDArray[np.float32]) -> Faces | Output:
        """Faces, and as many draws, to what may be published; shapes as in ``__call__``, one face
        or more."""
        raise NotImplementedError

    def anonymize_with(
        self, faces: Faces, draws: NDArray[np.float32], context: Context
    ) -> Faces | Output:
        """As ``anonymize``, with what the method ``wants``."""
        return self.anonymize(faces, draws)

    def about_release(self) -> dict[str, Any]:
        """The values of ``release_figures``, by name."""
        return {}

    def guarantee(self) -> Guarantee | None:
        """What it promises of a record by differential privacy; None: nothing. A method that
        promises something is not ``redrawable``, and charges its ``loss`` to the account that it
        ``spends``."""
        return None

    def neighbours(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Two pictures, uint8 ``112 x 112 x 3``, which its guarantee keeps apart with the most
        effort; for ``ppfr audit-privacy``."""
        raise UserError(f"method {self.name}: names no neighbours to audit it with")

    def readings(self, pictures: Faces) -> NDArray[np.float64]:
        """What an attacker who tells ``neighbours`` apart looks at, of published pictures;
        ``N x D``."""
        raise UserError(f"method {self.name}: names no readings to audit it with")

    def __call__(
        self, faces: Faces, draws: NDArray[np.float32], context: Context | None = None
    ) -> Faces:
        """Anonymize a batch.

        Args:
            faces: uint8 ``N x 112 x 112 x 3``, RGB, aligned.
            draws: float32 ``N x draw_size``, standard normal.
            context: the columns that the method ``wants``.

        Returns:
            uint8 ``N x 112 x 112 x 3``, RGB.

        Raises:
            ValueError: a shape or dtype is not as above, or a column is missing.
        """
        return self.publish(faces, draws, context).faces

    def publish(
        self, faces: Faces, draws: NDArray[np.float32], context: Context | None = None
    ) -> Output:
        """As ``__call__``, with the figures of the records."""
        expected = (len(faces), FACE_SIZE, FACE_SIZE, 3)
        if faces.shape != expected or faces.dtype != np.uint8:
            raise ValueError(f"faces must be uint8 {expected}, got {faces.dtype} {faces.shape}")
        if draws.shape != (len(faces), self.draw_size):
            raise ValueError(f"draws must be {(len(faces), self.draw_size)}, got {draws.shape}")
        context = Context() if context is None else context
        for name in self.needed_context():
            if len(context.columns.get(name, ())) != len(faces):
                raise ValueError(f"the method wants {name!r} of every face")
        if len(faces) == 0:
            empty = {item.name: np.zeros(0, np.float32) for item in self.record_figures}
            return Output(faces.copy(), empty)
        given = self.anonymize_with(faces, draws, context)
        output = given if isinstance(given, Output) else Output(given)
        if output.faces.shape != faces.shape or output.faces.dtype != np.uint8:
            raise ValueError("the method gave another shape or dtype")
        if {item.name for item in self.record_figures} != output.figures.keys() or any(
            len(values) != len(faces) for values in output.figures.values()
        ):
            raise ValueError("the method did not give the figures that it declares")
        return output

    def with_secrets(self, secrets: Mapping[str, bytes]) -> Self:
        """A copy that holds these secrets, by role.

        Raises:
            UserError: a role is missing, or the method knows no such role.
        """
        missing = sorted(set(self.needed_secrets()) - secrets.keys())
        if missing:
            role = missing[0]
            raise UserError(f"method {self.name}: needs the secret {role!r}: {self.secrets[role]}")
        unknown = sorted(secrets.keys() - self.secrets.keys())
        if unknown:
            raise UserError(f"method {self.name}: takes no secret {unknown[0]!r}")
        copy = self.model_copy()
        copy._secrets = dict(secrets)
        return copy

    def __getstate__(self) -> dict[Any, Any]:
        """No pickle holds a secret or a template: these travel by ways of their own."""
        return {**super().__getstate__(), "__pydantic_private__": {"_secrets": {}}}

    def secret(self, role: str) -> bytes:
        """A secret, by role.

        Raises:
            UserError: it was not given.
        """
        if role not in self._secrets:
            raise UserError(f"method {self.name}: needs the secret {role!r}")
        return self._secrets[role]

    def forget(self) -> None:
        """Drop whatever was kept for speed; called after every unit."""

    def options(self) -> dict[str, Any]:
        """The options that shape the output, as a manifest may show them: no path, no device."""
        return self.model_dump(mode="json")

    def digest(self) -> str:
        """sha256 over method, options and (where there are any) weights: what ran, exactly."""
        text = json.dumps({"method": self.name, "options": self.options()}, sort_keys=True)
        return hashlib.sha256(text.encode() + self.weights_digest().encode()).hexdigest()

    def weights_digest(self) -> str:
        """sha256 of the learned weights, hex; empty for a method without any."""
        return ""


@lru_cache(maxsize=16)
def file_digest(path: Path) -> str:
    """sha256 of a file of weights, hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
