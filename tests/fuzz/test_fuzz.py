"""The short form of the campaign: all that ever failed, fixed seeds, fresh ones, and Hypothesis."""

import os
import re
import secrets
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parent))

import campaign
import folders
import mutations

from ppfr_ops.source.formats import readers
from ppfr_ops.source.plan import Columns, plan

SECONDS = float(os.environ.get("PPFR_FUZZ_SECONDS", 6))
"""For each kind of input and seed."""
FIXED_SEED = 16
KINDS = sorted(campaign.KINDS)


@pytest.mark.parametrize("path", sorted(campaign.CORPUS.glob("*/*")), ids=lambda path: path.name)
def test_what_ever_failed(path: Path) -> None:
    campaign.KINDS[path.parent.name][1](path.read_bytes())


def test_every_format_is_in_the_campaign(tmp_path: Path) -> None:
    found = {"images", *folders.FORMATS}
    for kind, file in mutations.FILES.items():
        path = tmp_path / f"{kind}{file.suffix}"
        path.write_bytes(file.seeds()[0])
        found.add(plan(str(path), Columns(), format=file.format).format)
    assert found == set(readers())
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    command = makefile.partition("campaign.py")[2].partition("--minutes")[0]
    named = set(re.findall(r"[a-z0-9-]+", command)) | {"parquet", "picture", "tar"}
    assert set(KINDS) <= named


@pytest.mark.parametrize("kind", sorted({*mutations.FILES, *folders.FOLDERS} - {"parquet", "tar"}))
def test_a_few_of_every_other_kind(kind: str) -> None:
    if kind in folders.FOLDERS - folders.TABLES_OF_PATHS:
        pytest.importorskip({"delta": "deltalake", "iceberg": "pyiceberg"}.get(kind, kind))
    for number in range(4):
        campaign.KINDS[kind][1](campaign.case(kind, FIXED_SEED, number))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [FIXED_SEED, None], ids=["fixed seed", "fresh seed"])
@pytest.mark.parametrize("kind", ["parquet", "picture", "tar"])
def test_mutated_inputs(kind: str, seed: int | None) -> None:
    seed = secrets.randbits(32) if seed is None else seed
    # By itself: a process that has computed with threads cannot be forked safely.
    command = [sys.executable, campaign.__file__, f"--seed={seed}", f"--{kind}s=1000000"]
    done = subprocess.run(
        [*command, f"--minutes={SECONDS / 60}", "--no-corpus"], capture_output=True, text=True
    )
    assert done.returncode == 0, f"seed {seed}\n{done.stdout}\n{done.stderr[-2000:]}"
    assert done.stdout.count('"cases"') == 2, "cases by themselves, and in whole runs"


Edits = list[tuple[int, int, bytes]]
EDITS = st.lists(
    st.tuples(st.integers(0, 2**16), st.integers(0, 64), st.binary(max_size=64)),
    min_size=1,
    max_size=4,
)


def edited(data: bytes, edits: Edits) -> bytes:
    """Each edit: a place, how many bytes go there, and what comes instead."""
    out = bytearray(data)
    for place, gone, come in edits:
        place %= len(out) + 1
        out[place : place + gone] = come
    return bytes(out)


@given(st.integers(0, len(mutations.pictures()) - 1), EDITS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
def test_edited_pictures(seed: int, edits: Edits) -> None:
    campaign.checks.check_picture(edited(mutations.pictures()[seed], edits))


@given(st.integers(0, len(mutations.tars()) - 1), EDITS)
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
def test_edited_tars(seed: int, edits: Edits) -> None:
    campaign.checks.check_file("tar", edited(mutations.tars()[seed], edits))


def test_a_case_is_a_function_of_its_seed_and_number() -> None:
    for kind in set(KINDS) - folders.FOLDERS:
        assert campaign.case(kind, 1, 2) == campaign.case(kind, 1, 2) != campaign.case(kind, 1, 3)


def test_a_failing_check_is_found_named_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutations.tars()  # before the fork

    def check(data: bytes) -> str:
        if data == campaign.case("tar", 1, 1):
            raise AssertionError
        if data == campaign.case("tar", 1, 3):
            os._exit(1)
        return "published"

    monkeypatch.setitem(campaign.KINDS, "tar", (mutations.tar, check))
    monkeypatch.setattr(campaign, "GIGABYTE", 1 << 40)  # other tests' memory is this process's
    figures = campaign.run("tar", 1, 6, time.monotonic() + 60, tmp_path)
    failures = figures["failures"]
    assert isinstance(failures, list) and figures["cases"] == 6
    assert [text.partition(":")[0].rpartition(" ")[2] for text in failures] == ["1", "3"]
    assert {path.read_bytes() for path in (tmp_path / "tar").iterdir()} == {
        campaign.case("tar", 1, 1),
        campaign.case("tar", 1, 3),
    }
