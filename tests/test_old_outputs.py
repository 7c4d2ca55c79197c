"""What earlier versions published can still be verified."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_settled import Output, keys

from ppfr_ops.cli.report import main as report
from ppfr_ops.cli.verify import main as verify
from ppfr_ops.contracts.manifest import Manifest, UnitShards
from ppfr_ops.release.figures import open_release
from ppfr_ops.release.listing import files_of, read_files
from ppfr_ops.release.publish import read_release
from ppfr_ops.release.signing import Seal, load_signing_key, make_signature
from ppfr_ops.store.folder import Folder
from ppfr_ops.store.ledger import Ledger

DATA = Path(__file__).parent / "data"


def _verified(output: Path, key: str = "output-v1.pub") -> tuple[int, str]:
    arguments = [str(output), "--public-key", str(DATA / key)]
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


@pytest.fixture
def listed_inline(tmp_path: Path) -> Path:
    """Its manifests list the shards, and its seal the entries."""
    shutil.copytree(DATA / "output-v2", tmp_path / "out")
    return tmp_path / "out"


def test_the_second_version_lists_its_shards_in_its_manifests(listed_inline: Path) -> None:
    assert not (listed_inline / "release/files.pq").exists()
    assert len(json.loads((listed_inline / "evidence/manifest.json").read_text())["shards"]) == 3
    for place in (listed_inline, listed_inline / "release"):
        code, said = _verified(place, "output-v2.pub")
        assert code == 0 and said.strip() == "all holds (version 2)", said
    opened = open_release(str(listed_inline))
    assert (len(opened.shards), opened.counts.records, len(opened.metrics)) == (3, 5, 5)
    done = CliRunner().invoke(report, [str(listed_inline)], standalone_mode=False)
    assert done.exception is None and done.return_value == 3, done.output
    assert "dead_letter_rate: 0.1667" in done.output
    assert "as they were signed" in done.output  # by a key that is not here
    assert _verified(listed_inline, "output-v2.pub")[0] == 0


def test_documents_that_are_written_beside_an_old_release_leave_its_form(
    listed_inline: Path,
) -> None:
    (listed_inline / "release/manifest.sig").unlink()
    done = CliRunner().invoke(report, [str(listed_inline)], standalone_mode=False)
    assert done.exception is None, done.output
    told = read_release(Folder(str(listed_inline)))
    assert told is not None and (told.version, told.schema_version) == (3, "2")
    assert told.listing is None and len(told.files) == 5
    checked = CliRunner().invoke(verify, [str(listed_inline)], standalone_mode=False)
    assert checked.return_value == 0, checked.output


@pytest.mark.parametrize("half", ["release/data", "evidence/metrics", "evidence/ledger/units"])
def test_the_second_version_tampered_with(listed_inline: Path, half: str) -> None:
    path = min((listed_inline / half).iterdir())
    data = bytearray(path.read_bytes())
    data[data.index(b"1") if path.suffix == ".json" else len(data) // 2] ^= 1
    path.write_bytes(data)
    code, said = _verified(listed_inline, "output-v2.pub")
    assert code == 1 and path.name in said, said


def test_a_second_version_with_a_file_beside_it_is_found(listed_inline: Path) -> None:
    (listed_inline / "release/files.pq").write_bytes(b"of a later version")
    code, said = _verified(listed_inline / "release", "output-v2.pub")
    assert code == 1 and said.strip() == "files.pq: is not in the manifest"


def as_of_version_2(output: Output) -> None:
    """An output as it was before there were lists beside the manifests, signed with its key."""
    assert output.key is not None
    root, key = output.root, load_signing_key(str(output.key))
    ledger = Ledger(str(root))
    entries = ledger.entries()
    told = read_release(ledger)
    assert told is not None and told.listing is not None
    files = list(files_of(told, read_files(ledger, told, "release")))
    old = told.model_copy(update={"schema_version": "2", "files": files, "listing": None})
    own = Manifest.model_validate_json((root / "evidence/manifest.json").read_bytes())
    shards = [UnitShards(unit=unit, shards=entry.shards) for unit, entry in entries.items()]
    own = own.model_copy(update={"schema_version": "2", "shards": shards})
    (root / "evidence/manifest.json").write_bytes(own.text())
    (root / "release/manifest.json").write_bytes(old.text())
    (root / "release/manifest.sig").write_bytes(make_signature(old.text(), key).text())
    digests = {unit: (digest or b"").hex() for unit, digest in ledger.digests(entries)}
    sealed = Seal(
        version=old.version,
        release=hashlib.sha256(old.text()).hexdigest(),
        evidence=hashlib.sha256(own.text()).hexdigest(),
        run=hashlib.sha256((root / "evidence/ledger/run.json").read_bytes()).hexdigest(),
        entries=digests,
    )
    sealed = sealed.model_copy(update={"signature": make_signature(sealed.signed(), key)})
    text = sealed.model_dump_json(indent=1, exclude={"listing"})
    (root / "evidence/seal.json").write_text(text)
    for gone in ("release/files.pq", "evidence/ledger/settled.json"):
        (root / gone).unlink()
    for path in (root / "evidence").glob("seal.*.parquet"):
        path.unlink()


def test_a_run_goes_on_with_an_output_of_the_second_version(tmp_path: Path) -> None:
    output = Output(tmp_path, keys(tmp_path))
    as_of_version_2(output)
    assert output.holds()
    assert output.run() == (0, []) and output.holds()
    told = read_release(Folder(str(output.root)))
    assert told is not None and (told.version, told.schema_version) == (2, "3")
    assert (output.root / "release/files.pq").exists()
    assert output.run() == (0, [])
    # What was planted since is not signed.
    as_of_version_2(output)
    entry = output.root / "evidence/ledger/units/u000001.json"
    entry.write_text(entry.read_text() + " ")
    assert output.run() == (0, [[1]]) and output.holds()
