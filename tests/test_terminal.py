"""What a terminal obeys is shown, not sent: names, ids and reasons are anybody's."""

import ast
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.table import Table

import ppfr_ops.cli
from ppfr_ops.cli import program
from ppfr_ops.cli.terminal import SafeConsole, shown
from ppfr_ops.store.ledger import LEDGER, Ledger

EVIL = "a\x1b[2J\x1b]0;owned\x07\r\x9b31m\u202eb\x7f\U000e0041"


def harmless(text: str) -> bool:
    return all(c.isprintable() or c == "\n" for c in text)


def test_nothing_is_sent_that_a_terminal_obeys() -> None:
    assert harmless(shown(EVIL)) and shown("plain, äöü 漢字\nnext") == "plain, äöü 漢字\nnext"
    assert json.loads(shown(json.dumps({"name": EVIL}, ensure_ascii=False))) == {"name": EVIL}
    out = io.StringIO()
    console = SafeConsole(file=out, highlight=False, width=200)
    table = Table()
    table.add_column(EVIL)
    table.add_row(EVIL)
    console.print(EVIL, markup=False)
    console.print(table)
    assert harmless(out.getvalue()) and "\\u001b" in out.getvalue()


def test_commands_print_by_the_one_function_only() -> None:
    """``reference`` writes a page of the documentation from texts of our own."""
    for path in sorted(Path(ppfr_ops.cli.__file__).parent.glob("*.py")):
        if path.name in ("terminal.py", "reference.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("print", "click.echo", "click.secho", "sys.stdout.write"), (
                    f"{path.name}:{node.lineno}"
                )
                assert called != "Console", f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("command", [["status"], ["verify"], ["report"]])
def test_an_output_that_was_made_to_be_shown(tmp_path: Path, command: list[str]) -> None:
    ledger = Ledger(str(tmp_path))
    ledger.open({"method": "x"})
    ledger.write({"engine": EVIL, "started": EVIL, "units": 1, "rows": 1}, *LEDGER, "last.json")
    (tmp_path / "release").mkdir(exist_ok=True)
    (tmp_path / "release" / "a\x1b[2Jb\u202e").write_text("x")
    (tmp_path / "release" / "manifest.json").write_text(json.dumps({EVIL: EVIL}))
    (tmp_path / "evidence" / "manifest.json").write_text(json.dumps({"engine": EVIL}))
    for options in ([], ["--json"]):
        done = CliRunner().invoke(program, [*command, str(tmp_path), *options])
        assert harmless(done.output), repr(done.output)


def test_an_error_quotes_harmlessly(tmp_path: Path) -> None:
    name = str(tmp_path / "k\x1b[2J")
    done = CliRunner().invoke(
        program,
        ["erase", str(tmp_path), "--vault", str(tmp_path), "--key", name, "--out", "/tmp/x\x1b[0m"],
    )
    assert done.exit_code != 0 and harmless(done.output)
