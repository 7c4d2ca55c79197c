"""``ppfr methods``: the anonymizers, what they declare, and their options."""

import json

import click

from ppfr_ops.cli import Command
from ppfr_ops.cli.terminal import echo
from ppfr_ops.methods.base import Anonymizer
from ppfr_ops.methods.registry import about, find, installed, methods, summary


@click.command(cls=Command)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print a JSON array with everything that each method declares.",
)
def main(as_json: bool) -> int:
    """List the methods (--method) and their options (--method-option)."""
    known = methods()
    known |= {name: find(name) for name in sorted(installed()) if name not in known}
    if as_json:
        echo(json.dumps([about(*item) for item in known.items()], indent=1))
        return 0
    for name, method in known.items():
        echo(f"{name}: {summary(method)}")
        for line in _declared(method):
            echo(f"    {line}")
        for option, field in method.model_fields.items():
            value = "(required)" if field.is_required() else field.get_default()
            echo(f"    {option}={value}  {field.description or ''}")
    echo("module:Class: a method of your own (CONTRIBUTING.md)")
    return 0


def _declared(method: type[Anonymizer]) -> list[str]:
    """What is out of the ordinary about a method, a line each."""
    lines = [] if method.kind == "picture" else [f"publishes a {method.kind}, not a picture"]
    if not method.redrawable:
        lines.append("publishes every record as first drawn; metrics never hold one back")
    lines += [f"needs the secret {role}: {text}" for role, text in method.secrets.items()]
    lines += [f"may need the column {name} of the input" for name in method.wants]
    figures = {item.name: item for item in (*method.record_figures, *method.release_figures)}
    lines += [f"reports {name}: {item.description}" for name, item in figures.items()]
    if method.spends is not None:
        lines.append(f"spends {method.spends.account}: {method.spends.description}")
    return lines
