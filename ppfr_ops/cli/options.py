"""Models of options as options of a command, and back."""

import re
from collections.abc import Callable
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import click
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ppfr_ops.cli import Command
from ppfr_ops.errors import UserError, fault
from ppfr_ops.options import declared, extra, flag, groups
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.photographs.options import PhotographOptions

M = TypeVar("M", bound=BaseModel)

ADVANCED = "Advanced"
SECTIONS: dict[str, tuple[str, ...]] = {
    "Most used": (
        *("input", "output", "faces", "identity_column", "keep_columns", "method"),
        *("identity_key_file", "policy", "dry_run", "overwrite"),
    ),
    "Input": ("input_format", "image_column", "limit", "incremental", "propagate_deletions"),
    "What is published": (
        *("coarsen", "identity", "method_options", "variation", "keep_look", "look_epsilon"),
        *("output_form", "names", "output_format", "quality", "mark", "c2pa", "c2pa_key"),
        *("c2pa_training", "invisible_mark", "max_disclosure", "fr", "metrics", "draw_sample"),
    ),
    "Privacy and keys": (
        *("discard_key", "secrets", "accept_unsound", "privacy_budget", "privacy_account"),
        *("mapping", "signing_key", "vault", "vault_key"),
    ),
    "Photographs (--faces detect)": (
        *declared(PhotographOptions),
        "detections_out",
        "review_out",
        "verdicts",
        "accept_unreviewed",
    ),
    "Where it runs": ("engine", "actors", "gpus_per_actor", "ray_address", "cluster_wait"),
}
"""Of the help: what is not named here is advanced."""


class Grouped(Command):
    """A command whose help shows its options by section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records = {
            str(item.name): record
            for item in self.get_params(ctx)
            if (record := item.get_help_record(ctx)) is not None
        }
        for title, names in SECTIONS.items():
            shown = [records.pop(name) for name in names if name in records]
            if shown:
                with formatter.section(title):
                    formatter.write_dl(shown, col_max=26)
        with formatter.section(ADVANCED):
            formatter.write_dl(list(records.values()), col_max=26)
        formatter.write_paragraph()
        formatter.write_text("Every option in full: docs/reference/options.md")


FACES = click.option(
    "--faces",
    type=click.Choice(["aligned", "detect"]),
    default="aligned",
    help="What the pictures are. aligned: every picture is one face of 112x112. detect: "
    "photographs, in which the faces are found first.",
)

DRY_RUN = click.option(
    "--dry-run",
    is_flag=True,
    help="Plan the run, sanitize a few records, say what was measured, and write nothing.",
)

AS_JSON = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the manifest, without the list of shards, as JSON on stdout.",
)


def sanitize_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: add the options that every engine's sanitize command shares. The command gets
    them as keywords; ``collect`` them."""
    return FACES(options_of(SanitizeOptions)(DRY_RUN(AS_JSON(command))))


def options_of(model: type[BaseModel]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that adds every option of a model, those of its groups included."""
    fields = list(declared(model).items())
    for group in groups(model).values():
        fields += declared(group).items()

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for name, field in reversed(fields):
            command = _click(name, field)(command)
        return command

    return add


def _click(name: str, field: FieldInfo) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    kind, many = kind_of(field)
    noted = extra(field)
    text = first_sentence(field.description or "")
    if noted["default_text"]:
        text = f"{text}  [default: {noted['default_text']}]"
    settings: dict[str, Any] = {
        "help": text,
        "required": field.is_required(),
        "envvar": noted["environment"],
        "metavar": noted["metavar"],
    }
    if field.default not in (None, PydanticUndefined, (), {}):
        settings |= {"default": field.default, "show_default": True}
    names = flag(name, field)
    if kind is bool:
        settings["is_flag"] = True
        if field.default and "/" not in names:
            names += f"/--no-{name.replace('_', '-')}"
    else:
        settings |= {"multiple": many, "type": kind}
    return click.option(names, name, **settings)


def first_sentence(text: str) -> str:
    """What the help shows of a description; the options page shows all of it."""
    end = re.search(r"(?<!e\.g)(?<!i\.e)\. (?=[A-Z])", text)
    return text if end is None else text[: end.start() + 1]


def kind_of(field: FieldInfo) -> tuple[Any, bool]:
    """Type for click, and whether the option may be repeated."""
    kind = field.annotation
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (part for part in get_args(kind) if part is not type(None))
    if get_origin(kind) is Literal:
        return click.Choice(list(get_args(kind))), False
    if get_origin(kind) in (tuple, dict):
        one = get_args(kind)[0]
        return click.Choice(get_args(one)) if get_origin(one) is Literal else str, True
    bounds: dict[str, Any] = {}
    for item in field.metadata:
        if isinstance(item, Ge | Gt):
            bounds["min"] = item.ge if isinstance(item, Ge) else item.gt
            bounds["min_open"] = isinstance(item, Gt)
        if isinstance(item, Le | Lt):
            bounds["max"] = item.le if isinstance(item, Le) else item.lt
            bounds["max_open"] = isinstance(item, Lt)
    if bounds:
        return (click.IntRange if kind is int else click.FloatRange)(**bounds), False
    return kind, False


def collect(values: dict[str, Any]) -> SanitizeOptions:
    """The keywords of a command as options.

    Raises:
        UserError: an option has a wrong form.
    """
    values = dict(values)
    detect = values.pop("faces") == "detect"
    photographs = {name: values.pop(name) for name in declared(PhotographOptions)}
    if not detect:
        default = PhotographOptions().model_dump()
        changed = [name for name, value in photographs.items() if value != default[name]]
        if changed:
            name = flag(changed[0], PhotographOptions.model_fields[changed[0]])
            raise UserError(f"{name} goes with --faces detect")
    values["photographs"] = photographs if detect else None
    return validated(SanitizeOptions, values)


def validated(model: type[M], values: dict[str, Any]) -> M:
    """The values of the command line as a model of options.

    Raises:
        UserError: one of them has a wrong form; one line.
    """
    values = dict(values)
    for name, field in declared(model).items():
        if get_origin(field.annotation) is dict:
            values[name] = key_values(flag(name, field), extra(field)["metavar"], values[name])
    try:
        return model.model_validate(values)
    except ValidationError as error:
        fields = dict(declared(model))
        for group in groups(model).values():
            fields |= declared(group)
        places = [str(part) for part in error.errors()[0]["loc"]]
        known = [place for place in places if place in fields]
        name = flag(known[-1], fields[known[-1]]) if known else places[-1]
        raise UserError(f"{name}: {fault(error)}") from None


def key_values(name: str, form: str, texts: tuple[str, ...]) -> dict[str, str]:
    """What a repeatable option gives by key.

    Raises:
        UserError: a text is not of the form.
    """
    pairs = [text.partition("=") for text in texts]
    if any(not equals or not key for key, equals, _ in pairs):
        raise UserError(f"{name}: expected {form}")
    return {key: value for key, _, value in pairs}
