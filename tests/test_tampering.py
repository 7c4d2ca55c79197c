"""Ways to change a release that is signed: ``ppfr verify --public-key`` names file and reason."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from test_verify import untouched

from ppfr_ops.cli.verify import main
from ppfr_ops.contracts.attestation import ReleaseStatement
from ppfr_ops.contracts.manifest import FILES_SCHEMA, Listing, ReleaseManifest
from ppfr_ops.release import standalone
from ppfr_ops.release.attestation import PrivateKey, read_bundle, sign_statement, statement
from ppfr_ops.release.listing import write_rows
from ppfr_ops.release.publish import write_documents
from ppfr_ops.release.signing import load_signing_key
from ppfr_ops.store.folder import Folder
from ppfr_ops.store.ledger import Ledger

__all__ = ["untouched"]


@pytest.fixture(scope="module")
def signed(untouched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a card and Croissant; ``older`` is a release of version 1 with its valid signature."""
    folder = tmp_path_factory.mktemp("signed")
    shutil.copytree(untouched, folder / "made")
    made = folder / "made"
    shutil.copytree(made / "out/release", made / "older")
    ledger = Ledger(str(made / "out"))
    documents = {"README.md": "# card\n", "croissant.json": "{}\n"}
    write_documents(ledger, documents, load_signing_key(str(made / "key")))
    return made


@pytest.fixture
def release(signed: Path, tmp_path: Path) -> Path:
    shutil.copytree(signed, tmp_path / "made")
    return tmp_path / "made/out/release"


def verify(release: Path, *more: str) -> tuple[int, list[str]]:
    made = next(folder for folder in release.parents if (folder / "pub").exists())
    arguments = [str(release), "--public-key", str(made / "pub"), *more]
    done = CliRunner().invoke(main, arguments, standalone_mode=False)
    assert done.exception is None, done.output
    return done.return_value, done.output.splitlines()


def data(release: Path, number: int = 0) -> Path:
    return sorted((release / "data").iterdir())[number]


def swap_two_shards(release: Path) -> None:
    first, second = data(release, 0), data(release, 1)
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def cut_a_shard(release: Path) -> None:
    data(release).write_bytes(data(release).read_bytes()[:-1])


def lengthen_a_shard(release: Path) -> None:
    with data(release).open("ab") as file:
        file.write(b"a face, say")


def write_in_the_footer(release: Path) -> None:
    table = pq.read_table(data(release))
    pq.write_table(table.replace_schema_metadata({"who": "Jane Doe"}), data(release))


def turn_the_rows(release: Path) -> None:
    table = pq.read_table(data(release))
    pq.write_table(table.take(pa.array(range(len(table))[::-1])), data(release))


def hide_a_file(release: Path) -> None:
    (release / "data" / ".cache").write_text("Jane Doe")


def name_a_folder(release: Path) -> None:
    (release / "Jane Doe").mkdir()


def add_a_version_control(release: Path) -> None:
    (release / ".git" / "objects").mkdir(parents=True)
    (release / ".git" / "objects" / "ab").write_bytes(b"an original")


def put_a_pipe(release: Path) -> None:
    os.mkfifo(release / "data" / f"{1:032x}.parquet")


def make_a_shard_a_folder(release: Path) -> None:
    path = data(release)
    path.unlink()
    path.mkdir()


def link_the_data(release: Path) -> None:
    shutil.move(release / "data", release.parent / "moved")
    (release / "data").symlink_to(release.parent / "moved")


def link_the_manifest(release: Path) -> None:
    (release / "manifest.json").unlink()
    (release / "manifest.json").symlink_to("/dev/zero")


def link_a_document(release: Path) -> None:
    (release / "README.md").unlink()
    (release / "README.md").symlink_to("/etc/hostname")


def change_the_case(release: Path) -> None:
    (release / "README.MD").write_text("another card")


def colour_the_terminal(release: Path) -> None:
    (release / "\x1b[2Jall holds").write_text("")


def say_a_thing_twice(release: Path) -> None:
    """Two readers would read two things; signed again, as by somebody who got at the key."""
    path = release / "manifest.json"
    raw = path.read_bytes().replace(b'"records": 11', b'"records": 1,\n "records": 11')
    path.write_bytes(raw)
    sign_again(release, load_signing_key(str(release.parent.parent / "key")))


