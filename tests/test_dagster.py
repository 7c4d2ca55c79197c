"""The asset of ``examples/dagster_asset.py``, materialized by Dagster, with the real command.

Skipped without Dagster, whose own needs are many: an environment with it and pytest runs this.
"""

import sys
from pathlib import Path

import pytest

dagster = pytest.importorskip("dagster")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))


def materialized(place: Path, *options: str) -> object:
    from dagster_asset import Sanitize, protected_faces

    config = Sanitize(input=str(place / "in"), output=str(place / "out"), options=list(options))
    return dagster.materialize(
        [protected_faces],
        run_config=dagster.RunConfig({"protected_faces": config}),
        raise_on_error=False,
    )


def test_the_asset_tells_what_the_command_counted(tmp_path: Path) -> None:
    import subprocess

    subprocess.run(["ppfr", "sample", tmp_path / "in", "--count", "24"], check=True)
    found = materialized(tmp_path, "--method", "pixelate", "--metrics", "none")
    assert found.success  # type: ignore[attr-defined]
    (event,) = found.asset_materializations_for_node("protected_faces")  # type: ignore[attr-defined]
    told = {name: value.value for name, value in event.metadata.items()}
    assert (told["records"], told["dead_letters"]) == (24, 0)
    assert len(list(Path(told["release"]).glob("data/*.parquet"))) > 0


def test_what_only_a_person_can_change_is_not_tried_again(tmp_path: Path) -> None:
    found = materialized(tmp_path)
    assert not found.success  # type: ignore[attr-defined]
    assert not found.retry_attempts_for_node("protected_faces")  # type: ignore[attr-defined]
    (failure,) = found.get_step_failure_events()  # type: ignore[attr-defined]
    assert "exit code 2" in failure.event_specific_data.error.message + str(
        failure.event_specific_data.user_failure_data
    )
