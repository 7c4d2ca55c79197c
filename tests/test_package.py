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
