"""The vault and a run: nothing is published whose original is not sealed, and nothing else is."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from pictures import jpeg

from ppfr_ops import sample
from ppfr_ops.cli import program
from ppfr_ops.contracts.records import IMAGE_TYPE
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.sanitize.finish import finish
from ppfr_ops.sanitize.job import Job
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.photographs.options import PhotographOptions
from ppfr_ops.sanitize.prepare import prepare
from ppfr_ops.sanitize.worker import Worker
from ppfr_ops.store.files import Files
from ppfr_ops.store.ledger import Ledger
from ppfr_ops.vault import FileKey, Vault, audit, read_master
from ppfr_ops.vault.recovery import Failure, Opened, RestoreRequest

NAME = "somebody-by-name"


def write(folder: Path, count: int = 12, *, seed: int = 0, name: str = NAME) -> list[bytes]:
    """Faces as a Parquet file; the third is no picture."""
    rng = np.random.default_rng(seed)
    pictures = [jpeg(rng.integers(0, 255, (112, 112, 3), np.uint8)) for _ in range(count)]
    pictures[2] = b"no picture"
    rows = [{"image": {"bytes": data, "path": f"{NAME}.jpg"}, "who": NAME} for data in pictures]
    schema = pa.schema([("image", IMAGE_TYPE), ("who", pa.string())])
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / f"{name}.parquet")
    return pictures


def options(folder: Path, **changes: Any) -> SanitizeOptions:
    (folder / "key").write_text("ab" * 32)
    (folder / "key").chmod(0o600)
    given = {
        "input": str(folder / "in"),
        "output": str(folder / "out"),
        "method": "pixelate",
        "metrics": "none",
        "unit_rows": 5,
        "vault": str(folder / "vault"),
        "vault_key": str(folder / "key"),
    }
    return SanitizeOptions.model_validate(given | changes)


def begin(folder: Path, **changes: Any) -> Job:
    """A job whose output and vault are open."""
    job = prepare(options(folder, **changes))
    Ledger(job.options.output).open(job.settings, seed=job.options.seed)
    if job.vault is not None:
        Vault(job.vault.url).establish(job.vault)
    return job


def work(job: Job) -> None:
    worker = Worker(job, 1)
    for number in range(len(job.plan.units)):
        status = worker.process(number)
        assert status.state != "failed", status.reason


def back(folder: Path) -> dict[str, bytes | Failure]:
    """What the vault gives back for everything published."""
    key = FileKey(read_master(str(folder / "key")))
    opened = Opened(str(folder / "out"), Vault(str(folder / "vault")), key)
    return {
        e: found for unit in opened.units for e, found in opened.originals(unit, RestoreRequest())
    }


def published(folder: Path, name: str = "out") -> dict[str, str]:
    paths = sorted((folder / name / "release" / "data").iterdir())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_every_published_record_comes_back_and_a_dead_letter_is_not_kept(tmp_path: Path) -> None:
    pictures = write(tmp_path / "in")
    job = begin(tmp_path)
    work(job)
    manifest, missing = finish(job, "none")
    assert not missing and manifest.counts.dead_letters == 1
    found = back(tmp_path)
    assert set(found.values()) == set(pictures) - {b"no picture"}
    kept = [
        Vault(str(tmp_path / "vault")).keys(*c) for c in Vault(str(tmp_path / "vault")).copies()
    ]
    assert sum(len(keys.entries) for keys in kept) == len(found) == 11


def test_what_is_published_is_the_same_without(tmp_path: Path) -> None:
    write(tmp_path / "in")
    work(begin(tmp_path, seed=3, method="signed-field"))
    plain = {"output": str(tmp_path / "plain"), "vault": None, "vault_key": None}
    work(begin(tmp_path, seed=3, method="signed-field", **plain))
    assert published(tmp_path) == published(tmp_path, "plain")


def test_nothing_in_the_vault_tells_a_name_a_path_or_a_picture(tmp_path: Path) -> None:
    pictures = write(tmp_path / "in")
    job = begin(tmp_path, identity_column="who", identity_key_file=str(tmp_path / "key"))
    work(job)
    for root, _, names in os.walk(tmp_path / "vault"):
        for name in names:
            data = Path(root, name).read_bytes()
            for secret in (NAME.encode(), str(tmp_path).encode(), b"JFIF", b"\xff\xd8\xff\xe0"):
                assert secret not in data
            assert not any(picture[200:240] in data for picture in pictures if len(picture) > 240)
    assert NAME not in repr(job) and "ab" * 32 not in repr(job)


def test_a_death_between_vault_and_ledger_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in")
    job = begin(tmp_path)

    class Killed(BaseException):
        pass

    def die(*args: Any, **named: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Ledger, "commit", die)
        Worker(job, 1).process(0)
    vault = Vault(str(tmp_path / "vault"))
    assert len(vault.copies()) == 1 and not Ledger(job.options.output).entries()
    work(job)
    finish(job, "none")
    assert len(back(tmp_path)) == 11 and len(vault.copies()) == len(job.plan.units)


def test_a_vault_that_fails_publishes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in")
    job = begin(tmp_path)

    def fail(*args: Any, **named: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Vault, "commit", fail)
    status = Worker(job, 1).process(0)
    assert status.state == "failed" and "No space left" in status.reason
    assert not Ledger(job.options.output).entries()


def test_of_two_copies_of_a_unit_the_published_one_is_kept(tmp_path: Path) -> None:
    write(tmp_path / "in")
    job = begin(tmp_path, method="signed-field")
    one, two = Worker(job, 1), Worker(job, 1)
    # two begins before one has committed: it must find out only when it commits itself
    two.ledger.committed = lambda unit: None  # type: ignore[method-assign]
    one.process(0)
    assert two.process(0).state == "committed"
    vault = Vault(str(tmp_path / "vault"))
    entry = one.ledger.entry(job.plan.units[0].id)
    assert entry is not None
    assert vault.copies() == {(entry.unit, entry.copy_id)}
    assert all(isinstance(found, bytes) for found in back(tmp_path).values())


@pytest.mark.parametrize("kind", ["crops", "in-place"])
def test_photographs(tmp_path: Path, kind: str) -> None:
    """The photograph comes back, whatever was made of it; once, however many faces it has."""
    (tmp_path / "in").mkdir()
    sent = []
    for number in range(3):
        picture = np.full((200, 300, 3), 128, np.uint8)
        for place, face in enumerate(sample.faces(2, seed=number)):
            picture[40:152, 20 + 130 * place : 132 + 130 * place] = face
        sent.append(Encoding("jpeg", 90).encode(picture))
        (tmp_path / "in" / f"{NAME}-{number}.jpg").write_bytes(sent[-1])
    chosen = PhotographOptions(output_faces=kind, detector="test_vault_sanitize:Two")
    job = begin(tmp_path, photographs=chosen, input_format="images", max_disclosure=1.0)
    work(job)
    manifest, _ = finish(job, "none")
    assert manifest.counts.records == (6 if kind == "crops" else 3)
    assert sorted(back(tmp_path).values()) == sorted(sent)
    if kind == "crops":
        ids = Ledger(job.options.output).ids
        one = RestoreRequest(frozenset({ids.record("u000000-000001-f001")}))
        key = FileKey(read_master(str(tmp_path / "key")))
        opened = Opened(str(tmp_path / "out"), Vault(str(tmp_path / "vault")), key)
        assert opened.find(one) == {"u000000-000001"}


class Two:
    """A detector that knows where the two faces stand."""

    def __call__(self, pictures: Any) -> Any:
        from ppfr_ops.imaging import detector, geometry

        points = np.stack([geometry.TEMPLATE + place for place in ((20, 40), (150, 40))])
        boxes = np.concatenate([points.min(1) - 20, points.max(1) + 20], 1)
        found = detector.Detections(
            boxes.astype(np.float32),
            points.astype(np.float32),
            np.array([0.9, 0.9], np.float32),
            np.zeros(2, bool),
        )
        return [found for _ in pictures]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"vault": "out/vault"}, "the vault must not lie inside the output"),
        ({"vault_key": "out/key"}, "the vault's key must not lie inside the output"),
        ({"vault_key": "vault/key"}, "the vault's key must not lie inside the vault"),
        ({"vault": "in/vault"}, "must not lie inside each other"),
        ({"output": "vault/out"}, "must not lie inside each other"),
        ({"vault_key": None}, "--vault goes with --vault-key"),
        ({"vault": None}, "--vault goes with --vault-key"),
        ({"vault_key": "none"}, "cannot be read"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, changes: dict[str, str | None], word: str
) -> None:
    write(tmp_path / "in")
    paths = {k: None if v is None else str(tmp_path / v) for k, v in changes.items()}
    with pytest.raises(UserError) as error:
        prepare(options(tmp_path, **paths))
    assert word in str(error.value) and str(tmp_path) not in str(error.value)


# -- the command -------------------------------------------------------------------------------


def ppfr(folder: Path, *more: str, vault: bool = True) -> Result:
    (folder / "key").write_text("ab" * 32)
    (folder / "key").chmod(0o600)
    args = ["sanitize-beam", "--input", str(folder / "in"), "--output", str(folder / "out")]
    args += ["--method", "pixelate", "--metrics", "none", "--max-dead-letter-rate", "1"]
    if vault:
        args += ["--vault", str(folder / "vault"), "--vault-key", str(folder / "key")]
    return CliRunner().invoke(program, [*args, *more], standalone_mode=False)


def test_an_output_keeps_its_vault(tmp_path: Path) -> None:
    write(tmp_path / "in")
    assert ppfr(tmp_path).return_value == 0
    before = published(tmp_path)
    assert ppfr(tmp_path).return_value == 0 and published(tmp_path) == before
    refused = ppfr(tmp_path, vault=False).exception
    assert refused is not None and "another --vault" in str(refused)
    (tmp_path / "out").rename(tmp_path / "old")
    refused = ppfr(tmp_path).exception
    assert refused is not None and "originals of an earlier run" in str(refused)
    (tmp_path / "old").rename(tmp_path / "out")
    refused = ppfr(tmp_path, "--overwrite").exception
    assert refused is not None and "originals of an earlier run" in str(refused)
    assert len(back(tmp_path)) == 11
    assert {entry["what"] for entry in audit.read(Files(str(tmp_path / "vault")))} == {"sanitize"}


def test_a_deletion_upstream_destroys_the_keys_too(tmp_path: Path) -> None:
    (tmp_path / "idkey").write_bytes(b"k" * 32)
    (tmp_path / "idkey").chmod(0o600)
    more = ("--incremental", "--identity-key-file", str(tmp_path / "idkey"))
    kept = write(tmp_path / "in", name="kept")
    write(tmp_path / "in", seed=1, name="leaving")
    assert ppfr(tmp_path, *more).return_value == 0
    vault = Vault(str(tmp_path / "vault"))
    gone = {c: vault.keys(*c) for c in vault.copies()}
    (tmp_path / "in" / "leaving.parquet").unlink()
    assert ppfr(tmp_path, *more).return_value == 0
    assert len(vault.copies()) == 2  # noticed; not yet asked for
    refused = ppfr(tmp_path, *more, "--propagate-deletions").exception
    assert refused is not None and "--allow-deletions 12" in str(refused)
    assert len(vault.copies()) == 2
    more = (*more, "--allow-deletions", "50%")
    assert ppfr(tmp_path, *more, "--propagate-deletions").return_value == 0
    assert len(vault.copies()) == 1
    assert set(back(tmp_path).values()) == set(kept) - {b"no picture"}
    left = b"".join(p.read_bytes() for p in (tmp_path / "vault").rglob("*") if p.is_file())
    for copy in set(gone) - vault.copies():
        assert not any(e.key.text in left for e in gone[copy].entries.values() if e.key)
