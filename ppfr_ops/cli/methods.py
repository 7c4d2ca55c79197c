"""``ppfr methods``: the anonymizers and their options."""

import inspect

import click

from ppfr_ops.cli import Command
from ppfr_ops.methods.registry import methods


@click.command(cls=Command)
def main() -> int:
    """List the methods (--method) and their options (--method-option)."""
    for name, method in methods().items():
        module = inspect.getmodule(method)
        click.echo(f"{name}: {(inspect.getdoc(module) or '').partition(chr(10))[0]}")
        for option, field in method.model_fields.items():
            click.echo(f"    {option}={field.default}  {field.description or ''}")
    click.echo("module:Class: one of your own (CONTRIBUTING.md)")
    return 0
