"""Fixtures of all tests."""

import os
from pathlib import Path

import pytest

os.umask(0o077)  # keys that tests write are for nobody else; commands refuse others

ROOT = Path(__file__).resolve().parent.parent


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
