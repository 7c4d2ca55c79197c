"""The rules of the house, read from the sources: who may import whom, and nobody in a circle."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "ppfr_ops"
ENGINES = ("ray", "apache_beam", "click")


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imports(path: Path, at_once: bool) -> set[str]:
    """Names that a module imports: all of them, or only those that importing it brings along."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if is_for_types_only(node) or (at_once and inside):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(name if name in MODULES else str(node.module) for name in names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


@pytest.mark.parametrize("name", sorted(MODULES))
def test_who_may_import_whom(name: str) -> None:
    used = imports(MODULES[name], at_once=False)
    if room(name) not in ("engines", "cli"):
        assert not {item for item in used if item.split(".")[0] in ENGINES}, "an engine, or click"
        above = {item for item in used if item.startswith("ppfr_ops.") and room(item) == "cli"}
        assert not above, "the command line is above all rooms"
    if room(name) == "engines":
        assert not {item for item in used if room(item) == "cli" or item == "click"}
        assert not {item for item in used if "._private" in item or item.startswith("unittest")}
    if room(name) == "methods":
        assert not {item for item in used if item.startswith("ppfr_ops.sanitize")}


def test_no_cycles() -> None:
    """Among imports that happen when a module is imported."""
    graph = {
        name: {item for item in imports(path, at_once=True) if item in MODULES and item != name}
        for name, path in MODULES.items()
    }
    done: set[str] = set()

    def walk(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name in done:
            return
        for other in sorted(graph[name]):
            walk(other, (*trail, name))
        done.add(name)

    for name in sorted(graph):
        walk(name, ())
