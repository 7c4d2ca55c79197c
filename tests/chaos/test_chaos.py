"""The short forms: runs killed at moments drawn from a fixed seed and from a fresh one."""

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
MINUTES = float(os.environ.get("PPFR_CHAOS_MINUTES", 0.3))
"""For each seed, about."""
FIXED_SEED = 16


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [FIXED_SEED, None], ids=["fixed seed", "fresh seed"])
def test_killed_at_random_and_gone_on_with_every_record_is_there_once(seed: int | None) -> None:
    seed = secrets.randbits(32) if seed is None else seed
    # By itself: a process that has computed with threads cannot be forked safely.
    done = subprocess.run(
        [sys.executable, str(HERE / "kills.py"), f"--seed={seed}", f"--minutes={MINUTES}"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"seed {seed}\n{done.stdout}\n{done.stderr[-2000:]}"
    assert '"disturbed runs": 0' not in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_around_the_payment_nobody_is_published_more_than_was_spent() -> None:
    seed = secrets.randbits(32)
    done = subprocess.run(
        [sys.executable, str(HERE / "payments.py"), f"--seed={seed}", "--kills=6", "--minutes=12"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"seed {seed}\n{done.stdout}\n{done.stderr[-2000:]}"
    figures = json.loads(done.stdout)
    assert figures["kills"] >= 5 and figures["refused"] >= 1, figures
