"""What is installed: one package, light to import, typed, its version in one place."""

import os
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import ppfr_ops

ROOT = Path(__file__).resolve().parent.parent


def test_import_is_light() -> None:
    code = (
        "import sys, ppfr_ops\n"
        "heavy = {'torch', 'ray', 'apache_beam', 'click', 'numpy', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_public_interface() -> None:
    assert [name for name in ppfr_ops.__all__ if not hasattr(ppfr_ops, name)] == []
    assert set(ppfr_ops.__all__) <= set(dir(ppfr_ops))
    with pytest.raises(AttributeError, match="nothing"):
        _ = ppfr_ops.nothing  # type: ignore[attr-defined]


def test_one_version() -> None:
    assert version("ppfr-sanitizer") == ppfr_ops.__version__
    assert f"version: {ppfr_ops.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## {ppfr_ops.__version__}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not os.environ.get("PPFR_HEAVY"), reason="takes minutes: PPFR_HEAVY=1")
def test_wheel_and_sdist_outside_the_checkout(tmp_path: Path) -> None:
    """Built, looked into, and the sample brought from sanitize to verify by the installed wheel."""
    build = [sys.executable, "-m", "build", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,), (sdist,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"ppfr_ops", f"ppfr_sanitizer-{ppfr_ops.__version__}.dist-info"}
    for needed in ("ppfr_ops/py.typed", "ppfr_ops/engines/ray_data.py"):
        assert needed in names
    assert any(name.endswith("stochastic-local.safetensors") for name in names)
    with tarfile.open(sdist) as archive:
        assert any(name.endswith("pyproject.toml") for name in archive.getnames())
    done = subprocess.run(
        [str(ROOT / "tests" / "installed.sh"), str(wheel), sys.executable],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


BLOCKED = """
import sys
from importlib.abc import MetaPathFinder
from ppfr_ops.errors import EXTRAS

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from ppfr_ops.cli import main
sys.argv = ["ppfr", *sys.argv[1:]]
main()
"""


def _without_extras(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCKED, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_a_first_release_needs_no_extra(tmp_path: Path) -> None:
    assert _without_extras(tmp_path, "sample", "faces", "--count", "12").returncode == 0
    options = ("--input", "faces", "--output", "out", "--metrics", "basic", "--method", "blur")
    done = _without_extras(tmp_path, "sanitize", *options)
    assert done.returncode == 0, done.stderr
    assert _without_extras(tmp_path, "verify", "out").returncode == 0
    assert _without_extras(tmp_path, "report", "out").returncode in (0, 3)


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("sanitize", "--engine", "ray", "--input", "faces", "--output", "out"), "ray"),
        (("sanitize-beam", "--input", "faces", "--output", "out"), "beam"),
        (("evaluate", "--help"), None),
    ],
)
def test_a_missing_extra_is_one_line(
    tmp_path: Path, arguments: tuple[str, ...], extra: str | None
) -> None:
    (tmp_path / "faces").mkdir()
    done = _without_extras(tmp_path, *arguments)
    if extra is None:
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.endswith(f"pip install 'ppfr-sanitizer[{extra}]'"), line
