"""What the texts say works: their shell commands run, their links lead somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
STUBS = {
    "ppfr": f'exec "{sys.executable}" -m ppfr_ops.cli "$@"',
    # Installing is for tests/installed.sh; here only that the command names what is there.
    "pip": f'[ "$*" = "install -c requirements.lock ." ] && [ -f "{ROOT}/requirements.lock" ]',
}


def shell_blocks(page: Path) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.M | re.S)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["README.md", "docs/tutorial.md"])
def test_every_shell_block_runs(name: str, tmp_path: Path) -> None:
    """All blocks of a page, one after the other, in one empty folder; any error ends it."""
    blocks = shell_blocks(ROOT / name)
    assert len(blocks) >= 2
    programs = tmp_path / "bin"
    programs.mkdir()
    for program, line in STUBS.items():
        (programs / program).write_text(f"#!/usr/bin/env bash\n{line}\n")
        (programs / program).chmod(0o755)
    folder = tmp_path / "work"
    folder.mkdir()
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    script = "set -euo pipefail\n" + "\n".join(blocks)
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
