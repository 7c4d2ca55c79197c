"""``ppfr methods``: the anonymizers and their options."""

import inspect
import sys
from pathlib import Path

if not __package__:  # run as a file, from a checkout
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import click

from pipelines.cli import run
from ppfr_ops.anonymizers import methods


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> int:
    """List the methods (--method) and their options (--method-option)."""
    for name, method in methods().items():
        module = inspect.getmodule(method)
        click.echo(f"{name}: {(inspect.getdoc(module) or '').partition(chr(10))[0]}")
        for option, field in method.model_fields.items():
            click.echo(f"    {option}={field.default}  {field.description or ''}")
    click.echo("module:Class: one of your own (CONTRIBUTING.md)")
    return 0


if __name__ == "__main__":
    run(main)
