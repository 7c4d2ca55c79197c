"""What the texts say works: their shell commands run, their links lead somewhere."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest
from PIL import Image

from ppfr_ops.cli import COMMANDS, program
from ppfr_ops.cli.options import collect
from ppfr_ops.errors import UserError
from ppfr_ops.methods.base import Anonymizer
from ppfr_ops.methods.registry import create
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.photographs.options import PhotographOptions
from ppfr_ops.sanitize.prepare import check_method

ROOT = Path(__file__).resolve().parent.parent
STUBS = {
    "ppfr": f'exec "{sys.executable}" -m ppfr_ops.cli "$@"',
    # Installing is for tests/installed.sh; here only that the command names what is there.
    "pip": f'[ "$*" = "install -c requirements.lock ." ] && [ -f "{ROOT}/requirements.lock" ]',
}


def blocks(page: Path, kind: str = "sh") -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", page.read_text(), re.M | re.S)


def commands(text: str) -> Iterator[list[str]]:
    """The words after ``ppfr`` of every line that begins with it, as a shell has them."""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        found = re.match(r"\s*(?:\$ )?ppfr (.+)", line)
        if found:
            words = shlex.split(re.split(r" (?:\|\|?|&&?)(?: |$)", found[1])[0], comments=True)
            yield [word for word in words if word != "…"]


@cache
def made(method: str, *options: tuple[str, str]) -> Anonymizer:
    return create(method, dict(options))


def taken(words: list[str]) -> None:
    """That a command has these options, with these choices, and all that it needs; and that the
    options of ``ppfr sanitize`` go together."""
    given = list(words)
    command: click.Command = program
    context = click.Context(command)
    while isinstance(command, click.Group):
        found = command.get_command(context, words.pop(0))
        assert found is not None
        command, context = found, click.Context(found, info_name=found.name)
    values, rest, _ = command.make_parser(context).parse_args(words)
    assert not rest
    for parameter in command.get_params(context):
        value = values.get(parameter.name)
        if isinstance(parameter.type, click.Choice) and value is not None:
            for one in value if isinstance(value, list | tuple) else [value]:
                parameter.type.convert(one, parameter, context)
        if isinstance(parameter, click.Argument) and parameter.required:
            assert value not in (None, ())
    if given[0] == "sanitize" and "--input" in given and "--output" in given:
        values = command.make_context("sanitize", given[1:]).params
        names = {*SanitizeOptions.model_fields, *PhotographOptions.model_fields, "faces"}
        options = collect({name: value for name, value in values.items() if name in names})
        check_method(options, made(options.method, *options.method_options.items()))


PAGES = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/*.md", "examples/*.py", "bench/*.py"]


def test_every_command_that_is_shown_is_one() -> None:
    texts = {path.name: path.read_text() for page in PAGES for path in ROOT.glob(page)}
    for name in COMMANDS:
        command = program.get_command(click.Context(program), name)
        texts[f"ppfr {name}"] = f"{command.help}\n{command.epilog}" if command else ""
    wrong, seen = [], 0
    for name, text in texts.items():
        inside = "\n".join(re.findall(r"^```.*?\n(.*?)^```$", text, re.M | re.S))
        for words in commands(inside if name.endswith(".md") else text):
            seen += 1
            try:
                taken(list(words))
            except (click.ClickException, UserError, AssertionError) as error:
                wrong.append(f"{name}: {words}: {error}")
    assert seen > 80 and wrong == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["README.md", "docs/tutorial.md"])
def test_every_shell_block_runs(name: str, tmp_path: Path) -> None:
    """All blocks of a page, one after the other, in one empty folder; any error ends it."""
    parts = blocks(ROOT / name)
    assert len(parts) >= 2
    programs = tmp_path / "bin"
    programs.mkdir()
    for name_of, line in STUBS.items():
        (programs / name_of).write_text(f"#!/usr/bin/env bash\n{line}\n")
        (programs / name_of).chmod(0o755)
    folder = tmp_path / "work"
    folder.mkdir()
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    script = "set -euo pipefail\n" + "\n".join(parts)
    # A small sample does: nobody waits for 192 faces here.
    script = script.replace("ppfr sample faces/", "ppfr sample faces/ --count 24 --files 1")
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": paths,
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=850,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def test_links_of_pages_outside_the_site_lead_somewhere() -> None:
    """Those inside are checked when the site is built: ``mkdocs build --strict``."""
    missing = []
    for page in ROOT.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
            if not target.startswith(("http:", "https:", "mailto:")) and not (
                (page.parent / target).exists()
            ):
                missing.append(f"{page.name}: {target}")
    assert missing == []


def test_the_picture_of_the_first_screen_is_light() -> None:
    path = ROOT / "docs" / "methods.png"
    assert path.stat().st_size < 200_000
    assert Image.open(path).size == (5 * 112, 3 * 112)
