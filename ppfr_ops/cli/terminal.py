"""The one way to a terminal: names, ids and reasons are anybody's, and a terminal obeys some
characters (colours, its title, what it pastes)."""

from typing import Any

import click
from rich.console import Console
from rich.text import Text

from ppfr_ops.release.findings import printable


def shown(text: str) -> str:
    """Lines without anything that a terminal obeys. JSON stays what it was."""
    return "\n".join(map(printable, text.split("\n")))


def echo(text: str = "", *, err: bool = False) -> None:
    """Print lines."""
    click.echo(shown(text), err=err)


def log(line: str) -> None:
    """Print a line of progress, on stderr."""
    echo(line, err=True)


class SafeConsole(Console):
    """A console that shows texts as ``shown`` does, those in tables too."""

    def render_str(self, text: str, **named: Any) -> Text:
        return super().render_str(shown(text), **named)
