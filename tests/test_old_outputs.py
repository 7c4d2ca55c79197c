"""What earlier versions published can still be verified."""

import shutil
from pathlib import Path

from click.testing import CliRunner

from ppfr_ops.cli.verify import main as verify

DATA = Path(__file__).parent / "data"


def _verified(output: Path) -> tuple[int, str]:
    arguments = [str(output), "--public-key", str(DATA / "output-v1.pub")]
    done = CliRunner().invoke(verify, arguments, standalone_mode=False)
    return done.return_value, done.output


def test_the_first_version(tmp_path: Path) -> None:
    shutil.copytree(DATA / "output-v1", tmp_path / "out")
    code, said = _verified(tmp_path / "out")
    assert code == 0 and "all holds" in said, said


def test_the_first_version_tampered_with(tmp_path: Path) -> None:
    shutil.copytree(DATA / "output-v1", tmp_path / "out")
    shard = next((tmp_path / "out" / "data").iterdir())
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    code, said = _verified(tmp_path / "out")
    assert code == 1 and f"data/{shard.name}" in said, said