def sign_again(release: Path, key: PrivateKey) -> None:
    """The statement that is there, about the manifest that is there."""
    bundle = read_bundle((release / "manifest.sig").read_bytes())
    assert bundle is not None
    told = ReleaseStatement.model_validate_json(bundle.payload)
    digest = hashlib.sha256((release / "manifest.json").read_bytes()).hexdigest()
    resources = told.predicate.resources
    (place,) = (n for n, item in enumerate(resources) if item.name == "manifest.json")
    resources[place] = resources[place].model_copy(update={"digest": digest})
    payload = told.model_dump_json(by_alias=True).encode()
    (release / "manifest.sig").write_bytes(sign_statement(payload, key).text())


def sign_with_another_key(release: Path) -> None:
    sign_again(release, Ed25519PrivateKey.generate())


def name_another_signer(release: Path) -> None:
    path = release / "manifest.sig"
    bundle = json.loads(path.read_text())
    bundle["verificationMaterial"]["publicKey"]["hint"] = "0" * 64
    path.write_text(json.dumps(bundle, indent=1) + "\n")


def say_more_in_the_signature(release: Path) -> None:
    path = release / "manifest.sig"
    path.write_text(json.dumps({**json.loads(path.read_text()), "who": "Jane Doe"}, indent=1))


def sign_another_statement(release: Path) -> None:
    """By the right key, about the right manifest, and untrue in what was done."""
    bundle = read_bundle((release / "manifest.sig").read_bytes())
    assert bundle is not None
    told = ReleaseStatement.model_validate_json(bundle.payload)
    told.predicate.resources = [x for x in told.predicate.resources if x.name != "README.md"]
    payload = told.model_dump_json(by_alias=True).encode()
    key = load_signing_key(str(release.parent.parent / "key"))
    (release / "manifest.sig").write_bytes(sign_statement(payload, key).text())


def lengthen_the_signature(release: Path) -> None:
    path = release / "manifest.sig"
    path.write_text(path.read_text() + " " * 100)


def empty_the_signature(release: Path) -> None:
    (release / "manifest.sig").write_bytes(b"")


def remove_a_document(release: Path) -> None:
    (release / "croissant.json").unlink()


def put_an_older_card(release: Path) -> None:
    (release / "README.md").write_text("# CARD\n")


def list_a_file_elsewhere(release: Path) -> None:
    path = release / "manifest.json"
    path.write_text(path.read_text().replace("README.md", "../../key"))


def count_rows_elsewhere(release: Path) -> None:
    """A row more in one shard, a row less in another; signed again, by the right key."""
    path = release / "manifest.json"
    manifest = ReleaseManifest.model_validate_json(path.read_bytes())
    table = pq.read_table(release / "files.pq")
    rows = table["rows"].to_pylist()
    one, other, *_ = (n for n, name in enumerate(table["path"].to_pylist()) if b"data/" in name)
    rows[one], rows[other] = rows[one] + 1, rows[other] - 1
    place = table.column_names.index("rows")
    table = table.set_column(place, table.schema.field("rows"), pa.array(rows, pa.int64()))
    listing = Listing(**write_rows(Folder(str(release)), table, "files.pq"))
    forged = manifest.model_copy(update={"listing": listing})
    path.write_bytes(forged.text())
    key = load_signing_key(str(release.parent.parent / "key"))
    (release / "manifest.sig").write_bytes(sign_statement(statement(forged, table), key).text())


WAYS: dict[Callable[[Path], None], tuple[str, str]] = {
    swap_two_shards: ("data/", "the manifest"),
    cut_a_shard: ("data/", "bytes, the manifest says"),
    lengthen_a_shard: ("data/", "bytes, the manifest says"),
    write_in_the_footer: ("data/", "bytes, the manifest says"),
    turn_the_rows: ("data/", "the manifest"),
    hide_a_file: ("data/.cache", "is not in the manifest"),
    name_a_folder: ("Jane Doe", "is a folder that does not belong there"),
    add_a_version_control: (".git/objects/ab", "is not in the manifest"),
    put_a_pipe: (f"data/{1:032x}.parquet", "is no plain file"),
    make_a_shard_a_folder: ("data/", "is a folder that does not belong there"),
    link_the_data: ("data", "is a symbolic link"),
    link_the_manifest: ("manifest.json", "is a symbolic link"),
    link_a_document: ("README.md", "is a symbolic link"),
    change_the_case: ("README.MD", "is not in the manifest"),
    colour_the_terminal: ("\\", "1b[2Jall holds: is not in the manifest"),
    say_a_thing_twice: ("manifest.json", "is not written as manifests are"),
    sign_with_another_key: ("manifest.json", "is not what was signed"),
    name_another_signer: ("manifest.json", "is not what was signed"),
    say_more_in_the_signature: ("manifest.sig", "holds more than a signature"),
    sign_another_statement: ("manifest.sig", "its statement is not that of this release"),
    lengthen_the_signature: ("manifest.sig", "holds more than a signature"),
    empty_the_signature: ("manifest.sig", "is no readable signature"),
    remove_a_document: ("croissant.json", "is missing"),
    put_an_older_card: ("README.md", "sha256"),
    count_rows_elsewhere: ("data/", "rows, the manifest says"),
    list_a_file_elsewhere: ("manifest.json", "is not what was signed"),
}


