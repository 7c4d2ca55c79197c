"""The page of the documentation that lists every option of ``ppfr sanitize``.

``docs/reference/options.md`` is what ``python -m ppfr_ops.cli.reference`` prints (``make
reference``); a test finds drift.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ppfr_ops.cli.options import kind_of
from ppfr_ops.engines.options import EngineOptions
from ppfr_ops.methods.registry import methods, summary
from ppfr_ops.options import declared, extra, flag, groups
from ppfr_ops.sanitize.options import SanitizeOptions

_HEAD = """\
# Options of `ppfr sanitize` and `ppfr sanitize-beam`

Generated from the models that declare the options; do not edit it, run `make reference`.

*Shapes the output* says that another value gives another output: an output's runs must agree on
it, and `ppfr sanitize` refuses to go on with a run that had another. *In the manifest* says that
anyone who gets the manifest can read the value.
"""


def page(model: type[BaseModel] = SanitizeOptions) -> str:
    """The whole page, Markdown."""
    parts = [_HEAD, *_table("All inputs", model)]
    for group in groups(model).values():
        parts += _table("Photographs (`--faces detect`)", group)
    parts += _table("The engine (`ppfr sanitize` only)", EngineOptions)
    parts.append("## Options of the methods\n")
    parts.append("`--method-option NAME=VALUE`; `ppfr methods --json` has them for programs.\n")
    for name, method in methods().items():
        parts.append(f"### {name}\n\n{summary(method)}\n")
        rows = [
            (f"`{option}`", _default(field), _range(field), field.description or "")
            for option, field in method.model_fields.items()
        ]
        parts.append(_rows(("option", "default", "range", "what it does"), rows))
    return "\n".join(parts)


def _table(title: str, model: type[BaseModel]) -> Iterator[str]:
    yield f"## {title}\n"
    rows = []
    for name, field in declared(model).items():
        noted = extra(field)
        marks = [text for key, text in _MARKS.items() if noted[key]]
        what = (field.description or "") + (f" *{'; '.join(marks)}.*" if marks else "")
        rows.append((f"`{flag(name, field)}`", _default(field), _range(field), what))
    yield _rows(("option", "default", "range", "what it does"), rows)


_MARKS = {"shapes": "Shapes the output", "manifest": "In the manifest"}


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def _default(field: FieldInfo) -> str:
    if extra(field).get("default_text"):
        return str(extra(field)["default_text"])
    value: Any = field.get_default(call_default_factory=True)
    if field.is_required():
        return "required"
    if value is None or value is PydanticUndefined or value in ((), {}):
        return ""
    return "off" if value is False else f"`{value}`"


def _range(field: FieldInfo) -> str:
    kind, _ = kind_of(field)
    if isinstance(kind, click.Choice):
        return ", ".join(f"`{choice}`" for choice in kind.choices)
    if isinstance(kind, click.IntRange | click.FloatRange):
        ends = []
        if kind.min is not None:
            ends.append(f"{'above' if kind.min_open else 'from'} {kind.min:g}")
        if kind.max is not None:
            ends.append(f"{'below' if kind.max_open else 'to'} {kind.max:g}")
        return " ".join(ends)
    return {bool: "", int: "whole number", float: "number"}.get(kind, "")


if __name__ == "__main__":
    click.echo(page(), nl=False)
