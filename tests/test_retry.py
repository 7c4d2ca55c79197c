"""Dead letters of a passing error are tried again where the owner asks for it."""

from pathlib import Path

import numpy as np
import pytest
from driving import drive
from numpy.typing import NDArray
from test_policy import here

from ppfr_ops.contracts.manifest import Manifest
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.methods.base import Anonymizer
from ppfr_ops.sample import write_sample
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.prepare import prepare

BROKEN = False


class Moody(Anonymizer):
    """Fails on faces that are darker than most, as long as it is broken."""

    def anonymize(self, faces: Faces, draws: NDArray[np.float32]) -> Faces:
        if BROKEN and (len(faces) > 1 or faces.mean() < 110):
            raise RuntimeError
        return 255 - faces


def run(source: Path, output: Path, *codes: str) -> Manifest:
    options = SanitizeOptions(
        input=str(source),
        output=str(output),
        method="test_retry:Moody",
        metrics="none",
        unit_rows=4,
        max_dead_letter_rate=1,
        retry_dead_letters=codes,
    )
    assert drive(options, here, "here 1", dry_run=False, as_json=False) == 0
    return Manifest.model_validate_json((output / "evidence" / "manifest.json").read_bytes())


def test_dead_letters_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    write_sample(source, count=12, identities=4, files=1)
    monkeypatch.setattr("ppfr_ops.sanitize.conductor.preflight", lambda job: None)
    monkeypatch.setattr("test_retry.BROKEN", True)
    counts = run(source, output).counts
    assert 0 < counts.dead_letters_by_code["method_failed"] < 12
    monkeypatch.setattr("test_retry.BROKEN", False)
    assert run(source, output, "no_face").counts == counts
    assert run(source, output).counts == counts
    assert run(source, output, "method_failed").counts.records == 12
    assert "units to be done anew, for their dead letters" in capfd.readouterr().err


def test_an_unknown_code_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--retry-dead-letters gremlins: no such code"):
        prepare(SanitizeOptions(input="a", output="b", retry_dead_letters=("gremlins",)))
