"""Methods by name: those of the project, those of installed packages (entry points of the group
``ppfr.methods``), and one's own as ``module:Class``."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from pydantic import ValidationError

from ppfr_ops.errors import UserError, fault
from ppfr_ops.methods.base import Anonymizer, Figure

GROUP = "ppfr.methods"
"""Entry points: name of the method = ``module:Class``."""

_METHODS: dict[str, type[Anonymizer]] = {}
_MODULES = {
    "blur": "blur",
    "cover": "cover",
    "dp-eigenface": "dp.eigenface",
    "dp-template": "dp.template",
    "dp-virtual": "dp.virtual",
    "highpass": "highpass",
    "natural": "natural",
    "natural-templates": "natural.templates",
    "pixelate": "pixelate",
    "portrait": "portrait",
    "signed-field": "signed_field",
    "stochastic-local": "stochastic_local",
}
"""Where the project's methods are. Each is imported when it is asked for: some need PyTorch, which
takes seconds to import."""

A = TypeVar("A", bound=type[Anonymizer])


def register(name: str) -> Callable[[A], A]:
    """Class decorator: make a method known under its command-line name."""

    def add(cls: A) -> A:
        cls.name = name
        _METHODS[name] = cls
        return cls

    return add


def methods() -> dict[str, type[Anonymizer]]:
    """The project's methods by name."""
    return {name: _ours(name) for name in _MODULES}


def _ours(name: str) -> type[Anonymizer]:
    importlib.import_module(module_of(name))
    return _METHODS[name]


def module_of(name: str) -> str:
    """The module of one of the project's methods; of others nothing is known before they are
    loaded: an empty string."""
    return f"ppfr_ops.methods.{_MODULES[name]}" if name in _MODULES else ""


def installed() -> dict[str, EntryPoint]:
    """Methods of installed packages, by name, not yet loaded."""
    return {point.name: point for point in entry_points(group=GROUP)}


def find(name: str) -> type[Anonymizer]:
    """A method's class.

    Args:
        name: a registered name, that of an entry point, or ``module:Class``.

    Raises:
        UserError: there is no such method, or it cannot be loaded; one line.
    """
    if name in _MODULES:
        return _ours(name)
    others = installed()
    if name in others:
        return _checked(name, others[name].value)
    if ":" in name:
        return _checked(name, name)
    known = ", ".join([*_MODULES, *sorted(others)])
    raise UserError(f"unknown method {name!r}; there are: {known}")


def _checked(name: str, place: str) -> type[Anonymizer]:
    module, _, attribute = place.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError):
        raise UserError(f"method {name!r}: no class {attribute} in a module {module}") from None
    except Exception as error:
        raise UserError(
            f"method {name!r}: importing {module} fails ({type(error).__name__})"
        ) from None
    if not (isinstance(found, type) and issubclass(found, Anonymizer)):
        raise UserError(f"method {name!r} is not a ppfr_ops.methods.base.Anonymizer")
    return _named(found, name)


@lru_cache(maxsize=64)
def _named(found: type[Anonymizer], name: str) -> type[Anonymizer]:
    """A class under a name; the class itself stays as it is, for it may have others."""
    if vars(found).get("name") == name:
        return found
    return type(found.__name__, (found,), {"name": name, "__module__": found.__module__})


def create(name: str, options: Mapping[str, Any] | None = None) -> Anonymizer:
    """Build a method from its name and options (values may be strings, as a command line has them).

    Args:
        name: as ``find`` takes it.

    Raises:
        UserError: unknown method, unknown option or a value out of range; one line says which.
    """
    method = find(name)
    try:
        return method.model_validate(dict(options or {}))
    except ValidationError as error:
        option = ".".join(str(part) for part in error.errors()[0]["loc"]) or "options"
        fields = ", ".join(method.model_fields) or "none"
        raise UserError(
            f"method {name}: option {option!r}: {fault(error)} (options: {fields})"
        ) from None


def shown_to_given(name: str, shown: Mapping[str, Any]) -> dict[str, str]:
    """The options that a method takes, of those that a manifest shows of it: it may show more, such
    as the mode of identity.

    Raises:
        UserError: as ``find``.
    """
    known = find(name).model_fields
    return {key: str(shown[key]) for key in shown if key in known and shown[key] is not None}


def about(name: str, method: type[Anonymizer]) -> dict[str, Any]:
    """What a method declares, as plain values: what ``ppfr methods --json`` prints."""
    try:
        draw_size = method().draw_size
    except ValidationError:  # it has an option without a default
        draw_size = None
    spends = method.spends
    return {
        "name": name,
        "summary": summary(method),
        "kind": method.kind,
        "draw_size": draw_size,
        "redrawable": method.redrawable,
        "disclosure_limit": method.disclosure_limit,
        "secrets": dict(method.secrets),
        "wants": list(method.wants),
        "record_figures": [_figure(item) for item in method.record_figures],
        "release_figures": [_figure(item) for item in method.release_figures],
        "spends": vars(spends) if spends is not None else None,
        "may_publish_metrics": method.may_publish_metrics,
        "options": method.model_json_schema().get("properties", {}),
    }


def _figure(item: Figure) -> dict[str, str]:
    return {**vars(item), "type": str(item.type)}


def summary(method: type[Anonymizer]) -> str:
    """The first line of its module's docstring (or of its own)."""
    text = inspect.getdoc(inspect.getmodule(method)) or method.__doc__ or ""
    return text.partition("\n")[0]