def test_nothing_is_found_where_nothing_was_done(release: Path) -> None:
    code, said = verify(release)
    assert code == 0 and said == ["all holds (version 2)"]
    assert verify(release.parent)[0] == 0


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_every_way_is_named_in_a_line(way: Callable[[Path], None], release: Path) -> None:
    way(release)
    file, reason = WAYS[way]
    code, said = verify(release)
    assert code == 1
    assert any(line.startswith(file) and reason in line for line in said), said
    assert all(line.isprintable() for line in said)
    assert verify(release.parent)[0] == 1


# -- by tools that are not ours ---------------------------------------------------------------


def verify_alone(release: Path, *more: str, key: str = "pub") -> tuple[int, list[str]]:
    """By the verifier of the release before it was changed, with nothing but Python."""
    made = next(folder for folder in release.parents if (folder / "pub").exists())
    program = made / "verify.py"
    program.write_text(standalone.text())
    command = [sys.executable, "-S", "-I", str(program), str(release)]
    command += ["--public-key", str(made / key), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines()


def test_the_verifier_in_the_release_needs_only_python(release: Path) -> None:
    assert (release / "verify.py").read_text() == standalone.text()
    code, lines = verify_alone(release)
    assert (code, lines[-1]) == (0, "all that was checked holds (version 2)")


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_verifier_in_the_release_finds_every_way(
    way: Callable[[Path], None], release: Path
) -> None:
    way(release)
    file, _ = WAYS[way]
    code, said = verify_alone(release)
    assert code == 1
    assert any(line.startswith(file) for line in said), said
    assert all(line.isprintable() for line in said)


def test_an_older_release_with_its_signature_is_told_by_its_version(release: Path) -> None:
    shutil.rmtree(release)
    shutil.copytree(release.parent.parent / "older", release)
    assert verify(release) == (0, ["all holds (version 1)"])
    code, said = verify(release, "--min-version", "2")
    assert code == 1 and said == ["manifest.json: is version 1, expected: 2 or later"]
    # Its owner, who has the evidence, needs no number.
    code, said = verify(release.parent)
    assert code == 1 and any("evidence/seal.json: is of version 2" in line for line in said)


def test_a_manifest_of_another_release_of_the_owner_fits_no_file(release: Path) -> None:
    path = release / "manifest.json"
    manifest = ReleaseManifest.model_validate_json(path.read_bytes())
    none = Listing(**write_rows(Folder(str(release)), FILES_SCHEMA.empty_table(), "files.pq"))
    shutil.rmtree(release / "evidence")
    update = {"files": [], "listing": none, "records": 0, "release": "0" * 32}
    forged = manifest.model_copy(update=update)
    path.write_bytes(forged.text())
    key = load_signing_key(str(release.parent.parent / "key"))
    payload = statement(forged, FILES_SCHEMA.empty_table())
    (release / "manifest.sig").write_bytes(sign_statement(payload, key).text())
    code, said = verify(release)
    assert code == 1 and all("is not in the manifest" in line for line in said), said
    assert len(said) == 6


@pytest.mark.parametrize("name", ["run.json", "units/u000001.json"])
def test_the_evidence_is_sealed(release: Path, name: str) -> None:
    path = release.parent / "evidence/ledger" / name
    path.write_text(path.read_text() + " ")
    assert verify(release)[0] == 0  # recipients have no evidence
    code, said = verify(release.parent)
    assert code == 1 and said == [f"evidence/ledger/{name}: is not what was sealed"]


def test_a_manifest_from_before_there_were_marks_is_written_as_it_was(release: Path) -> None:
    """So releases of then verify: a manifest counts only if it is written as manifests are."""
    told = json.loads((release / "manifest.json").read_bytes())
    del told["method"]["draws_faces"]
    before = ReleaseManifest.model_validate(told)
    assert "draws_faces" not in before.text().decode() and before.text() != b""
    assert ReleaseManifest.model_validate_json(before.text()).text() == before.text()
