"""The console command ``ppfr``: one lazily loaded subcommand a file of this package."""

import gc
import importlib
import os
import signal
import sys
import traceback
from typing import Any

import click

from ppfr_ops.cli.terminal import echo, shown
from ppfr_ops.errors import UserError, describe, missing_extra

_SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True}

COMMANDS = {
    "sanitize": "turn a dataset of faces into one that can be shared",
    "sanitize-beam": "the same on Apache Beam",
    "video": "cover the heads in videos",
    "review": "look over doubtful photographs in a browser",
    "status": "what an output holds, what is still to be done, when it last ran",
    "group": "group photos by person, for somebody to check",
    "sample": "write the embedded sample, faces drawn by code",
    "invent": "photographs of people who do not exist: a dataset without a source",
    "methods": "list the methods and their options",
    "evaluate": "measure a method: recognition, disclosure, what an attacker gets back",
    "compare": "put evaluations side by side",
    "lineup": "a blind test: do people recognise people in what is published?",
    "intruder": "try to name people as a motivated intruder would; write the record",
    "train": "train the learned anonymizer",
    "audit-privacy": "bound epsilon from below, by playing the attacker",
    "probe": "publish a photo under the key of a release, to search for the person in it",
    "report": "say whether an output may be released; report, dataset card, Croissant, lineage",
    "verify": "check an output against its manifest, shard by shard; sign it",
    "show": "a contact sheet of what was published, beside the originals for their owner",
    "mark": "read the invisible mark: is this picture from a release of mine?",
    "export": "the pictures of a release as a folder of files",
    "match": "ask a withheld gallery whether a face is in it, and learn only that",
    "serve-fr": "serve a recogniser over HTTP",
    "distill": "imitate a recogniser that you can only query, within a budget",
    "certify": "prove how far published pictures can change before a recogniser decides otherwise",
    "erase": "give the originals back from the vault, with the owner's key",
    "vault": "look after the vault: verify, revoke, rotate; split and join its key",
}
"""Name (and file: ``-`` is ``_``) to the line in the help. The command is the file's ``main``."""


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        try:
            module = importlib.import_module(f"ppfr_ops.cli.{name.replace('-', '_')}")
        except ModuleNotFoundError as error:
            raise _not_installed(error) from None
        return module.main

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


GREETING = """\
ppfr turns a dataset of faces into one that can be shared.

  ppfr sample faces/                                  drawn faces to try it with
  ppfr sanitize --input faces/ --output protected/    protected/release is what may leave
  ppfr report protected/                              may it? and a page that says why

All commands: ppfr --help"""


@click.group(cls=_Lazy, context_settings=_SETTINGS, invoke_without_command=True)
@click.version_option(package_name="ppfr-sanitizer")
@click.pass_context
def program(ctx: click.Context) -> None:
    """Turn face datasets into ones that can be shared and still be recognised by machines.

    Exit codes: 0 finished; 1 failed; 2 wrong usage or input; 3 finished, but a threshold was
    missed.
    """
    if ctx.invoked_subcommand is None:
        echo(GREETING)


class Refused(click.ClickException):
    """Wrong usage or input, as click shows it: one line on stderr, exit code 2."""

    exit_code = 2


class Command(click.Command):
    """A subcommand; the one place where a ``UserError`` becomes a line and an exit code."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **{"context_settings": _SETTINGS, **named})

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            refused = error.exit_code == Refused.exit_code
            raise (Refused if refused else click.ClickException)(shown(str(error))) from None
        except ModuleNotFoundError as error:
            raise _not_installed(error) from None


def _not_installed(error: ModuleNotFoundError) -> Exception:
    """One line that names the extra; the error itself where no extra has the module."""
    told = missing_extra(error)
    return error if told is None else Refused(str(told))


def run(command: click.Command) -> None:
    """Run a command as a program. One line for each error; a traceback only with PPFR_DEBUG=1,
    for messages of libraries quote paths. SIGTERM ends it as Ctrl-C does, tidily."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = command.main(standalone_mode=False)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "ppfr"
        echo(f"Error: {error.format_message()} (see {where} --help)", err=True)
        code = 2
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        echo("Interrupted; run the same command again to resume.", err=True)
        code = 130
    except Exception as error:
        echo(f"Error: {describe(error)} (PPFR_DEBUG=1 shows more)", err=True)
        if os.environ.get("PPFR_DEBUG"):
            traceback.print_exc()
        code = 1
    gc.freeze()  # or the interpreter looks through a million objects once more: a second
    sys.exit(code if isinstance(code, int) else 0)


def main() -> None:
    run(program)
