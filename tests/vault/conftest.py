"""Fixtures of the vault's tests."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sealed_world import World, make


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make(tmp_path)


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., World]:
    return lambda name, salt="": make(tmp_path, name, salt)
