"""What is made when the site is built: the gallery, the commands, the notebook with its outputs.

mkdocs calls the ``on_`` functions (``hooks`` in mkdocs.yml). As a program it draws the README's
picture: ``python docs/_build.py docs/methods.png``.
"""

import ast
import contextlib
import io
import json
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# The methods' own checkout, whatever is installed.
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ppfr_ops import sample  # noqa: E402
from ppfr_ops.draws import seeded_draws  # noqa: E402
from ppfr_ops.methods.base import Anonymizer, Context  # noqa: E402
from ppfr_ops.methods.registry import methods  # noqa: E402

log = logging.getLogger("mkdocs.hooks")
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHOWN = ("stochastic-local", "signed-field", "highpass", "pixelate")
"""In the README's picture, left to right after the drawn faces themselves."""
WHOM = ("virtual", "original")
"""Whom pictures show, where a method can show somebody else; the first is shown in README's."""
_NOTEBOOK = ROOT / "examples" / "tour.ipynb"


def whom(name: str) -> tuple[str, ...]:
    """Whom a method can show; empty: it has no such choice."""
    return WHOM if "identity" in methods()[name].model_fields else ()


def built(name: str, identity: str | None = None) -> Anonymizer:
    """A method as it is by default; where it needs secrets, with some that nobody uses; an epsilon,
    which has no default, is 8."""
    kind = methods()[name]
    options = {option: 8 for option, field in kind.model_fields.items() if field.is_required()}
    chosen = {} if identity is None else {"identity": identity}
    method = kind(**options, **chosen)
    return method.with_secrets({role: bytes(range(32)) for role in kind.secrets})


def published(name: str, faces: np.ndarray, identity: str | None = None) -> np.ndarray:
    """Faces as a method publishes them; uint8 ``N x 112 x 112 x 3``."""
    method = built(name, identity)
    ids = [f"{name}-{number}" for number in range(len(faces))]
    draws = seeded_draws(0)(ids, method.draw_size, 0)
    return method(faces, draws, Context({wanted: ids for wanted in method.wants}))


def strip(faces: np.ndarray) -> Image.Image:
    """Faces side by side."""
    return Image.fromarray(np.concatenate(list(faces), axis=1))


def readme_picture(path: Path) -> None:
    """Drawn faces and what four methods make of them, one column each; a palette keeps it small."""
    faces = sample.faces(24, seed=0, identities=24)[[1, 5, 9]]
    columns = [faces, *(published(name, faces, *whom(name)[:1]) for name in SHOWN)]
    rows = np.concatenate([np.concatenate(list(column), axis=0) for column in columns], axis=1)
    Image.fromarray(rows).quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


# -- pages -------------------------------------------------------------------------------------


def gallery() -> tuple[str, dict[str, bytes]]:
    """The page, and its pictures by path."""
    faces = sample.faces(48, seed=1, identities=48)[:6]
    pictures = {"gallery/original.png": png(strip(faces))}
    text = [
        "# Gallery",
        "",
        "Six faces that a program drew (`ppfr sample`), and what every method makes of them with "
        "its default options (`epsilon`, which has none, is 8). There are no photographs of people "
        "on these pages. Nor would a look be evidence: [measuring](measuring.md) says what is.",
        "",
        "![Six drawn faces](gallery/original.png){ .faces }",
    ]
    for name, kind in methods().items():
        if kind.kind != "picture" or "teacher" in kind.model_fields:
            continue  # with a teacher's templates, natural's pictures are the same
        said = kind.__doc__ or sys.modules[kind.__module__].__doc__ or ""
        said = " ".join(said.partition("\n\n")[0].split()).replace("``", "`")
        text += ["", f"## {name}", "", said]
        for identity in whom(name) or (None,):
            path = f"gallery/{name}-{identity}.png" if identity else f"gallery/{name}.png"
            pictures[path] = png(strip(published(name, faces, identity)))
            text += ["", f"`--identity {identity}`:"] if identity else []
            text += ["", f"![{name}]({path}){{ .faces }}"]
        options = [
            f"| `{option}` | {field.description or ''} | "
            f"{'none' if field.is_required() else field.default} |"
            for option, field in kind.model_fields.items()
        ]
        if options:
            text += ["", "| option | what it is | default |", "| --- | --- | --- |", *options]
    return "\n".join(text) + "\n", pictures


def commands() -> str:
    """The help of every command."""
    import click

    from ppfr_ops.cli import COMMANDS, program

    text = ["# Commands", "", "As `ppfr COMMAND --help` prints them.", ""]
    for name in COMMANDS:
        command = program.get_command(click.Context(program), name)
        assert command is not None
        context = click.Context(
            command, info_name=f"ppfr {name}", terminal_width=88, max_content_width=88
        )
        text += [f"## {name}", "", "```text", command.get_help(context), "```", ""]
    return "\n".join(text)


def notebook(path: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as a page, run from top to bottom in a folder of its own; its pictures by path.

    Raises:
        Exception: whatever a cell raises; the site is not built.
    """
    import tempfile

    pictures: dict[str, bytes] = {}
    text: list[str] = []
    scope: dict[str, Any] = {"__name__": "__main__"}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for cell in json.loads(path.read_text())["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                text += [source, ""]
                continue
            text += ["```python", source, "```", ""]
            printed, value = run_cell(source, scope)
            if isinstance(value, Image.Image):
                name = f"notebook/{len(pictures)}.png"
                pictures[name] = png(value)
                text += [f"![Output of the cell above]({name}){{ .faces }}", ""]
            elif value is not None:
                printed += repr(value)
            if printed:
                text += ["```text", printed.rstrip(), "```", ""]
    return "\n".join(text), pictures


def run_cell(source: str, scope: dict[str, Any]) -> tuple[str, Any]:
    """What a cell printed, and the value of its last line if that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), scope)
        value = None
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), scope)
    return printed.getvalue(), value


# -- hooks of mkdocs ---------------------------------------------------------------------------


def on_config(config: Any) -> Any:
    """Pages that the navigation does not name come last, so that none is left out."""
    named = re.findall(r"[\w/-]+\.md", json.dumps(config.nav))
    found = sorted(path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md"))
    more = [path.as_posix() for path in found if path.as_posix() not in named]
    if more:
        config.nav.append({"More": more})
    return config


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    pages: dict[str, str | bytes] = {"reference/commands.md": commands()}
    pages["gallery.md"], pictures = gallery()
    pages["notebook.md"], more = notebook(_NOTEBOOK)
    for path, content in {**pages, **pictures, **more}.items():
        files.append(File.generated(config, path, content=content))
    return files


_OUTSIDE = re.compile(r"\]\(((?:\.\./)+)([^)#\s]+)(#[^)]*)?\)")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links that leave docs/ go to the repository; what they name has to be there."""

    def outside(match: re.Match[str]) -> str:
        target = (ROOT / "docs" / page.file.src_uri).parent / match[1] / match[2]
        inside = target.resolve()
        if not inside.exists() or ROOT not in inside.parents:
            log.warning("%s: there is no %s", page.file.src_uri, match[1] + match[2])
            return match[0]
        if (ROOT / "docs") in inside.parents:
            return match[0]
        where = inside.relative_to(ROOT).as_posix()
        return f"]({config.repo_url}/blob/main/{where}{match[3] or ''})"

    return _OUTSIDE.sub(outside, markdown)


if __name__ == "__main__":
    readme_picture(Path(sys.argv[1]))
