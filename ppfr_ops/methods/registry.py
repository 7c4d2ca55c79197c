"""Methods by name: those of the project, and one's own as ``module:Class``."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from ppfr_ops.methods.base import Anonymizer

_METHODS: dict[str, type[Anonymizer]] = {}
_MODULES = ("blur", "pixelate", "highpass", "signed_field", "stochastic_local", "erasable_mask")

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
        importlib.import_module(f"ppfr_ops.methods.{module}")
    return dict(sorted(_METHODS.items()))


def _plugin(name: str) -> type[Anonymizer]:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError):
        raise ValueError(f"method {name!r}: no class {attribute} in a module {module}") from None
    if not (isinstance(found, type) and issubclass(found, Anonymizer)):
        raise ValueError(f"method {name!r} is no ppfr_ops.methods.base.Anonymizer")
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
