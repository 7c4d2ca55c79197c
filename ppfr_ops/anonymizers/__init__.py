"""Anonymizers: one file a method, one registry, one protocol.

A method is a frozen pydantic model whose fields are its options. It is called with a batch of
aligned faces and as many draws and returns what may be published; it keeps no state between calls.
"""

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

FACE_SIZE = 112
"""Side in px of an aligned face (the ArcFace template)."""

Faces = NDArray[np.uint8]
"""uint8 ``N x 112 x 112 x 3``, RGB, aligned."""


class Anonymizer(BaseModel):
    """y = A(x, r). Subclasses add their options as fields and implement ``anonymize``."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: ClassVar[str]
    disclosure_limit: ClassVar[float | None] = None
    """A record that discloses more is drawn again, and not published if no draw helps."""

    @property
    def draw_size(self) -> int:
        """Standard normals that one face takes; 0 for a deterministic method."""
        return 0

    def anonymize(self, faces: Faces, draws: NDArray[np.float32]) -> Faces:
        raise NotImplementedError

    def __call__(self, faces: Faces, draws: NDArray[np.float32]) -> Faces:
        """Anonymize a batch.

        Args:
            faces: uint8 ``N x 112 x 112 x 3``, RGB, aligned.
            draws: float32 ``N x draw_size``, standard normal.

        Returns:
            uint8 ``N x 112 x 112 x 3``, RGB.

        Raises:
            ValueError: a shape or dtype is not as above.
        """
        expected = (len(faces), FACE_SIZE, FACE_SIZE, 3)
        if faces.shape != expected or faces.dtype != np.uint8:
            raise ValueError(f"faces must be uint8 {expected}, got {faces.dtype} {faces.shape}")
        if draws.shape != (len(faces), self.draw_size):
            raise ValueError(f"draws must be {(len(faces), self.draw_size)}, got {draws.shape}")
        if len(faces) == 0:
            return faces.copy()
        return self.anonymize(faces, draws)

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


_METHODS: dict[str, type[Anonymizer]] = {}
_MODULES = ("blur", "pixelate", "highpass", "signed_field", "stochastic_local")

A = TypeVar("A", bound=type[Anonymizer])


def register(name: str) -> Callable[[A], A]:
    """Class decorator: make a method known under its command-line name."""

    def add(cls: A) -> A:
        cls.name = name
        _METHODS[name] = cls
        return cls

    return add


def methods() -> dict[str, type[Anonymizer]]:
    """All methods by name."""
    for module in _MODULES:
        importlib.import_module(f"{__name__}.{module}")
    return dict(sorted(_METHODS.items()))


def _plugin(name: str) -> type[Anonymizer]:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError):
        raise ValueError(f"method {name!r}: no class {attribute} in a module {module}") from None
    if not (isinstance(found, type) and issubclass(found, Anonymizer)):
        raise ValueError(f"method {name!r} is no ppfr_ops.anonymizers.Anonymizer")
    found.name = name
    return found


def create(name: str, options: Mapping[str, Any] | None = None) -> Anonymizer:
    """Build a method from its name and options (values may be strings, as a command line has them).

    Args:
        name: a registered name, or ``module:Class`` of an ``Anonymizer`` of one's own.

    Raises:
        ValueError: unknown method, unknown option or a value out of range; one line says which.
    """
    known = methods()
    if ":" in name:
        known = {**known, name: _plugin(name)}
    if name not in known:
        raise ValueError(f"unknown method {name!r}; there are: {', '.join(known)}")
    try:
        return known[name].model_validate(dict(options or {}))
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(str(part) for part in first["loc"]) or "options"
        fields = ", ".join(known[name].model_fields) or "none"
        raise ValueError(
            f"method {name}: option {option!r}: {first['msg']} (options: {fields})"
        ) from None
