"""Options, declared once: a field of a pydantic model with default, range, description, and
whether it shapes the output. Command line, settings digest, manifest, help and the options page
of the docs are derived from that declaration and from nothing else.
"""

import hashlib
import json
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo


class Options(BaseModel):
    """Options that are declared together."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def option(
    default: Any,
    description: str,
    *,
    shapes: bool = False,
    manifest: bool | None = None,
    private: bool = False,
    metavar: str | None = None,
    flag: str | None = None,
    default_text: str | None = None,
    environment: str | None = None,
    **range_: Any,
) -> Any:
    """A field of a model of options.

    Args:
        default: ``...`` makes it required.
        description: for the help and the docs; understandable without what stands around it.
        shapes: another value gives another output, so an output's runs must agree on it.
        manifest: whether the manifest shows it; None: if it shapes the output.
        private: it names a source, a key or a place of the owner's: not in repr or manifest.
        metavar: what stands for the value in the help.
        flag: on the command line, if it is not the field's name (repeatable options are named in
            the singular there).
        default_text: of a default that is no constant.
        environment: variable that gives the value where the command line does not.
        range_: ``ge``, ``gt``, ``le``, ``lt``, as pydantic has them.
    """
    extra: dict[str, Any] = {
        "shapes": shapes,
        "manifest": False if private else shapes if manifest is None else manifest,
        "metavar": metavar,
        "flag": flag,
        "default_text": default_text,
        "environment": environment,
    }
    return Field(
        default, description=description, repr=not private, json_schema_extra=extra, **range_
    )


def decisive(default: Any, description: str, **more: Any) -> Any:
    """An option of which another value gives another output, as ``option`` has it."""
    return option(default, description, shapes=True, **more)


def owners_file(description: str, metavar: str = "FILE", **more: Any) -> Any:
    """An option that names a file or place of the owner's, by default none."""
    return option(None, description, private=True, metavar=metavar, **more)


def declared(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a model that are options, by name; others are groups of options."""
    fields = model.model_fields
    return {name: field for name, field in fields.items() if "shapes" in extra(field)}


def extra(field: FieldInfo) -> dict[str, Any]:
    """What ``option`` noted of a field."""
    noted = field.json_schema_extra
    return noted if isinstance(noted, dict) else {}


def flag(name: str, field: FieldInfo) -> str:
    """The option on the command line."""
    return extra(field).get("flag") or f"--{name.replace('_', '-')}"


def groups(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Models of options inside a model, by field."""
    found = {}
    for name, field in model.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found[name] = kind
    return found


def shaping(options: BaseModel) -> dict[str, Any]:
    """The values that shape the output, by flag; those of groups included."""
    model, values = type(options), {}
    for name, field in declared(model).items():
        if extra(field)["shapes"]:
            values[flag(name, field)] = getattr(options, name)
    for name in groups(model):
        group = getattr(options, name)
        values |= {} if group is None else shaping(group)
    return values


def shown(options: BaseModel) -> dict[str, Any]:
    """The values that a manifest may show, by field; those of groups included."""
    model, values = type(options), {}
    dumped = options.model_dump(mode="json")
    for name, field in declared(model).items():
        if extra(field)["manifest"]:
            values[name] = dumped[name]
    for name in groups(model):
        group = getattr(options, name)
        values |= {} if group is None else shown(group)
    return values


def digest(value: Any) -> str:
    """sha256 of a value as JSON, hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
