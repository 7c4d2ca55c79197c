"""House style of pages, help, messages and docstrings: sentences that a colleague would say."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *(ROOT / "ppfr_ops").rglob("*.py"),
    *(ROOT / "ppfr_ops").rglob("*.j2"),
]
HISTORY = {"experiments.md"}
"""A log of what was tried, in the words of its day."""

STYLE = {
    r"\bwhoever\b": "anybody who, or a noun",
    r"\bwhomever\b": "anybody whom",
    r"\bgone on with\b": "resumed",
    r"\bof which one\b": "which, in a sentence of its own",
    r"\bwherefrom\b": "from where",
    r"\bthereof\b": "of it",
    r"\bsaid so\b.{0,10}\bsaid\b": "once",
    r"\b[Ww]hom the pictures show\b": "identity modes",
    r"\b[Oo]nly queries\b": "black-box recognisers",
    r"\butili[sz]e": "use",
    r"\bin order to\b": "to",
}
"""Patterns that have to be guessed or are padding, and what to write instead."""


def _text(page: Path) -> str:
    """Without code, where names are what they are."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", "`code`", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_texts_keep_to_the_house_style(page: Path) -> None:
    if page.name in HISTORY:
        pytest.skip("a log")
    found = [
        f"{page.name}: {match.group(0)!r}: {instead}"
        for pattern, instead in STYLE.items()
        for match in re.finditer(pattern, _text(page))
    ]
    assert not found, "\n".join(found)
