"""The rooms keep to themselves: who may import whom, no cycles, no file or function too long."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ppfr_ops"
ENGINES = {"ray", "apache_beam", "click", "rich"}

MAX_LINES = 420
"""About 400."""
MAX_FUNCTION = 60

LONG_FILES = {"ppfr_ops.lab.training.stochastic_local", "ppfr_ops.sanitize.options"}
"""Longer than allowed; their heads say why."""

LONG_FUNCTIONS = {
    "ppfr_ops.cli.report.main": "a command's options are its parameters",
    "ppfr_ops.lab.evaluate.attacks.recovery.train": "one loop",
    "ppfr_ops.release.documents.annex._iso": "a document, written out",
    "ppfr_ops.release.documents.cards.croissant": "a document, written out",
    "ppfr_ops.sample._picture": "a face, drawn stroke by stroke",
}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(path: Path, *, lazy: bool) -> Iterator[str]:
    """Modules that a file names in imports; with ``lazy`` those inside functions, too."""
    tree = ast.parse(path.read_text("utf-8"))
    nodes = list(ast.walk(tree)) if lazy else list(_at_top(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(path, node)
            for name in node.names:
                inner = f"{base}.{name.name}"
                yield inner if inner in MODULES else base


def _absolute(path: Path, node: ast.ImportFrom) -> str:
    """The module that an import names, relative ones resolved."""
    if not node.level:
        return node.module or ""
    package = ".".join(path.relative_to(ROOT).parts[: -node.level])
    return f"{package}.{node.module}" if node.module else package


def _at_top(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run when the module is imported, not those for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _at_top(node)


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = sorted(ENGINES | {"torch", "cv2", "scipy", "onnxruntime"})
    code = f"import sys, ppfr_ops; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_nothing_below_engines_and_cli_imports_an_engine_or_a_terminal(module: str) -> None:
    if module.startswith(("ppfr_ops.engines", "ppfr_ops.cli")):
        pytest.skip("the place for it")
    named = {name.partition(".")[0] for name in imports(MODULES[module], lazy=True)}
    assert not named & ENGINES
    above = [
        name
        for name in imports(MODULES[module], lazy=module != "ppfr_ops")
        if name.startswith(("ppfr_ops.engines", "ppfr_ops.cli"))
    ]
    assert not above


def test_working_on_a_unit_loads_no_engine() -> None:
    code = (
        "import sys, ppfr_ops.sanitize.worker, ppfr_ops.sanitize.finish, ppfr_ops.release.verify\n"
        f"print([name for name in {sorted(ENGINES)} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_method_imports_the_contract_and_nothing_of_the_pipeline() -> None:
    barred = ("sanitize", "review", "release", "engines", "cli", "store", "source")
    for module, path in MODULES.items():
        if module.startswith("ppfr_ops.methods."):
            named = [name.split(".") for name in imports(path, lazy=True)]
            rooms = {parts[1] for parts in named if parts[0] == "ppfr_ops" and len(parts) > 1}
            assert not rooms & set(barred), f"{module}: {rooms & set(barred)}"


CORE_MAY_NOT = ("ppfr_ops.lab", "ppfr_ops.match")


def test_the_core_imports_neither_the_lab_nor_the_match() -> None:
    for module, path in MODULES.items():
        if module.startswith((*CORE_MAY_NOT, "ppfr_ops.cli", "ppfr_ops.engines.ray_match")):
            continue
        named = {name for name in imports(path, lazy=True) if name.startswith(CORE_MAY_NOT)}
        assert not named, f"{module}: {named}"


ROOMS = (
    ("errors", "keys", "memory", "options", "torchscript", "version", "words"),
    ("contracts", "draws", "privacy", "sandbox"),
    ("imaging", "store"),
    ("recognizers", "sample", "source"),
    ("match", "methods", "review"),
    ("release",),
    ("invent", "vault"),
    ("sanitize",),
    ("engines",),
    ("lab",),
    ("cli",),
)
"""Floors of the house, from the ground up: a room imports what is below it, and nothing above."""


def test_no_import_runs_upwards() -> None:
    floor = {room: number for number, rooms in enumerate(ROOMS) for room in rooms}
    for module, path in MODULES.items():
        if module == "ppfr_ops":
            continue
        for name in imports(path, lazy=True):
            if name.startswith("ppfr_ops."):
                mine, theirs = module.split(".")[1], name.split(".")[1]
                assert mine == theirs or floor[theirs] < floor[mine], f"{module} -> {name}"


def test_there_is_no_cycle() -> None:
    """Not of imports inside functions or for type checkers either: nobody can read half of one."""
    graph = {
        module: {name for name in imports(path, lazy=module != "ppfr_ops") if name in MODULES}
        for module, path in MODULES.items()
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for name in sorted(graph[module] - {module}):
                visit(name, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_files_and_functions_are_short_or_say_why_not() -> None:
    long_files, long_functions = set(), set()
    for module, path in MODULES.items():
        text = path.read_text("utf-8")
        if text.count("\n") > MAX_LINES:
            long_files.add(module)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
                start = node.body[0].end_lineno if ast.get_docstring(node) else node.lineno
                if node.end_lineno - (start or node.lineno) > MAX_FUNCTION:
                    long_functions.add(f"{module}.{node.name}")
    assert not long_files - LONG_FILES
    for module in long_files:
        head = ast.get_docstring(ast.parse(MODULES[module].read_text("utf-8"))) or ""
        assert "Long because" in head, module
    assert not long_functions - set(LONG_FUNCTIONS)


def test_pipelines_are_scripts_that_nobody_imports() -> None:
    for path in (ROOT / "pipelines").glob("*.py"):
        assert path.read_text("utf-8").count("\n") <= 30, path.name
    for module, path in MODULES.items():
        names = {name.partition(".")[0] for name in imports(path, lazy=True)}
        assert not names & {"pipelines", "schemas", "tests", "bench"}, module


def test_engines_know_no_command_and_patch_nothing() -> None:
    for module, path in MODULES.items():
        if module.startswith("ppfr_ops.engines"):
            named = set(imports(path, lazy=True))
            assert not {name for name in named if name.startswith(("ppfr_ops.cli", "unittest"))}
            assert not {name for name in named if "._private" in name}
