"""Fixtures of all tests."""

import os
from pathlib import Path
from typing import Any

import pytest

os.umask(0o077)  # keys that tests write are for nobody else; commands refuse others

ROOT = Path(__file__).resolve().parent.parent


ALONE = {
    "test_beam",
    "test_chaos",
    "test_cluster",
    "test_docs",
    "test_outside_method",
    "test_plugins",
    "test_ray",
    "test_sanitize",
    "test_session",
    "test_stores",
}
"""Files that start Ray or drive whole clusters, or mind the time: never two of them at once."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For ``pytest -n``: a file's tests stay together, for they share fixtures; so do those of all
    files that must be alone. (``--dist loadgroup`` of xdist 3.8 does nothing under pytest 9.)"""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0]
            return "alone" if Path(file).stem in ALONE else file

    return ByFile(config, log)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and models; skipped without, or failed if PPFR_REQUIRE_SHARED=1."""
    folder = Path(os.environ.get("PPFR_SHARED") or ROOT.parent / "shared")
    if not (folder / "data").is_dir():
        message = "no shared data: set PPFR_SHARED to the folder that holds data/ and models/"
        if os.environ.get("PPFR_REQUIRE_SHARED") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return folder
